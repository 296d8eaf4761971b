# A run of whose messages too many fail pauses itself, and says why.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";

use Campaign;
use LocalTwilio;
use Session;
use Test::More;

my $twilio = LocalTwilio->start;
my $node = new_cluster('failure_threshold', $twilio, conf => 'sendcampaign.max_concurrency = 10');

sub set_limit
{
	my ($threshold, $scale_factor) = @_;
	sql($node, <<~SQL);
	    ALTER ROLE app SET sendcampaign.failure_threshold = $threshold;
	    ALTER ROLE app SET sendcampaign.failure_scale_factor = $scale_factor;
	SQL
}

# Starts a campaign to 2,000 of whose messages so many percent (else all) have a
# fault; returns the job.
sub start_bad
{
	my ($threshold, $scale_factor, %arg) = @_;
	set_limit($threshold, $scale_factor);
	wait_for_no_worker($node);
	my $campaign = create_campaign($node, users => 2000);
	my $percent = $arg{percent} // 100;
	$twilio->set(reset => 1, fault => 'none', "fault:$arg{fault}" => $percent);
	return start_campaign($node, $campaign);
}

sub resume
{
	my $job = shift;
	sql($node, "SELECT sendcampaign.resume($job)", role => 'app');
}

sub cancel
{
	my $job = shift;
	sql($node, "SELECT sendcampaign.cancel($job)", role => 'app');
}

# All messages fail.
my $job = start_bad(100, 0.3, fault => 'code:21211');
my $run = wait_for_run($node, $job, state => 'paused');
my $too_many =
	'1\d\d of 1\d\d messages failed, which reaches "sendcampaign\.failure_threshold" \(100\)'
  . ' and exceeds "sendcampaign\.failure_scale_factor" \(0\.3\):'
  . q{ 21211 invalid 'To' number \(\d+\)\.}
  . ' Look at sendcampaign\.message,'
  . ' then call sendcampaign\.resume\(\) or sendcampaign\.cancel\(\)\.';
like($run->{error}, qr/^$too_many$/, 'a run whose messages all fail pauses');
ok(worker_is_gone($node, 20), 'the worker leaves');
$run = run_row($node, $job);
cmp_ok($run->{failed}, '>=', 100, 'it does not pause before the threshold');
cmp_ok($run->{failed}, '<=', 130, 'but soon after it');
my $left = 2000 - $run->{failed};
is(sql($node, <<~'SQL'), "0|$left", 'nothing is claimed');
    SELECT (SELECT count(*) FROM sendcampaign.claim),
        (SELECT sum(cardinality(list_user_ids)) FROM sendcampaign.batch)
SQL
my $is_paused = qr/LOG:  sendcampaign: job $job is paused: \d+ of/;
my $to_continue = qr/HINT:  To continue nevertheless, call sendcampaign\.resume\($job\)\./;
like(log_of($node), qr/$is_paused.*\n.*$to_continue/, 'the log says that it is paused');

# Resumed, the run counts anew.
resume($job);
wait_until($node, <<~SQL);
    SELECT state = 'paused' AND failed > $run->{failed} + 90
    FROM sendcampaign.run
    WHERE job_id = $job
SQL
like(
	run_row($node, $job)->{error},
	qr/^1\d\d of 1\d\d messages/,
	'resumed, it counts anew and pauses again');
$twilio->set('fault:code:21211' => 0);
resume($job);
$run = wait_for_run($node, $job);
is($run->{state}, 'completed', 'resumed when all is well, it goes on');
is($run->{sent} + $run->{failed}, 2000, 'to its end');
is($run->{sent}, $twilio->stats->{accepted}, 'each is sent once');

# Some of the messages fail.
$job = start_bad(100, 0.3, fault => 'code:21614', percent => 10);
is(wait_for_run($node, $job)->{state},
	'completed', 'with fewer failures than the scale factor allows it goes on');
$job = start_bad(20, 0.05, fault => 'code:21614', percent => 50);
is(wait_for_run($node, $job, state => 'paused')->{state},
	'paused', 'with more failures than the scale factor allows it pauses');
cancel($job);
wait_for_run($node, $job, state => 'cancelled');
$job = start_bad(50, 0, fault => 'code:21610', percent => 10);
$run = wait_for_run($node, $job, state => 'paused');
my $opted_out =
  qr/\(50\) and exceeds "sendcampaign\.failure_scale_factor" \(0\): 21610 recipient has opted out/;
like($run->{error}, $opted_out, 'the threshold alone pauses it; opt-outs count');
cancel($job);
$job = start_bad(0, 0.2, fault => 'code:21614', percent => 100);
like(
	wait_for_run($node, $job, state => 'paused')->{error},
	qr/^\d+ of \d+ messages? failed/,
	'the scale factor alone pauses it');
cancel($job);

# No limit, and what is no fault of the recipients.
$job = start_bad(-1, 0.3, fault => 'code:21211');
is(wait_for_run($node, $job)->{failed}, 2000, 'a threshold of -1 is no limit');
sql($node, 'ALTER ROLE app SET sendcampaign.max_attempts = 1');
$job = start_bad(10, 0.01, fault => 'code:20503');
is(wait_for_run($node, $job)->{failed}, 2000, 'what was given up does not count');

# Where nothing is left to be sent, the run ends.
set_limit(5, 0.1);
wait_for_no_worker($node);
$twilio->set(reset => 1, fault => 'none');
$twilio->set('to-fault' => "+1555000000$_=code:21614") for 1 .. 6;
$run = run_campaign($node, create_campaign($node, users => 6));
is("$run->{state} $run->{failed}", 'completed 6', 'where nothing is left to be sent it ends');

$node->stop;
done_testing();
