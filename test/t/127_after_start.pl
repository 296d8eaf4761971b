# What tables, views and triggers give back after a run has started: more
# rows, fewer, others.  Nobody gets two messages, no outcome is lost, and what
# could not be counted is told.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../perl";
use Campaign;
use LocalTwilio;
use PostgreSQL::Test::Utils;
use Test::More;

my $twilio = LocalTwilio->start;
my $node = new_cluster('after_start', $twilio);
my $dbs = 0;

sub new_database
{
	my ($users, $changes) = @_;
	my $db = 'db' . ++$dbs;
	$node->safe_psql('postgres', "CREATE DATABASE $db");
	install_extension($node, $db);
	my $campaign = create_campaign($node, db => $db, users => $users, message => $db);
	$node->safe_psql($db, "SET ROLE app; $changes");
	return ($db, $campaign);
}

sub phones_of { my $db = shift; my @phones = map { $_->{to} } grep { index($_->{body}, "$db ") == 0 } $twilio->ledger; return @phones; }

my $view = q{
	ALTER TABLE ac_list_users RENAME TO users;
	CREATE VIEW ac_list_users AS SELECT * FROM users;
	CREATE FUNCTION count_one() RETURNS trigger LANGUAGE plpgsql AS $$
	BEGIN UPDATE users SET data = new.data WHERE id = new.id; RETURN new; END $$;
	CREATE TRIGGER count INSTEAD OF UPDATE ON ac_list_users FOR EACH ROW EXECUTE FUNCTION count_one()};

# A view that gives every row 20 times from the middle of the run on
for my $rows ('generate_series(1, 20)', 'generate_series(1, CASE u.id % 100 WHEN 0 THEN 2 ELSE 1 END)')
{
	my ($db, $campaign) = new_database(3000, $view);
	$twilio->set(hold => 1, reset => 1);
	my $job = start_campaign($node, $campaign, db => $db);
	wait_for_flight($twilio, 20);
	$node->safe_psql($db, "SET ROLE app; CREATE OR REPLACE VIEW ac_list_users AS SELECT u.* FROM users u, $rows");
	$twilio->set(hold => 0);
	my $run = wait_for_run($node, $job, db => $db);
	is($run->{state}, 'failed', "$rows: the run fails");
	like($run->{error}, qr/^id \d+ is in table "public\.ac_list_users" more than once/, '... naming the table and an id');
	my @phones = phones_of($db);
	cmp_ok(scalar @phones, '<', 3000, '... before everybody was sent to');
	my %once = map { $_ => 1 } @phones;
	is(scalar @phones, scalar keys %once, '... with no phone sent to twice');
	is($run->{sent} + $run->{failed} + $run->{in_doubt}, scalar @phones, '... and all outcomes recorded');
	$node->safe_psql($db, 'SET ROLE app; CREATE OR REPLACE VIEW ac_list_users AS SELECT * FROM users');
	start_campaign($node, $campaign, db => $db, job => $job);
	sent_once($node, $twilio, $campaign, $job, 'once it is mended, it goes on', db => $db);
}

# A view whose ids are other ones each time
my ($db, $campaign) = new_database(500, $view . q{;
	CREATE OR REPLACE VIEW ac_list_users AS SELECT (id + floor(random() * 3))::integer AS id, data, user_id, ac_list_id, created_at, updated_at FROM users});
my $job = start_campaign($node, $campaign, db => $db);
is(wait_for_run($node, $job, db => $db)->{state}, 'failed', 'random ids: the run fails');

# Triggers
my @triggers = (
	[ 'a trigger that suppresses some', 'IF new.id % 10 = 0 THEN RETURN NULL; END IF; RETURN new', 30 ],
	[ 'a trigger that suppresses all', 'RETURN NULL', 300 ],
	[ 'a trigger that changes ids', 'new.id := new.id + 100000; RETURN new', 0 ],
	[ 'a trigger that moves them to another list', 'new.ac_list_id := 4711; RETURN new', 0 ],
	[ 'a trigger that deletes some', 'DELETE FROM ac_list_users WHERE id = new.id AND id % 10 = 0; RETURN new', undef ]);
for (@triggers)
{
	my ($name, $body, $uncounted) = @$_;
	($db, $campaign) = new_database(300, "CREATE FUNCTION meddle() RETURNS trigger LANGUAGE plpgsql AS \$\$ BEGIN $body; END \$\$;
		CREATE TRIGGER meddle BEFORE UPDATE ON ac_list_users FOR EACH ROW EXECUTE FUNCTION meddle()");
	$job = start_campaign($node, $campaign, db => $db);
	my $run = wait_for_run($node, $job, db => $db);
	my %once = map { $_ => 1 } phones_of($db);
	is(scalar(phones_of($db)), scalar keys %once, "$name: no phone is sent to twice");
	is($run->{sent}, scalar keys %once, '... and all that was sent is recorded');
	next if !defined $uncounted;
	is("$run->{state} $run->{sent}", 'completed 300', '... and all are sent to');
	my $error = $uncounted ? "sentCount of $uncounted could not be added: a trigger, rule or policy has suppressed the update" : '';
	is($run->{error}, $error, '... the run tells what could not be counted');
	is($node->safe_psql($db, "SELECT error FROM ac_background_jobs WHERE id = $job"), $error, '... and so does the job');
	is($node->safe_psql($db, "SELECT count(*) FROM sendcampaign.message WHERE job_id = $job AND NOT counted"), $uncounted, '... and its messages');
}

# A job of which there are two rows in the end
($db, $campaign) = new_database(300, q{ALTER TABLE ac_background_jobs DROP CONSTRAINT ac_background_jobs_pkey});
$twilio->set(hold => 1, reset => 1);
$job = start_campaign($node, $campaign, db => $db);
wait_for_flight($twilio, 20);
$node->safe_psql($db, 'INSERT INTO ac_background_jobs SELECT * FROM ac_background_jobs');
$twilio->set(hold => 0);
my $run = wait_for_run($node, $job, db => $db);
my %once = map { $_ => 1 } phones_of($db);
is(scalar(phones_of($db)), scalar keys %once, 'a job that is there twice: no phone is sent to twice');
is($run->{sent}, scalar keys %once, '... and all that was sent is recorded');

# Senders by the thousand
sub set_senders
{
	my $n = shift;
	$node->safe_psql($db, "UPDATE groups SET configuration = configuration || jsonb_build_object('twilioFromSmsNumber',
		(SELECT jsonb_agg('+1555' || lpad(i::text, 7, '0')) FROM generate_series(1, $n) i))");
}
($db, $campaign) = new_database(300, '');
set_senders(100_000);
$run = wait_for_run($node, start_campaign($node, $campaign, db => $db), db => $db);
like("$run->{state}: $run->{error}", qr/^failed: the group's "twilioFromSmsNumber" has more than 1000 numbers\. .*messaging service/, '100,000 senders: refused');
set_senders(1000);
$run = wait_for_run($node, start_campaign($node, $campaign, db => $db), db => $db);
is("$run->{state} $run->{sent} $run->{failed}", 'completed 300 0', '1,000 senders: sent');

wait_for_no_worker($node);
is(worker_errors($node), '', 'no crash');
$node->stop;
done_testing();
