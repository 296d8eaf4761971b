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
my $node = new_cluster('retry', $twilio, conf => <<~CONF);
    sendcampaign.max_attempts = 1
    sendcampaign.lookup_delay = 0
CONF
sql($node, <<~'SQL');
    CREATE ROLE stranger LOGIN;
    GRANT USAGE ON SCHEMA sendcampaign TO stranger;
SQL

# How many messages of a job are sent again.
sub retry
{
	my $job = shift;
	return sql($node, "SELECT sendcampaign.retry_failed($job)", role => 'app');
}

# The error that retry_failed() gives to a role.
sub retry_error
{
	my ($role, $job) = @_;
	return call_error($node, "retry_failed($job)", role => $role);
}

# The error code of each message of a job, else its status.
sub statuses
{
	my $job = shift;
	return sql($node, <<~SQL);
	    SELECT string_agg(coalesce(error_code::text, status), ' ' ORDER BY list_user_id)
	    FROM sendcampaign.message
	    WHERE job_id = $job
	SQL
}

# What the application sees of its job: progress, error, sent, failed.
sub job_summary
{
	my $job = shift;
	return split /\|/, sql($node, <<~SQL);
	    SELECT progress, coalesce(error, ''), data->>'sent', data->>'failed'
	    FROM ac_background_jobs
	    WHERE id = $job
	SQL
}

# One error of every class, by the number of the list user; two more are sent to.
my %fault = (
	1 => 'code:20503',
	2 => 'code:21614',
	3 => 'code:21610',
	4 => 'code:21617',
	5 => 'code:30003',
	6 => '429',
	7 => 'code:98765');
$twilio->set('to-fault' => "+1555000000$_=$fault{$_}") for sort keys %fault;
my $campaign = create_campaign($node, users => 9);
my $job = start_campaign($node, $campaign);
my $run = wait_for_run($node, $job);
is("$run->{state} $run->{sent} $run->{failed}", 'completed 2 7', 'seven of nine fail');
my $before = statuses($job);
like($before, qr/^20503 21614 21610 21617 30003 \d+ \d+ sent sent$/, 'for seven reasons');
$twilio->set('to-fault' => "+1555000000$_=none") for sort keys %fault;
wait_for_no_worker($node);

is( retry_error('stranger', $job)->{message},
	retry_error('app', 424242)->{message} =~ s/424242/$job/r,
	"another role's job is as one that does not exist");

# While another job sends the campaign; one list user has opted out.
$twilio->set(hold => 1);
my ($caller, $retrying) = map { Session->open($node) } 1, 2;
$_->query('SET ROLE app') for $caller, $retrying;
my $other = $caller->query("BEGIN; SELECT send_campaign($campaign)");
$retrying->start_query("SELECT sendcampaign.retry_failed($job)");
waits_for_lock($node, 'SELECT sendcampaign.retry_failed%');
$caller->query('COMMIT');
is($retrying->finish_query, '', 'called before another job is committed: it waits');
like(
	$retrying->errors,
	qr/^ERROR:  campaign $campaign is already being sent$/m,
	'and is refused then');
$_->close for $caller, $retrying;
wait_for_flight($twilio, 8);
my $error = retry_error('app', $job);
is( "$error->{sqlstate} $error->{message}",
	"55006 campaign $campaign is already being sent",
	'it is refused while another job sends the campaign');
is( retry_error('app', $other)->{hint},
	'Failed messages can be retried only when the run is completed.',
	'it is refused for a run that has not ended');
is(statuses($job), $before, 'nothing is changed');
$twilio->set(hold => 0);
wait_for_run($node, $other);
wait_for_no_worker($node);
$twilio->set(reset => 1);

# Rolled back.
sql($node, "BEGIN; SELECT sendcampaign.retry_failed($job); ROLLBACK", role => 'app');
is(statuses($job), $before, 'rolled back it changes nothing');

# Those that may be sent again.
$twilio->set(hold => 1);
is(retry($job), 3, 'three may be sent again');
is(sql($node, <<~SQL), 'running|4|t|t', 'the run is at work again');
    SELECT state, failed, finished_at IS NULL, error IS NULL
    FROM sendcampaign.run
    WHERE job_id = $job
SQL
my ($progress, @rest) = job_summary($job);
cmp_ok($progress, '<', 100, 'so is the job');
is_deeply(\@rest, [ '', 2, 4 ], 'with the counts');
$twilio->set(hold => 0);
$run = wait_for_run($node, $job);
is("$run->{state} $run->{sent} $run->{failed} $run->{total}", 'completed 5 4 9', 'they are sent');
like(
	statuses($job),
	qr/^sent 21614 21610 21617 sent sent \d+ sent sent$/,
	'these are the three that may be sent again');
is_deeply(
	[ sort keys %{ $twilio->count_by_phone } ],
	[ map { "+1555000000$_" } 1, 5, 6 ],
	'nothing is sent to others');
($progress) = job_summary($job);
is($progress, 100, 'the job is complete');
is(sql($node, <<~'SQL'), '0|0', 'nothing is left');
    SELECT (SELECT count(*) FROM sendcampaign.batch), (SELECT count(*) FROM sendcampaign.claim)
SQL

my (undef, $retried, $notice) =
  $node->psql('postgres', "SET ROLE app; SELECT sendcampaign.retry_failed($job)");
is($retried, 0, 'there are no more');
like(
	$notice,
	qr/NOTICE:  background job $job has no failed messages that can be retried/,
	'a notice says so');
is(run_row($node, $job)->{state}, 'completed', 'the run stays as it is');

# In doubt, and settled as not sent.
wait_for_no_worker($node);
set_and_reload($node, 'sendcampaign.request_timeout', '1s');
$twilio->set(
	reset => 1,
	'fault:drop-after' => '#1',
	'fault:drop-before' => '#1',
	'fault:list-403' => 100);
$campaign = create_campaign($node, users => 2, base_url => undef, message => 'Duplicates');
change_conf($node, 'sendcampaign.max_attempts = 10');
$job = start_campaign($node, $campaign);
$run = wait_for_run($node, $job);
is($run->{in_doubt}, 2, 'two are in doubt');
my ($first, $second) = split /\n/, sql($node, <<~SQL);
    SELECT list_user_id FROM sendcampaign.message WHERE job_id = $job ORDER BY 1
SQL
is(retry($job), 0, 'what is in doubt is not sent again');
sql($node, <<~SQL, role => 'app');
    SELECT sendcampaign.settle($job, $first, true), sendcampaign.settle($job, $second, false)
SQL
is(retry($job), 1, 'what a person knows not to have been sent is sent again');
$run = wait_for_run($node, $job);
is("$run->{state} $run->{sent} $run->{failed}", 'completed 2 0', 'both are sent');
is(scalar(() = $twilio->ledger), 2, 'once');

# Many: more than a batch.
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

# A run that has failed goes on by send_campaign().
$campaign = create_campaign($node, users => 3);
sql($node, <<~'SQL');
    UPDATE groups SET configuration = configuration || '{"twilioAuthToken": "wrong"}'
SQL
$job = start_campaign($node, $campaign);
is(wait_for_run($node, $job)->{state}, 'failed', 'the run fails');
$error = retry_error('app', $job);
is( "$error->{sqlstate} $error->{message}",
	qq{55000 the run of background job $job is in state "failed"},
	'messages of a failed run are not sent again');
like($error->{hint}, qr/^Call send_campaign\(\)/, 'the hint says what to do');

$node->stop;
done_testing();
