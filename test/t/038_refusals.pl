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

sub configure
{
	my ($campaign, $key, $value) = @_;
	$node->safe_psql('postgres', qq{UPDATE groups SET configuration = configuration || '{"$key": "$value"}'
		WHERE id = (SELECT group_id FROM ac_lists JOIN ac_campaigns c ON ac_lists.id = c.ac_list_id WHERE c.id = $campaign)});
}

sub sent_counts
{
	my $campaign = shift;
	return $node->safe_psql('postgres', qq{SELECT count(*) FROM ac_list_users WHERE data ? 'sentCount'
		AND ac_list_id = (SELECT ac_list_id FROM ac_campaigns WHERE id = $campaign)});
}

# Refused from the first message on: nothing happens to any recipient.
my @causes = (
	[ 20003, 'twilioAuthToken', 'wrong', $LocalTwilio::TOKEN ],
	[ 21606, 'twilioFromSmsNumber', '+15005550007', $LocalTwilio::SENDER ],
	[ 21212, 'twilioFromSmsNumber', '+15005550001', $LocalTwilio::SENDER ]);
for (@causes)
{
	my ($code, $key, $wrong, $right) = @$_;
	my $campaign = create_campaign($node, users => 100);
	configure($campaign, $key, $wrong);
	$twilio->set(reset => 1);
	my $job = start_campaign($node, $campaign);
	my $run = wait_for_run($node, $job);
	is_deeply([ @$run{qw(state total sent failed skipped in_doubt)} ], [ 'failed', 100, 0, 0, 0, 0 ],
		"$code: the run has failed");
	like($run->{error}, qr/\b$code\b/, 'for that reason');
	is($node->safe_psql('postgres', "SELECT error, progress FROM ac_background_jobs WHERE id = $job"),
		"$run->{error}|5", 'which the job has, and no progress');
	is($node->safe_psql('postgres', "SELECT count(*) FROM sendcampaign.message WHERE job_id = $job"), 0,
		'no recipient has an outcome');
	is(sent_counts($campaign), 0, 'nor is any counted');
	cmp_ok($twilio->stats->{create_requests}, '<', 100, 'it did not try them all');
	wait_for_no_worker($node);

	is(start_campaign($node, $campaign, job => $job), $job, 'called again, the cause still there');
	is(wait_for_run($node, $job)->{state}, 'failed', 'it fails again');
	configure($campaign, $key, $right);
	start_campaign($node, $campaign, job => $job);
	sent_once($node, $twilio, $campaign, $job, "$code mended", total => 100);
	is($node->safe_psql('postgres', "SELECT error FROM ac_background_jobs WHERE id = $job"), '', 'the error is gone');
}

# The password changes in mid-run.
my $campaign = create_campaign($node, users => 2000);
$twilio->set(reset => 1, latency => 20);
my $job = start_campaign($node, $campaign);
$node->poll_query_until('postgres', "SELECT sent > 0 FROM sendcampaign.run WHERE job_id = $job");
$twilio->set(account => "$LocalTwilio::ACCOUNT:another");
my $run = wait_for_run($node, $job);
is($run->{state}, 'failed', 'password changed: the run has failed');
is($run->{sent}, scalar(() = $twilio->ledger), 'all that was sent is counted');
is(sent_counts($campaign), $run->{sent}, 'for its recipients');
cmp_ok($run->{sent}, '<', 2000, 'which are not all');
configure($campaign, 'twilioAuthToken', 'another');
$twilio->set(latency => 0);
start_campaign($node, $campaign, job => $job);
sent_once($node, $twilio, $campaign, $job, 'password mended', total => 2000);
$twilio->set(account => "$LocalTwilio::ACCOUNT:$LocalTwilio::TOKEN");

# Mended while others are refused still: what was claimed goes on.
$campaign = create_campaign($node, users => 300);
configure($campaign, 'twilioAuthToken', '');
$job = start_campaign($node, $campaign);
like(wait_for_run($node, $job)->{error}, qr/configuration has no "twilioAuthToken"/, 'a setting that is empty is named');
configure($campaign, 'twilioAuthToken', $LocalTwilio::TOKEN);
start_campaign($node, $campaign, job => $job);
sent_once($node, $twilio, $campaign, $job, 'setting mended', total => 300);

# Single recipients are refused: all others are sent.
$campaign = create_campaign($node, users => 1000);
my %number = (3 => '+15005550001', 500 => '+15005550001', 501 => '+15005550009', 700 => '+15005550004',
	800 => '+15005550003', 900 => '+15005550002');
$node->safe_psql('postgres', join ';', map { qq{
	UPDATE ac_list_users SET data = '{"sms": "$number{$_}"}' WHERE id = (SELECT id FROM ac_list_users
		WHERE ac_list_id = (SELECT ac_list_id FROM ac_campaigns WHERE id = $campaign) ORDER BY id OFFSET $_ - 1 LIMIT 1)}
} keys %number);
$job = start_campaign($node, $campaign);
sent_once($node, $twilio, $campaign, $job, 'some refused', total => 1000, failed => 5, skipped => 1);
is($node->safe_psql('postgres', qq{SELECT error_code, count(*), bool_and(error_message <> ''), bool_and(sid IS NULL)
	FROM sendcampaign.message WHERE job_id = $job AND status = 'failed' GROUP BY 1 ORDER BY 1}),
	"21211|1|t|t\n21408|1|t|t\n21610|1|t|t\n21612|1|t|t\n21614|1|t|t", 'each with its code');
my $error = $node->safe_psql('postgres', "SELECT error FROM ac_background_jobs WHERE id = $job");
like($error, qr/^5 of 1000 messages failed: 21211 [^,]+ \(1\), 21408 [^,]+ \(1\), 21610 /, 'the job has a summary');
is(run_row($node, $job)->{error}, $error, 'and so has the run');
like(($node->psql('postgres', "SELECT send_campaign($campaign, $job)"))[2],
	qr/NOTICE: .*completed already/, 'called again, nothing is sent');

wait_for_no_worker($node);
$node->stop;
done_testing();
