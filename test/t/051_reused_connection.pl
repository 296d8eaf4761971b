# A connection that was used before dies after Twilio took the message: libcurl
# would send the request again by itself, and must not.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../perl";
use Campaign;
use LocalTwilio;
use Test::More;

for my $tls (0, 1)
{
	my $over = $tls ? 'TLS' : 'plain HTTP';
	my $twilio = LocalTwilio->start(tls => $tls);
	my $node = new_cluster("reused$tls", $twilio, conf => <<~'CONF');
		sendcampaign.max_concurrency = 1
		sendcampaign.request_timeout = '2s'
		sendcampaign.lookup_delay = 0
		CONF
	my $campaign = create_campaign($node, users => 100);

	$twilio->set('fault:drop-after' => 10);
	my $job = start_campaign($node, $campaign);
	sent_once($node, $twilio, $campaign, $job, "over $over");
	my $stats = $twilio->stats;
	my $dropped = $stats->{faults}{'drop-after'};
	cmp_ok($dropped, '>=', 2, "over $over: connections died");
	cmp_ok($stats->{connections}, '<=', 2 * $dropped + 2, "over $over: connections were reused");
	my $requests = $stats->{create_requests} - $twilio->companions;
	is($requests, 100, "over $over: no request was repeated");

	# all connections die while an answer waits
	$twilio->set('reset' => 1, 'fault:drop-after' => 0, 'hold' => 1, 'hold-after' => 1);
	$campaign = create_campaign($node, users => 3);
	$job = start_campaign($node, $campaign);
	ok( poll(sub { $twilio->stats->{accepted} >= 1 }),
		"over $over: one message is accepted, its answer waits");
	$twilio->set('drop' => 1, 'hold' => 0);
	sent_once($node, $twilio, $campaign, $job, "over $over after all connections died");
	$node->stop;
	$twilio->stop;
}

done_testing();
