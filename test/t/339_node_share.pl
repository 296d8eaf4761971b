# A node's share of an account's and of a sender's limits.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../perl";
use Campaign;
use LocalTwilio;
use Test::More;
use Time::HiRes ();

my $twilio = LocalTwilio->start;
my $node = new_cluster('share', $twilio, conf => <<~'CONF');
	sendcampaign.request_timeout = '20s'
	sendcampaign.lookup_delay = '200ms'
	sendcampaign.max_concurrency = 50
	sendcampaign.node_share = 0.2
	CONF

sub in_flight { return $twilio->stats->{create_in_flight}; }

# Requests in flight: the share of them, and that of today.
my $campaign = create_campaign($node, users => 200);
$twilio->set(hold => 1);
my $job = start_campaign($node, $campaign);
wait_for_flight($twilio, 10);
set_and_reload($node, 'sendcampaign.node_share', 0.5);
# the window grows with the answers, and then lasts for many seconds
$twilio->set(hold => 0, latency => 2000);
ok(poll(sub { in_flight() == 25 }), 'a larger share: more requests are in flight')
  or diag('in flight: ' . in_flight());
set_and_reload($node, 'sendcampaign.node_share', 0.01);
ok(poll(sub { in_flight() <= 1 }), 'the smallest share: one request at a time');
$twilio->set(latency => 0);
sent_once($node, $twilio, $campaign, $job, 'with shares', total => 200);
is($twilio->stats->{max_in_flight}, 25, 'there were never more than the share');

# A sender's rate, of the setting and of a group.
set_and_reload($node, 'sendcampaign.node_share', 0.2);
set_and_reload($node, 'sendcampaign.segments_per_second', 50);
$campaign = create_campaign($node, users => 40);
my $estimate = "SELECT extract(epoch FROM duration)::numeric(9, 1) FROM sendcampaign.estimate";
is(sql($node, "$estimate($campaign)", role => 'app'), '4.0', 'an estimate knows the share');
$twilio->set(latency => 20);
my $before = () = $twilio->ledger;
my $begin = Time::HiRes::time();
$job = start_campaign($node, $campaign);
sent_once($node, $twilio, $campaign, $job, 'at a rate', total => 40);
my @times = sort { $a <=> $b } map { $_->{time} } ($twilio->ledger)[ $before .. $before + 39 ];
# since the call: the first one may have been accepted late
cmp_ok(39 / ($times[-1] / 1e6 - $begin), '<=', 11, 'the sender has its share of the rate');
sql($node, <<~SQL);
	UPDATE groups SET configuration = configuration || '{"twilioSegmentsPerSecond": 0.02}'
	SQL
is(sql($node, "$estimate($campaign)", role => 'app'), '4000.0', 'no rate is below the lowest one');

# Whose limits they are, an administrator decides.
like(
	sql_error(
		$node,
		'SELECT sendcampaign.version(); SET sendcampaign.node_share = 0.5',
		role => 'app')->{message},
	qr/^permission denied to set parameter "sendcampaign.node_share"/,
	'a role cannot set it');
for my $share (0, 1.01)
{
	like(
		sql_error($node, "SELECT sendcampaign.version(); SET sendcampaign.node_share = $share")
		  ->{message},
		qr/is outside the valid range/,
		"$share is refused");
}
$node->stop;
done_testing();
