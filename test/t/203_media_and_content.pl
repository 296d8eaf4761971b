# Media, and content templates of Twilio: what is asked for, what it costs, and
# what Twilio's list can tell when an answer is lost.
use strict;
use warnings;
use utf8;
use FindBin;
use lib "$FindBin::RealBin/../perl";
use Campaign;
use Encode qw(decode_utf8 encode_utf8);
use HostileServer;
use JSON::PP ();
use LocalTwilio;
use Test::More;

binmode $_, ':utf8' for *STDOUT, *STDERR;
my $template = 'HX' . '0' x 31 . '1';
my $twilio = LocalTwilio->start(options => [ '--content', "$template=Dear {{1}}: {{2}}" ]);
my $node = new_cluster('media', $twilio, conf => <<~'CONF');
	sendcampaign.request_timeout = '1s'
	sendcampaign.lookup_delay = 0
	sendcampaign.lookup_timeout = '30s'
	restart_after_crash = on
	CONF
my $picture = 'https://example.org/a.png';
my $film = 'https://example.org/b.mp4?x=1&y=ö';

# A campaign with these keys of data, as JSON, besides those of create_campaign().
sub campaign_with
{
	my ($keys, %arg) = @_;
	my $campaign = create_campaign($node, %arg);
	my $data = JSON::PP->new->canonical->encode($keys) =~ s/'/''/gr;
	sql($node, encode_utf8(<<~"SQL"), db => $arg{db});
		UPDATE ac_campaigns SET data = data || '$data' WHERE id = $campaign
		SQL
	return $campaign;
}

# Its list users have numbers.
sub number_users
{
	my $list = list_of(shift);
	sql($node, <<~"SQL");
		UPDATE ac_list_users SET data = data || jsonb_build_object('n', id) WHERE ac_list_id = $list
		SQL
}

# What each accepted message was asked for besides sender, number and body.
sub parameters
{
	my $message = shift;
	my @pairs;
	for my $pair (split /&/, $message->{extra})
	{
		my ($name, $value) = split /=/, $pair, 2;
		$value =~ tr/+/ /;
		push @pairs, [ $name, decode_utf8($value =~ s/%([0-9A-Fa-f]{2})/chr hex $1/ger) ];
	}
	return @pairs;
}

sub values_of
{
	my ($message, $wanted) = @_;
	return map { $_->[1] } grep { $_->[0] eq $wanted } parameters($message);
}

# Tests that a run ends like this, and that nobody has got it twice.
sub ends_with
{
	my ($job, $expected, $name) = @_;
	wait_for_run($node, $job);
	is(outcome_of($node, $job), $expected, $name) or diag(reasons_of($node, $job));
	is($twilio->num_twice, 0, "$name: nobody has it twice");
}

sub preview_error
{
	my $campaign = shift;
	return sql_error($node, "SELECT sendcampaign.preview($campaign)", role => 'app');
}

#
# Media: the request
#
my %media = (
	'one' => [ $picture, [$picture] ],
	'two' => [ [ $picture, $film ], [ $picture, $film ] ],
	'ten' => [ [ ($picture) x 10 ], [ ($picture) x 10 ] ],
	'none' => [ [], [] ],
	'blank' => [ ' ', [] ],
	'null' => [ undef, [] ]);
for my $name (sort keys %media)
{
	my ($value, $expected) = @{ $media{$name} };
	$twilio->set(reset => 1);
	my $campaign = campaign_with({ mediaUrl => $value }, users => 2);
	my $job = start_campaign($node, $campaign);
	sent_once($node, $twilio, $campaign, $job, "media: $name", total => 2);
	is_deeply([ values_of(($twilio->ledger)[0], 'MediaUrl') ], $expected, "$name: all are sent");
}

