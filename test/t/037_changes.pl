# The application changes its rows while they are being sent.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../perl";
use Campaign;
use LocalTwilio;
use Test::More;

my $twilio = LocalTwilio->start;
my $node = new_cluster('changes', $twilio);

# A campaign of so many, of which the first are on their way.
sub start_held
{
	my $users = shift;
	my $campaign = create_campaign($node, users => $users);
	$twilio->set(reset => 1, hold => 1);
	my $job = start_campaign($node, $campaign);
	wait_for_flight($twilio, 20);
	return ($campaign, $job);
}

my $of_list = 'ac_list_id = (SELECT ac_list_id FROM ac_campaigns WHERE id = %d)';
sub of_list { return sprintf $of_list, shift; }

# List users go, move to another list, and come. Those far down the list
# have not been claimed yet, the first ones have.
my ($campaign, $job) = start_held(3000);
my $mine = of_list($campaign);
my $ids = "(SELECT id, row_number() OVER (ORDER BY id) AS n FROM ac_list_users WHERE $mine) i";
$node->safe_psql('postgres', qq{
	DELETE FROM ac_list_users u USING $ids WHERE i.id = u.id AND n IN (1, 5, 2991, 2995);
	INSERT INTO ac_list_users (ac_list_id, data) SELECT ac_list_id, '{"sms": "+15559999999"}'
		FROM ac_campaigns WHERE id = $campaign;
	INSERT INTO ac_lists (id) VALUES (1000000);
	UPDATE ac_list_users u SET ac_list_id = 1000000 FROM $ids WHERE i.id = u.id AND n IN (2, 2980, 2981, 2982);
});
$twilio->set(hold => 0);
sent_once($node, $twilio, $campaign, $job, 'list users changed', total => 3000, skipped => 5);
is($node->safe_psql('postgres', qq{SELECT error_message, count(*) FROM sendcampaign.message
	WHERE job_id = $job AND status = 'skipped' GROUP BY 1 ORDER BY 1}),
	"list user is no longer in the list|3\nlist user no longer exists|2", 'the reasons');
is($twilio->count_by_phone->{'+15559999999'}, undef, 'who came after the start is not sent to');
is($node->safe_psql('postgres', "SELECT data->>'skipped', error FROM ac_background_jobs WHERE id = $job"),
	'5|', 'the job counts them, without an error');

# A phone that changes before its claim is the one that counts.
($campaign, $job) = start_held(3000);
$node->safe_psql('postgres', q{UPDATE ac_list_users SET data = data || '{"sms": "+15558888888"}'
	WHERE id = (SELECT max(id) FROM ac_list_users WHERE } . of_list($campaign) . ')');
$twilio->set(hold => 0);
sent_once($node, $twilio, $campaign, $job, 'phone changed', total => 3000);
is($twilio->count_by_phone->{'+15558888888'}, 1, 'sent to the new number');

# The campaign, its list, its group go
my %reason = (
	ac_campaigns => "campaign %d no longer exists",
	ac_lists => "list %d does not exist",
	groups => 'list %d has no group');
for my $table (sort keys %reason)
{
	($campaign, $job) = start_held(3000);
	my $list = $node->safe_psql('postgres', "SELECT ac_list_id FROM ac_campaigns WHERE id = $campaign");
	my $group = $node->safe_psql('postgres', "SELECT group_id FROM ac_lists WHERE id = $list");
	my $id = { ac_campaigns => $campaign, ac_lists => $list, groups => $group }->{$table};
	my $named = $table eq 'groups' ? $list : $id;
	$node->safe_psql('postgres', "CREATE TABLE saved AS SELECT * FROM $table WHERE id = $id; DELETE FROM $table WHERE id = $id");
	$twilio->set(hold => 0);
	my $run = wait_for_run($node, $job);
	is($run->{state}, 'failed', "$table deleted: the run fails");
	like($run->{error}, qr/^\Q@{[sprintf $reason{$table}, $named]}\E/, 'with the reason');
	is($node->safe_psql('postgres', "SELECT error FROM ac_background_jobs WHERE id = $job"), $run->{error},
		'which the job has as well');
	is($run->{sent}, scalar(() = $twilio->ledger), 'what was sent is counted');
	cmp_ok($run->{sent}, '<', 3000, 'and not all was');
	$node->safe_psql('postgres', "INSERT INTO $table SELECT * FROM saved; DROP TABLE saved");
	is(start_campaign($node, $campaign, job => $job), $job, "$table restored: called again");
	sent_once($node, $twilio, $campaign, $job, "$table restored", total => 3000);
}

# A table goes
($campaign, $job) = start_held(3000);
$node->safe_psql('postgres', 'ALTER TABLE ac_list_users RENAME TO renamed');
$twilio->set(hold => 0);
like(wait_for_run($node, $job)->{error}, qr/relation "public.ac_list_users" does not exist/,
	'table renamed: the run fails');
like(($node->psql('postgres', "SET ROLE app; SELECT send_campaign($campaign, $job)"))[2],
	qr/ERROR: .*ac_list_users.*HINT/s, 'called again, it is refused with a hint');
$node->safe_psql('postgres', 'ALTER TABLE renamed RENAME TO ac_list_users');
start_campaign($node, $campaign, job => $job);
sent_once($node, $twilio, $campaign, $job, 'table named as before', total => 3000);

# Columns come and go, the table is rewritten, and it is emptied.
($campaign, $job) = start_held(3000);
$node->safe_psql('postgres', q{ALTER TABLE ac_list_users ADD COLUMN note text DEFAULT clock_timestamp();
	ALTER TABLE ac_list_users DROP COLUMN user_id});
$twilio->set(hold => 0);
$node->safe_psql('postgres', $_) for 'VACUUM FULL ac_list_users', 'REINDEX TABLE ac_list_users';
sent_once($node, $twilio, $campaign, $job, 'table altered', total => 3000);

($campaign, $job) = start_held(3000);
$node->safe_psql('postgres', 'TRUNCATE ac_list_users');
$twilio->set(hold => 0);
my $skipped = wait_for_run($node, $job)->{skipped};
sent_once($node, $twilio, $campaign, $job, 'table emptied', total => 3000, skipped => $skipped);
cmp_ok($skipped, '>', 2000, 'nobody is sent to who is no longer there');

# The job goes: nobody looks at its progress any more, and all are sent.
($campaign, $job) = start_held(1000);
$node->safe_psql('postgres', "DELETE FROM ac_background_jobs WHERE id = $job");
$twilio->set(hold => 0);
sent_once($node, $twilio, $campaign, $job, 'job deleted', total => 1000);

# Small lists
$campaign = create_campaign($node, users => 0);
$job = start_campaign($node, $campaign);
sent_once($node, $twilio, $campaign, $job, 'empty list', total => 0);
like($node->safe_psql('postgres', "SELECT progress, error FROM ac_background_jobs WHERE id = $job"),
	qr/^100\|nothing was sent: list \d+ has no users/, 'empty list: progress, and that nothing was sent');
$campaign = create_campaign($node, users => 1);
$job = start_campaign($node, $campaign);
sent_once($node, $twilio, $campaign, $job, 'list of one', total => 1);

wait_for_no_worker($node);
$node->stop;
is(worker_errors($node), '', 'no worker met an error');
done_testing();
