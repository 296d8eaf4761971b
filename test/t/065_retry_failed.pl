# retry_failed(): what failed and may not fail again is sent once more, under
# the same job; what was refused for good is not.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../perl";
use Campaign;
use LocalTwilio;
use Session;
use Test::More;

my $twilio = LocalTwilio->start;
my $node = new_cluster('retry', $twilio, conf => qq{
	sendcampaign.max_attempts = 1
	sendcampaign.lookup_delay = 0
});
$node->safe_psql('postgres', 'CREATE ROLE stranger LOGIN; GRANT USAGE ON SCHEMA sendcampaign TO stranger');

sub retry { return $node->safe_psql('postgres', "SET ROLE app; SELECT sendcampaign.retry_failed($_[0])"); }
sub retry_error { return sql_error($node, "SET ROLE $_[0]; SELECT sendcampaign.retry_failed($_[1])"); }
sub statuses
{
	return $node->safe_psql('postgres', "SELECT string_agg(coalesce(error_code::text, status), ' ' ORDER BY list_user_id)"
		  . " FROM sendcampaign.message WHERE job_id = $_[0]");
}
sub job_row { return $node->safe_psql('postgres', "SELECT progress, coalesce(error, ''), data->>'sent', data->>'failed' FROM ac_background_jobs WHERE id = $_[0]"); }

# of every class one
my %fault = (1 => 20503, 2 => 21614, 3 => 21610, 4 => 21617, 5 => 30003, 6 => 429, 7 => 98765);
my @faults = map { ('to-fault' => "+1555000000$_=" . ($fault{$_} == 429 ? 429 : "code:$fault{$_}")) } sort keys %fault;
while (my ($name, $value) = splice @faults, 0, 2) { $twilio->set($name => $value); }
my $campaign = create_campaign($node, users => 9);
my $job = start_campaign($node, $campaign);
my $run = wait_for_run($node, $job);
is("$run->{state} $run->{sent} $run->{failed}", 'completed 2 7', 'seven of nine fail');
my $before = statuses($job);
like($before, qr/^20503 21614 21610 21617 30003 \d+ \d+ sent sent$/, 'for seven reasons');
$twilio->set('to-fault' => "+1555000000$_=none") for sort keys %fault;
wait_for_no_worker($node);

is(retry_error('stranger', $job)->{message}, retry_error('app', 424242)->{message} =~ s/424242/$job/r,
	"another role's job is as one that does not exist");
my $held = $node->safe_psql('postgres', "SELECT count(*) FROM sendcampaign.message WHERE job_id = $job");

# while another job sends the campaign
$twilio->set(hold => 1);
my $other = start_campaign($node, $campaign);
wait_for_flight($twilio, 8);    # one has opted out
my $error = retry_error('app', $job);
is("$error->{sqlstate} $error->{message}", "55006 campaign $campaign is being sent already", 'another job sends it: refused');
is(retry_error('app', $other)->{hint}, 'Only of a completed run are failed messages sent again.', 'a run that has not ended: refused');
is(statuses($job), $before, 'nothing is changed');
$twilio->set(hold => 0);
wait_for_run($node, $other);
wait_for_no_worker($node);
$twilio->set(reset => 1);

# rolled back
$node->safe_psql('postgres', "SET ROLE app; BEGIN; SELECT sendcampaign.retry_failed($job); ROLLBACK");
is(statuses($job), $before, 'rolled back: nothing is changed');

$twilio->set(hold => 1);
is(retry($job), 3, 'three may be sent again');
is($node->safe_psql('postgres', "SELECT state, failed, finished_at IS NULL, error IS NULL FROM sendcampaign.run WHERE job_id = $job"),
	'running|4|t|t', 'the run is at work again');
my ($progress, $rest) = split /\|/, job_row($job), 2;
cmp_ok($progress, '<', 100, 'so is the job');
is($rest, '|2|4', 'with the counts');
$twilio->set(hold => 0);
$run = wait_for_run($node, $job);
is("$run->{state} $run->{sent} $run->{failed} $run->{total}", 'completed 5 4 9', 'they are sent');
like(statuses($job), qr/^sent 21614 21610 21617 sent sent \d+ sent sent$/, 'and those');
is_deeply([ sort keys %{ $twilio->count_by_phone } ], [ map { "+1555000000$_" } 1, 5, 6 ], 'to them only');
is((split /\|/, job_row($job))[0], 100, 'the job is through');
is($node->safe_psql('postgres', qq{SELECT (SELECT count(*) FROM sendcampaign.batch), (SELECT count(*) FROM sendcampaign.claim)}), '0|0', 'nothing is left');

my ($ret, $out, $err) = $node->psql('postgres', "SET ROLE app; SELECT sendcampaign.retry_failed($job)");
is($out, 0, 'none is left');
like($err, qr/NOTICE:  job $job has no failed messages that may be sent again/, 'with a notice');
is(run_row($node, $job)->{state}, 'completed', 'the run stays as it is');

# in doubt, and settled as not sent
wait_for_no_worker($node);
set_and_reload($node, 'sendcampaign.request_timeout', '1s');
$twilio->set(reset => 1, 'fault:drop-after' => '#1', 'fault:drop-before' => '#1', 'fault:list-403' => 100);
$campaign = create_campaign($node, users => 2, base_url => undef, message => 'Duplicates');
change_conf($node, 'sendcampaign.max_attempts = 10');
$job = start_campaign($node, $campaign);
$run = wait_for_run($node, $job);
is($run->{in_doubt}, 2, 'two in doubt');
my ($first, $second) = split /\n/, $node->safe_psql('postgres', "SELECT list_user_id FROM sendcampaign.message WHERE job_id = $job ORDER BY 1");
is(retry($job), 0, 'what is in doubt is not sent again');
$node->safe_psql('postgres', "SET ROLE app; SELECT sendcampaign.settle($job, $first, true), sendcampaign.settle($job, $second, false)");
is(retry($job), 1, 'what a person knows not to have been sent is');
$run = wait_for_run($node, $job);
is("$run->{state} $run->{sent} $run->{failed}", 'completed 2 0', 'and sent');
is(scalar(@{[ $twilio->ledger ]}), 2, 'once');

# many: more than a batch
wait_for_no_worker($node);
change_conf($node, 'sendcampaign.max_attempts = 1');
$twilio->set(reset => 1, 'fault:code:20503' => 100);
$campaign = create_campaign($node, users => 700);
$job = start_campaign($node, $campaign);
is(wait_for_run($node, $job)->{failed}, 700, 'all fail');
$twilio->set('fault:code:20503' => 0);
is(retry($job), 700, 'all may be sent again');
sent_once($node, $twilio, $campaign, $job, 'all', total => 700);
wait_for_no_worker($node);

# a run that has failed goes on by send_campaign()
$campaign = create_campaign($node, users => 3);
$node->safe_psql('postgres', q{UPDATE groups SET configuration = configuration || '{"twilioAuthToken": "wrong"}'});
$job = start_campaign($node, $campaign);
is(wait_for_run($node, $job)->{state}, 'failed', 'a failed run');
$error = retry_error('app', $job);
is("$error->{sqlstate} $error->{message}", "55000 the run of background job $job is failed", 'is not retried');
like($error->{hint}, qr/^Call send_campaign\(\)/, 'says the hint');

$node->stop;
done_testing();
