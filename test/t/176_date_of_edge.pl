# The clock of what answers is not that of what keeps the messages: the dates
# in the list are behind the header Date.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../perl";
use Campaign;
use HostileServer;
use LocalTwilio;
use Test::More;

my $twilio = LocalTwilio->start;
my $node = new_cluster('date_of_edge', $twilio, conf => <<~'CONF');
	sendcampaign.request_timeout = '2s'
	sendcampaign.lookup_delay = '2s'
	sendcampaign.lookup_timeout = '20s'
	CONF

# Answers half of the requests, and takes all.
sub answer_every_second
{
	my ($client, $request) = @_;
	$client->take;
	return $client->ok if $request->{to} =~ /[02468]$/;
	$client->finish;
}

# By how many seconds the list is behind, and the base URL
my @cases = (
	[ '5 s behind', 5, 'https://example.org/' ],
	[ '60 s behind', 60, 'https://example.org/' ],
	[ '60 s behind, no link', 60, undef ]);
for my $case (@cases)
{
	my ($name, $behind, $base_url) = @$case;
	my $server = HostileServer->start(
		answer => \&answer_every_second,
		list_behind => $behind,
		date => 'now');
	my $url = $server->url;
	sql($node, "ALTER SYSTEM SET sendcampaign.api_url = '$url'");
	sql($node, 'SELECT pg_reload_conf()');
	my $campaign =
	  create_campaign($node, users => 40, base_url => $base_url, message => "Hello $name");
	my $job = start_campaign($node, $campaign);

	# others are sent to later, so that what is not found is believed
	my $later = create_campaign(
		$node,
		users => 1,
		phone => '+15559990002',
		base_url => $base_url,
		message => 'Later');
	my $ended = "SELECT finished_at IS NOT NULL FROM sendcampaign.run WHERE job_id = $job";
	for (1 .. 60)
	{
		last if poll(sub { sql($node, $ended) eq 't' }, 1);
		$node->psql('postgres', "SET ROLE app; SELECT send_campaign($later)");
	}
	my $run = run_row($node, $job);
	diag(join ', ', map { "$_: $run->{$_}" } qw(state sent failed in_doubt));
	my %taken;
	$taken{ $_->{to} }++ for grep { $_->{body} =~ /^Hello/ } $server->taken;
	is(scalar(keys %taken), 40, "$name: all have it");
	is(scalar(grep { $_ > 1 } values %taken), 0, "$name: nobody has it twice");
	wait_for_no_worker($node);
	$server->stop;
}
$node->stop;
done_testing();
