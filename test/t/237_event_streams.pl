# What Twilio's Event Streams post to receive(): events in JSON about several
# messages.  They count as what is posted as a form does, all or none of a body.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../perl";
use Campaign;
use LocalTwilio;
use Test::More;
use Webhook;

my $twilio = LocalTwilio->start;
my $node = new_cluster('events', $twilio);
create_webhook_role($node);
my $campaign = create_campaign($node, users => 6);
configure($node, $campaign, qq(configuration || '{"twilioStatusCallback": "$URL#rc=3"}'));
my $job = run_campaign($node, $campaign)->{job};
my (@sids, @phones);
for (split /\n/, sql($node, <<~"SQL"))
	SELECT sid, phone FROM sendcampaign.message WHERE job_id = $job ORDER BY list_user_id
	SQL
{
	my ($sid, $phone) = split /\|/;
	push @sids, $sid;
	push @phones, $phone;
}

sub is_refused
{
	my ($request, $sqlstate, $detail, $name) = @_;
	my $before = delivery_of($node, $job);
	my $error = receive_error($node, $request);
	is($error->{sqlstate}, $sqlstate, "refused: $name");
	is($error->{detail}, $detail, "$name: why") if $detail;
	is(delivery_of($node, $job), $before, "$name: nothing has changed");
}

#
# Receipts
#

is(receive($node, signed_json([ receipt_event($sids[0], 'delivered') ])), 'receipt', 'a receipt');
is(receive($node, signed_json(receipt_event($sids[1], 'sent'))), 'receipt', 'without an array');
is(delivery_of($node, $job), 'delivered, sent, -, -, -, -', 'they count');
my $batch = signed_json([
	receipt_event($sids[2], 'delivered'),
	receipt_event($sids[1], 'undelivered', errorCode => 30007),
	receipt_event($sids[2], 'sent'),
	receipt_event($sids[0], 'queued'),
	receipt_event($sids[3], 'failed', errorCode => '30006', messageStatus => 'failed'),
	receipt_event('SMunknown', 'delivered')
]);
is(receive($node, $batch), 'receipt', 'several, in any order');
my $all = 'delivered, undelivered 30007, delivered, failed 30006, -, -';
is(delivery_of($node, $job), $all, 'each counts');
is(receive($node, $batch), 'known', 'and once');
is( sql($node,
		"SELECT delivered, undelivered FROM sendcampaign.run_data"
		  . " WHERE job_id = $job AND schema = 'public'"),
	'2|2',
	'they are counted');
is(receive($node, signed_json([ receipt_event($sids[0], 'read') ])), 'receipt', 'it was read');
my $other = receipt_event($sids[4], 'delivered');
$other->{type} =~ s/messaging/voice/;
is(receive($node, signed_json([$other])), 'ignored', 'an event of another type');
is(receive($node, signed_json([ receipt_event($sids[4], 'invented') ])),
	'ignored', 'a status that is not known');
is(receive($node, signed_json([ receipt_event('SMunknown', 'sent') ])),
	'ignored', 'an unknown message');
is(delivery_of($node, $job), $all =~ s/delivered/read/r, 'they change nothing');
is( receive(
		$node,
		signed_json(
				qq( [{"data":{"accountSid":"$LocalTwilio::ACCOUNT","messageSid":"$sids[4]",)
			  . qq("timestamp":17,"errorCode":[1],"new":[{"messageSid":"x"},"y"]},"more":[)
			  . qq({"type":"a"},"b",{"data":{"accountSid":"AC1"}}],)
			  . q("type":"com.twilio.messaging.message.delivered","time":null}]))),
	'receipt',
	'other members do not matter, nor does the order');
