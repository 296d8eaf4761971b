# Replies: stored once, as what they are, for the group and message that they
# answer; stop and start words opt out and in; who sees them, and how they go.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../perl";
use Campaign;
use LocalTwilio;
use Session;
use Test::More;
use Webhook;

my $twilio = LocalTwilio->start;
my $node = new_cluster('replies', $twilio);
create_webhook_role($node);
my $campaign = create_campaign($node, users => 30);
my $group = sql($node, 'SELECT ' . group_of($campaign));
configure($node, $campaign, <<~"SQL");
	configuration || '{"twilioStatusCallback": "$URL",
		"stopWords": ["HÆTTA", "стоп", " ÁFSKRÁ  "],
		"startWords": "BYRJA"}'
	SQL
my $first = run_campaign($node, $campaign)->{job};
my $job = run_campaign($node, $campaign)->{job};
my $number = 0;

# Posts a reply of list user n; returns what receive() returns.
sub reply
{
	my ($n, $body, %more) = @_;
	my $sid = $more{sid} // sprintf 'SM%032d', ++$number;
	return receive($node, inbound_form($sid, phone($n), $body, $more{params}));
}

sub phone
{
	return '+1555' . sprintf '%07d', shift;
}

sub is_out
{
	my $n = shift;
	return sql($node,
		'SELECT count(*) FROM sendcampaign.opt_out WHERE phone = ' . "'" . phone($n) . "'");
}

#
# What is stored
#

my $listener = Session->open($node);
$listener->query('LISTEN sendcampaign');
is(reply(1, 'Yes, I am coming!'), 'reply', 'a reply is taken');
is(reply(1, 'Yes, I am coming!', sid => sprintf('SM%032d', 1)), 'known', 'once');
is( sql($node, <<~'SQL', role => 'app'),
	SELECT schema, group_id, phone, sender, body, word, sid, job_id, campaign_id, list_user_id,
		role,
		received_at > now() - interval '1 minute'
	FROM sendcampaign.reply
	SQL
	join('|',
		'public', $group, phone(1), $LocalTwilio::SENDER, 'Yes, I am coming!',
		'', 'SM' . '0' x 31 . '1',
		$job, $campaign, 1, 'app', 't'),
	'with what it answers: the latest message');
is_out(1) and fail('a word among others opts nobody in or out');

