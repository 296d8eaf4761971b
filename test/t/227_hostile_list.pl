# What a list of messages may say that is no sense: dates, prices, codes, texts and
# numbers; pages that lead elsewhere.  What does make sense is stored,
# nothing else is lost, and what was stored can be read.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../perl";
use Campaign;
use HostileServer;
use LocalTwilio;
use Sweeps;
use Test::More;

# The oddities of outbound rows, in turn: what is in them besides the status.
my @odd = (
	{ date_updated => 'Sun, 06 Nov 2147483647 08:49:37 +0000' },
	{ date_updated => 'Sun, 06 Nov 400000 08:49:37 +0000' },
	{ date_updated => 'Mon, 01 Jan 0000 00:00:00 +0000' },
	{ date_updated => 'Fri, 31 Dec 9999 23:59:59 +0000' },
	{ date_updated => [], price => {}, error_code => JSON::PP::true() },
	{ price => '-NaN', price_unit => 'USD' },
	{ price => '1e999999', price_unit => "U\0D" },
	{ price => '-0.' . '0' x 17 . '1', price_unit => 'usd' },
	{ price => '9' x 100, num_segments => '99999999999999999999' },
	{ num_segments => '-5', error_code => -30003 },
	{ num_segments => 'one', error_code => '30003; DROP TABLE x' },
	{ error_code => 99999999999999999999 },
	{ error_message => 'x' x 100000, uri => undef, account_sid => [ [ [ {} ] ] ] },
	{ status => "delivered'--", },
	{ sid => undef });

