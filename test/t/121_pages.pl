# Pages of Twilio's list: whatever their order, and however the next one is
# named, but never from another host.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../perl";
use Campaign;
use HTTP::Tiny;
use IO::Socket::INET;
use LocalTwilio;
use Test::More;

my $twilio = LocalTwilio->start;
my $node = new_cluster('pages', $twilio, conf => <<~CONF);
	sendcampaign.request_timeout = '1s'
	sendcampaign.lookup_delay = '200ms'
	sendcampaign.lookup_timeout = '300s'
	CONF
my $to = '+15550000001';
my $account = $LocalTwilio::ACCOUNT;
my $url = $twilio->url =~ s{//}{//$account:$LocalTwilio::TOKEN@}r;
my $http = HTTP::Tiny->new(keep_alive => 0);

# Sends a message as somebody else would.
sub send_message
{
	my ($to, $body) = @_;
	my $answer = $http->post_form(
		"$url/2010-04-01/Accounts/$account/Messages.json",
		{ To => $to, From => $LocalTwilio::SENDER, Body => $body });
	die "$answer->{status}: $answer->{content}" if $answer->{status} != 201;
}

# Twilio takes the message to a number that has had many others since; the
# lookup has to read several pages.
sub lost_among_many
{
	my ($set, $what, $status) = @_;
	my $campaign = create_campaign($node, users => 1);
	$twilio->set('reset' => 1, 'fault:drop-after' => '#1', 'list-lag' => 3600000, @$set);
	my $job = start_campaign($node, $campaign);
	poll(sub { $twilio->stats->{accepted} == 1 }) or die 'not accepted';
	send_message($to, "other $_") for 1 .. 1005;
	$twilio->set('list-lag' => 0);    # before that, there is nothing to be found
	my $run = wait_for_run($node, $job, alone => 1);
	is(sql($node, "SELECT status FROM sendcampaign.message WHERE job_id = $job"),
		$status, "$what: $status");
	is(sent_with($twilio, 'Hello'), 1, "$what: sent once");
	$twilio->set(
		'next-page' => 'path',
		'list-order' => 'created',
		'list-nulls' => 'last',
		'sent-after' => 0);
	return $run;
}

lost_among_many([], 'a path', 'sent');
lost_among_many([ 'next-page' => 'absolute' ], 'an absolute address', 'sent');
lost_among_many([ 'list-order' => 'none' ], 'no order', 'sent');
lost_among_many([ 'list-order' => 'sent' ], 'by date sent', 'sent');
lost_among_many([ 'list-order' => 'sent', 'sent-after' => -1, 'list-nulls' => 'last' ],
	'none is sent yet', 'sent');

# Another host gets nothing.
my $elsewhere = IO::Socket::INET->new(Listen => 5, LocalAddr => '127.0.0.1', Proto => 'tcp')
  or die $!;
my $address = '127.0.0.1:' . $elsewhere->sockport;
my @origins = (
	# another one altogether
	"http://$address",
	"//$address",
	# one that begins like Twilio's
	$twilio->url . "\@$address",
	$twilio->url . '.example.org');
for my $origin (@origins)
{
	my $run = lost_among_many([ 'next-page' => $origin ], "next page at $origin", 'in_doubt');
	like($run->{error}, qr/its lookup returned too many pages/, '... and the run says so');
}
$elsewhere->blocking(0);
ok(!$elsewhere->accept, 'nobody has called there');

$node->stop;
done_testing();
