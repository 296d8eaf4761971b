# Messages are recorded while the application holds locks on rows and tables.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../perl";
use Campaign;
use LocalTwilio;
use Session;
use Test::More;

my $twilio = LocalTwilio->start;
my $node = new_cluster('locks', $twilio);
my $session = Session->open($node);

# As SQL: the id of the n-th list user of a campaign.
sub nth
{
	my ($campaign, $n) = @_;
	my $list = list_of($campaign);
	return "(SELECT id FROM ac_list_users WHERE ac_list_id = $list"
	  . " ORDER BY id OFFSET $n - 1 LIMIT 1)";
}

# A campaign with 20 requests that wait for their answer.
sub start_held
{
	my $users = shift;
	return hold_campaign($node, $twilio, users => $users);
}

# A list user locked for long: all others are sent and recorded.
my $campaign = create_campaign($node, users => 1000);
my $locked = nth($campaign, 7);
$session->query("BEGIN; SELECT FROM ac_list_users WHERE id = $locked FOR UPDATE");
my $job = start_campaign($node, $campaign);
ok(wait_until($node, "SELECT sent = 999 FROM sendcampaign.run WHERE job_id = $job"),
	'one list user locked: the others are recorded');
my @ledger = $twilio->ledger;
is(scalar @ledger, 1000, 'each was sent');
is(sql($node, 'SELECT sum(cardinality(list_user_ids)) > 0 FROM sendcampaign.claim'),
	't', 'the one is still claimed');
is(wake($node), 1, 'wake() finds the worker');
my $next = create_campaign($node, users => 50);
my $next_job = start_campaign($node, $next);
sent_once($node, $twilio, $next, $next_job, 'another campaign, meanwhile', total => 50);
is(scalar worker_pids($node), 1, 'by the one worker of the role');
is(run_row($node, $job)->{sent}, 999, 'the first one still waits');
$session->query(<<~"SQL");
	UPDATE ac_list_users SET data = data || '{"note": "kept"}' WHERE id = $locked
	SQL
$session->query('COMMIT');
sent_once($node, $twilio, $campaign, $job, 'list user locked', total => 1000);
is(sql($node, <<~"SQL"), 'kept|1', 'the change made meanwhile is kept');
	SELECT data->>'note', data->>'sentCount' FROM ac_list_users WHERE id = $locked
	SQL

# Locked for a short while, and deleted
$campaign = create_campaign($node, users => 200);
$session->query('BEGIN; DELETE FROM ac_list_users WHERE id = ' . nth($campaign, 9));
$job = start_campaign($node, $campaign);
wait_until($node, "SELECT sent = 199 FROM sendcampaign.run WHERE job_id = $job");
$session->query('COMMIT');
sent_once($node, $twilio, $campaign, $job, 'list user deleted late', total => 200);

# The whole list locked, and tables
for my $lock (
	'SELECT FROM ac_list_users FOR UPDATE',
	'LOCK TABLE ac_list_users IN ACCESS EXCLUSIVE MODE',
	'LOCK TABLE ac_campaigns, groups IN ACCESS EXCLUSIVE MODE')
{
	($campaign, $job) = start_held(1000);
	$session->query("BEGIN; $lock");
	$twilio->set(hold => 0);
	ok(poll(sub { $twilio->stats->{accepted} >= 20 }, 30), "$lock: answers come");
	ok(scalar worker_pids($node), 'the worker waits for the lock');
	$session->query('COMMIT');
	sent_once($node, $twilio, $campaign, $job, $lock, total => 1000);
}

# The job's row locked: its progress can wait, nothing else does.
($campaign, $job) = start_held(1000);
$session->query("BEGIN; SELECT FROM ac_background_jobs WHERE id = $job FOR UPDATE");
$twilio->set(hold => 0);
ok(wait_until($node, "SELECT sent = 1000 FROM sendcampaign.run WHERE job_id = $job"),
	'job locked: all are recorded');
is(run_row($node, $job)->{state}, 'running', 'and the end of the run waits');
$next = create_campaign($node, users => 20);
$next_job = start_campaign($node, $next);
sent_once($node, $twilio, $next, $next_job, 'another campaign, meanwhile', total => 20);
$session->query('COMMIT');
sent_once($node, $twilio, $campaign, $job, 'job locked', total => 1000);

# The run's own row, held by a person who settles something
$next = create_campaign($node, users => 50);
($campaign, $job) = start_held(200);
$session->query("BEGIN; SELECT FROM sendcampaign.run WHERE job_id = $job FOR UPDATE");
$twilio->set(hold => 0);
$next_job = start_campaign($node, $next);
sent_once($node, $twilio, $next, $next_job, 'another campaign, while a run is locked',
	total => 50);
$session->query('COMMIT');
sent_once($node, $twilio, $campaign, $job, 'run locked', total => 200);

# Deadlocks: the application updates the same rows in the other order.
$campaign = create_campaign($node, users => 400);
$twilio->set(latency => 5);
wait_for_no_worker($node);
sql($node, <<~'SQL');
	ALTER ROLE app SET deadlock_timeout = '10ms';
	ALTER ROLE app SET lock_timeout = 0;
	SQL
$session->query("SET deadlock_timeout = '10min'");    # it is the worker that gives up
$job = start_campaign($node, $campaign);
for my $i (1 .. 10)
{
	my $see = q{UPDATE ac_list_users SET data = data || '{"seen": 1}'};
	$session->query("BEGIN; $see WHERE id = " . nth($campaign, $i * 40));
	$session->query("$see WHERE id = " . nth($campaign, $i * 40 - 20));
	$session->query('COMMIT');
}
$twilio->set(latency => 0);
sent_once($node, $twilio, $campaign, $job, 'updated meanwhile', total => 400);
is($session->errors, '', 'the application had no errors');
is(sql($node, <<~'SQL'), 20, 'and none of its changes is lost');
	SELECT count(*) FROM ac_list_users WHERE data ? 'seen' AND data->>'sentCount' = '1'
	SQL

$session->close;
wait_for_no_worker($node);
$node->stop;
is(worker_errors($node), '', 'no worker met an error');
done_testing();
