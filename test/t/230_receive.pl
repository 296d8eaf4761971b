# receive() takes what Twilio posts about messages: what it says counts if Twilio
# has signed it with the token of the messages' group, and only then.
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
my $node = new_cluster('receive', $twilio);
create_webhook_role($node, alone => 1);

sub run_counts
{
	my $job = shift;
	return sql($node,
			"SELECT delivered, undelivered FROM sendcampaign.run_data"
		  . " WHERE job_id = $job AND schema = 'public'");
}

sub sid_of
{
	my ($job, $n) = @_;
	return sql($node,
			"SELECT sid FROM sendcampaign.message WHERE job_id = $job"
		  . " ORDER BY list_user_id OFFSET $n - 1 LIMIT 1");
}

sub status_form
{
	my ($sid, $status, $more, %arg) = @_;
	return signed_form(
		{
			MessageSid => $sid,
			SmsSid => $sid,
			MessageStatus => $status,
			AccountSid => $LocalTwilio::ACCOUNT,
			From => $LocalTwilio::SENDER,
			To => '+15550000001',
			ApiVersion => '2010-04-01',
			%{ $more || {} }
		},
		%arg);
}

#
# What Twilio is asked for, and what it reports
#

my $campaign = create_campaign($node, users => 4);
my $plain = run_campaign($node, $campaign);
is(scalar(grep { $_->{extra} =~ /StatusCallback/ } $twilio->ledger),
	0, 'without a URL nothing is asked for');
configure($node, $campaign,
	qq(configuration || '{"twilioStatusCallback": "$URL#rc=3&rp=all", "other": 1}'));
my $run = run_campaign($node, $campaign);
my $job = $run->{job};
is(scalar(grep { $_->{extra} =~ /StatusCallback/ } $twilio->ledger),
	4, 'with one, each request says where to report to');

$twilio->set('deliver-after' => 1, 'sent-after' => 0);
$twilio->set('to-delivery' => '+15550000002=undelivered:30007');
$twilio->set('to-delivery' => '+15550000003=never');
my @callbacks;
poll(sub { @callbacks = $twilio->callbacks; @callbacks == 7 })
  or diag(scalar(@callbacks) . ' callbacks');
is_deeply([ map { receive($node, $_) } @callbacks ], [ ('receipt') x 7 ], 'each is taken');
is( delivery_of($node, $job),
	'delivered, undelivered 30007, sent, delivered',
	'and says what it says');
is(run_counts($job), '2|1', 'they are counted');
is_deeply(
	[ map { receive($node, $_) } reverse @callbacks, @callbacks ],
	[ ('known') x 14 ],
	'what comes again, or late, changes nothing');
is(delivery_of($node, $job), 'delivered, undelivered 30007, sent, delivered', 'indeed');
is(run_counts($job), '2|1', 'nor is it counted');

#
# What is not Twilio's
#

