# Too many messages that Twilio took are not delivered: the run pauses, and says
# why, as long as it is sending.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../perl";
use Campaign;
use LocalTwilio;
use Receipts;
use Test::More;

my $twilio = LocalTwilio->start;
my $node = new_cluster('undelivered', $twilio, conf => <<~'CONF');
	sendcampaign.segments_per_second = 10
	sendcampaign.failure_threshold = 6
	sendcampaign.failure_scale_factor = 0.5
	restart_after_crash = on
	sendcampaign.receipts = off
	CONF
install_receipts($node);

# Waits until so many messages of a job are sent; returns their SIDs.
sub sent
{
	my ($job, $count) = @_;
	wait_until($node, "SELECT sent >= $count FROM sendcampaign.run WHERE job_id = $job");
	return sids($node, $job);
}

# The state and the error of a job's run and of the job.
sub shown
{
	my $job = shift;
	my $run = run_row($node, $job);
	return "$run->{state} $run->{error}|" . job_row($node, $job, "data->>'state', error");
}

my $job = start_campaign($node, create_campaign($node, users => 400));
my @sid = sent($job, 16);
report($node, $job, map { "$_ delivered" } @sid[ 0 .. 5 ]);
report($node, $job, map { "$_ undelivered code=30007" } @sid[ 6 .. 10 ]);
report($node, $job, "$sid[11] failed code=30034");
@sid = sent($job, 24);
is(run_row($node, $job)->{state}, 'running', 'half of them is not too many');
report($node, $job, "$sid[12] undelivered code=30007");
my $reason =
	'7 of 13 messages were not delivered, which reaches "sendcampaign.failure_threshold" (6)'
  . ' and exceeds "sendcampaign.failure_scale_factor" (0.5): 30007 message filtered (6),'
  . q{ 30034 'From' number not registered for 10DLC (1).}
  . ' Look at sendcampaign.message, then call sendcampaign.resume() or sendcampaign.cancel().';
wait_until($node, "SELECT state = 'paused' FROM sendcampaign.run WHERE job_id = $job");
is(shown($job), "paused $reason|paused|$reason", 'one more pauses the run');
ok(worker_is_gone($node, 20), 'the worker leaves');
is(job_row($node, $job, "data->>'delivered', data->>'undelivered', data->>'unconfirmed'"),
	'6|7|0', 'the job has the counts');

# Resumed, it counts anew, also after a crash or a night.
sql($node, "SELECT sendcampaign.resume($job)", role => 'app');
my $sent = run_row($node, $job)->{sent};
@sid = sent($job, $sent + 20);
report($node, $job, map { "$_ undelivered" } @sid[ $sent .. $sent + 4 ]);
kill_worker($node);
wait_until_up($node);
wake($node);
@sid = sent($job, $sent + 40);
is(run_row($node, $job)->{state}, 'running', 'five more are not too many');
report($node, $job, "$sid[$sent + 5] canceled");
wait_until($node, "SELECT state = 'paused' FROM sendcampaign.run WHERE job_id = $job");
like(
	run_row($node, $job)->{error},
	qr/^6 of 6 messages were not delivered, .* undelivered \(5\), .*\bcanceled \(1\)/,
	'six are: those before the crash count as well');

# It is the end of a run that counts when all is claimed; -1 is no limit.
sql($node, "SELECT sendcampaign.cancel($job)", role => 'app');
wait_for_run($node, $job);
wait_for_no_worker($node);
sql($node, 'ALTER ROLE app SET sendcampaign.failure_threshold = -1');
$job = start_campaign($node, create_campaign($node, users => 40));
@sid = sent($job, 10);
report($node, $job, map { "$_ undelivered code=99999" } @sid);
is(wait_for_run($node, $job)->{state}, 'completed', 'without a limit, the run goes on');
is((split / /, receipt_counts($node, $job))[2], scalar @sid, 'and counts');

# One of one.
wait_for_no_worker($node);
sql($node, <<~'SQL');
	ALTER ROLE app SET sendcampaign.failure_threshold = 1;
	ALTER ROLE app SET sendcampaign.segments_per_second = 1;
	SQL
$job = start_campaign($node, create_campaign($node, users => 40));
@sid = sent($job, 1);
report($node, $job, "$sid[0] undelivered code=99999");
wait_until($node, "SELECT state = 'paused' FROM sendcampaign.run WHERE job_id = $job");
like(
	run_row($node, $job)->{error},
	qr/^1 of 1 message was not delivered, .*: 99999 unknown code \(1\)\./,
	'one of one');

$node->stop;
done_testing();
