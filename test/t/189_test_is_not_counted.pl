# A test message is counted nowhere, even if it was recorded at the second attempt,
# while the application's table was away, and its run goes on afterwards.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../perl";
use Campaign;
use LocalTwilio;
use Session;
use Test::More;

my $twilio = LocalTwilio->start;
my $node = new_cluster('not_counted', $twilio);
my $campaign = create_campaign($node, users => 3);
$twilio->set(hold => 1);
my $job = sql($node, "SELECT sendcampaign.send_test($campaign, '+15559990000')", role => 'app');
wait_until($node, 'SELECT count(*) = 1 FROM sendcampaign.claim');

# Somebody holds the run for longer than the worker waits.
my $holder = Session->open($node);
$holder->query("BEGIN; SELECT FROM sendcampaign.run_data WHERE job_id = $job FOR UPDATE");
sql($node, 'ALTER TABLE ac_list_users RENAME TO away', role => 'app');
$twilio->set(hold => 0);
ok(poll(sub { log_of($node) =~ /canceling statement due to lock timeout/ }),
	'it cannot be recorded at once');
$holder->query('COMMIT');
$holder->close;
wait_until($node, "SELECT sent = 1 FROM sendcampaign.run WHERE job_id = $job");
sql($node, 'ALTER TABLE away RENAME TO ac_list_users', role => 'app');
sql($node, "SELECT send_campaign($campaign, $job)", role => 'app');
is(wait_for_run($node, $job, alone => 1)->{state}, 'completed', 'its run is completed');
is(sql($node, 'SELECT bool_and(counted) FROM sendcampaign.message_data'),
	't', 'nothing is left to be counted');
is(sql($node, <<~'SQL'), 0, 'nor is it counted');
	SELECT count(*) FROM ac_list_users WHERE coalesce(data->>'sentCount', '0') <> '0'
	SQL

$node->stop;
done_testing();
