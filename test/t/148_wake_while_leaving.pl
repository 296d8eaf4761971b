# A worker that somebody has terminated takes a moment to leave.  Whoever calls
# wake(), or queues a run, in that moment gets another worker: nothing waits for
# one more call.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../perl";
use Campaign;
use LocalTwilio;
use Test::More;

my $twilio = LocalTwilio->start;
my $node = new_cluster('leaving', $twilio, conf => <<~'CONF');
	sendcampaign.receipts = off
	sendcampaign.request_timeout = '2s'
	sendcampaign.lookup_delay = '200ms'
	sendcampaign.max_concurrency = 20
	CONF
my $number = 0;

# Terminates the worker, and calls something while it waits for its last answers.
sub terminate_and
{
	my $call = shift;
	my $name = 'run ' . ++$number;
	my $campaign = create_campaign($node, users => 400, message => $name);
	$twilio->set('hold' => 1);
	my $job = start_campaign($node, $campaign);
	wait_for_flight($twilio, 5);
	ok(wait_until($node, <<~'SQL'), "$name: the worker waits for answers");
		SELECT count(*) > 0 FROM pg_stat_activity
		WHERE backend_type LIKE 'sendcampaign worker%' AND state = 'idle'
		SQL
	sql($node, <<~"SQL");
		SELECT pg_terminate_backend(pid)
		FROM pg_stat_activity WHERE backend_type LIKE 'sendcampaign worker%';
		SELECT pg_sleep(0.2);
		$call;
		SQL
	$twilio->set('hold' => 0);
	my $ended = poll(sub { run_row($node, $job)->{state} eq 'completed' });
	ok($ended, "$name: it goes on without another call") or wait_for_run($node, $job);
	sent_once($node, $twilio, $campaign, $job, $name, total => 400);
	return;
}

terminate_and('SELECT sendcampaign.wake()') for 1 .. 4;

# The caller has locked rows of the application, and waits for a worker that leaves.
terminate_and(<<~'SQL');
	BEGIN;
	SELECT id FROM ac_list_users ORDER BY id FOR UPDATE;
	SELECT id FROM ac_background_jobs FOR UPDATE;
	SELECT sendcampaign.wake();
	COMMIT
	SQL
my $other = create_campaign($node, users => 2, message => 'other');
terminate_and("SET ROLE app; SELECT send_campaign($other)");
is(sent_with($twilio, 'other'), 2, 'the run that was queued meanwhile is sent as well');
is(worker_errors($node), '', 'the log has no errors');
$node->stop;
done_testing();
