# Smart Encoding: what it costs, and that a message is recognized in Twilio's
# list although the list shows other characters.
use strict;
use warnings;
use utf8;
use FindBin;
use lib "$FindBin::RealBin/../perl";
use Campaign;
use Encode qw(encode_utf8);
use LocalTwilio;
use Test::More;

my $twilio = LocalTwilio->start;
my $node = new_cluster('smart', $twilio, conf => <<~'CONF');
	sendcampaign.request_timeout = '1s'
	sendcampaign.lookup_delay = 0
	restart_after_crash = on
	CONF

# A campaign whose group has Smart Encoding on, and whose text has no link.
sub smart_campaign
{
	my ($message, %arg) = @_;
	my $campaign =
	  create_campaign($node, base_url => undef, message => encode_utf8($message), %arg);
	configure($node, $campaign, q(configuration || '{"twilioSmartEncoded": true}'));
	return $campaign;
}

my $replaced =
  qr/Twilio's list has a text that is its own if Twilio has replaced characters in it/;

# What is asked for
my $campaign = smart_campaign('Plain', users => 2);
is(run_campaign($node, $campaign)->{sent}, 2, 'switched on: it is sent');
is(scalar(grep { $_->{extra} eq 'SmartEncoded=true' } $twilio->ledger), 2, 'the request says so');
$twilio->set(reset => 1);
configure($node, $campaign, q(configuration || '{"twilioSmartEncoded": "false"}'));
is(run_campaign($node, $campaign)->{sent}, 2, 'switched off: it is sent');
is(scalar(grep { $_->{extra} =~ /SmartEncoded/ } $twilio->ledger), 0, 'the request has nothing');

for my $value ('"yes"', '1', '{}')
{
	configure($node, $campaign, qq(configuration || '{"twilioSmartEncoded": $value}'));
	my $error = sql_error($node, "SELECT sendcampaign.preview($campaign)", role => 'app');
	is($error->{sqlstate}, '22023', "$value is refused");
	is($error->{hint}, 'Set it to true or false.', 'with a hint');
}

# What it costs: [ text, encoding and segments with and without ]
my @costs = (
	[ 'It’s “on” – now…', 'GSM-7 18 1', 'UCS-2 16 1' ],
	[ '–' x 100, 'GSM-7 100 1', 'UCS-2 100 2' ],
	[ '…' x 60, 'GSM-7 180 2', 'UCS-2 60 1' ],
	[ "a\x{A0}b\x{200B}c½d\x{FF10}ＡᴀＺ", 'GSM-7 12 1', 'UCS-2 11 1' ],
	[ '❴x❵ `´', 'GSM-7 8 1', 'UCS-2 6 1' ],
	[ 'It’s Ж', 'UCS-2 6 1', 'UCS-2 6 1' ],
	[ "It\x{2019}s 😀", 'UCS-2 7 1', 'UCS-2 7 1' ],
	[ 'plain', 'GSM-7 5 1', 'GSM-7 5 1' ]);
for (@costs)
{
	my ($text, $with, $without) = @$_;
	my $smart = smart_campaign($text, users => 1);
	my $cost = qq(SELECT encoding || ' ' || units || ' ' || segments, text
		FROM sendcampaign.preview($smart));
	my ($shown) = split /\n/, sql($node, $cost, role => 'app');
	is($shown, encode_utf8("$with|$text"), encode_utf8($text) . ': with Smart Encoding');
	configure($node, $smart, q(configuration - 'twilioSmartEncoded'));
	($shown) = split /\n/, sql($node, $cost, role => 'app');
	is($shown, encode_utf8("$without|$text"), encode_utf8($text) . ': without');
}
$campaign = smart_campaign('‘a’ Ж', users => 3);
my $estimate = 'SELECT segments_gsm7, segments_ucs2, ucs2_characters FROM sendcampaign.estimate';
is(sql($node, "$estimate($campaign)", role => 'app'),
	encode_utf8('0|3|Ж'), 'an estimate names the characters that are not replaced');
$campaign = smart_campaign('‘a’', users => 3);
is(sql($node, "$estimate($campaign)", role => 'app'),
	'3|0|', 'an estimate of a text that is GSM-7 once they are');

# Found in Twilio's list, where it has other characters; one that Twilio did not
# take is sent again, as the list shows a later one.
my $quotes = 'It’s “on” – now… for {{n}}';

sub number_users
{
	my $list = list_of(shift);
	sql($node, <<~"SQL");
		UPDATE ac_list_users SET data = data || jsonb_build_object('n', id) WHERE ac_list_id = $list
		SQL
}

