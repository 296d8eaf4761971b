# Messages with signed links in doubt: they are found in Twilio's list, whether
# the worker has lost them, the group signs no more, or does since.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../perl";
use Campaign;
use LocalTwilio;
use Test::More;

my $users = 40;
my $twilio = LocalTwilio->start;
my $node = new_cluster('signed_doubt', $twilio, conf => <<~'CONF');
	sendcampaign.receipts = off
	sendcampaign.request_timeout = '1s'
	sendcampaign.lookup_delay = '100ms'
	restart_after_crash = on
	CONF
my $on = q{configuration || '{"signLinks": true}'};
my $off = q{configuration - 'signLinks'};

sub new_campaign
{
	my ($message, $configuration) = @_;
	my $campaign = create_campaign($node, users => $users, message => $message);
	configure($node, $campaign, $configuration);
	return $campaign;
}

# Answers get lost: all are looked up, and some sent again.
for my $message ('Hello', 'Hello {{name|you}}, {{link}}')
{
	my $campaign = new_campaign($message, $on);
	$twilio->set('reset' => 1, 'fault:drop-after' => 30, 'fault:drop-before' => 20);
	my $job = start_campaign($node, $campaign);
	sent_once($node, $twilio, $campaign, $job, "$message: answers are lost", total => $users);
	$twilio->set('fault:drop-after' => 0, 'fault:drop-before' => 0);
}

# The worker is lost with all of its messages under way; meanwhile, the group
# may begin or end to sign.
my %change = (
	'the same' => [ $on, $on ],
	'signs no more' => [ $on, $off ],
	'begins to sign' => [ $off, $on ]);
for my $name (sort keys %change)
{
	for my $message ('Hello', 'Hello {{name|you}}, {{link}}')
	{
		my $campaign = new_campaign($message, $change{$name}[0]);
		$twilio->set('reset' => 1, 'hold-after' => 1, 'hold' => 1);
		my $job = start_campaign($node, $campaign);
		wait_for_flight($twilio, 5);
		kill_worker($node);
		wait_until_up($node);
		configure($node, $campaign, $change{$name}[1]);
		$twilio->set('hold-after' => 0, 'hold' => 0);
		wake($node);
		sent_once(
			$node, $twilio, $campaign, $job,
			"$name, $message: the worker is lost",
			total => $users);
	}
}

# A link that was looked up, and one that was sent again, count.
my $campaign = new_campaign('Hello', $on);
$twilio->set('reset' => 1, 'hold-after' => 1, 'hold' => 1);
my $job = start_campaign($node, $campaign);
wait_for_flight($twilio, 5);
kill_worker($node);
wait_until_up($node);
$twilio->set('hold-after' => 0, 'hold' => 0);
wake($node);
sent_once($node, $twilio, $campaign, $job, 'once more', total => $users);
my $links = join ', ',
  map { $_->{body} =~ /yu=(\d+)&ys=([\w-]+)&yc=(\d+)/ ? "($1, $3, '$2')" : () } $twilio->ledger;
is( sql($node,
		"SELECT count(*) FROM (VALUES $links) v(yu, yc, ys) WHERE sendcampaign.track(yu, yc, 'open', ys)",
		role => 'app'),
	$users,
	'the links of all count');
$node->stop;
done_testing();