is(delivery_of($node, $job) =~ s/.*d 30006, //r, 'delivered, -', 'it counts');

#
# Replies
#

sub replies
{
	my $sid = shift;
	return sql($node,
		"SELECT phone, body, word, sid FROM sendcampaign.reply WHERE sid LIKE '$sid'");
}

my $text = "Gr\x{fc}\x{df}e \x{1f389} \"\\\\ud83c\" \\ %s";
my $bytes = $text;
utf8::encode($bytes);
is(receive($node, signed_json([ reply_event('SMa', $phones[0], $text) ])), 'reply', 'a reply');
is(replies('SMa'), "$phones[0]|$bytes||SMa", 'as it was written');
my $strange = signed_json([ reply_event('SMb', $phones[0], 'BODY') ])->{body};
$strange =~ s/BODY/a\\u0000b\\ud83c\\udf89c\\ud83cd\\uDF89\\u00e9\\n\\\\u0000\\u0022/;
is(receive($node, signed_json($strange)), 'reply', 'a text with strange characters');
is( replies('SMb'),
	"$phones[0]|a b\xf0\x9f\x8e\x89c\xef\xbf\xbdd\xef\xbf\xbd\xc3\xa9\n\\u0000\"||SMb",
	'which does not keep it from being stored');
my ($stopped, $started) = (event_time(), event_time());
my @words = (
	reply_event('SMc2', $phones[1], 'START', timestamp => $started),
	receipt_event($sids[0], 'delivered'),
	reply_event('SMc1', $phones[1], 'Stop', timestamp => $stopped),
	reply_event('SMc3', $phones[2], 'STOP', timestamp => '2999-02-01T00:00:00Z'),
	reply_event('SMc4', $phones[3], undef, to => '+15559999999'));
is(receive($node, signed_json(\@words)), 'reply', 'replies come before what is known');
is(sql($node, 'SELECT phone FROM sendcampaign.opt_out'),
	$phones[2], 'words count in the order of time');
is(receive($node, signed_json(\@words)), 'known', 'and once');
is(sql($node, <<~"SQL"), '1|t', 'a reply has the time of its event, unless that is to come');
	SELECT count(*) FILTER (WHERE sid = 'SMc1' AND received_at = '$stopped'),
		bool_and(received_at <= now()) FROM sendcampaign.reply
	SQL
is( receive($node, signed_json([ reply_event('SMd', substr($phones[0], 1) + 0, 17, to => \1), ])),
	'ignored',
	'numbers and booleans are no addresses');
is(receive($node, signed_json([ reply_event('SMe', $phones[0], 17) ])),
	'reply', 'a number is a text');
is(replies('SMe'), "$phones[0]|17||SMe", 'namely this one');

#
# What Twilio signs
#

sub taken_anew
{
	my ($name, $request) = @_;
	sql($node, "UPDATE sendcampaign.receipt_data SET status = 'sent' WHERE sid = '$sids[0]'");
	is(receive($node, $request), 'receipt', $name);
}

my $good = signed_json([ receipt_event($sids[0], 'delivered') ]);
my ($hash) = $good->{url} =~ /bodySHA256=(.*)/;
my $plain = $URL =~ s/\?.*//r;
taken_anew('the URL is not needed', { %$good, url => undef });
taken_anew('the port', signed_json($good->{body}, url => $URL =~ s/org/org:443/r));
taken_anew('another query', signed_json($good->{body}, url => "$plain?to=events"));
taken_anew('no other query', signed_json($good->{body}, url => $plain));
taken_anew('the hash in upper case',
	signed_json($good->{body}, requested => "$URL&bodySHA256=" . uc $hash));
my $unsigned = q(The signature is not that of any group's "twilioAuthToken", for its)
  . q( "twilioStatusCallback" or "twilioInboundUrl" and this body.);
my %wrong = (
	'a wrong signature' => { %$good, signature => 'A' x 27 . '=' },
	'no signature' => { %$good, signature => undef },
	'another token' => signed_json($good->{body}, token => 'x'),
	'no hash' => signed_json($good->{body}, requested => $URL),
	'the hash of another body' => signed_json($good->{body}, requested => $batch->{url}),
	'a hash that is cut' => signed_json($good->{body}, requested => substr($good->{url}, 0, -1)),
	'a hash that is not the last parameter' =>
	  signed_json($good->{body}, requested => "$good->{url}&x=1"),
	'two hashes' => signed_json($good->{body}, requested => "$batch->{url}&bodySHA256=$hash"),
	'a hash in another parameter' =>
	  signed_json($good->{body}, requested => "$plain?xbodySHA256=$hash"),
	'another path' => signed_json($good->{body}, url => "$plain/x"),
	'another body' => { %$good, body => "$good->{body} " },
	'another account' => signed_json([ receipt_event($sids[0], 'delivered', accountSid => 'AC1') ])
);
is_refused($wrong{$_}, '28000', $unsigned, $_) for sort keys %wrong;
my $short = qq({"type":"com.twilio.messaging.message.sent","data":{"accountSid":)
  . qq("$LocalTwilio::ACCOUNT","messageSid":"x"}});
is_refused(signed_json('[' . join(',', map { $short } 1 .. 900) . ']', token => 'x'),
	'28000', $unsigned, 'many events');
my $form = signed_form({ AccountSid => $LocalTwilio::ACCOUNT, MessageSid => $sids[5] });
is_refused({ %$good, signature => $form->{signature} },
	'28000', $unsigned, 'the signature of a form');

#
# What is not such a body; each is signed
#

my $event = signed_json(receipt_event($sids[5], 'delivered'))->{body};
my $before = signed_json(receipt_event($sids[5], 'sent'))->{body};
my %malformed = (
	'[' => 'It is not JSON.',
	"[$event" => 'It is not JSON.',
	"[$event]x" => 'It is not JSON.',
	"[$event,]" => 'It is not JSON.',
	$event =~ s/"to"/to/r => 'It is not JSON.',
	$event =~ s/2010/\\x/r => 'It is not JSON.',
	$event =~ s/2010/\n/r => 'It is not JSON.',
	'[' x 60000 => 'It is not JSON.',
	'{"a":' x 20000 => 'It is not JSON.',
	'[' x 3000 . ']' x 3000 => 'It has no event with an accountSid.',
	'[]' => 'It has no event with an accountSid.',
	'{}' => 'It has no event with an accountSid.',
	'[1, "x", null]' => 'It has no event with an accountSid.',
	"[[$event]]" => 'It has no event with an accountSid.',
	qq({"data": [$event]}) => 'It has no event with an accountSid.',
	qq([{"accountSid": "$LocalTwilio::ACCOUNT"}]) => 'It has no event with an accountSid.',
	"[$before,{" . substr($event, 1) =~
	  s/"accountSid"/"accountSiD"/r . ']' => 'An event has no accountSid.',
	"[$before," . $event =~
	  s/("accountSid":)"\w+"/$1\["x"]/r . ']' => 'An event has no accountSid.',
	"[$before," . $event =~
	  s/("accountSid":)"\w+"/$1"AC'"/r . ']' => 'An accountSid of an event is no SID.',
	"[$before," . $event =~
	  s/("accountSid":)"\w+"/$1"AC1"/r . ']' => 'Its events are of several accounts.',
	"[$before," . $event =~ s/("accountSid":)"\w+"/$1"AC1"/r =~
	  s/"com.twilio[^"]*delivered"/"x"/gr . ']' => 'Its events are of several accounts.',
	"[$before," . $event =~
	  s/"messageSid"/"messagesid"/r . ']' => 'A messageSid of an event is missing, or no SID.',
	"[$before," . $event =~
	  s/("messageSid":)"\w+"/$1"S M"/r . ']' => 'A messageSid of an event is missing, or no SID.',
	"[$before," . $event =~
	  s/("messageSid":)/$1"SM1",$1/r . ']' => 'An event has a member more than once.',
	"[$before," . $event =~
	  s/("type":)/$1"x",$1/r . ']' => 'An event has a member more than once.',
	"[$before," . $event =~
	  s/("data":)/$1\{},$1/r . ']' => 'An event has the member data more than once.',
	'[' . join(',', $before, map { '{}' } 1 .. 1000) . ']' => 'It has more than 1000 events.',
	"[$before" . ' ' x 131072 . ']' => 'It is longer than 131072 bytes.');
for my $body (sort keys %malformed)
{
	my $shown = length $body > 50 ? substr($body, 0, 10) . '...' . substr($body, -40) : $body;
	is_refused(signed_json($body), '22023', $malformed{$body}, $shown);
}
is(receive($node, signed_json("[$before" . ',{"data":{"x":1}}' x 900 . ' ' x 60000 . ']')),
	'receipt', 'a large body of one that is not');
is(sql_error($node, "SELECT sendcampaign.receive(NULL, 'x', E'[\"\\xff\"]')")->{sqlstate},
	'22021', 'what is no UTF-8 does not come here');

#
# All or nothing
#

sql($node, <<~"SQL");
	CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS \$\$
	BEGIN
		IF NEW.sid = 'SMf2' THEN RAISE 'no'; END IF;
		RETURN NEW;
	END \$\$;
	CREATE TRIGGER fail BEFORE INSERT ON sendcampaign.reply_data
		FOR EACH ROW EXECUTE FUNCTION fail();
	SQL
my $half = signed_json([
	receipt_event($sids[5], 'delivered'),
	reply_event('SMf1', $phones[0], 'yes'),
	reply_event('SMf2', $phones[1], 'no')
]);
is_refused($half, 'P0001', undef, 'a body of which the last part fails');
is(replies('SMf%'), '', 'no part of it is stored');
sql($node, 'DROP TRIGGER fail ON sendcampaign.reply_data');
is(receive($node, $half), 'reply', 'all of it is');
is(replies('SMf_') =~ tr/\n//, 1, 'when nothing fails');

#
# At random
#

my $seed = $ENV{SEED} || time ^ $$;
diag("SEED=$seed");
srand $seed;
my $state = <<~'SQL';
	SELECT md5(string_agg(t::text, ',' ORDER BY t::text)) FROM (
		SELECT row_to_json(r)::text FROM sendcampaign.receipt_data r
		UNION ALL SELECT row_to_json(r)::text FROM sendcampaign.reply_data r
		UNION ALL SELECT row_to_json(r)::text FROM sendcampaign.early_receipt r
		UNION ALL SELECT row_to_json(r)::text FROM sendcampaign.opt_out_data r
		UNION ALL SELECT row_to_json(r)::text FROM sendcampaign.run_data r) t
	SQL
my $fresh =
  signed_json([ receipt_event($sids[1], 'read'), reply_event('SMg', $phones[0], 'STOP') ]);
my @parts =
  ('"', '{', '}', '[', ']', ',', ':', '\\', '\\u0000', '\\ud83c', 'null', $event, 'STOP');

sub mutated
{
	my $body = shift;
	for (1 .. 1 + int rand 3)
	{
		substr $body, rand length $body, int rand 4, rand() < 0.3 ? '' : $parts[ rand @parts ];
	}
	return $body;
}

my @mutations = grep { $_ ne $fresh->{body} } map { mutated($fresh->{body}) } 1 .. 1000;
my $unchanged = sql($node, $state);
my $values = join ', ', map { '($text$' . $_ . '$text$)' } @mutations;
my %outcomes = map { split /\|/ } split /\n/, sql($node, <<~"SQL");
	CREATE FUNCTION outcome(body text) RETURNS text LANGUAGE plpgsql AS \$\$
	BEGIN
		RETURN sendcampaign.receive('$fresh->{url}', '$fresh->{signature}', body);
	EXCEPTION WHEN OTHERS THEN
		RETURN sqlstate;
	END
	\$\$;
	SELECT outcome(body), count(*) FROM (VALUES $values) v (body) GROUP BY 1;
	SQL
is_deeply([ sort keys %outcomes ], [ '22023', '28000' ], 'changed bodies are refused');
is(sql($node, $state), $unchanged, 'and change nothing');
is(receive($node, $fresh), 'reply', 'the unchanged one counts');
isnt(sql($node, $state), $unchanged, 'which is seen');
is(worker_errors($node), '', 'nothing else has happened');
$node->stop;
done_testing();