# Without a text, there is no body.
for my $message ('', '  ')
{
	$twilio->set(reset => 1);
	my $campaign =
	  campaign_with({ mediaUrl => $picture, message => $message }, users => 2, base_url => undef);
	is(run_campaign($node, $campaign)->{sent}, 2, 'media without a text are sent');
	is_deeply([ map { $_->{body} } $twilio->ledger ], [ '', '' ], 'with an empty body');
}
$twilio->set(reset => 1);
my $campaign = campaign_with({ mediaUrl => $picture, message => '' }, users => 1);
my $job = start_campaign($node, $campaign);
sent_once($node, $twilio, $campaign, $job, 'media with a link alone', total => 1);
like(($twilio->ledger)[0]{body}, qr/^https:/, 'the link is the text');

# Columns of the application
for my $column (
	"media_url text[] DEFAULT '{$picture}'",
	"media_url jsonb DEFAULT '[\"$picture\"]'",
	qq("mediaUrl" text DEFAULT '$picture'))
{
	$twilio->set(reset => 1);
	my ($name) = split / /, $column;
	sql($node, "ALTER TABLE ac_campaigns ADD $column");
	$campaign = create_campaign($node, users => 1);
	is(run_campaign($node, $campaign)->{sent}, 1, "a column $name: it is sent");
	is_deeply([ values_of(($twilio->ledger)[0], 'MediaUrl') ],
		[$picture], "a column $name: with its media");
	sql($node, "ALTER TABLE ac_campaigns DROP $name");
}

# What is no URL of media
my $url_hint =
  'Write an https: URL from which Twilio can fetch the media,' . ' or an array of such URLs.';
for
  my $value ('http://example.org/a', 'a.png', 'https:///a', 'https://a b', "https://a\nb", 42, {},
	[''], [undef], [ $picture, 'x' ])
{
	my $error = preview_error(campaign_with({ mediaUrl => $value }));
	is($error->{sqlstate}, '22023', 'wrong media are refused');
	is($error->{hint}, $url_hint, 'with a hint');
}
my $error = preview_error(campaign_with({ mediaUrl => [ $picture, 'x' ] }));
like($error->{message}, qr/^invalid value for "mediaUrl" of campaign \d+$/,
	'wrong media: message');
is($error->{detail}, 'URL 2 of 2 cannot be used.', 'wrong media: detail');
$error = preview_error(campaign_with({ mediaUrl => [ ($picture) x 11 ] }));
is($error->{sqlstate}, '54000', 'eleven media are refused');
like($error->{message}, qr/^"mediaUrl" of campaign \d+ has more than 10 URLs$/, 'with a message');
is($error->{hint}, 'Twilio accepts no more in one message.', 'and a hint');
is(preview_error(campaign_with({ message => ' ' }))->{sqlstate},
	'55000', 'neither media nor text: refused');

# What it costs: a message is one.
$campaign = campaign_with({ mediaUrl => $picture, message => 'x' x 400 }, users => 3);
is(sql($node, <<~"SQL", role => 'app'), '||1', 'media: a message counts as one segment');
	SELECT encoding, units, segments FROM sendcampaign.preview($campaign, 1)
	SQL
is(sql($node, <<~"SQL", role => 'app'), '3|0|0|0.06', 'media: so does each in an estimate');
	SELECT segments, segments_gsm7, segments_ucs2, cost FROM sendcampaign.estimate($campaign, 0.02)
	SQL

# They are fixed when the run starts.
$twilio->set(reset => 1, hold => 1);
$campaign = campaign_with({ mediaUrl => $picture }, users => 600);
$job = start_campaign($node, $campaign);
wait_for_flight($twilio, 10);
sql($node, "UPDATE ac_campaigns SET data = data || '{\"mediaUrl\": 1}' WHERE id = $campaign");
$twilio->set(hold => 0);
sent_once($node, $twilio, $campaign, $job, 'changed in mid-run', total => 600);
is(scalar(grep { (values_of($_, 'MediaUrl'))[0] eq $picture } $twilio->ledger),
	600, 'all have the first ones');
is(sql($node, "SELECT media_urls, content_sid FROM sendcampaign.run WHERE job_id = $job"),
	"{$picture}|", 'the run shows them');

