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
my $twilio = LocalTwilio->start(options => [ '--latency', 20 ]);
my $node = new_cluster('long_list', $twilio, conf => <<~'CONF');
	sendcampaign.receipts = off
	sendcampaign.request_timeout = '2s'
	sendcampaign.max_concurrency = 20
	CONF

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
is(run_row($node, $long_job)->{total}, $users, 'the long run has all its recipients');
wait_for_run($node, $short_job);
is($twilio->stats->{lists}, 0, 'no answer came too late');
sql($node, "SELECT sendcampaign.cancel($long_job)");
wait_for_run($node, $long_job);
sent_once($node, $twilio, $short, $short_job, 'the short run', total => 3000);
is(worker_errors($node), '', 'there are no errors in the log');
$node->stop;
done_testing();
