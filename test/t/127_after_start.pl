# What tables, views and triggers give back after a run has started: more
# rows, fewer, others.  Nobody gets two messages, no outcome is lost, and what
# could not be counted is reported.
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

# A database with a campaign to so many users, changed by role app; returns the
# names of both.
sub new_database
{
	my ($users, $changes) = @_;
	my $db = 'db' . ++$dbs;
	sql($node, "CREATE DATABASE $db");
	install_extension($node, $db);
	my $campaign = create_campaign($node, db => $db, users => $users, message => $db);
	sql($node, $changes, db => $db, role => 'app');
	return ($db, $campaign);
}

# The phone numbers that have had a message from a database.
sub phones_of
{
	my $db = shift;
	my @messages = grep { index($_->{body}, "$db ") == 0 } $twilio->ledger;
	return map { $_->{to} } @messages;
}

# No phone number has had two messages from a database; returns how many have
# had one.
sub is_once
{
	my ($db, $name) = @_;
	my @phones = phones_of($db);
	my %once = map { $_ => 1 } @phones;
	is(scalar @phones, scalar keys %once, $name);
	return scalar keys %once;
}

# Starts a campaign, and does something when the first requests are under way.
sub start_and_change
{
	my ($db, $campaign, $changes) = @_;
	$twilio->set(hold => 1, reset => 1);
	my $job = start_campaign($node, $campaign, db => $db);
	wait_for_flight($twilio, 20);
	sql($node, $changes, db => $db, role => 'app');
	$twilio->set(hold => 0);
	return $job;
}

my $view = <<~'SQL';
	ALTER TABLE ac_list_users RENAME TO users;
	CREATE VIEW ac_list_users AS SELECT * FROM users;
	CREATE FUNCTION count_one() RETURNS trigger LANGUAGE plpgsql AS $$
	BEGIN
	    UPDATE users SET data = new.data WHERE id = new.id;
	    RETURN new;
	END $$;
	CREATE TRIGGER count INSTEAD OF UPDATE ON ac_list_users
	    FOR EACH ROW EXECUTE FUNCTION count_one();
	SQL

# A view that gives rows more than once from the middle of the run on
my @more_rows =
  ('generate_series(1, 20)', 'generate_series(1, CASE u.id % 100 WHEN 0 THEN 2 ELSE 1 END)');
for my $rows (@more_rows)
{
	my ($db, $campaign) = new_database(3000, $view);
	my $job = start_and_change($db, $campaign,
		"CREATE OR REPLACE VIEW ac_list_users AS SELECT u.* FROM users u, $rows");
	my $run = wait_for_all_of_run($node, $job, db => $db, alone => 1);
	is($run->{state}, 'failed', "$rows: the run fails");
	like(
		$run->{error},
		qr/^table "public\.ac_list_users" has more than one row with id \d+/,
		'... and the error names the table and an id');
	cmp_ok(scalar phones_of($db), '<', 3000, '... before everybody was sent to');
	my $sent = is_once($db, '... with no phone number sent to twice');
	is($run->{sent} + $run->{failed} + $run->{in_doubt},
		$sent, '... and with all outcomes recorded');
	sql($node, 'CREATE OR REPLACE VIEW ac_list_users AS SELECT * FROM users',
		db => $db,
		role => 'app');
	start_campaign($node, $campaign, db => $db, job => $job);
	sent_once($node, $twilio, $campaign, $job, 'once it is mended, it goes on', db => $db);
}

# A view whose ids are other ones each time
my ($db, $campaign) = new_database(500, $view . <<~SQL);
	CREATE OR REPLACE VIEW ac_list_users AS
	    SELECT (id + floor(random() * 3))::integer AS id,
	        data, user_id, ac_list_id, created_at, updated_at
	    FROM users;
	SQL
is(run_campaign($node, $campaign, db => $db)->{state}, 'failed', 'random ids: the run fails');

# Triggers, and how many messages they keep from being counted; undef where that
# is not known
my $delete_some = 'DELETE FROM ac_list_users WHERE id = new.id AND id % 10 = 0';
my @triggers = (
	[ 'a trigger that suppresses some', 30, 'IF new.id % 10 = 0 THEN RETURN NULL; END IF' ],
	[ 'a trigger that suppresses all', 300, 'RETURN NULL' ],
	[ 'a trigger that changes ids', 0, 'new.id := new.id + 100000' ],
	[ 'a trigger that moves them to another list', 0, 'new.ac_list_id := 4711' ],
	[ 'a trigger that deletes some', undef, $delete_some ]);
for my $trigger (@triggers)
{
	my ($name, $uncounted, $statement) = @$trigger;
	my ($db, $campaign) = new_database(300, <<~SQL);
		CREATE FUNCTION meddle() RETURNS trigger LANGUAGE plpgsql AS \$\$
		BEGIN
		    $statement;
		    RETURN new;
		END \$\$;
		CREATE TRIGGER meddle BEFORE UPDATE ON ac_list_users
		    FOR EACH ROW EXECUTE FUNCTION meddle();
		SQL
	my $job = start_campaign($node, $campaign, db => $db);
	my $run = wait_for_all_of_run($node, $job, db => $db, alone => 1);
	my $sent = is_once($db, "$name: no phone number is sent to twice");
	is($run->{sent}, $sent, '... and all that was sent is recorded');
	next if !defined $uncounted;
	my $error = '';
	$error =
		"sentCount of $uncounted list users could not be increased:"
	  . ' a trigger, rule or policy suppressed the UPDATE'
	  if $uncounted;
	is("$run->{state} $run->{sent}", 'completed 300', '... and all are sent to');
	is($run->{error}, $error, '... and the run tells what could not be counted');
	is(sql($node, "SELECT error FROM ac_background_jobs WHERE id = $job", db => $db),
		$error, '... and so does the job');
	my $not_counted = sql($node, <<~SQL, db => $db);
		SELECT count(*) FROM sendcampaign.message WHERE job_id = $job AND NOT counted
		SQL
	is($not_counted, $uncounted, '... and its messages');
}

# A job of which there are two rows in the end
($db, $campaign) =
  new_database(300, 'ALTER TABLE ac_background_jobs DROP CONSTRAINT ac_background_jobs_pkey');
my $job = start_and_change($db, $campaign,
	'INSERT INTO ac_background_jobs SELECT * FROM ac_background_jobs');
my $run = wait_for_all_of_run($node, $job, db => $db, alone => 1);
my $sent = is_once($db, 'a job that is there twice: no phone number is sent to twice');
is($run->{sent}, $sent, '... and all that was sent is recorded');

# Senders by the thousand
($db, $campaign) = new_database(300, '');

sub set_senders
{
	my $n = shift;
	sql($node, <<~SQL, db => $db);
		UPDATE groups
		SET configuration = configuration || jsonb_build_object(
		    'twilioFromSmsNumber',
		    (SELECT jsonb_agg('+1555' || lpad(i::text, 7, '0'))
		     FROM generate_series(1, $n) i))
		SQL
}
set_senders(100_000);
$run = run_campaign($node, $campaign, db => $db);
my $too_many = qr/the group's "twilioFromSmsNumber" has more than 1000 numbers\./;
like(
	"$run->{state}: $run->{error}",
	qr/^failed: $too_many .*Messaging Service/,
	'100,000 senders: the run fails');
set_senders(1000);
$run = run_campaign($node, $campaign, db => $db);
is("$run->{state} $run->{sent} $run->{failed}", 'completed 300 0', '1,000 senders: sent');

wait_for_no_worker($node);
is(worker_errors($node), '', 'no worker crashed');
$node->stop;
done_testing();