sub odd_list
{
	my ($list, $request) = @_;
	my @rows = @{ $list->{messages} };
	for my $n (0 .. $#rows)
	{
		my $odd = $odd[ $n % @odd ];
		@{ $rows[$n] }{ 'status', keys %$odd } = ('delivered', values %$odd);
	}
	push @rows, inbound_rows();
	push @rows, @rows[ 0 .. 9 ];
	$list->{messages} = \@rows;
}

# Replies: SIDs with a fixed number, so that each list has the same.
sub inbound_rows
{
	my $now = POSIX::strftime('%a, %d %b %Y %H:%M:%S +0000', gmtime);
	my @replies = (
		[ '+15550000001', 'STOP', 'Fri, 31 Dec 9999 23:59:59 +0000' ],
		[ '+15550000002', 'STOP', 'Sun, 06 Nov 2147483647 08:49:37 +0000' ],
		[ '+15550000003', '%s%n$1' . "\0\x{1}\x{FFFF}" . "\x{1F600}" x 50000, $now ],
		[ '+15550000004', "<script>'; DROP TABLE groups; --", $now ],
		[ 'whatsapp:+15550000005', undef, $now ],
		[ 'not a phone', 'STOP', $now ],
		[ '+' . '1' x 5000, 'STOP', $now ],
		[ '', 'STOP', $now ]);
	my $n = 0;
	return map { {
		sid => sprintf('SM%032d', ++$n),
		from => $_->[0],
		to => $LocalTwilio::SENDER,
		body => $_->[1],
		status => 'received',
		direction => 'inbound',
		num_segments => '1',
		messaging_service_sid => undef,
		date_created => $_->[2],
		date_sent => $_->[2],
		date_updated => $_->[2]
	} } @replies;
}

my $odd = HostileServer->start(
	answer => sub { $_[0]->ok },
	change_list => \&odd_list);
my $twilio = LocalTwilio->start;
my $node = new_cluster('odd', $twilio);
set_and_reload($node, 'sendcampaign.api_url', $odd->url);
my $job = run_campaign($node, create_campaign($node, users => 60))->{job};
wait_for_no_worker($node);
ok(sweep_now($node, $job), 'a list that makes no sense: the sweep ends');
is(receipts_of($node, $job), 'delivered 52, none 8', 'what makes sense is stored');
is(sql($node, <<~"SQL"), '52|t', 'times are those of the report, if it has none');
	SELECT count(delivery_at),
		bool_and(delivery_at BETWEEN now() - interval '10 minutes' AND now())
	FROM sendcampaign.message WHERE job_id = $job
	SQL
is(sql($node, <<~"SQL"), '0.000000000000000001 USD', 'prices are, if they are prices');
	SELECT DISTINCT price || ' ' || price_unit FROM sendcampaign.message WHERE price > 0
	SQL
is(sql($node, <<~"SQL"), '0', 'no segments are less than none');
	SELECT count(*) FROM sendcampaign.message WHERE segments < 1 OR segments > 1000
	SQL
is(sql($node, <<~"SQL"), '0001 stop, 0002 stop, 0003, 0004, 0005', 'so are replies');
	SELECT string_agg(concat_ws(' ', right(phone, 4), word), ', ' ORDER BY phone)
	FROM sendcampaign.reply
	SQL
is(sql($node, <<~"SQL"), 't|4096', 'their times and texts are bounded');
	SELECT bool_and(received_at <= now()), max(length(body)) FROM sendcampaign.reply
	SQL
is(sql($node, "SELECT count(*) FROM sendcampaign.conversation WHERE phone LIKE '+1555%'"),
	65, 'all can be read');
is(sql($node, "SELECT count(*) FROM sendcampaign.opt_out_data WHERE created_at > now()"),
	0, 'no opt-out is of the future');
$odd->stop;

# Pages that lead to another server, or nowhere.
my @pages = (
	'http://127.0.0.1:1/2010-04-01/Accounts/x/Messages.json?Page=1',
	'//127.0.0.1:1/Messages.json',
	'http://127.0.0.1@127.0.0.1:1/Messages.json',
	'ftp://127.0.0.1/',
	"/\r\nHost: elsewhere",
	'?' . 'x' x 100000,
	[],
	{ next_page_uri => '/' });
for my $page (@pages)
{
	my $name = ref $page || substr $page, 0, 40;
	my $server = HostileServer->start(
		answer => sub { $_[0]->ok },
		change_list => sub { $_[0]->{next_page_uri} = $page });
	set_and_reload($node, 'sendcampaign.api_url', $server->url);
	my $lead = run_campaign($node, create_campaign($node, users => 30))->{job};
	ok(sweep_now($node, $lead), "next_page_uri $name: the sweep ends");
	is(receipts_of($node, $lead), 'sent 30', "next_page_uri $name: the page is stored");
	wait_for_no_worker($node);
	$server->stop;
}
# In a database with another encoding, a list that escapes what is not ASCII: messages
# without a link, of which one is in doubt, and a reply with characters that this lacks.
my $lossy = HostileServer->start(
	answer => sub {
		my ($client, $request) = @_;
		return $client->ok if $request->{to} ne '+15550000007' || $request->{attempt} > 1;
		$client->take;
		$client->reset;
	},
	change_list => sub {
		my ($list, $request) = @_;
		utf8::decode($_->{body}) for @{ $list->{messages} };
		push @{ $list->{messages} }, inbound_rows() if !$request->{to};
	});
sql($node, q(CREATE DATABASE latin1 TEMPLATE template0 ENCODING 'LATIN1' LOCALE 'C'));
install_extension($node, 'latin1');
set_and_reload($node, 'sendcampaign.api_url', $lossy->url);
$ENV{PGCLIENTENCODING} = 'UTF8';
my $greeting = create_campaign(
	$node,
	db => 'latin1',
	users => 30,
	message => "Gr\xc3\xbc\xc3\x9fe",
	base_url => undef);
my $greetings = run_campaign($node, $greeting, db => 'latin1')->{job};
is(sql($node, "SELECT sent FROM sendcampaign.run WHERE job_id = $greetings", db => 'latin1'),
	30, 'all are sent');
is(scalar(grep { $_->{to} =~ /^\+15550000/ } $lossy->taken), 30, 'each of them once');
wait_for_no_worker($node);
ok(sweep_now($node, $greetings, db => 'latin1'), 'they are swept');
is(receipts_of($node, $greetings, db => 'latin1'), 'sent 30', 'what became of them is known');
is(sql($node, 'SELECT count(*) FROM sendcampaign.reply', db => 'latin1'), 5, 'replies are there');
$lossy->stop;
is(worker_errors($node), '', 'workers have no errors');
$node->stop;
done_testing();
