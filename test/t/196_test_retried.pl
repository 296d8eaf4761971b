# retry_failed() of a test message: beside the campaign's own run, and without
# touching a background job that happens to have the test's number.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../perl";
use Campaign;
use LocalTwilio;
use Test::More;

my $author = '+15559990000';
my $twilio = LocalTwilio->start;
my $node = new_cluster('test_retried', $twilio, conf => "sendcampaign.max_attempts = 1\n");
my $campaign = create_campaign($node, users => 30);

$twilio->set('to-fault' => "$author=code:20503");
my $test = sql($node, "SELECT sendcampaign.send_test($campaign, '$author')", role => 'app');
is(wait_for_run($node, $test)->{failed}, 1, 'the test message fails in a way that may pass');
wait_for_no_worker($node);
$twilio->set('to-fault' => "$author=none");
sql($node, "INSERT INTO ac_background_jobs (id, progress) VALUES ($test, 5)", role => 'app');

$twilio->set(hold => 1);
my $job = start_campaign($node, $campaign);
wait_for_flight($twilio, 5);
is(sql($node, "SELECT sendcampaign.retry_failed($test)", role => 'app'),
	1, 'it can be retried while the campaign itself is being sent');
$twilio->set(hold => 0);
is(wait_for_run($node, $test)->{sent}, 1, 'the test message is sent');
is($twilio->num_to($author), 1, 'once');
is(sql($node, "SELECT progress, error IS NULL FROM ac_background_jobs WHERE id = $test"),
	'5|t', 'a background job with its number stays as it is');
is(wait_for_run($node, $job)->{sent}, 30, 'the campaign beside it is sent to all');

$node->stop;
done_testing();