#
# Media in doubt
#
my %texts = ('a link' => 'https://example.org/survey', 'a text' => undef, 'nothing else' => undef);
for my $with (sort keys %texts)
{
	$twilio->set(reset => 1, 'fault:drop-after' => '#4', 'fault:drop-before' => '#3');
	my $message = $with eq 'nothing else' ? '' : 'See';
	$campaign = campaign_with(
		{ mediaUrl => $picture, message => $message },
		users => 40,
		base_url => $texts{$with});
	ends_with(start_campaign($node, $campaign), '40 sent', "media in doubt, with $with");
}

# Twilio sends a link in place of media that cannot be delivered: its list shows
# the text, and something else.  Nobody can tell whether that is the message.
my $without_media = HostileServer->start(
	answer => sub {
		my ($client, $request) = @_;
		return $client->ok if $request->{to} ne '+15550000001';
		$client->take;
	});
sql($node, 'CREATE DATABASE hostile');
install_extension($node, 'hostile');
sql($node, "ALTER DATABASE hostile SET sendcampaign.api_url = '" . $without_media->url . "'");
$campaign = campaign_with(
	{ mediaUrl => $picture, message => 'See' },
	users => 3,
	base_url => undef,
	db => 'hostile');
$job = start_campaign($node, $campaign, db => 'hostile');
wait_for_run($node, $job, db => 'hostile', alone => 1);
my $doubt = sql($node, <<~"SQL", db => 'hostile');
	SELECT error_message FROM sendcampaign.message
	WHERE job_id = $job AND status = 'in_doubt' AND phone = '+15550000001'
	SQL
like(
	$doubt,
	qr/Twilio's list has a text that is its own if Twilio has replaced its media by a link/,
	'media without media in the list: in doubt');
is($without_media->attempts->{'+15550000001'}, 1, 'it is not sent again');
$without_media->stop;

# An account that hides texts shows media without one.
change_conf($node, "sendcampaign.request_timeout = '3s'");    # no other is in doubt
$twilio->set(reset => 1, redact => 1, 'to-fault' => '+15550000001=drop-after');
$campaign = campaign_with({ mediaUrl => $picture }, users => 5, base_url => undef);
$job = start_campaign($node, $campaign);
ends_with($job, '1 in_doubt, 4 sent', 'media, hidden texts');
like(reasons_of($node, $job), qr/message redaction is on/, 'hidden texts: the reason');
$twilio->set(redact => 0, 'to-fault' => '+15550000001=none');
change_conf($node, "sendcampaign.request_timeout = '1s'");

#
# Content templates: the request
#
my %text_of = (1 => '{{n}} {{name|friend}} {{"{{"}}x{{"}}"}} \\ "ö"', 2 => '{{link}}');

sub content_campaign
{
	my ($variables, %arg) = @_;
	my $campaign =
	  campaign_with({ contentSid => $template, contentVariables => $variables }, %arg);
	sql($node, "UPDATE ac_campaigns SET data = data - 'message' WHERE id = $campaign");
	number_users($campaign);
	return $campaign;
}

my $name = q(A"\\ö{{n}}");
my $name_json = JSON::PP->new->allow_nonref->encode($name) =~ s/'/''/gr;
$twilio->set(reset => 1);
$campaign = content_campaign(\%text_of, users => 3);
my $list = list_of($campaign);
sql($node, encode_utf8(<<~"SQL"));
	UPDATE ac_list_users SET data = data || '{"name": $name_json}'
	WHERE id = (SELECT min(id) FROM ac_list_users WHERE ac_list_id = $list)
	SQL
$job = run_campaign($node, $campaign)->{job};
is(outcome_of($node, $job), '3 sent', 'a template: all are sent') or diag(reasons_of($node, $job));
my @messages = sort { $a->{to} cmp $b->{to} } $twilio->ledger;

for my $i (0 .. 2)
{
	my $id = sql($node,
		"SELECT id FROM ac_list_users WHERE ac_list_id = $list ORDER BY id OFFSET $i LIMIT 1");
	my %expected = (
		1 => "$id " . ($i == 0 ? $name : 'friend') . ' {{x}} \\ "ö"',
		2 => "https://example.org/survey?yu=$id&yc=$campaign");
	is_deeply([ values_of($messages[$i], 'ContentSid') ], [$template], 'the template is named');
	my ($variables) = values_of($messages[$i], 'ContentVariables');
	is_deeply(JSON::PP->new->decode($variables),
		\%expected, 'the variables are those of the list user');
	is($messages[$i]{body}, '', 'there is no body');
}
is(sql($node, <<~"SQL", role => 'app'), '||1', 'a template: a message counts as one segment');
	SELECT encoding, units, segments FROM sendcampaign.preview($campaign, 1)
	SQL
