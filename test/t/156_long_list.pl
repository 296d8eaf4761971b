# A run of many recipients that begins holds no other one up: requests that
# are claimed go on, answers are taken, and a pause counts meanwhile.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../perl";
use Campaign;
use LocalTwilio;
use PostgreSQL::Test::Utils;
use Test::More;

my $users = $ENV{LIST_USERS} || 150_000;
my $twilio = LocalTwilio->start(options => [ '--latency', 100 ]);
my $node = new_cluster('long_list', $twilio, conf => <<~'CONF');
	sendcampaign.receipts = off
	sendcampaign.max_concurrency = 20
	CONF

# what is too late on an idle machine, and longer on a busy one
my $timeout = int 1000 * seconds_here($node, 2);
set_and_reload($node, 'sendcampaign.request_timeout', "${timeout}ms");

# The short run has messages under way when the long one begins.
my $short = create_campaign($node, users => 3000, message => 'short');
my $long = create_campaign($node, users => $users, message => 'long');
my $short_job = start_campaign($node, $short);
wait_until($node, "SELECT sent > 200 FROM sendcampaign.run WHERE job_id = $short_job");
my $long_job = start_campaign($node, $long);
my $before = sent_with($twilio, 'short');
wait_until($node, "SELECT total IS NOT NULL FROM sendcampaign.run WHERE job_id = $long_job");
# more than were on their way: how many more is a matter of the machine
cmp_ok(sent_with($twilio, 'short') - $before,
	'>', 20, 'messages of the short run leave while the long one begins');
$twilio->set(latency => 20);
is(run_row($node, $long_job)->{total}, $users, 'the long run has all its recipients');
wait_for_run($node, $short_job);
is($twilio->stats->{lists}, 0, 'no answer came too late');
sql($node, "SELECT sendcampaign.cancel($long_job)");
wait_for_run($node, $long_job);
sent_once($node, $twilio, $short, $short_job, 'the short run', total => 3000);
is(worker_errors($node), '', 'there are no errors in the log');
$node->stop;
done_testing();
