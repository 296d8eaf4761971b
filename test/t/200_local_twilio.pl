# The local Twilio itself: what becomes of messages, prices, inbound messages,
# callbacks, lists that change, and what it refuses.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../perl";
use Campaign;
use Encode qw(encode_utf8);
use HTTP::Tiny;
use JSON::PP ();
use LocalTwilio;
use Test::More;
use Time::Piece;

my ($account, $token, $sender) =
  ($LocalTwilio::ACCOUNT, $LocalTwilio::TOKEN, $LocalTwilio::SENDER);
my $service = 'MG' . '0' x 32;
my $to = '+15550000001';
my $twilio = LocalTwilio->start;
my $origin = $twilio->url =~ s{//}{//$account:$token@}r;
my $messages = "/2010-04-01/Accounts/$account/Messages";
my $http = HTTP::Tiny->new(keep_alive => 0);

# An answer's JSON, with its HTTP status as "http".
sub answer_of
{
	my $answer = shift;
	my $json = JSON::PP::decode_json($answer->{content});
	return { %$json, http => $answer->{status} };
}

# Asks to send a message; a value may be an array.
sub create
{
	my %form = (To => $to, From => $sender, Body => 'Hello', @_);
	delete $form{$_} for grep { !defined $form{$_} } keys %form;
	return answer_of($http->post_form("$origin$messages.json", \%form));
}

sub fetch
{
	my $sid = shift;
	return answer_of($http->get("$origin$messages/$sid.json"));
}

# One page: the whole answer.
sub page
{
	my %filter = @_;
	my $query = $http->www_form_urlencode(\%filter);
	return answer_of($http->get("$origin$messages.json?$query"));
}

# The messages of all pages.
sub list
{
	my %filter = @_;
	my $page = page(%filter);
	my @rows = @{ $page->{messages} };
	while (defined $page->{next_page_uri})
	{
		$page = answer_of($http->get("$origin$page->{next_page_uri}"));
		push @rows, @{ $page->{messages} };
	}
	return @rows;
}

# The values of a column, separated by blanks.
sub column
{
	my ($name, @rows) = @_;
	return join ' ', map { $_->{$name} // 'null' } @rows;
}

sub epoch
{
	my $date = shift;
	return Time::Piece->strptime($date, '%a, %d %b %Y %T %z')->epoch;
}

# Everything as it is at the start, and other settings.
sub begin
{
	$twilio->set(
		'reset' => 1,
		'sent-after' => 0,
		'deliver-after' => -1,
		'delivery' => 'none',
		'price-after' => -1,
		'redact' => 0,
		'inbound-url' => 'none',
		@_);
}

# What is shown of a message once deliver-after has passed.
sub fate
{
	my ($delivery, @settings) = @_;
	begin('deliver-after' => 0, 'to-delivery' => "$to=$delivery", @settings);
	my $sid = create()->{sid};
	my $row = fetch($sid);
	is_deeply(
		[ list(To => $to) ],
		[ { map { $_ => $row->{$_} } grep { $_ ne "http" } keys %$row } ],
		"$delivery: lists show the same");
	return join ' ', map { $_ // 'null' } @$row{qw(status error_code error_message)},
	  defined $row->{date_sent} ? 'with date' : 'without date';
}

# Statuses

begin();
my $created = create();
is(column('status', $created), 'queued', 'a message is queued');
is(column('status', create(From => undef, MessagingServiceSid => $service)),
	'accepted', 'with a Messaging Service: accepted');
is(column('status', list()), 'sent sent', 'by default they are sent, and not more');
is(column('status', fetch($created->{sid})), 'sent', '... as a single message, too');
$twilio->set('deliver-after' => 3600000);
is(column('status', fetch($created->{sid})), 'sent', 'before deliver-after: sent');
$twilio->set('deliver-after' => 0);
is(column('status', fetch($created->{sid})), 'delivered', 'after that: delivered');
$twilio->set('sent-after' => -1);
is(column('status', fetch($created->{sid})), 'queued', 'not without being sent before');
$twilio->set('sent-after' => 3600000);
is(column('status', fetch($created->{sid})), 'queued', '... nor before that');

is(fate('delivered'), 'delivered null null with date', 'delivered');
is( fate('undelivered:30003'),
	'undelivered 30003 Unreachable destination handset with date',
	'undelivered');
is(fate('undelivered'), 'undelivered null null with date', 'undelivered without a code');
is(fate('undelivered:39999'), 'undelivered 39999 null with date', '... with an unknown one');
is(fate('failed:30007'), 'failed 30007 Message filtered without date', 'failed');
is(fate('never'), 'sent null null with date', 'never');
is(fate('read'), 'read null null with date', 'read');
is(fate('canceled'), 'canceled null null without date', 'canceled');
$twilio->set('to-delivery' => "$to=none");
is(column('status', list()), 'delivered', 'none: delivered as the others');
is( fate('failed:30007', 'deliver-after' => -1),
	'queued null null without date',
	'until it fails, a message is queued');

# Times: one message is delivered after a second, another one read after two.
my $url = 'https://example.org/callback?a=1&b=2';
my $reader = '+15550000003';
begin('deliver-after' => 1000, 'to-delivery' => "$reader=read");
my @sids = map { create(To => $_, StatusCallback => $url)->{sid} } $to, $reader;
ok(poll(sub { fetch($sids[1])->{status} eq 'read' }), 'in time it is read');
for my $seconds (1, 2)
{
	my $row = fetch($sids[ $seconds - 1 ]);
	is(epoch($row->{date_updated}) - epoch($row->{date_created}),
		$seconds, "date_updated is $seconds s later");
	is($row->{date_sent}, $row->{date_created}, '... date_sent is not');
}
my %status_at;
for my $row ($twilio->ledger)
{
	$status_at{ $row->{time} } = "$row->{to} sent";
	$status_at{ $row->{time} + 1000000 } = "$row->{to} delivered";
	$status_at{ $row->{time} + 2000000 } = "$row->{to} read" if $row->{to} eq $reader;
}
my @called_back = map { "$_->{params}{To} $_->{params}{MessageStatus}" } $twilio->callbacks;
is_deeply(
	\@called_back,
	[ @status_at{ sort { $a <=> $b } keys %status_at } ],
	'callbacks are in the order of their times');

for my $bad (
	'delivery=undelivered:x=5', 'delivery=nothing=5',
	'delivery=read', 'delivery:read=x',
	'to-delivery=read', "to-delivery=$to=failed:-3",
	'delivery=read:30003=5')
{
	my ($name, $value) = split /=/, $bad, 2;
	ok(!eval { $twilio->set($name, $value); 1 }, "refused: $bad");
}

# Shares: the same at each look and with the same seed, not with another one

sub statuses
{
	begin(@_, 'deliver-after' => 0, 'delivery' => 'undelivered:30003=30', 'delivery:never' => 20);
	create() for 1 .. 200;
	return column('status', list());
}

my $first = statuses(seed => 7);
is(column('status', list()), $first, 'the same at the next look');
my %share;
$share{$_}++ for split / /, $first;
cmp_ok(abs($share{undelivered} - 60), '<', 25, 'about 30 % are not delivered');
cmp_ok(abs($share{sent} - 40), '<', 25, 'of about 20 % nothing is heard');
cmp_ok(abs($share{delivered} - 100), '<', 30, 'about half are delivered');
is(statuses(seed => 7), $first, 'the same with the same seed');
isnt(statuses(seed => 8), $first, 'others with another seed');

# Prices

begin();
my $sid = create(Body => 'x' x 400)->{sid};
is(column('price', fetch($sid)), 'null', 'no price by default');
$twilio->set('price-after' => 3600000);
is(column('price', fetch($sid)), 'null', 'no price yet');
$twilio->set('price-after' => 0);
is(column('price', fetch($sid), create()), '-0.02250 null', 'three segments');
is(column('price_unit', list()), 'USD USD', '... in dollars');
$twilio->set('price-unit' => 'EUR');
is(column('price_unit', list()), 'EUR EUR', '... or in euros');
$twilio->set('price-unit' => 'USD', 'deliver-after' => 0, 'delivery' => 'failed:30001=100');
is(column('price', list()), 'null null', 'what has failed costs nothing');

# Inbound messages

begin('clock-skew' => 86400);
my $from = '+15550000002';
create(To => $from);
my $received = $twilio->inbound(from => $from, body => "St\xc3\xb6p & go");
like($received, qr/^SM[0-9a-f]{32}$/, 'an inbound message has a SID');
create(To => $to);
$twilio->inbound(from => $to, to => '+18885550009', body => 'STOP', service => $service);
my $row = fetch($received);
is_deeply(
	[ @$row{qw(direction status from to body num_segments num_media messaging_service_sid)} ],
	[ 'inbound', 'received', $from, $sender, "St\xf6p & go", '1', '0', undef ],
	'... and is shown as it was received');
is($row->{date_sent}, $row->{date_created}, '... at one time');
is($row->{date_updated}, $row->{date_created}, '... which is its last');
cmp_ok(abs(epoch($row->{date_sent}) - time - 86400), '<', 600, '... by the clock of Twilio');
is( column('direction', list(PageSize => 1)),
	'inbound outbound-api inbound outbound-api',
	'they are listed in their order, with the others');
is(column('body', list(From => $from)), "St\xf6p & go", 'From= finds it');
is(column('body', list(To => $sender)), "St\xf6p & go", 'To= finds it');
is(column('messaging_service_sid', list(From => $to)), $service, '... with its service');
is(column('body', list(From => $sender, To => $from)), 'Hello', 'both filters at once');
is($twilio->control('/count'), "2\n", 'it is not counted as accepted');
is(scalar $twilio->ledger, 2, '... nor in the ledger');
my $stats = $twilio->stats;
is(join(' ', @$stats{qw(accepted stored inbound)}), '2 2 2', '... nor in the counts');
$twilio->set('list-lag' => 3600000, 'reset' => 1);
$twilio->inbound(from => $from, body => 'later');
is(scalar list(), 0, 'lists lag for it, too');
$twilio->set('list-lag' => 0, 'clock-skew' => 0);
is(scalar list(), 1, '... and show it in the end');

for my $missing ('from', 'to', 'account')
{
	ok(!eval { $twilio->inbound(from => $from, body => '', $missing => ''); 1 },
		"refused without $missing");
}
like($twilio->control("/inbound?account=$account&from=$from&to=$sender&body=a"),
	qr/^SM/, 'a plus in a URL need not be encoded');
is(column('from', list()), "$from $from", '... and is one');

# Dates

my $today = gmtime(time)->ymd;
begin('deliver-after' => 0);
my @all = qw(delivered undelivered:30003 failed:30005 never read canceled);
for my $i (0 .. $#all)
{
	my $number = "+155500001$i" . '0';
	$twilio->set('to-delivery' => "$number=$all[$i]");
	create(To => $number);
}
$twilio->inbound(from => $from, body => 'in');
my ($yesterday, $tomorrow) = map { gmtime(time + $_ * 86400)->ymd } -1, 1;
my $found = 'received read sent undelivered delivered';
is(column('status', list('DateSent>' => $yesterday)), $found, 'DateSent>: what has been sent');
is(column('status', list('DateSent<' => $tomorrow)), $found, 'DateSent<');
is(column('status', list('DateSent' => $today)), $found, 'DateSent')
  if gmtime(time)->ymd eq $today;
is(column('status', list('DateSent>' => $tomorrow)), '', 'DateSent> tomorrow: nothing');
is(column('status', list('DateSent<' => $yesterday)), '', 'DateSent< yesterday: nothing');
is(column('status', list('DateSent>' => $yesterday, 'DateSent<' => $tomorrow)), $found, 'both');
is( column('status', list('DateSent>' => $yesterday, 'From' => $sender)),
	'read sent undelivered delivered',
	'dates and From=');
$twilio->set('null-dates' => 1);
is( column('status', list('DateSent>' => $yesterday)),
	'received canceled read sent failed undelivered delivered',
	'with null-dates: what has never been sent, too');
$twilio->set('null-dates' => 0);

# Redaction

begin('deliver-after' => 0, redact => 1);
create();
$twilio->inbound(from => $from, to => "whatsapp:$sender", body => 'secret');
$twilio->set('delivery' => 'failed:30005=100');
is(column('body', list()), ' ', 'no text of any message is shown');
is(column('from', list()), '+1555000XXXX +1500555XXXX', '... nor a sender');
is(column('to', list()), 'whatsapp:+1500555XXXX +1555000XXXX', '... nor a recipient');
is(scalar list(From => $from), 1, 'From= finds them');
$twilio->set(redact => 'hide');
is(scalar list(From => $from), 0, '... unless they are hidden');
is(scalar list(To => $to), 0, '... as if they were not there');
is(scalar list(), 2, '... but a list without numbers has them');

# Lists that change between two pages

sub insertions
{
	begin('list-insert' => 1, @_);
	create(Body => $_) for 1 .. 6;
	my @rows = list(To => $to, PageSize => 2);
	$twilio->set('list-insert' => 0, 'list-shift' => 0, 'list-order' => 'created');
	return column('body', @rows);
}

is(insertions(), '6 5 4 3 2 1', 'new messages do not disturb the pages that follow');
is( column('body', list(To => $to)),
	'Inserted Inserted 6 5 4 3 2 1',
	'... but are in the next list');
is(column('direction', (list())[ 0, 2 ]), 'outbound-reply outbound-api', '... as replies');
is($twilio->stats->{accepted}, 6, '... and were not accepted');
is(scalar $twilio->ledger, 6, '... nor are they in the ledger');
my $shifted = '6 5 5 4 4 3 3 2 2 1';
is(insertions('list-shift' => 1), $shifted, 'list-shift: messages are on two pages');
is(insertions('list-order' => 'sent'), $shifted, 'by date: likewise');
begin('list-insert' => 1);
$twilio->inbound(from => $from, body => $_) for 1 .. 2;
is(column('direction', list(PageSize => 1)), 'inbound inbound', 'of inbound messages');
is(column('direction', list()), 'inbound inbound inbound', '... another one is inbound');
$twilio->set('list-insert' => 0);

# Callbacks

begin('sent-after' => -1);
$sid = create(StatusCallback => "$url#rc=3&rp=all")->{sid};
create();
is_deeply([ $twilio->callbacks ], [], 'no callback for the first status');
$twilio->set('sent-after' => 0);
my @callbacks = $twilio->callbacks;
is(scalar @callbacks, 1, 'one for the second, if the request asked for it');
my $callback = $callbacks[0];
is($callback->{url}, $url, '... to the URL, without its fragment');
is_deeply(
	$callback->{params},
	{
		AccountSid => $account,
		ApiVersion => '2010-04-01',
		From => $sender,
		MessageSid => $sid,
		MessageStatus => 'sent',
		SmsSid => $sid,
		SmsStatus => 'sent',
		To => $to
	},
	'... with what Twilio tells');
like($callback->{body}, qr/(?:^|&)To=%2B15550000001(?:&|$)/, '... as a form');
is( $callback->{signature},
	LocalTwilio::sign($url, $callback->{params}, $token),
	'... and is signed');
$twilio->set('deliver-after' => 0);
@callbacks = $twilio->callbacks;
is(scalar @callbacks, 2, 'one for the next status');
is_deeply($callbacks[0], $callback, '... after the first');
is($callbacks[1]{params}{MessageStatus}, 'delivered', '... that it is delivered');
like($callbacks[1]{params}{RawDlrDoneDate}, qr/^\d{10}$/, '... and when');
is_deeply([ $twilio->callbacks(1) ], [ $callbacks[1] ], 'only those that are new');
is_deeply([ $twilio->callbacks(2) ], [], '... of which there are no more');
$twilio->set('sent-after' => -1, 'deliver-after' => -1);
is(scalar $twilio->callbacks, 2, 'what was called back stays so');

# The statuses that are called back for a fate.
sub called_back
{
	my $delivery = shift;
	begin('deliver-after' => 0, 'to-delivery' => "$to=$delivery");
	create(StatusCallback => $url);
	return join ' ', map { "$_->{MessageStatus} " . ($_->{ErrorCode} // '-') }
	  map { $_->{params} } $twilio->callbacks;
}

is(called_back('read'), 'sent - delivered - read -', 'callbacks of a message that is read');
is(called_back('undelivered:30003'), 'sent - undelivered 30003', '... that is not delivered');
is(called_back('failed:30034'), 'failed 30034', '... that fails');
is(called_back('never'), 'sent -', '... of which nothing is heard');
is(called_back('canceled'), 'canceled -', '... that is canceled');
begin('deliver-after' => 0);
create(StatusCallback => $url, Body => $_, From => undef, MessagingServiceSid => $service)
  for 1 .. 20;
my @in_order = map { $_->{params} } $twilio->callbacks;
is( join(' ', map { $_->{MessageStatus} } @in_order),
	join(' ', ('sent delivered') x 20),
	'in the order of their times');
is($in_order[0]{MessagingServiceSid}, $service, 'with the Messaging Service');
begin('deliver-after' => 0);
is_deeply([ $twilio->callbacks ], [], 'reset forgets them');

my $inbound_url = 'https://example.org/inbound';
$twilio->inbound(from => $from, body => 'before');
$twilio->set('inbound-url' => $inbound_url, 'account' => 'ACother:sesame');
$sid = $twilio->inbound(
	from => $from,
	body => "St\xc3\xb6p & go",
	account => 'ACother',
	OptOutType => 'STOP');
($callback, my @more) = $twilio->callbacks;
is(scalar @more, 0, 'an inbound message is called back once, if there is an address');
is($callback->{url}, $inbound_url, '... to this address');
my %expected = (
	AccountSid => 'ACother',
	ApiVersion => '2010-04-01',
	Body => "St\xc3\xb6p & go",
	From => $from,
	MessageSid => $sid,
	NumMedia => 0,
	NumSegments => 1,
	OptOutType => 'STOP',
	SmsMessageSid => $sid,
	To => $sender);
is_deeply({ %{ $callback->{params} }{ keys %expected } }, \%expected,
	'... with what was received');
ok(exists $callback->{params}{ToCountry}, '... and more');
is( $callback->{signature},
	LocalTwilio::sign($inbound_url, $callback->{params}, 'sesame'),
	"... signed with its account's token");

# Signatures: the examples of Twilio's libraries
my %params = (
	CallSid => 'CA1234567890ABCDE',
	Caller => '+14158675309',
	Digits => '1234',
	From => '+14158675309',
	To => '+18005551212');
my $path = 'mycompany.com/myapp.php?foo=1&bar=2';
is( LocalTwilio::sign("https://$path", \%params, '12345'),
	'RSOYDt4T1cUTdK1PDd93/VVr8B8=',
	'a signature');
is( LocalTwilio::sign('https://' . $path =~ s{/}{:443/}r, \%params, '12345'),
	'kvajT1Ptam85bY51eRf/AJRuM3w=',
	'... with a port');
is( LocalTwilio::sign('http://' . $path =~ s{/}{:80/}r, \%params, '12345'),
	'0ZXoZLH/DfblKGATFgpif+LLRf4=',
	'... with http');
%params = (Sid => 'CA123', SidAccount => 'AC123', Digits => [ 5678, 1234, 1234 ]);
is( LocalTwilio::sign("https://$path", \%params, '12345'),
	'IK+Dwps556ElfBT0I3Rgjkr1wJU=',
	'... with a value that is repeated');

# What is checked of a request

# Tests that a request is refused with this code.
sub refused
{
	my ($code, $what, %form) = @_;
	my $answer = create(%form);
	is("$answer->{http} " . ($answer->{code} // 'none'), "400 $code", "$code: $what");
}

begin();
refused(21609, 'an address without a host', StatusCallback => 'https:///x');
refused(21609, 'a path', StatusCallback => '/x');
refused(21609, 'another protocol', StatusCallback => 'ftp://example.org/');
refused(21609, 'an underscore in the host', StatusCallback => 'https://a_b.example.org/');
refused(21609, 'a blank', StatusCallback => 'https://example.org/a b');
refused(21609, 'too long', StatusCallback => 'https://example.org/' . 'x' x 4000);
refused(21624, "ValidityPeriod $_", ValidityPeriod => $_) for '0', '36001', '-1', '1.5', 'x', '';
refused(21620, 'media without an address', MediaUrl => 'x.png');
refused(21620, 'one of two', MediaUrl => [ 'https://example.org/a', '' ]);
refused(21623, 'eleven media', MediaUrl => [ map { "https://example.org/$_" } 1 .. 11 ]);
refused(21910, 'only To has a channel', To => "whatsapp:$to");
refused(21910, 'only From has a channel', From => "whatsapp:$sender");
refused(21211, 'no number after the channel', To => 'whatsapp:1', From => "whatsapp:$sender");
refused(21602, 'no text at all', Body => '');
is($twilio->stats->{accepted}, 0, 'none of these was accepted');

my $whatsapp = create(To => "whatsapp:$to", From => "whatsapp:$sender");
is(column('to', $whatsapp), "whatsapp:$to", 'both may have a channel');
is(create(ValidityPeriod => $_)->{http}, 201, "ValidityPeriod $_") for 1, 36000;

# Media
my @media = map { "https://example.org/$_" } 1 .. 10;
my $mms = create(Body => '', MediaUrl => \@media);
like($mms->{sid}, qr/^MM[0-9a-f]{32}$/, 'a message with media has another SID');
$row = fetch($mms->{sid});
is("$row->{num_media} $row->{num_segments} '$row->{body}'", "10 1 ''", '... and says how many');
is(fetch($mms->{sid} =~ s/^MM/SM/r)->{http}, 404, '... and has no other SID');
is_deeply([ $twilio->ledger ]->[-1]{extra} =~ tr/&//, 9, '... and the ledger has all');

# Content templates
my $content = 'HX' . '1' x 32;
$twilio->set(content => "$content=Hi {{1}}, your code is {{code}}={{2}}");
refused(21655, 'an unknown template', ContentSid => 'HX' . '2' x 32, Body => undef);
refused(21654, 'variables without a template', ContentVariables => '{}');
for my $bad (
	'x', '{"1":"a"', '{"1":"a",}', '{"1":1}',
	'{"1":""}', '{"1":null}', '{"1":"a\nb"}', '{"1":"a     b"}',
	'{"1":"\ud83d"}', '{"1":"\ud83d\u0041"}', '{"1":"\u12"}', '{} x',
	'["a"]')
{
	refused(
		21656, "variables $bad",
		ContentSid => $content,
		ContentVariables => $bad,
		Body => undef);
}
my $variables = '{ "1": "J\u00f6 \"\ud83d\ude1c\" \/", "code" : "{{2}}" }';
$sid = create(ContentSid => $content, ContentVariables => $variables, Body => undef)->{sid};
is( fetch($sid)->{body},
	"Hi J\xf6 \"\x{1F61C}\" /, your code is {{2}}={{2}}",
	'the text of a template is shown');
is([ $twilio->ledger ]->[-1]{body}, '', '... the ledger has what was asked for');
$sid = create(ContentSid => $content, Body => undef)->{sid};
$twilio->set(content => "$content=Other");
is( fetch($sid)->{body},
	'Hi {{1}}, your code is {{code}}={{2}}',
	'... and stays when the template changes');
is(create(ContentSid => $content, ContentVariables => '{}', Body => undef)->{body},
	'Other', '... which later ones have');

# Smart encoding
my $curly = "\x{201C}It\x{2019}s\x{201D} \x{2013} \x{2026}\xf6" . 'x' x 70;
my $plain = '"It' . "'s\" - ...\xf6" . 'x' x 70;
my $smart = fetch(create(SmartEncoded => 'true', Body => $curly)->{sid});
is($smart->{body}, $plain, 'SmartEncoded: likenesses are shown');
is($smart->{num_segments}, 1, '... which cost less');
is([ $twilio->ledger ]->[-1]{body}, encode_utf8($curly), '... the ledger has what was asked for');
$smart = fetch(create(SmartEncoded => 'false', Body => $curly)->{sid});
isnt($smart->{body}, $plain, '... only if it is true');
is($smart->{num_segments}, 2, '... or they cost more');

# Counts
begin();
$twilio->inbound(from => $from, body => 'a');
$sid = create()->{sid};
list();
fetch($sid);
fetch($sid);
$stats = $twilio->stats;
is(join(' ', @$stats{qw(inbound lists fetches accepted)}), '1 1 2 1', 'all is counted');

# A scheduled message is canceled once, and not after it has been sent.
my $at = gmtime(time + 3600)->datetime . 'Z';
my %scheduled = (
	From => undef,
	MessagingServiceSid => $service,
	ScheduleType => 'fixed',
	SendAt => $at,
	StatusCallback => $url);
$sid = create(%scheduled)->{sid};
is(fetch($sid)->{status}, 'scheduled', 'a message is scheduled');
my $cancel =
  sub { answer_of($http->post_form("$origin$messages/$sid.json", { Status => 'canceled' })) };
is($cancel->()->{status}, 'canceled', '... and is canceled');
is($cancel->()->{code}, 30409, '... once');
is_deeply([ map { $_->{params}{MessageStatus} } $twilio->callbacks ],
	['canceled'], '... and called back');
my $unsent = create()->{sid};
is( answer_of($http->post_form("$origin$messages/$unsent.json", { Status => 'canceled' }))->{code},
	30409,
	'what is not scheduled is not canceled');

done_testing();