my %texts = (
	q('; DROP TABLE sendcampaign.reply_data; --) => undef,
	'%s%n%1$s {{name}} $1 \\\\ \\u0000' => undef,
	"line\r\n\ttab" => undef,
	"bell\x07 and \x1b[31mescape" => 'bell  and  [31mescape',
	"Grüße, 你好, 🎉, \xe2\x80\xaeevil" => undef,
	'é' x 5000 => 'é' x 4096,
	'' => undef,
	'   ' => '');
for my $text (sort keys %texts)
{
	is(reply(2, $text), 'reply', 'a text of ' . length($text) . ' characters');
	my $sid = sprintf 'SM%032d', $number;
	my $stored = sql($node,
			"SELECT encode(convert_to(body, 'UTF8'), 'hex') FROM sendcampaign.reply_data"
		  . " WHERE sid = '$sid'");
	is($stored, unpack('H*', $texts{$text} // $text), 'is stored as it is');
}
my $lines = '';
poll(sub { $lines .= $listener->query('SELECT 1'); $lines =~ /"reply"/ });
like(
	$lines,
	qr/"schema" : "public", "group_id" : $group, "reply" : "message"/,
	'they are announced');
unlike($lines, qr/1555|coming/, 'without what they say');

$twilio->set('inbound-url' => $URL);
my $inbound =
  $twilio->inbound(from => phone(20), body => 'See you & thanks', OptOutType => 'HELP');
my @callbacks = grep { $_->{params}{MessageSid} eq $inbound } $twilio->callbacks;
is_deeply([ map { receive($node, $_) } @callbacks, @callbacks ],
	[qw(reply known)], 'from Twilio itself');
is( sql($node, "SELECT phone, body, list_user_id FROM sendcampaign.reply WHERE sid = '$inbound'"),
	phone(20) . '|See you & thanks|20',
	'as it is');

#
# Stop and start words
#

for my $text (
	'STOP', 'stop', "  Stop\n", 'unsubscribe',
	'END', 'quit', 'StopAll', 'revoke',
	'OPTOUT', 'cancel', 'hætta', 'HÆTTA',
	'СТОП', 'afskra', 'áfskrá', "A\xcc\x81FSKRA\xcc\x81",
	'ｓｔｏｐ', "\xc2\xa0stop\xe2\x80\x8b")
{
	my $expected = $text eq 'afskra' ? 0 : 1;
	is(reply(3, $text), 'reply', "the word " . $text =~ s{\s+}{ }gr);
	is(is_out(3), $expected, $expected ? 'opts out' : 'is another word');
	is(reply(3, $text =~ /h/i ? 'byrja' : 'START'), 'reply', 'and a start word');
	is(is_out(3), 0, 'opts in');
}
for my $text ('please stop', 'stop.', 'stopp', 'STOP STOP', 's t o p', 'nonstop',
	'stop' . ' ' x 200 . 'x')
{
	reply(4, $text);
	is(is_out(4), 0, "not a stop word: " . substr $text, 0, 20);
}
is( sql($node,
		q(SELECT count(*) FROM sendcampaign.reply WHERE phone = ')
		  . phone(3)
		  . q(' AND word = 'start')),
	18,
	'the view tells the words');

reply(5, 'Stop');
my $sid_of_5 = sprintf 'SM%032d', $number;
is( sql($node, 'SELECT group_id, reason, role FROM sendcampaign.opt_out', role => 'app'),
	qq($group|replied "Stop"|app),
	'an opt-out says why');
my $before = sql($node, 'SELECT count(*) FROM sendcampaign.reply');
is(reply(5, 'Stop', sid => sprintf('SM%032d', $number)), 'known', 'the same again');
sql($node, "SELECT sendcampaign.opt_in('" . phone(5) . "', $group)", role => 'app');
is(reply(5, 'Stop', sid => sprintf('SM%032d', $number)), 'known', 'after a person has opted in');
is(is_out(5), 0, 'does not opt out again');
is(sql($node, 'SELECT count(*) FROM sendcampaign.reply'), $before, 'nor is it stored again');

# who has entered it
my $by_person =
  sql($node, "SELECT sendcampaign.opt_out('" . phone(6) . "', $group, 'on paper')", role => 'app');
reply(6, 'START');
is(is_out(6), 1, 'what a person has entered stays when somebody replies START');
reply(7, 'STOP');
is( sql($node,
		"SELECT sendcampaign.opt_out('" . phone(7) . "', $group, 'by phone, too')",
		role => 'app'),
	't',
	'a person says so, too');
reply(7, 'START');
is(is_out(7), 1, 'which stays as well');
$twilio->set('to-fault' => phone(8) . '=code:21610');
run_campaign($node, $campaign);
is(is_out(8), 1, 'Twilio says that somebody has opted out');
reply(8, 'UNSTOP');
is(is_out(8), 0, 'and their START counts');

# the order is that of time
reply(9, 'START');
sql($node,
	q(UPDATE sendcampaign.reply_data SET received_at = now() + interval '1 hour' WHERE phone = ')
	  . phone(9)
	  . q('));
reply(9, 'STOP');
is(is_out(9), 0, 'a STOP from before a START that is known does not opt out');
sql($node,
	q(UPDATE sendcampaign.reply_data SET written_in = '0' WHERE phone = ') . phone(9) . q('));
sql($node, <<~SQL);
	SET session_replication_role = replica;
	UPDATE sendcampaign.reply_data SET written_in = '0' WHERE phone = '${\phone(9)}';
	SQL
reply(9, 'STOP');
is(is_out(9), 1, 'a START that was loaded does not keep a STOP from being recorded');
sql($node, 'UPDATE sendcampaign.reply_data SET received_at = now() WHERE received_at > now()');
reply(10, 'STOP');
sql($node,
	q(UPDATE sendcampaign.opt_out_data SET created_at = now() + interval '1 hour' WHERE phone = ')
	  . phone(10)
	  . q('));
reply(10, 'START');
is(is_out(10), 1, 'a START from before a STOP that is known does not opt in');

# beside each other
my ($one, $two) = (Session->open($node), Session->open($node));
$one->query('SET ROLE webhook');
$two->query('SET ROLE webhook');
$one->query('BEGIN');
$one->query(Webhook::call_of(inbound_form('SMone', phone(11), 'STOP')));
$two->start_query(Webhook::call_of(inbound_form('SMtwo', phone(11), 'START')));
$node->poll_query_until('postgres', 'SELECT count(*) > 0 FROM pg_locks WHERE NOT granted');
$one->query('COMMIT');
$two->finish_query;
is(is_out(11), 0, 'a START that comes while a STOP is being recorded counts after it');

# a run that begins now
is(run_campaign($node, $campaign)->{skipped}, 4, 'those who have opted out are skipped');

#
# Whose they are
#

reply(12, 'hello', params => { To => '+15005550001' });
is(sql($node, q(SELECT sender FROM sendcampaign.reply WHERE phone = ') . phone(12) . q(')),
	'+15005550001', 'to a number that the group had before');
is(receive($node, inbound_form('SMstranger1', '+15559999999', 'hello')),
	'reply', 'a stranger writes to the number');
is( sql($node, "SELECT run_id, list_user_id FROM sendcampaign.reply WHERE phone = '+15559999999'"),
	'|',
	'which answers nothing');
is( receive($node, inbound_form('SMstranger2', '+15559999999', 'STOP', { To => '+15005550001' })),
	'ignored',
	'a stranger writes to another number of the account');
is(receive($node, inbound_form('SMstranger3', '12345', 'STOP')), 'ignored', 'a short code writes');
is(receive($node, inbound_form('SMwhatsapp', 'whatsapp:' . phone(13), 'stop')),
	'reply', 'from WhatsApp');
is(is_out(13), 1, 'the number is the same');

make_tenant($node, 'tenant');
sql($node, <<~SQL);
	GRANT EXECUTE ON ALL ROUTINES IN SCHEMA sendcampaign TO tenant;
	UPDATE tenant.groups SET configuration = configuration
		|| '{"twilioStatusCallback": "$URL", "twilioFromSmsNumber": "+15557770008"}';
	SQL
my $tenants_job =
  sql($node, 'SET sendcampaign.schema = tenant; SELECT send_campaign(1)', role => 'tenant');
$node->poll_query_until('postgres',
	q(SELECT state = 'completed' AND sent = 1 FROM sendcampaign.run WHERE schema = 'tenant'));
my %to_tenant = (To => '+15557770008');
is(receive($node, inbound_form('SMtenant', '+15550001234', 'hello', \%to_tenant)),
	'reply', 'to another tenant');
is(sql($node, "SELECT schema, role FROM sendcampaign.reply WHERE sid = 'SMtenant'"),
	'tenant|tenant', 'who is the one that has sent something');
is(sql($node, 'SELECT count(*) FROM sendcampaign.reply', role => 'tenant'), 1, 'and sees it');
is(sql($node, "SELECT count(*) FROM sendcampaign.reply WHERE sid = 'SMtenant'", role => 'app'),
	0, 'as nobody else does');
is(sql($node, 'SELECT count(*) FROM sendcampaign.conversation', role => 'webhook'),
	0, 'not even receive()');
configure($node, $campaign,
	q(configuration - 'twilioFromSmsNumber'::text || '{"twilioMessagingServiceSid": "MG1"}'));
is( receive(
		$node,
		inbound_form(
			'SMservice', phone(14),
			'STOP', { To => '+15005559999', MessagingServiceSid => 'MG1' })),
	'reply',
	'to a number of its Messaging Service');

is( sql($node, <<~SQL, role => 'app'),
	SELECT direction, status, body, job_id = $first
	FROM sendcampaign.conversation
	WHERE phone = '${\phone(5)}'
	SQL
	"out|sent||t\nout|sent||f\nin|received|Stop|f\nout|sent||f\nout|sent||f",
	'a conversation is in order of time');

#
# How they go
#

sql($node, "SELECT sendcampaign.forget_recipient('" . phone(5) . "')", role => 'tenant');
is(sql($node, q(SELECT count(*) FROM sendcampaign.reply WHERE phone = ') . phone(5) . q(')),
	1, 'another role forgets nothing');
sql($node, "SELECT sendcampaign.forget_recipient('" . phone(5) . "')", role => 'app');
is(sql($node, q(SELECT count(*) FROM sendcampaign.reply WHERE phone = ') . phone(5) . q(')),
	0, 'its own forgets replies, too');
my $erased = sql($node, 'SELECT row_to_json(r) FROM sendcampaign.reply_data r WHERE sid IS NULL');
like(
	$erased,
	qr/"sid":null,"phone":null,"sender":null,"body":null,"word":null/,
	'nothing is left of it');
configure($node, $campaign,
	qq(configuration || '{"twilioFromSmsNumber": "$LocalTwilio::SENDER"}'));
is(reply(5, 'Stop', sid => $sid_of_5), 'known', 'and it does not come back');
is(is_out(5), 0, 'with what it meant');

my $all = sql($node, 'SELECT count(*) FROM sendcampaign.reply');
sql($node, q(SELECT sendcampaign.forget(now() - interval '1 hour')), role => 'app');
is(sql($node, 'SELECT count(*) FROM sendcampaign.reply'), $all, 'what is not that old is kept');
sql($node, 'SELECT sendcampaign.forget(now())', role => 'app');
is(sql($node, 'SELECT string_agg(sid, $$,$$) FROM sendcampaign.reply'), 'SMtenant',
	'what is goes');
is(receive($node, inbound_form('SMwhatsapp', phone(13), 'stop')),
	'ignored', 'without a run, nothing comes');
sql($node,
		q(UPDATE sendcampaign.reply_data SET received_at = now() - interval '401 days')
	  . ' WHERE sid IS NULL');
sql($node, q(SELECT sendcampaign.forget(now() - interval '500 days')), role => 'app');
isnt(sql($node, 'SELECT count(*) FROM sendcampaign.reply_data'), 1, 'what is left of them stays');
sql($node, 'SELECT sendcampaign.forget(now())', role => 'app');
is(sql($node, 'SELECT count(*) FROM sendcampaign.reply_data'), 1, 'until it is of no use');

#
# What a configuration must not have
#

for my $wrong (
	[ '{"stopWords": ["' . 'x' x 101 . '"]}', '22023', 'a word that is too long' ],
	[
		qq({"startWords": [@{[ join ',', map { qq("w$_") } 1 .. 101 ]}]}),
		'54000', 'too many words'
	],
	[ '{"twilioStatusCallback": "example.org"}', '22023', 'a URL without a scheme' ],
	[ '{"twilioStatusCallback": "http://example.org/"}', '22023', 'one with http' ],
	[
		'{"twilioStatusCallback": "https://a_b.org/"}',
		'22023',
		'one with an underscore in its host'
	],
	[ '{"twilioStatusCallback": "https://u:p@example.org/"}', '22023', 'one with a password' ],
	[ '{"twilioInboundUrl": "https://"}', '22023', 'one without a host' ],
	[
		'{"twilioInboundUrl": "https://example.org/ö"}', '22023',
		'one with a letter to be escaped'
	])
{
	my ($configuration, undef, $name) = @$wrong;
	my $bad = create_campaign($node, users => 1);
	configure($node, $bad, "configuration || '$configuration'");
	my $error = run_campaign($node, $bad)->{error};
	like($error, qr/^(invalid value for|the group's) "\w+/, "$name: the run fails");
}
is(worker_errors($node), '', 'nothing else has happened');
$node->stop;
done_testing();
