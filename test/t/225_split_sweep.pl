# A long list is asked for by sender, several parts at once; a group with a Messaging
# Service reads one list; and what a sender has sent that the group no longer has is
# not lost.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../perl";
use Campaign;
use LocalTwilio;
use Sweeps;
use Test::More;

my $twilio = LocalTwilio->start;
my $node = new_cluster('split', $twilio);
$twilio->set('sent-after' => 0, 'deliver-after' => -1);
my @senders = map { "+1212555000$_" } 6 .. 8;

sub set_senders
{
	my ($campaign, @names) = @_;
	my $json = '[' . join(',', map { qq("$_") } @names) . ']';
	return configure($node, $campaign, <<~"SQL");
		configuration || '{"twilioFromSmsNumber": $json}'
		SQL
}

# Sweeps a job's run; returns how many lists were read, and how many of these
# were one sender's.
sub lists_of_sweep
{
	my ($job, %arg) = @_;
	sql($node, "UPDATE sendcampaign.run_data SET sweep_at = NULL WHERE job_id <> $job");
	my %before = %{ $twilio->stats };
	sweep_now($node, $job, %arg);
	my %after = %{ $twilio->stats };
	return map { $after{$_} - $before{$_} } qw(lists lists_from);
}

# Three senders
my $campaign = create_campaign($node, users => 6000);
set_senders($campaign, @senders);
my $job = run_campaign($node, $campaign)->{job};
wait_for_no_worker($node);
my %pages;
$pages{ $_->{from} }++ for $twilio->ledger;
my $pages = 0;
$pages += int(($_ + 999) / 1000) for values %pages;
$twilio->set(latency => 300);
$twilio->inbound(from => '+15550000001', to => $senders[1], body => 'STOP');
my ($lists, $by_sender) = lists_of_sweep($job);
is($by_sender, $pages, 'three senders: the list is asked for by sender');
is($lists, $pages + 3, 'and what was replied by number');
cmp_ok($twilio->stats->{max_lists_in_flight}, '>', 1, 'several requests are in flight');
is(receipts_of($node, $job), 'sent 6000', 'all receipts are there');
is(sql($node, 'SELECT body FROM sendcampaign.reply'), 'STOP', 'and the reply');

# A sender that the group no longer has, which the run knows, or does not
set_senders($campaign, @senders[ 0, 1 ]);
($lists, $by_sender) = lists_of_sweep($job);
is($by_sender, $pages, 'a sender is gone: it is asked for, as the run knows it');
$twilio->set('deliver-after' => 0);
sql($node, 'UPDATE sendcampaign.run_data SET senders = NULL');
($lists, $by_sender) = lists_of_sweep($job);
cmp_ok($by_sender, '>', 0, 'a sender is gone: the list is asked for by sender');
cmp_ok($lists - $by_sender, '>=', 6, 'and then the whole list, as many are not found');
is(receipts_of($node, $job), 'delivered 6000', 'nothing is lost');

# A run's last sweep
my $few = create_campaign($node, users => 6000);
set_senders($few, @senders);
$twilio->set(reset => 1, latency => 0, 'deliver-after' => -1);
$job = run_campaign($node, $few)->{job};
wait_for_no_worker($node);
$twilio->set('deliver-after' => 0);
set_senders($few, @senders[ 0, 1 ]);
($lists, $by_sender) = lists_of_sweep($job, after => '73 hours');
is($by_sender, 0, 'the last sweep reads the whole list');
is(receipts_of($node, $job), 'delivered 6000', 'so that nothing is lost');

# A Messaging Service
my $service = create_campaign($node, users => 6000);
configure($node, $service, <<~'SQL');
	configuration - 'twilioFromSmsNumber'
		|| '{"twilioMessagingServiceSid": "MG00000000000000000000000000000001"}'
	SQL
$twilio->set(reset => 1);
$job = run_campaign($node, $service)->{job};
wait_for_no_worker($node);
($lists, $by_sender) = lists_of_sweep($job);
is("$lists $by_sender", '6 0', 'of a Messaging Service, the whole list is read');
is(receipts_of($node, $job), 'delivered 6000', 'all receipts are there');
is(worker_errors($node), '', 'workers have no errors');
$node->stop;
done_testing();
