# What a reload changes in mid-run, and what the worker holds while it waits.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../perl";
use Campaign;
use LocalTwilio;
use Test::More;

my $twilio = LocalTwilio->start;
my $node = new_cluster('reload', $twilio, conf => <<~'CONF');
	sendcampaign.request_timeout = '20s'
	sendcampaign.lookup_delay = '200ms'
	sendcampaign.max_concurrency = 5
	log_min_messages = debug1
	CONF

sub in_flight { return $twilio->stats->{create_in_flight}; }

# While Twilio is waited for, nothing is held that others could wait for.
my $campaign = create_campaign($node, users => 500);
$twilio->set(hold => 1);
my $job = start_campaign($node, $campaign);
wait_for_flight($twilio, 5);
my $held = <<~'SQL';
	SELECT coalesce(a.backend_xmin::text, a.backend_xid::text, a.xact_start::text,
		(SELECT string_agg(l.mode || ' on ' || l.relation::regclass, ', ') FROM pg_locks l
			WHERE l.pid = a.pid AND l.locktype IN ('relation', 'tuple', 'transactionid')),
		'nothing')
	FROM pg_stat_activity a
	WHERE a.backend_type = 'sendcampaign worker'
	SQL
ok( wait_until($node, $held, expected => 'nothing'),
	'no snapshot, transaction or table lock is held');
# but for a look at the queue each second
my $nothing = join ' ', ('nothing') x 5;
ok( poll(sub {
		join(' ', map { sql($node, $held) } 1 .. 5) eq $nothing;
	}),
	'nor later');
ok(wait_until($node, <<~'SQL', expected => 'idle'), 'the worker is idle in pg_stat_activity');
	SELECT state FROM pg_stat_activity WHERE backend_type = 'sendcampaign worker'
	SQL

# The window follows the setting, up and down.
is($twilio->stats->{max_in_flight}, 5,
	'there are no more requests in flight than max_concurrency');
change_conf($node, 'sendcampaign.max_concurrency = 15');
$twilio->set(hold => 0, latency => 200);
poll(sub { $twilio->stats->{accepted} >= 30 });    # good answers let the window grow
$twilio->set(hold => 1);
ok(poll(sub { in_flight() == 15 }, 20), 'there are more once the setting allows it')
  or diag('in flight: ' . in_flight());
$twilio->set(hold => 0, latency => 0);
sent_once($node, $twilio, $campaign, $job, 'more at once', total => 500);
is($twilio->stats->{max_in_flight}, 15, 'but no more than that');

$campaign = create_campaign($node, users => 500);
$twilio->set(latency => 200);
$job = start_campaign($node, $campaign);
wait_for_flight($twilio, 15);
change_conf($node, 'sendcampaign.max_concurrency = 2');
poll(sub { in_flight() <= 2 }, 10);
cmp_ok(in_flight(), '<=', 2, 'there are fewer once the setting says so');
is(run_row($node, $job)->{state}, 'running', 'in mid-run');
$twilio->set(latency => 0);
sent_once($node, $twilio, $campaign, $job, 'fewer at once', total => 500);
change_conf($node, 'sendcampaign.max_concurrency = 10');

# The kill switch
$campaign = create_campaign($node, users => 500);
$twilio->set(latency => 500);
$job = start_campaign($node, $campaign);
wait_for_flight($twilio, 10);
change_conf($node, 'sendcampaign.enabled = off');
ok(worker_is_gone($node, 20), 'when sending is switched off, the worker ends');
my $run = run_row($node, $job);
my $sent = sent_of($twilio, $campaign);
is($run->{state}, 'running', 'the run has not ended');
is($run->{sent}, $sent, 'what was on its way has been recorded');
cmp_ok($sent, '<', 500, 'and the rest is not sent');
is(sql($node, 'SELECT count(*) FROM sendcampaign.claim'), 0, 'no recipient is claimed');
is( sql($node, 'SELECT sum(cardinality(list_user_ids)) FROM sendcampaign.batch'),
	500 - $sent,
	'the others are still to be claimed');
is(wake($node), 0, 'wake() starts nothing while sending is off');

my $late = create_campaign($node, users => 3);
my ($late_job, $stderr) = sql_output($node, "SELECT send_campaign($late)", role => 'app');
like($stderr, qr/WARNING: .*sending is switched off/, 'send_campaign() warns');
ok(no_worker_is_to_come($node), 'and no worker stays');
my $stats = $twilio->stats;
is($stats->{accepted}, 1000 + $sent, 'nothing was sent while sending was off');

change_conf($node, 'sendcampaign.enabled = on');
$twilio->set(latency => 0);
is(wake($node), 1, 'when sending is on again, wake() starts a worker');
sent_once($node, $twilio, $campaign, $job, 'on again', total => 500);
sent_once($node, $twilio, $late, $late_job, 'queued meanwhile', total => 3);

# Switched off with answers outstanding: what is in doubt is looked up later.
$campaign = create_campaign($node, users => 30);
$twilio->set(hold => 1, 'hold-after' => 1);
$job = start_campaign($node, $campaign);
wait_for_flight($twilio, 10);
change_conf($node, 'sendcampaign.enabled = off');
my $run_id = run_of($job);
ok(wait_until($node, <<~"SQL"), 'what has not left is given back');
	SELECT sum(cardinality(list_user_ids)) = 20 FROM sendcampaign.batch WHERE run_id = $run_id
	SQL
$twilio->set(hold => 0);
ok(worker_is_gone($node, 20), 'the worker waits for answers and ends');
is(run_row($node, $job)->{sent}, 10, 'they are recorded');
change_conf($node, 'sendcampaign.enabled = on');
wake($node);
sent_once($node, $twilio, $campaign, $job, 'answers outstanding', total => 30);

$node->stop;
done_testing();
