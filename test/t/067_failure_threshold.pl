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
my $node = new_cluster('failure_threshold', $twilio, conf => qq{
	sendcampaign.max_concurrency = 10
});

sub set_limit
{
	my ($threshold, $scale_factor) = @_;
	$node->safe_psql('postgres', "ALTER ROLE app SET sendcampaign.failure_threshold = $threshold");
	$node->safe_psql('postgres', "ALTER ROLE app SET sendcampaign.failure_scale_factor = $scale_factor");
}

# Every so many-th of the list's numbers is refused.
sub start_bad
{
	my ($threshold, $scale_factor, %arg) = @_;
	set_limit($threshold, $scale_factor);
	wait_for_no_worker($node);
	my $campaign = create_campaign($node, users => 2000);
	$twilio->set(reset => 1, fault => 'none', "fault:$arg{fault}" => $arg{percent} // 100);
	return ($campaign, start_campaign($node, $campaign));
}

my ($campaign, $job) = start_bad(100, 0.3, fault => 'code:21211');
my $run = wait_for_run($node, $job, state => 'paused');
like($run->{error}, qr/^1\d\d of 1\d\d messages failed, more than sendcampaign\.failure_threshold \(100\) and sendcampaign\.failure_scale_factor \(0\.3\) allow: 21211 invalid 'To' number \(\d+\)\. Look at sendcampaign\.message, then call sendcampaign\.resume\(\) or sendcampaign\.cancel\(\)\.$/,
	'all fail: it pauses');
ok(worker_is_gone($node, 20), 'and leaves the worker');
$run = run_row($node, $job);
cmp_ok($run->{failed}, '>=', 100, 'not before the threshold');
cmp_ok($run->{failed}, '<=', 130, 'and soon after it');
is($node->safe_psql('postgres', qq{SELECT (SELECT count(*) FROM sendcampaign.claim),
	(SELECT sum(cardinality(list_user_ids)) FROM sendcampaign.batch)}), '0|' . (2000 - $run->{failed}), 'nothing is claimed');
like($node->safe_psql('postgres', "SELECT pg_read_file('" . $node->logfile . "')"), qr/LOG:  sendcampaign: job $job is paused: \d+ of/, 'the log says so');

# resumed, it is counted anew
$node->safe_psql('postgres', "SET ROLE app; SELECT sendcampaign.resume($job)");
$node->poll_query_until('postgres', "SELECT state = 'paused' AND failed > $run->{failed} + 90 FROM sendcampaign.run WHERE job_id = $job");
like(run_row($node, $job)->{error}, qr/^1\d\d of 1\d\d messages/, 'resumed: it pauses again, counted anew');
$twilio->set('fault:code:21211' => 0);
$node->safe_psql('postgres', "SET ROLE app; SELECT sendcampaign.resume($job)");
$run = wait_for_run($node, $job);
is($run->{state}, 'completed', 'resumed when all is well: it goes on');
is($run->{sent} + $run->{failed}, 2000, 'to its end');
is($run->{sent}, $twilio->stats->{accepted}, 'each once');

# a part of them
($campaign, $job) = start_bad(100, 0.3, fault => 'code:21614', percent => 10);
is(wait_for_run($node, $job)->{state}, 'completed', 'fewer than the scale factor: it goes on');
($campaign, $job) = start_bad(20, 0.05, fault => 'code:21614', percent => 50);
is(wait_for_run($node, $job, state => 'paused')->{state}, 'paused', 'more than the scale factor: it pauses');
$node->safe_psql('postgres', "SET ROLE app; SELECT sendcampaign.cancel($job)");
wait_for_run($node, $job, state => 'cancelled');
($campaign, $job) = start_bad(50, 0, fault => 'code:21610', percent => 10);
$run = wait_for_run($node, $job, state => 'paused');
like($run->{error}, qr/\(50\) and sendcampaign\.failure_scale_factor \(0\) allow: 21610 recipient has opted out/, 'the threshold alone; opt-outs count');
$node->safe_psql('postgres', "SET ROLE app; SELECT sendcampaign.cancel($job)");
($campaign, $job) = start_bad(0, 0.2, fault => 'code:21614', percent => 100);
like(wait_for_run($node, $job, state => 'paused')->{error}, qr/^\d+ of \d+ messages failed/, 'the scale factor alone');
$node->safe_psql('postgres', "SET ROLE app; SELECT sendcampaign.cancel($job)");

# switched off, and what is no fault of the recipients
($campaign, $job) = start_bad(-1, 0.3, fault => 'code:21211');
is(wait_for_run($node, $job)->{failed}, 2000, '-1: no limit');
$node->safe_psql('postgres', 'ALTER ROLE app SET sendcampaign.max_attempts = 1');
($campaign, $job) = start_bad(10, 0.01, fault => 'code:20503');
is(wait_for_run($node, $job)->{failed}, 2000, 'what was given up does not count');

# where nothing is left to be sent, it ends
set_limit(5, 0.1);
wait_for_no_worker($node);
$twilio->set(reset => 1, fault => 'none');
$twilio->set('to-fault' => "+155500000$_=code:21614") for '01' .. '06';
$campaign = create_campaign($node, users => 6);
$job = start_campaign($node, $campaign);
$run = wait_for_run($node, $job);
is("$run->{state} $run->{failed}", 'completed 6', 'nothing is left to be sent: it ends');

$node->stop;
done_testing();
