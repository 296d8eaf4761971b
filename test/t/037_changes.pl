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
	return hold_campaign($node, $twilio, users => $users);
}

# List users go, move to another list, and come.  Those far down the list
# have not been claimed yet, the first ones have.
my ($campaign, $job) = start_held(3000);
my $list = list_of($campaign);
sql($node, <<~"SQL");
	CREATE TEMP TABLE numbered AS
	SELECT id, row_number() OVER (ORDER BY id) AS n FROM ac_list_users
	WHERE ac_list_id = $list;

	DELETE FROM ac_list_users
	WHERE id IN (SELECT id FROM numbered WHERE n IN (1, 5, 2991, 2995));

	INSERT INTO ac_list_users (ac_list_id, data)
	SELECT ac_list_id, '{"sms": "+15559999999"}' FROM ac_campaigns WHERE id = $campaign;

	INSERT INTO ac_lists (id) VALUES (1000000);

	UPDATE ac_list_users SET ac_list_id = 1000000
	WHERE id IN (SELECT id FROM numbered WHERE n IN (2, 2980, 2981, 2982));
	SQL
$twilio->set(hold => 0);
sent_once($node, $twilio, $campaign, $job, 'list users changed', total => 3000, skipped => 5);
my $reasons = "list user is no longer in the list|3\nlist user no longer exists|2";
is(sql($node, <<~"SQL"), $reasons, 'those who are skipped have the reason');
	SELECT error_message, count(*) FROM sendcampaign.message
	WHERE job_id = $job AND status = 'skipped'
	GROUP BY 1 ORDER BY 1
	SQL
is($twilio->count_by_phone->{'+15559999999'}, undef, 'who came after the start is not sent to');
is(job_row($node, $job, "data->>'skipped', error"), '5|', 'the job counts them, without an error');

# A phone that changes before its claim is the one that counts.
($campaign, $job) = start_held(3000);
$list = list_of($campaign);
sql($node, <<~"SQL");
	UPDATE ac_list_users SET data = data || '{"sms": "+15558888888"}'
	WHERE id = (SELECT max(id) FROM ac_list_users WHERE ac_list_id = $list)
	SQL
$twilio->set(hold => 0);
sent_once($node, $twilio, $campaign, $job, 'phone changed', total => 3000);
is($twilio->count_by_phone->{'+15558888888'}, 1, 'the new number is sent to');

# The campaign, its list, its group go: the reason, where %d is the id of the
# campaign or the list.
my %reason = (
	ac_campaigns => 'campaign %d no longer exists',
	ac_lists => 'list %d does not exist',
	groups => 'list %d has no group');
for my $table (sort keys %reason)
{
	($campaign, $job) = start_held(3000);
	my $list = sql($node, 'SELECT ' . list_of($campaign));
	my $group = sql($node, 'SELECT ' . group_of($campaign));
	my %id = (ac_campaigns => $campaign, ac_lists => $list, groups => $group);
	my $reason = sprintf $reason{$table}, $table eq 'ac_campaigns' ? $campaign : $list;
	sql($node, <<~"SQL");
		CREATE TABLE saved AS SELECT * FROM $table WHERE id = $id{$table};
		DELETE FROM $table WHERE id = $id{$table};
		SQL
	$twilio->set(hold => 0);
	my $run = wait_for_all_of_run($node, $job);
	is($run->{state}, 'failed', "$table deleted: the run fails");
	like($run->{error}, qr/^\Q$reason\E/, 'with the reason');
	is(job_row($node, $job, 'error'), $run->{error}, 'which the job has as well');
	my @ledger = $twilio->ledger;
	is($run->{sent}, scalar @ledger, 'what was sent is counted');
	cmp_ok($run->{sent}, '<', 3000, 'and not all was sent');
	sql($node, "INSERT INTO $table SELECT * FROM saved; DROP TABLE saved");
	is(start_campaign($node, $campaign, job => $job),
		$job, "$table restored: the call returns the job");
	sent_once($node, $twilio, $campaign, $job, "$table restored", total => 3000);
}

# A table goes
($campaign, $job) = start_held(3000);
sql($node, 'ALTER TABLE ac_list_users RENAME TO renamed');
$twilio->set(hold => 0);
like(
	wait_for_run($node, $job, alone => 1)->{error},
	qr/table "public.ac_list_users" does not exist/,
	'table renamed: the run fails');
my (undef, $stderr) = sql_output($node, "SELECT send_campaign($campaign, $job)", role => 'app');
like($stderr, qr/ERROR: .*ac_list_users.*HINT/s, 'the next call is refused with a hint');
sql($node, 'ALTER TABLE renamed RENAME TO ac_list_users');
start_campaign($node, $campaign, job => $job);
sent_once($node, $twilio, $campaign, $job, 'table named as before', total => 3000);

# Columns come and go, the table is rewritten, and it is emptied.
($campaign, $job) = start_held(3000);
sql($node, <<~'SQL');
	ALTER TABLE ac_list_users ADD COLUMN note text DEFAULT clock_timestamp();
	ALTER TABLE ac_list_users DROP COLUMN user_id;
	SQL
$twilio->set(hold => 0);
sql($node, 'VACUUM FULL ac_list_users');
sql($node, 'REINDEX TABLE ac_list_users');
sent_once($node, $twilio, $campaign, $job, 'table altered', total => 3000);

($campaign, $job) = start_held(3000);
sql($node, 'TRUNCATE ac_list_users');
$twilio->set(hold => 0);
my $skipped = wait_for_run($node, $job)->{skipped};
sent_once($node, $twilio, $campaign, $job, 'table emptied', total => 3000, skipped => $skipped);
cmp_ok($skipped, '>', 2000, 'who no longer exists is not sent to');

# The job goes: nobody looks at its progress any more, and all are sent.
($campaign, $job) = start_held(1000);
sql($node, "DELETE FROM ac_background_jobs WHERE id = $job");
$twilio->set(hold => 0);
sent_once($node, $twilio, $campaign, $job, 'job deleted', total => 1000);

# Small lists
$campaign = create_campaign($node, users => 0);
$job = start_campaign($node, $campaign);
sent_once($node, $twilio, $campaign, $job, 'empty list', total => 0);
like(
	job_row($node, $job, 'progress, error'),
	qr/^100\|nothing was sent: list \d+ has no users/,
	'empty list: the job is complete, and says that nothing was sent');
$campaign = create_campaign($node, users => 1);
$job = start_campaign($node, $campaign);
sent_once($node, $twilio, $campaign, $job, 'list of one', total => 1);

wait_for_no_worker($node);
$node->stop;
is(worker_errors($node), '', 'no worker met an error');
done_testing();
