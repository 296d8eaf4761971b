# The job is the idempotency key: the same call again sends nothing again.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../perl";
use Campaign;
use LocalTwilio;
use Session;
use Test::More;

my $twilio = LocalTwilio->start;
my $node = new_cluster('idempotent', $twilio);

# What a call prints, and its notice.
sub call
{
	my ($campaign, $job) = @_;
	return sql_output($node, "SELECT send_campaign($campaign, $job)", role => 'app');
}

# called again once it is complete
my $campaign = create_campaign($node, users => 3, message => 'twice');
my $job = create_job($node);
is((call($campaign, $job))[0], $job, 'the first call returns the job');
wait_for_run($node, $job);
my ($out, $err) = call($campaign, $job);
is($out, $job, 'so does the second');
like(
	$err,
	qr/NOTICE:  campaign $campaign is already in state "completed" for background job $job\n/,
	'with a notice');
like($err, qr/DETAIL:  Nothing is sent a second time\./, 'that nothing is sent');
wait_for_no_worker($node);
is(sent_with($twilio, 'twice'), 3, 'it is sent once');

# called twice in one transaction
$campaign = create_campaign($node, users => 3, message => 'in one');
$job = create_job($node);
sql($node, <<~"SQL", role => 'app');
	BEGIN;
	SELECT send_campaign($campaign, $job);
	SELECT send_campaign($campaign, $job);
	COMMIT;
	SQL
wait_for_run($node, $job);
wait_for_no_worker($node);
is(sent_with($twilio, 'in one'), 3, 'two calls in one transaction send it once');

# another job sends it again
run_campaign($node, $campaign, job => create_job($node));
is(sent_with($twilio, 'in one'), 6, 'another job sends it again');

# Two connections: the second call waits for the first one's transaction.
my $first = Session->open($node);
my $second = Session->open($node);
$_->query('SET ROLE app') for $first, $second;

# What the second call returns, once the first one's transaction ends so.
sub call_at_once
{
	my ($end_of_first, $campaign, @jobs) = @_;
	$first->query("BEGIN; SELECT send_campaign($campaign, $jobs[0])");
	$second->start_query("SELECT send_campaign($campaign, $jobs[1])");
	waits_for_lock($node, 'SELECT send_campaign%') or diag('the second call does not wait');
	$first->query($end_of_first);
	return $second->finish_query;
}

$campaign = create_campaign($node, users => 3, message => 'committed');
$job = create_job($node);
is(call_at_once('COMMIT', $campaign, $job, $job),
	$job, 'the first call is committed: the second returns the job');
like(
	$second->errors,
	qr/NOTICE:  campaign $campaign is already in state "\w+" for background job $job\n/,
	'with a notice');
wait_for_run($node, $job);
wait_for_no_worker($node);
is(sent_with($twilio, 'committed'), 3, 'it is sent once');

$campaign = create_campaign($node, users => 3, message => 'rolled back');
$job = create_job($node);
is(call_at_once('ROLLBACK', $campaign, $job, $job),
	$job, 'the first call is rolled back: the second returns the job');
is(wait_for_run($node, $job)->{sent}, 3, 'and sends');
wait_for_no_worker($node);
is(sent_with($twilio, 'rolled back'), 3, 'once');

$campaign = create_campaign($node, users => 3, message => 'other job');
$job = create_job($node);
$twilio->set(hold => 1);
is(call_at_once('COMMIT', $campaign, $job, create_job($node)),
	'', 'another job at the same time: the call returns nothing');
like($second->errors, qr/ERROR:  campaign $campaign is already being sent\n/, 'but an error');
$twilio->set(hold => 0);
wait_for_run($node, $job);
wait_for_no_worker($node);
is(sent_with($twilio, 'other job'), 3, 'it is sent once');

# a run that has failed is called again, while another job's call is not committed
$campaign = create_campaign($node, users => 3, message => 'has failed');
$job = create_job($node);
configure($node, $campaign, "configuration - 'twilioAuthToken'");
is(run_campaign($node, $campaign, job => $job, alone => 1)->{state}, 'failed', 'a run fails');
configure($node, $campaign, qq(configuration || '{"twilioAuthToken": "$LocalTwilio::TOKEN"}'));
my $other = create_job($node);
$second->take_errors;
$twilio->set(hold => 1);
is(call_at_once('COMMIT', $campaign, $other, $job),
	'', 'it is called while another job is: the call returns nothing');
like(
	$second->errors,
	qr/^ERROR:  campaign $campaign is already being sent$/m,
	'but the same error');
$twilio->set(hold => 0);
wait_for_run($node, $other);
wait_for_no_worker($node);
is(sent_with($twilio, 'has failed'), 3, 'it is sent once');

# a transaction that cannot see the first one's run must not send either
$campaign = create_campaign($node, users => 3, message => 'repeatable');
$job = create_job($node);
$second->query('BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT FROM ac_campaigns');
run_campaign($node, $campaign, job => $job);
$second->query("SELECT send_campaign($campaign, $job); COMMIT");
like(
	$second->errors,
	qr/ERROR:  could not serialize access/,
	'repeatable read: the call is a serialization failure');
wait_for_no_worker($node);
is(sent_with($twilio, 'repeatable'), 3, 'it is sent once');

$_->close for $first, $second;
$node->stop;
done_testing();