like(
	sql($node, "SELECT text FROM sendcampaign.preview($campaign, 1)", role => 'app'),
	qr/^\{"1": ".*", "2": "https:.*"\}$/,
	'a preview shows the variables');

for my $variables (undef, {})
{
	$twilio->set(reset => 1);
	$campaign = content_campaign($variables, users => 1);
	is(run_campaign($node, $campaign)->{sent}, 1, 'no variables: it is sent');
	is_deeply(
		[ parameters(($twilio->ledger)[0]) ],
		[ [ 'ContentSid', $template ] ],
		'and there are none in the request');
}
$campaign = content_campaign({ 1 => '{{nothing}}' }, users => 2);
$job = run_campaign($node, $campaign)->{job};
is(outcome_of($node, $job), '2 skipped', 'no value for a variable: skipped');
is(reasons_of($node, $job), 'no value for "nothing"', 'with the reason');

# What is wrong
my $sid_hint = 'Write the SID of a content template, which is HX and 32 hexadecimal digits.';
for my $sid ('HX1', 'XH' . '0' x 32, 'HX' . 'g' x 32, 42)
{
	$error = preview_error(campaign_with({ contentSid => $sid }));
	like(
		$error->{message},
		qr/^invalid value for "contentSid" of campaign \d+$/,
		"$sid is refused");
	is($error->{hint}, $sid_hint, 'with a hint');
}
my $variables_hint =
  'Write an object whose values are texts,' . ' such as {"1": "{{name}}", "2": "{{link}}"}.';
for my $variables ('x', [1], 42, { 1 => 2 }, { 1 => undef }, { 1 => { 2 => 'x' } })
{
	$error = preview_error(content_campaign($variables));
	like(
		$error->{message},
		qr/^invalid value for "contentVariables" of campaign \d+$/,
		'wrong variables are refused');
	is($error->{hint}, $variables_hint, 'with a hint');
}
$error = preview_error(campaign_with({ contentSid => $template, mediaUrl => $picture }));
like($error->{message}, qr/^campaign \d+ has both "contentSid" and "mediaUrl"$/, 'both: refused');
is($error->{hint}, 'Put the media into the content template.', 'with a hint');
$error = preview_error(content_campaign({}, base_url => 'https://example.org/"'));
like($error->{message}, qr/^"baseUrl" of campaign \d+ is not a URL$/, 'a wrong base URL');
is($error->{hint}, 'Remove quotation marks, backslashes and line ends from it.', 'with a hint');
my $key_error = '"contentVariables" of campaign %d have a placeholder that is not closed,'
  . ' or whose key has a quotation mark or a backslash';
my $key_hint = 'Close each placeholder with }} in the same variable, and use other keys.';

for my $variables ({ 1 => '{{n' }, { 1 => '{{n', 2 => 'n}}' }, { 1 => '{{"n"}}' },
	{ 1 => '{{a\\b}}' })
{
	$error = preview_error(content_campaign($variables));
	is($error->{message} =~ s/campaign \d+/campaign %d/r,
		$key_error, 'a key that JSON changes: refused');
	is($error->{hint}, $key_hint, 'with a hint');
}
my $unknown = 'HX' . 'f' x 32;
my $run = run_campaign($node, campaign_with({ contentSid => $unknown }, users => 2));
is($run->{state}, 'failed', 'a template of another account: the run fails');
like($run->{error}, qr/21655/, 'and says why');

#
# Content templates in doubt
#
$twilio->set(reset => 1, 'fault:drop-after' => '#4', 'fault:drop-before' => '#3');
$campaign = content_campaign(\%text_of, users => 40);
ends_with(start_campaign($node, $campaign), '40 sent', 'a template with a link in doubt');

