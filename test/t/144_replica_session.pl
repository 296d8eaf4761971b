# A call in a session with session_replication_role = replica, as a trigger of a
# subscription makes it, leaves rows that are the extension's own; what is replicated
# into its tables there is not.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../perl";
use Campaign;
use LocalTwilio;
use Test::More;

my $twilio = LocalTwilio->start;
my $node = new_cluster('replica_session', $twilio, conf => "sendcampaign.enabled = off\n");

# What a superuser's session prints in which ordinary triggers do not fire
sub in_replica
{
	my $sql = shift;
	return sql($node, "SET session_replication_role = replica; $sql");
}

my $campaign = create_campaign($node, users => 20);
my $job = in_replica("SELECT send_campaign($campaign)");
my $is_own = "SELECT xmin = written_in FROM sendcampaign.run_data WHERE job_id = $job";
is(sql($node, $is_own), 't', 'send_campaign(): the run is the extension\'s own');
for my $call ('pause', 'resume')
{
	in_replica("SELECT sendcampaign.$call($job)");
	is(sql($node, $is_own), 't', "$call(): it still is");
}
is(in_replica('SELECT sendcampaign.wake(); SHOW session_replication_role'),
	"0\nreplica", 'the session goes on as it was');
set_and_reload($node, 'sendcampaign.enabled', 'on');
wake($node);
sent_once($node, $twilio, $campaign, $job, 'it is sent', total => 20);

# The worker of a subscription writes rows as this does
in_replica("UPDATE sendcampaign.run_data SET written_in = '1' WHERE job_id = $job");
is(sql($node, $is_own), 'f', 'a row that is replicated is not');
my $of_run = "run_id = (SELECT id FROM sendcampaign.run WHERE job_id = $job)";
in_replica("UPDATE sendcampaign.message_data SET written_in = '1' WHERE $of_run");
is( sql($node,
		"SELECT count(*) FROM sendcampaign.message_data WHERE $of_run AND xmin = written_in"),
	0,
	'nor are messages');
$node->stop;
done_testing();
