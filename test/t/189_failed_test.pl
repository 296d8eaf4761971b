# A test message whose run has failed goes on like any other run, as its error
# says: what Twilio has accepted of it does not stay unknown.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../perl";
use Campaign;
use LocalTwilio;
use Test::More;

my $author = '+15559990000';
my $twilio = LocalTwilio->start;
my $node = new_cluster('failed_test', $twilio, conf => <<~'CONF');
	sendcampaign.request_timeout = '60s'
	sendcampaign.lookup_delay = '100ms'
	sendcampaign.lookup_timeout = '30s'
	CONF
sql($node, <<~'SQL');
	CREATE ROLE stranger LOGIN;
	GRANT USAGE ON SCHEMA sendcampaign TO stranger;
	GRANT ALL ON ALL TABLES IN SCHEMA public TO stranger;
	GRANT ALL ON ALL SEQUENCES IN SCHEMA public TO stranger;
	SQL

# The error of a call of send_campaign()
sub send_error
{
	my ($campaign, $job, %arg) = @_;
	my $error = sql_error($node, "SELECT send_campaign($campaign, $job)", role => 'app', %arg);
	return $error->{message};
}

# Twilio has accepted the message, and nobody knows when the token is gone.
my $campaign = create_campaign($node, users => 30);
$twilio->set('fault:never-after' => 100);
my $job = sql($node, "SELECT sendcampaign.send_test($campaign, '$author')", role => 'app');
poll(sub { $twilio->num_to($author) == 1 });
sql($node, "SELECT pg_terminate_backend($_)") for worker_pids($node);
wait_for_no_worker($node);
set_and_reload($node, 'sendcampaign.request_timeout', '2s');
sql($node, "UPDATE groups SET configuration = configuration - 'twilioAuthToken'");
$twilio->set('fault:never-after' => 0);
sql($node, 'SELECT sendcampaign.wake()');
is(wait_for_run($node, $job, alone => 1)->{state}, 'failed', 'the test fails');
wait_for_no_worker($node);
sql($node, <<~SQL);
	UPDATE groups
	SET configuration = configuration || '{"twilioAuthToken": "$LocalTwilio::TOKEN"}'
	SQL

# Those who may not call for it again
my $other = create_campaign($node, users => 1);
like(
	send_error($other, $job),
	qr/belongs to another campaign/,
	'it is not sent for another campaign');
like(
	send_error($campaign, $job, role => 'stranger'),
	qr/job $job does not exist/,
	'it is not sent by another role');
like(
	send_error($campaign, -4242),
	qr/job -4242 does not exist/,
	'a test that does not exist is not sent');
is(run_row($node, $job)->{state}, 'failed', 'it has failed still');

# It is called again while the campaign is sent.
$twilio->set(hold => 1);
my $real = start_campaign($node, $campaign);
wait_for_flight($twilio, 5);
is(send_error($campaign, $job), '', 'it is called again');
$twilio->set(hold => 0);
my $run = wait_for_run($node, $job);
is_deeply([ @$run{qw(state sent error)} ], [ 'completed', 1, '' ], 'it goes on');
is($twilio->num_to($author), 1, 'it was sent once');
is(wait_for_run($node, $real)->{sent}, 30, 'the campaign is sent all the same');
is(sql($node, <<~SQL), 30, 'the test is not counted');
	SELECT count(*)
	FROM ac_list_users u
	JOIN ac_campaigns c USING (ac_list_id)
	WHERE c.id = $campaign AND u.data->>'sentCount' = '1'
	SQL
is(sql($node, 'SELECT count(*) FROM ac_background_jobs WHERE id < 0'), 0, 'no job is made of it');
is(sql($node, "SELECT send_campaign($campaign, $job)", role => 'app'),
	$job, 'it is called once more');
wait_for_no_worker($node);
is($twilio->num_to($author), 1, 'nothing is sent a second time');
$node->stop;
done_testing();