for my $text ('It’s “on” – now…', $quotes)
{
	$twilio->set(reset => 1, 'fault:drop-after' => '#4', 'fault:drop-before' => '#3');
	$campaign = smart_campaign($text, users => 40);
	number_users($campaign);
	my $run = run_campaign($node, $campaign);
	is(outcome_of($node, $run->{job}), '40 sent', encode_utf8($text) . ': all are sent')
	  or diag(reasons_of_doubt($node, $run->{job}));
	is($twilio->num_twice, 0, encode_utf8($text) . ': nobody has it twice');
	is(scalar(keys %{ $twilio->count_by_phone }), 40, encode_utf8($text) . ': everybody has it');
}

# Twilio replaces what it does not say, or something else by it: only a person can
# tell.  What it did not take is still sent again.
change_conf($node, "sendcampaign.request_timeout = '3s'");    # no other is in doubt
$twilio->set(reset => 1, 'to-fault' => '+15550000001=drop-after');
$twilio->set('to-fault' => '+15550000002=drop-before');
$campaign = smart_campaign('5 − 3 ‹x›', users => 40);
my $job = start_campaign($node, $campaign);
ok(poll(sub { ($twilio->stats->{faults}{'drop-before'} // 0) > 0 }), 'a message is not taken');
$twilio->set('to-fault' => '+15550000002=none');
wait_for_run($node, $job);
is(outcome_of($node, $job), '1 in_doubt, 39 sent', 'unknown replacements: it stays in doubt');
like(reasons_of_doubt($node, $job), $replaced, 'and says why');
is($twilio->num_to($_), 1, "$_ has it once") for '+15550000001', '+15550000002';
$twilio->set('to-fault' => '+15550000001=none');
change_conf($node, "sendcampaign.request_timeout = '1s'");

# The group's setting is another one when a crash leaves the message in doubt.
$twilio->set(reset => 1, hold => 1, 'hold-after' => 1);
$campaign = smart_campaign($quotes, users => 10);
number_users($campaign);
$job = start_campaign($node, $campaign);
wait_for_flight($twilio, 10);
kill_worker($node);
configure($node, $campaign, q(configuration - 'twilioSmartEncoded'));
$twilio->set(hold => 0);
wake($node);
wait_for_run($node, $job);
is(outcome_of($node, $job), '10 sent', 'switched off after a crash: all are found')
  or diag(reasons_of_doubt($node, $job));
is($twilio->num_twice, 0, 'nobody has it twice');

# A link with characters that are replaced, and what follows it
$twilio->set(reset => 1, 'hold-after' => 0, 'fault:drop-after' => '#3');
$campaign = smart_campaign(
	'{{link}}½ “off”',
	users => 20,
	base_url => encode_utf8('https://example.org/a–b'));
my $run = run_campaign($node, $campaign);
is(outcome_of($node, $run->{job}), '20 sent', 'a link: all are sent')
  or diag(reasons_of_doubt($node, $run->{job}));
is($twilio->num_twice, 0, 'nobody has it twice');
my $after = encode_utf8("&yc=$campaign ½ “off”");
is(scalar(grep { $_->{body} =~ /\Q$after\E$/ } $twilio->ledger),
	20, 'the link does not get longer');

# Lost commits: the texts are recognized.
for my $text ('Lost “text”', 'Lost “text” of {{n}}')
{
	$twilio->set(reset => 1);
	$campaign = smart_campaign($text, users => 12);
	number_users($campaign);
	my $lost = run_campaign($node, $campaign)->{job};
	lose_commits($node, $lost, 8);
	is(outcome_of($node, $lost), '12 sent', encode_utf8($text) . ': all are known again')
	  or diag(reasons_of_doubt($node, $lost));
	is($twilio->num_twice, 0, 'nobody has it twice');
}

# Two runs send what is the same after Smart Encoding, to one number, and both are
# in doubt: the list has one of them.
wait_for_no_worker($node);
change_conf($node, "sendcampaign.request_timeout = '30s'");
$twilio->set(reset => 1, 'to-fault' => '+15550000001=never-after');
my @texts = ('Twice “it”', 'Twice "it"');
my @campaigns = map { smart_campaign($_, users => 1) } @texts;
my @jobs = (start_campaign($node, $campaigns[0]));
ok(poll(sub { $twilio->stats->{accepted} == 1 }), 'the first is taken');
$twilio->set('to-fault' => '+15550000001=never-before');
push @jobs, start_campaign($node, $campaigns[1]);
wait_for_run($node, $_) for @jobs;
is($twilio->num_to('+15550000001'), 1, 'twins: one was taken, and none is sent again');
is(outcome_of($node, $jobs[$_]), '1 in_doubt', 'twins: nobody can tell which one') for 0, 1;
$twilio->set('to-fault' => '+15550000001=none');

$node->stop;
my $of_crash = qr/.*(?:terminating connection because of crash|terminated by signal 9).*\n?/;
is(worker_errors($node) =~ s/$of_crash//gr, '', 'no worker complains');
done_testing();
