# What Twilio refuses: all of a run, or one recipient.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../perl";
use Campaign;
use LocalTwilio;
use Test::More;

my $twilio = LocalTwilio->start;
my $node = new_cluster('refusals', $twilio);

# Changes a value of the configuration of a campaign's group.
sub set_configuration
{
	my ($campaign, $key, $value) = @_;
	configure($node, $campaign, qq{configuration || '{"$key": "$value"}'});
}

# How many list users of a campaign have a sentCount.
sub counted
{
	my $campaign = shift;
	my $list = list_of($campaign);
	return sql($node, <<~"SQL");
		SELECT count(*) FROM ac_list_users WHERE ac_list_id = $list AND data ? 'sentCount'
		SQL
}

# Refused from the first message on: nothing happens to any recipient.  The
# code, the key of the configuration, a wrong value and the right one:
my @causes = (
	[ 20003, 'twilioAuthToken', 'wrong', $LocalTwilio::TOKEN ],
	[ 21606, 'twilioFromSmsNumber', '+15005550007', $LocalTwilio::SENDER ],
	[ 21212, 'twilioFromSmsNumber', '+15005550001', $LocalTwilio::SENDER ]);
for my $cause (@causes)
{
	my ($code, $key, $wrong, $right) = @$cause;
	my $campaign = create_campaign($node, users => 100);
	set_configuration($campaign, $key, $wrong);
	$twilio->set(reset => 1);
	my $run = run_campaign($node, $campaign);
	my $job = $run->{job};
	is_deeply(
		[ @$run{qw(state total sent failed skipped in_doubt)} ],
		[ 'failed', 100, 0, 0, 0, 0 ],
		"$code: the run has failed");
	like($run->{error}, qr/\b$code\b/, 'for that reason');
	is(job_row($node, $job, 'error, progress'),
		"$run->{error}|5", 'which the job has, and no progress');
	is(sql($node, "SELECT count(*) FROM sendcampaign.message WHERE job_id = $job"),
		0, 'no recipient has an outcome');
	is(counted($campaign), 0, 'nor is any counted');
	cmp_ok($twilio->stats->{create_requests}, '<', 100, 'it did not try them all');
	wait_for_no_worker($node);

	is(start_campaign($node, $campaign, job => $job),
		$job, 'with the cause still there, the call returns the job');
	is(wait_for_run($node, $job)->{state}, 'failed', 'and the run fails again');
	set_configuration($campaign, $key, $right);
	start_campaign($node, $campaign, job => $job);
	sent_once($node, $twilio, $campaign, $job, "$code fixed", total => 100);
	is(job_row($node, $job, 'error'), '', 'the error is removed from the job');
}

# The password changes in mid-run.
my $campaign = create_campaign($node, users => 2000);
$twilio->set(reset => 1, latency => 500);
my $job = start_campaign($node, $campaign);
wait_until($node, "SELECT sent > 0 FROM sendcampaign.run WHERE job_id = $job");
$twilio->set(account => "$LocalTwilio::ACCOUNT:another");
my $run = wait_for_all_of_run($node, $job);
my @ledger = $twilio->ledger;
is($run->{state}, 'failed', 'password changed: the run has failed');
is($run->{sent}, scalar @ledger, 'all that was sent is counted');
is(counted($campaign), $run->{sent}, 'for its recipients');
cmp_ok($run->{sent}, '<', 2000, 'which are not all');
set_configuration($campaign, 'twilioAuthToken', 'another');
$twilio->set(latency => 0);
start_campaign($node, $campaign, job => $job);
sent_once($node, $twilio, $campaign, $job, 'password fixed', total => 2000);
$twilio->set(account => "$LocalTwilio::ACCOUNT:$LocalTwilio::TOKEN");

# Fixed while others are refused still: what was claimed goes on.
$campaign = create_campaign($node, users => 300);
set_configuration($campaign, 'twilioAuthToken', '');
$job = start_campaign($node, $campaign);
my $no_token = 'configuration has neither "twilioAuthToken"'
  . ' nor both "twilioApiKeySid" and "twilioApiKeySecret"';
like(wait_for_run($node, $job)->{error}, qr/$no_token/, 'a setting that is empty is named');
set_configuration($campaign, 'twilioAuthToken', $LocalTwilio::TOKEN);
start_campaign($node, $campaign, job => $job);
sent_once($node, $twilio, $campaign, $job, 'setting fixed', total => 300);

# Single recipients are refused: all others are sent.  By the position in the
# list, Twilio's magic numbers:
my %number = (
	3 => '+15005550001',
	500 => '+15005550001',
	501 => '+15005550009',
	700 => '+15005550004',
	800 => '+15005550003',
	900 => '+15005550002');
$campaign = create_campaign($node, users => 1000);
my $list = list_of($campaign);
for my $position (keys %number)
{
	sql($node, <<~"SQL");
		UPDATE ac_list_users SET data = '{"sms": "$number{$position}"}'
		WHERE id = (SELECT id FROM ac_list_users WHERE ac_list_id = $list
			ORDER BY id OFFSET $position - 1 LIMIT 1)
		SQL
}
$job = start_campaign($node, $campaign);
sent_once(
	$node, $twilio, $campaign, $job, 'some refused',
	total => 1000,
	failed => 5,
	skipped => 1);
my $codes = join "\n", map { "$_|1|t|t" } 21211, 21408, 21610, 21612, 21614;
is(sql($node, <<~"SQL"), $codes, 'each has its code');
	SELECT error_code, count(*), bool_and(error_message <> ''), bool_and(sid IS NULL)
	FROM sendcampaign.message
	WHERE job_id = $job AND status = 'failed'
	GROUP BY 1 ORDER BY 1
	SQL
my $error = job_row($node, $job, 'error');
like(
	$error,
	qr/^5 of 1000 messages failed: 21211 [^,]+ \(1\), 21408 [^,]+ \(1\), 21610 /,
	'the job has a summary');
is(run_row($node, $job)->{error}, $error, 'and so has the run');
my (undef, $notice) = sql_output($node, "SELECT send_campaign($campaign, $job)");
like(
	$notice,
	qr/NOTICE: .*already in state "completed"/,
	'when it is called again, nothing is sent');

wait_for_no_worker($node);
$node->stop;
done_testing();
