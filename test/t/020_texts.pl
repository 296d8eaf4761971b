# What arrives at Twilio, byte for byte.  (Strings here are bytes.)
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../perl";
use Campaign;
use LocalTwilio;
use Test::More;

my $twilio = LocalTwilio->start;
my $node =
  new_cluster('texts', $twilio, init => { extra => [ '--encoding=UTF8', '--locale=C' ] });

# Sends a campaign to one recipient; returns the text that arrives, its list
# user's id and its campaign's.
sub arrives
{
	my %arg = @_;
	my $campaign = create_campaign($node, users => 1, %arg);
	my $job = run_campaign($node, $campaign, db => $arg{db})->{job};
	my $message = "SELECT sid, list_user_id FROM sendcampaign.message WHERE job_id = $job";
	my ($sid, $user) = split /\|/, sql($node, $message, db => $arg{db});
	my ($body) = map { $_->{body} } grep { $_->{sid} eq ($sid // '') } $twilio->ledger;
	return ($body, $user, $campaign);
}

my $flag = "\xf0\x9f\x8f\xb4\xf3\xa0\x81\xa7\xf3\xa0\x81\xa2\xf3\xa0\x81\xb3\xf3\xa0\x81\xa3"
  . "\xf3\xa0\x81\xb4\xf3\xa0\x81\xbf";
my %texts = (
	'ASCII' => join('', map { chr } 32 .. 126),
	'quotes' => q{'single' "double" `back` $$ $1 %s \\ \\n \\u0041 \\'},
	'URL and form characters' => 'a=b&c=d;e f+g%20h%h?#/',
	'line ends' => "one\ntwo\r\nthree\tfour",
	'spaces around' => "  two before, three after   ",
	'control characters' => "\x01\x02\x1b[0m\x7f",
	'Latin' => 'Góðan daginn, þú átt að kjósa. Æðislegt! ß ñ ç',
	'precomposed and combining' => "\xc3\xa9 e\xcc\x81 a\xcc\x8a\xcc\xa3",
	'Cyrillic, Greek, Chinese' => 'Привет Γειά 你好 こんにちは 안녕',
	'right to left' => "שלום مرحبا \xe2\x80\x8fRTL\xe2\x80\xae",
	'emoji' => "😀 🇮🇸 👩‍👩‍👧‍👦 👍🏽 $flag",
	'invisible' => "zero\xe2\x80\x8bwidth\xef\xbb\xbf \xc2\xa0 \xe2\x80\xa8 \xef\xbf\xbd",
	'last code points' => "\xf4\x8f\xbf\xbf \xef\xbf\xbf \xdf\xbf",
	'JSON' => '{"message": "Hi", "list": [1, null]}',
	'HTML' => '<b>Tom &amp; Jerry</b>',
	'long' => 'é' x 700);
for my $name (sort keys %texts)
{
	my ($body) = arrives(message => $texts{$name}, base_url => undef);
	is($body, $texts{$name}, "text: $name");
}

# the link: what stands after the text, for list user U and campaign C
my @links = (
	[ undef, '' ],
	[ '', '' ],
	[ 'https://example.org', ' https://example.org?yu=U&yc=C' ],
	[ 'https://example.org/', ' https://example.org/?yu=U&yc=C' ],
	[ 'https://example.org/survey/7', ' https://example.org/survey/7?yu=U&yc=C' ],
	[ 'https://example.org/?lang=is', ' https://example.org/?lang=is&yu=U&yc=C' ],
	[ 'https://example.org/?a=1&b=%20+c', ' https://example.org/?a=1&b=%20+c&yu=U&yc=C' ],
	[ 'https://example.org/#part', ' https://example.org/?yu=U&yc=C#part' ],
	[ 'https://example.org/?a=1#part?b', ' https://example.org/?a=1&yu=U&yc=C#part?b' ],
	[ 'https://þjóð.is/könnun', ' https://þjóð.is/könnun?yu=U&yc=C' ]);
for my $link (@links)
{
	my ($base_url, $expected) = @$link;
	my ($body, $user, $campaign) = arrives(message => 'Hi', base_url => $base_url);
	$expected =~ s/U/$user/;
	$expected =~ s/C/$campaign/;
	is($body, "Hi$expected", 'link: ' . ($base_url // 'none'));
}

# a null baseUrl in data, and a message that is a number
my $campaign = create_campaign($node, users => 1);
sql($node, <<~"SQL");
	UPDATE ac_campaigns SET data = '{"message": 42, "baseUrl": null}' WHERE id = $campaign
	SQL
run_campaign($node, $campaign);
is(($twilio->ledger)[-1]{body}, '42', 'a null baseUrl gives no link');

# a database in another encoding
sql($node, "CREATE DATABASE latin1 ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0");
install_extension($node, 'latin1');
$ENV{PGCLIENTENCODING} = 'UTF8';
my $text = 'Æðislegt 100 % ©';
my ($body) = arrives(db => 'latin1', message => $text, base_url => undef);
is($body, $text, 'text from a database in LATIN1');

wait_for_no_worker($node);
$node->stop;
done_testing();
