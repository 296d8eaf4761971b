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
my $node = new_cluster('max_failures', $twilio, conf => qq{
	sendcampaign.max_concurrency = 10
});

sub fails { return sql_error($node, "LOAD 'sendcampaign'; SET sendcampaign.max_failures = '$_[0]'"); }

is(fails($_)->{message}, '', "'$_' is a limit") for '', ' ', '30%', '2.5 %', '100', '30%, 100', '100,30%', '0', '100%';
for my $value ('x', '30%, 20%', '10, 20', '101%', '-1', '1.5', '30%,', ',', '1, 2%, 3', 'nan', 'inf%')
{
	my $error = fails($value);
	is($error->{sqlstate}, '22023', "'$value' is none");
	like($error->{detail}, qr/a share, a number of messages, or both/, 'and says why');
}

# Every so many-th of the list's numbers is refused.
sub start_bad
{
	my ($limit, %arg) = @_;
	$node->safe_psql('postgres', "ALTER ROLE app SET sendcampaign.max_failures = '$limit'");
	wait_for_no_worker($node);
	my $campaign = create_campaign($node, users => 2000);
	$twilio->set(reset => 1, fault => 'none', "fault:$arg{fault}" => $arg{percent} // 100);
	return ($campaign, start_campaign($node, $campaign));
}

my ($campaign, $job) = start_bad('30%, 100', fault => 'code:21211');
my $run = wait_for_run($node, $job, state => 'paused');
like($run->{error}, qr/^1\d\d of 1\d\d messages failed, more than sendcampaign.max_failures allows \(30%, 100\): 21211 invalid 'To' number \(\d+\)\. Look at sendcampaign\.message, then call sendcampaign\.resume\(\) or sendcampaign\.cancel\(\)\.$/,
	'all fail: it pauses');
ok(worker_is_gone($node, 20), 'and leaves the worker');
$run = run_row($node, $job);
cmp_ok($run->{failed}, '>=', 100, 'not before the least number');
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
($campaign, $job) = start_bad('30%, 100', fault => 'code:21614', percent => 10);
is(wait_for_run($node, $job)->{state}, 'completed', 'fewer than the share: it goes on');
($campaign, $job) = start_bad('5%, 20', fault => 'code:21614', percent => 50);
is(wait_for_run($node, $job, state => 'paused')->{state}, 'paused', 'more than the share: it pauses');
$node->safe_psql('postgres', "SET ROLE app; SELECT sendcampaign.cancel($job)");
wait_for_run($node, $job, state => 'cancelled');
($campaign, $job) = start_bad('50', fault => 'code:21610', percent => 10);
$run = wait_for_run($node, $job, state => 'paused');
like($run->{error}, qr/allows \(50\): 21610 recipient has opted out/, 'a number alone; opt-outs count');
$node->safe_psql('postgres', "SET ROLE app; SELECT sendcampaign.cancel($job)");
($campaign, $job) = start_bad('20%', fault => 'code:21614', percent => 100);
like(wait_for_run($node, $job, state => 'paused')->{error}, qr/^\d+ of \d+ messages failed/, 'a share alone');
$node->safe_psql('postgres', "SET ROLE app; SELECT sendcampaign.cancel($job)");

# switched off, and what is no fault of the recipients
($campaign, $job) = start_bad('', fault => 'code:21211');
is(wait_for_run($node, $job)->{failed}, 2000, 'empty: no limit');
$node->safe_psql('postgres', 'ALTER ROLE app SET sendcampaign.max_attempts = 1');
($campaign, $job) = start_bad('1%, 10', fault => 'code:20503');
is(wait_for_run($node, $job)->{failed}, 2000, 'what was given up does not count');

# where nothing is left to be sent, it ends
$node->safe_psql('postgres', "ALTER ROLE app SET sendcampaign.max_failures = '10%, 5'");
wait_for_no_worker($node);
$twilio->set(reset => 1, fault => 'none');
$twilio->set('to-fault' => "+155500000$_=code:21614") for '01' .. '06';
$campaign = create_campaign($node, users => 6);
$job = start_campaign($node, $campaign);
$run = wait_for_run($node, $job);
is("$run->{state} $run->{failed}", 'completed 6', 'nothing is left to be sent: it ends');

$node->stop;
done_testing();
