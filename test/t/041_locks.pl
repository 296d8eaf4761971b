# Outcomes meet rows and tables that the application has locked.
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

# The id of the n-th list user of a campaign
sub nth { my ($campaign, $n) = @_;
	return "(SELECT id FROM ac_list_users WHERE ac_list_id = (SELECT ac_list_id FROM ac_campaigns
		WHERE id = $campaign) ORDER BY id OFFSET $n - 1 LIMIT 1)"; }

sub sent { my $job = shift; return run_row($node, $job)->{sent}; }

# A list user locked for long: all others are sent and recorded.
my $campaign = create_campaign($node, users => 1000);
$session->query('BEGIN; SELECT FROM ac_list_users WHERE id = ' . nth($campaign, 7) . ' FOR UPDATE');
my $job = start_campaign($node, $campaign);
ok($node->poll_query_until('postgres', "SELECT sent = 999 FROM sendcampaign.run WHERE job_id = $job"),
	'one list user locked: the others are recorded');
is(scalar(() = $twilio->ledger), 1000, 'each was sent');
is($node->safe_psql('postgres', 'SELECT sum(cardinality(list_user_ids)) > 0 FROM sendcampaign.claim'), 't',
	'the one is claimed still');
is($node->safe_psql('postgres', 'SELECT sendcampaign.wake()'), 1, 'wake() finds the worker');
my $next = create_campaign($node, users => 50);
my $next_job = start_campaign($node, $next);
sent_once($node, $twilio, $next, $next_job, 'another campaign, meanwhile', total => 50);
is(scalar worker_pids($node), 1, 'by the one worker of the role');
is(sent($job), 999, 'the first one still waits');
$session->query(q{UPDATE ac_list_users SET data = data || '{"note": "kept"}' WHERE id = } . nth($campaign, 7));
$session->query('COMMIT');
sent_once($node, $twilio, $campaign, $job, 'list user locked', total => 1000);
is($node->safe_psql('postgres', q{SELECT data->>'note', data->>'sentCount' FROM ac_list_users WHERE id = }
	  . nth($campaign, 7)), 'kept|1', 'the change made meanwhile is kept');

# Locked for a short while, and deleted
$campaign = create_campaign($node, users => 200);
$session->query('BEGIN; DELETE FROM ac_list_users WHERE id = ' . nth($campaign, 9));
$job = start_campaign($node, $campaign);
$node->poll_query_until('postgres', "SELECT sent = 199 FROM sendcampaign.run WHERE job_id = $job");
$session->query('COMMIT');
sent_once($node, $twilio, $campaign, $job, 'list user deleted late', total => 200);

# The whole list locked, and the table
for my $lock ('SELECT FROM ac_list_users FOR UPDATE', 'LOCK TABLE ac_list_users IN ACCESS EXCLUSIVE MODE',
	'LOCK TABLE ac_campaigns, groups IN ACCESS EXCLUSIVE MODE')
{
	$campaign = create_campaign($node, users => 1000);
	$twilio->set(hold => 1, reset => 1);
	$job = start_campaign($node, $campaign);
	wait_for_flight($twilio, 20);
	$session->query("BEGIN; $lock");
	$twilio->set(hold => 0);
	ok(poll(sub { $twilio->stats->{accepted} >= 20 }, 30), "$lock: answers come");
	ok(scalar worker_pids($node), 'the worker waits for the lock');
	$session->query('COMMIT');
	sent_once($node, $twilio, $campaign, $job, $lock, total => 1000);
}

# The job's row locked: its progress can wait, nothing else does.
$campaign = create_campaign($node, users => 1000);
$twilio->set(latency => 20);
$job = start_campaign($node, $campaign);
$session->query("BEGIN; SELECT FROM ac_background_jobs WHERE id = $job FOR UPDATE");
ok($node->poll_query_until('postgres', "SELECT sent = 1000 FROM sendcampaign.run WHERE job_id = $job"),
	'job locked: all are recorded');
is(run_row($node, $job)->{state}, 'running', 'and its end waits');
$twilio->set(latency => 0);
$next = create_campaign($node, users => 20);
$next_job = start_campaign($node, $next);
sent_once($node, $twilio, $next, $next_job, 'another campaign, meanwhile', total => 20);
$session->query('COMMIT');
sent_once($node, $twilio, $campaign, $job, 'job locked', total => 1000);

# The run's own row, held by a person who settles something
$campaign = create_campaign($node, users => 200);
$next = create_campaign($node, users => 50);
$twilio->set(hold => 1, reset => 1);
$job = start_campaign($node, $campaign);
wait_for_flight($twilio, 20);
$session->query("BEGIN; SELECT FROM sendcampaign.run WHERE job_id = $job FOR UPDATE");
$twilio->set(hold => 0);
$next_job = start_campaign($node, $next);
sent_once($node, $twilio, $next, $next_job, 'another campaign, while a run is locked', total => 50);
$session->query('COMMIT');
sent_once($node, $twilio, $campaign, $job, 'run locked', total => 200);

# Deadlocks: the application updates the same rows in the other order.
$campaign = create_campaign($node, users => 400);
$twilio->set(latency => 5);
$node->safe_psql('postgres', q{ALTER ROLE app SET deadlock_timeout = '10ms'; ALTER ROLE app SET lock_timeout = 0});
$job = start_campaign($node, $campaign);
for (1 .. 10)
{
	$session->query(q{BEGIN; UPDATE ac_list_users SET data = data || '{"seen": 1}' WHERE id = } . nth($campaign, $_ * 40));
	$session->query(q{UPDATE ac_list_users SET data = data || '{"seen": 1}' WHERE id = } . nth($campaign, $_ * 40 - 20));
	$session->query('COMMIT');
}
$twilio->set(latency => 0);
sent_once($node, $twilio, $campaign, $job, 'updated meanwhile', total => 400);
is($session->errors, '', 'the application had no errors');
is($node->safe_psql('postgres', q{SELECT count(*) FROM ac_list_users WHERE data ? 'seen'
	AND data->>'sentCount' = '1'}), 20, 'and none of its changes is lost');

$session->close;
wait_for_no_worker($node);
$node->stop;
is(worker_errors($node), '', 'no worker met an error');
done_testing();
