# A group gets other senders after it has sent: what comes to the ones before is
# still for it, and a STOP to them still counts, as nobody else would hear it.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../perl";
use Campaign;
use LocalTwilio;
use Sweeps;
use Test::More;

my $service = 'MG00000000000000000000000000000001';
my ($first, $second, $third) = map { "+1555000000$_" } 6 .. 8;
my $twilio = LocalTwilio->start;
my $node = new_cluster('past', $twilio);
$twilio->set('sent-after' => 0, 'deliver-after' => 0);

sub phone
{
	return sprintf '+1555%07d', shift;
}

sub use_sender
{
	my ($campaign, $key, $sender) = @_;
	configure($node, $campaign, <<~"SQL");
		configuration - 'twilioFromSmsNumber' - 'twilioMessagingServiceSid'
			|| jsonb_build_object('$key', '$sender')
		SQL
}

sub is_out
{
	my $phone = phone(shift);
	return sql($node, "SELECT count(*) FROM sendcampaign.opt_out WHERE phone = '$phone'");
}

sub senders_of
{
	my $job = shift;
	return sql($node, "SELECT senders FROM sendcampaign.run_data WHERE job_id = $job");
}

my $campaign = create_campaign($node, users => 20);
use_sender($campaign, twilioFromSmsNumber => $first);
my $job = run_campaign($node, $campaign)->{job};
wait_for_no_worker($node);
is(senders_of($job), "{$first}", 'the run knows its sender');

use_sender($campaign, twilioFromSmsNumber => $second);
$twilio->inbound(from => phone(1), to => $first, body => 'STOP');
$twilio->inbound(from => phone(2), to => $second, body => 'STOP');
$twilio->inbound(from => phone(3), to => $third, body => 'STOP');
sweep_now($node, $job);
is(is_out(1), 1, 'a STOP to the sender from which the message came');
is(is_out(2), 1, 'one to the present sender');
is(is_out(3), 0, 'one to a number of somebody else');

# Messages of a Messaging Service cannot be asked for.
use_sender($campaign, twilioMessagingServiceSid => $service);
my $service_job = run_campaign($node, $campaign)->{job};
wait_for_no_worker($node);
is(senders_of($service_job), "{$service}", 'a run with a Messaging Service');
use_sender($campaign, twilioFromSmsNumber => $second);
$twilio->inbound(from => phone(4), to => $third, service => $service, body => 'STOP');
sweep_now($node, $service_job);
is(is_out(4), 1, 'a STOP to a number of a Messaging Service that the group had');

# The sender changes while the run is paused.
my $slow = create_campaign($node, users => 300, message => 'Slow');
use_sender($slow, twilioFromSmsNumber => $first);
configure($node, $slow, q(configuration || '{"twilioSegmentsPerSecond": 5}'));
my $slow_job = start_campaign($node, $slow);
wait_until($node, "SELECT sent > 5 FROM sendcampaign.run WHERE job_id = $slow_job");
sql($node, "SELECT sendcampaign.pause($slow_job)");
use_sender($slow, twilioFromSmsNumber => $second);
configure($node, $slow, q(configuration - 'twilioSegmentsPerSecond'));
sql($node, "SELECT sendcampaign.resume($slow_job)");
is(wait_for_run($node, $slow_job)->{sent}, 300, 'the sender changes while the run is paused');
is(senders_of($slow_job), "{$first,$second}", 'the run knows both');

$node->stop;
done_testing();