# Without a link, nobody knows what Twilio has made of it; what it did not take
# is sent again.
change_conf($node, "sendcampaign.request_timeout = '3s'");    # no other is in doubt
$twilio->set(reset => 1, 'to-fault' => '+15550000001=drop-after');
$twilio->set('to-fault' => '+15550000002=drop-before');
$campaign = content_campaign({ 1 => '{{n}}' }, users => 40);
$job = start_campaign($node, $campaign);
ok(poll(sub { ($twilio->stats->{faults}{'drop-before'} // 0) > 0 }), 'a message is not taken');
$twilio->set('to-fault' => '+15550000002=none');
ends_with($job, '1 in_doubt, 39 sent', 'a template without a link in doubt');
like(
	reasons_of($node, $job),
	qr/Twilio's list has a message to its number, and does not show from which content template/,
	'the reason');
is($twilio->num_to($_), 1, "$_ has it once") for '+15550000001', '+15550000002';
$twilio->set('to-fault' => '+15550000001=none');
change_conf($node, "sendcampaign.request_timeout = '1s'");

# A crash: with a link, all are found; without, nothing is sent again.
for my $variables (\%text_of, { 1 => '{{n}}' })
{
	my $expected = $variables == \%text_of ? '10 sent' : '10 in_doubt';
	$twilio->set(reset => 1, hold => 1, 'hold-after' => 1);
	$campaign = content_campaign($variables, users => 10);
	$job = start_campaign($node, $campaign);
	wait_for_flight($twilio, 10);
	kill_worker($node);
	$twilio->set(hold => 0, 'hold-after' => 0);
	wake($node);
	ends_with($job, $expected, 'a template and a crash');
	is($twilio->stats->{accepted}, 10, 'none is sent again');
}

# Lost commits
$twilio->set(reset => 1);
$campaign = content_campaign(\%text_of, users => 10);
$job = run_campaign($node, $campaign)->{job};
lose_commits($node, $job, 6);
ends_with($job, '10 sent', 'a template and lost commits');
$twilio->set(reset => 1);
change_conf($node, "sendcampaign.request_timeout = '3s'");    # no other is in doubt
$campaign = content_campaign({ 1 => '{{n}}' }, users => 10);
$job = run_campaign($node, $campaign)->{job};
change_conf($node, "sendcampaign.request_timeout = '1s'");
lose_commits($node, $job, 6);
ends_with($job, '6 in_doubt, 4 sent', 'a template without a link, and lost commits');

# What failed is sent again as it was; so is a test.
for my $kind ('media', 'template')
{
	my $is_media = $kind eq 'media';
	$twilio->set(reset => 1, 'to-fault' => '+15550000001=code:30003');
	change_conf($node, 'sendcampaign.max_attempts = 1');
	wait_for_no_worker($node);
	$campaign =
	  $is_media
	  ? campaign_with({ mediaUrl => [ $picture, $film ] }, users => 2)
	  : content_campaign(\%text_of, users => 2);
	$job = run_campaign($node, $campaign)->{job};
	is(outcome_of($node, $job), '1 failed, 1 sent', "$kind: one fails");
	$twilio->set('to-fault' => '+15550000001=none');
	is(sql($node, "SELECT sendcampaign.retry_failed($job)", role => 'app'), 1, "$kind: retried");
	ends_with($job, '2 sent', "$kind: sent again");
	my $test =
	  sql($node, "SELECT sendcampaign.send_test($campaign, '+15550009999')", role => 'app');
	is(wait_for_run($node, $test)->{sent}, 1, "$kind: a test is sent");
	my %shapes = map {
		join(' ', map { $_->[0] } parameters($_)) => 1
	} $twilio->ledger;
	is_deeply(
		[ keys %shapes ],
		[ $is_media ? 'MediaUrl MediaUrl' : 'ContentSid ContentVariables' ],
		"$kind: all of them alike");
}

$node->stop;
my $of_crash = qr/.*(?:terminating connection because of crash|terminated by signal 9).*\n?/;
is(worker_errors($node) =~ s/$of_crash//gr, '', 'no worker complains');
done_testing();