my $third = sid_of($job, 3);
my $good = status_form($third, 'delivered');
my %bad = (
	'a wrong signature' => { signature => 'A' x 27 . '=' },
	'an empty signature' => { signature => '' },
	'no signature' => { signature => undef },
	'a signature that is cut' => { signature => substr($good->{signature}, 0, 27) },
	'one with something after it' => { signature => "$good->{signature}x" },
	'another status' => { body => $good->{body} =~ s/delivered/undelivered/r },
	'one more parameter' => { body => "$good->{body}&Z=1" },
	'one parameter less' => { body => $good->{body} =~ s/&To=[^&]*//r },
	'a parameter with another name' => { body => $good->{body} =~ s/ApiVersion/ApiVersioN/r },
	'another SID' => { body => $good->{body} =~ s/$third/sid_of($job, 1)/ger },
	'an account that nobody has' => { body => $good->{body} =~ s/AccountSid=AC0/AccountSid=AC1/r }
);
my $expected;
for my $name (sort keys %bad)
{
	my $error = receive_error($node, { %$good, %{ $bad{$name} } });
	is($error->{sqlstate}, '28000', "$name is refused");
	$expected ||= $error;
	is_deeply($error, $expected, "$name: nothing tells what was wrong");
}
is($expected->{message}, 'the request was not signed by Twilio', 'the message');
is( $expected->{detail},
	q(The signature is not that of any group's "twilioAuthToken", for its)
	  . q( "twilioStatusCallback" or "twilioInboundUrl" and this body.),
	'its detail');
is( $expected->{hint},
	q(If it is a request of Twilio's, compare the URL in the group's configuration with the)
	  . q( one in Twilio's, and make sure that the web server passes the header)
	  . q( X-Twilio-Signature and the unchanged body.),
	'its hint');

my $half = '&X=' . 'y' x 32768;
my %malformed = (
	'' => 'It has no parameter AccountSid.',
	'AccountSid=' => 'It has no parameter AccountSid.',
	'AccountSid=AC%00' => 'It is not a form (application/x-www-form-urlencoded).',
	'AccountSid=%' => 'It is not a form (application/x-www-form-urlencoded).',
	'AccountSid=%4' => 'It is not a form (application/x-www-form-urlencoded).',
	'AccountSid=%4g' => 'It is not a form (application/x-www-form-urlencoded).',
	'AccountSid=%ff' => 'It is not a form (application/x-www-form-urlencoded).',
	'AccountSid=%c0%80' => 'It is not a form (application/x-www-form-urlencoded).',
	'AccountSid=a b' => 'It is not a form (application/x-www-form-urlencoded).',
	"AccountSid=\xc3\xa9" => 'It is not a form (application/x-www-form-urlencoded).',
	'=x' => 'It is not a form (application/x-www-form-urlencoded).',
	'{"AccountSid":"AC1"}' => 'It has no event with an accountSid.',
	'AccountSid=AC%27+OR+1' => 'Its parameter AccountSid is no SID.',
	"$good->{body}&MessageSid=SM1" => 'It has the parameter MessageSid more than once.',
	"$good->{body}&AccountSid=AC1" => 'It has the parameter AccountSid more than once.',
	"$good->{body}&MessageStatus=sent" => 'It has the parameter MessageStatus more than once.',
	"$good->{body}$half$half" => 'It is longer than 65536 bytes.',
	$good->{body} . '&X=1' x 200 => 'It has more than 200 parameters.');
for my $body (sort keys %malformed)
{
	my $error = receive_error($node, { %$good, body => $body });
	my $shown = length $body > 60 ? substr($body, 0, 10) . '...' . substr($body, -40) : $body;
	is($error->{sqlstate}, '22023', "refused: $shown");
	is($error->{message}, "the body is not that of a request of Twilio's", 'with this message');
	is($error->{detail}, $malformed{$body}, 'this detail');
	is($error->{hint}, 'Pass the body of the request as the web server received it.', 'this hint');
}
is(receive_error($node, { %$good, body => undef })->{sqlstate}, '22023', 'null is no body');
is( delivery_of($node, $job),
	'delivered, undelivered 30007, sent, delivered',
	'nothing has changed');

#
# What is Twilio's, though it may look otherwise
#

sub taken_anew
{
	my ($name, $request) = @_;
	sql($node, "UPDATE sendcampaign.receipt_data SET status = 'sent' WHERE sid = '$third'");
	is(receive($node, $request), 'receipt', $name);
}

taken_anew('the right one is taken', $good);
taken_anew('the URL is not needed', { %$good, url => undef });
taken_anew('it may be an inner one', { %$good, url => 'http://10.0.0.1:3000/rpc/receive' });
taken_anew(
	'Twilio may add parameters',
	status_form($third, 'delivered', { RawDlrDoneDate => '2611281200', 'New.One' => 'a&b=c %+' }));
taken_anew('and repeat them', status_form($third, 'delivered', { Tag => [ 'b', 'a', 'b' ] }));
taken_anew('with the port', status_form($third, 'delivered', {}, url => $URL =~ s/org/org:443/r));
my $other_query = $URL =~ s/source.*/source=sms&more=1/r;
taken_anew('with another query, as it was requested',
	status_form($third, 'delivered', {}, url => $other_query));
is( receive_error($node,
		{ %{ status_form($third, 'sent', {}, url => $other_query) }, url => $URL })->{sqlstate},
	'28000',
	'but not if it was not');

for my $url (
	'https://example.com/twilio', 'https://example.org/other?source=sms',
	'http://example.org/twilio?source=sms', 'https://example.org:444/twilio?source=sms')
{
	is(receive_error($node, status_form($third, 'delivered', {}, url => $url))->{sqlstate},
		'28000', "what was for $url is refused");
}
is(receive($node, status_form($third, 'sending')), 'known', 'an earlier status');
is(receive($node, status_form($third, 'invented')), 'ignored', 'a status that is not known');
is(receive($node, status_form('SMunknown', 'delivered')), 'ignored', 'an unknown message');
is(receive($node, signed_form({ AccountSid => $LocalTwilio::ACCOUNT, CallSid => 'CA1' })),
	'ignored', 'something else');

#
# Tokens
#

configure($node, $campaign, q(configuration || '{"twilioAuthToken": "new"}'));
is(receive_error($node, $good)->{sqlstate}, '28000', 'a token that was changed is of no use');
taken_anew('the new one is', status_form($third, 'delivered', {}, token => 'new'));
configure($node, $campaign,
	q(configuration - 'twilioAuthToken' || '{"twilioApiKeySid": "SK1", "twilioApiKeySecret": "s"}')
);
is(receive_error($node, status_form($third, 'delivered', {}, token => 's'))->{sqlstate},
	'28000', 'an API key proves nothing');
configure($node, $campaign, qq(configuration || '{"twilioAuthToken": "$LocalTwilio::TOKEN"}'));
taken_anew('a token beside it does', $good);
configure($node, $campaign, q(configuration || '{"twilioAccountSid": "AC2"}'));
is(receive_error($node, $good)->{sqlstate}, '28000', 'the group has another account now');
configure($node, $campaign, qq(configuration || '{"twilioAccountSid": "$LocalTwilio::ACCOUNT"}'));
sql($node, 'ALTER TABLE groups ADD private_access_configuration jsonb');
sql($node, q(UPDATE groups SET private_access_configuration = '{"twilioAuthToken": "private"}'));
ok(poll(sub { receive_error($node, $good)->{sqlstate} eq '28000' }),
	'a private configuration counts soon');
end_sessions($node);    # one that is there may take a while to see that the tables changed
taken_anew('and has the token', status_form($third, 'delivered', {}, token => 'private'));
sql($node, 'ALTER TABLE groups DROP private_access_configuration');
end_sessions($node);
taken_anew('until it is gone', $good);

#
# Who may call it, and when
#

is( sql_error($node, 'SELECT sendcampaign.receive(NULL, NULL, NULL)', role => 'pg_monitor')
	  ->{sqlstate},
	'42501',
	'others may not call it');
is(sql_error($node, $_, role => 'webhook')->{sqlstate}, '42501', "nor may its role: $_")
  for 'SELECT * FROM public.groups', 'SELECT * FROM sendcampaign.run_data',
  'SELECT sendcampaign.wake()', 'SELECT send_campaign(1)',
  "SELECT sendcampaign.opt_out('+15550000001', 1)";
is(sql($node, 'SELECT count(*) FROM sendcampaign.message', role => 'webhook'),
	0, 'it sees no messages');
my $call = Webhook::call_of($good);
my $error = sql_error($node, "BEGIN READ ONLY; $call;", role => 'webhook');
is($error->{sqlstate}, '25006', 'a read-only transaction');
is($error->{message}, 'cannot execute sendcampaign.receive() in a read-only transaction',
	'its message');

for my $level ('REPEATABLE READ', 'SERIALIZABLE')
{
	is(sql($node, "BEGIN ISOLATION LEVEL $level; $call; COMMIT", role => 'webhook'),
		'known', "it works in a transaction that is $level");
}
sql($node, "BEGIN; $call; ROLLBACK", role => 'webhook');

#
# A message that is still to be recorded, and one that is not
#

$twilio->set(hold => 1, 'hold-after' => 1, reset => 1);
configure($node, $campaign, qq(configuration - '{twilioApiKeySid,twilioApiKeySecret}'::text[]));
my $early = start_campaign($node, $campaign);
poll(sub { $twilio->callbacks >= 4 });
@callbacks = $twilio->callbacks;
cmp_ok(scalar @callbacks, '>=', 4, 'Twilio reports messages before it has answered');
is(receive($node, $callbacks[-1]), 'receipt', 'which is kept');
$twilio->set(hold => 0);
is(wait_for_run($node, $early)->{sent}, 4, 'the answers come');
like(
	delivery_of($node, $early),
	qr/^((-|delivered|undelivered 30007|sent)(, |$)){4}/,
	'what is kept counts');
isnt(delivery_of($node, $early), '-, -, -, -', 'when the message has been recorded');

#
# All receipts are there
#

my $listener = Session->open($node);
$listener->query('LISTEN sendcampaign');
$twilio->set(reset => 1);
my $last = create_campaign($node, users => 3);
configure($node, $last, qq(configuration || '{"twilioStatusCallback": "$URL"}'));
my $ended = run_campaign($node, $last)->{job};
poll(sub { @callbacks = $twilio->callbacks; @callbacks == 5 });
receive($node, $_) for @callbacks;
unlike($listener->query('SELECT 1'), qr/"receipts"/, 'one is still to come');
receive($node, status_form(sid_of($ended, 3), 'delivered'));
my $heard = '';
poll(sub { $heard .= $listener->query('SELECT 1'); $heard =~ /"receipts" *: *"complete"/ });
like($heard, qr/"job_id" *: *$ended,.*"receipts" *: *"complete"/, 'a notification says so');

is_deeply([ grep { /the-secret-auth/ } split /\n/, log_of($node) =~ s/LOG:  statement:.*//gr ],
	[], 'the token is in no line of the log');
is(worker_errors($node), '', 'nothing else has happened');
$node->stop;
done_testing();
