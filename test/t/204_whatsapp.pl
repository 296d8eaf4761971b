# Senders of WhatsApp: recipients are addressed through it, and everything else
# about them goes by their bare numbers.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../perl";
use Campaign;
use LocalTwilio;
use Test::More;

my $twilio = LocalTwilio->start;
my $node = new_cluster('whatsapp', $twilio, conf => <<~'CONF');
	sendcampaign.request_timeout = '1s'
	sendcampaign.lookup_delay = 0
	restart_after_crash = on
	CONF
my $sender = "whatsapp:$LocalTwilio::SENDER";

# A campaign whose group has these senders, as JSON
sub campaign_from
{
	my ($senders, %arg) = @_;
	my $campaign = create_campaign($node, %arg);
	configure($node, $campaign, <<~"SQL");
		configuration || jsonb_build_object('twilioFromSmsNumber', '$senders'::jsonb)
		SQL
	return $campaign;
}

sub whatsapp_campaign
{
	return campaign_from(qq("$sender"), @_);
}

sub ends_with
{
	my ($job, $expected, $name) = @_;
	wait_for_run($node, $job);
	is(outcome_of($node, $job), $expected, $name) or diag(reasons_of($node, $job));
	is($twilio->num_twice, 0, "$name: nobody has it twice");
}

# The request, and what the tables say
my $campaign = whatsapp_campaign(users => 5);
my $job = start_campaign($node, $campaign);
sent_once($node, $twilio, $campaign, $job, 'WhatsApp', total => 5);
my @messages = $twilio->ledger;
is(scalar(grep { $_->{from} eq $sender } @messages), 5, 'the sender is one of WhatsApp');
is(scalar(grep { $_->{to} =~ /^whatsapp:\+1555\d{7}$/ } @messages), 5, 'so are the recipients');
is(sql($node, <<~"SQL"), 5, 'the tables have bare numbers');
	SELECT count(*) FROM sendcampaign.message WHERE job_id = $job AND phone ~ '^\\+1555[0-9]{7}\$'
	SQL
is(sql($node, <<~"SQL", role => 'app'), "+15550000001|$sender||1", 'a preview');
	SELECT phone, sender, encoding, segments FROM sendcampaign.preview($campaign, 1)
	SQL
$campaign = whatsapp_campaign(users => 3, message => 'x' x 400);
is(sql($node, <<~"SQL", role => 'app'), '3|0', 'an estimate: a message counts as one segment');
	SELECT segments, segments_gsm7 FROM sendcampaign.estimate($campaign)
	SQL

# The sender is put into E.164, too; Smart Encoding is for SMS.
$twilio->set(reset => 1);
$campaign = campaign_from('" WhatsApp:+1 (500) 555-0006 "', users => 1);
configure($node, $campaign, q(configuration || '{"twilioSmartEncoded": true}'));
is(run_campaign($node, $campaign)->{sent}, 1, 'another way to write it: it is sent');
is(($twilio->ledger)[0]{from}, $sender, 'from the sender in E.164 form');
is(($twilio->ledger)[0]{extra}, '', 'without Smart Encoding');
my $error = sql_error(
	$node,
	'SELECT sendcampaign.preview(' . campaign_from('"whatsapp:Shop"') . ')',
	role => 'app');
is_deeply(
	$error,
	{
		sqlstate => '22023',
		message => q{invalid value for "twilioFromSmsNumber" in the group's configuration:}
		  . q{ "whatsapp:Shop"},
		detail => '',
		hint => 'Write a sender of WhatsApp as "whatsapp:" and a phone number in E.164 form.'
	},
	'no number: refused');

# Both channels in one group: each recipient by that of its sender.
$twilio->set(reset => 1);
$campaign = campaign_from(qq(["$sender", "$LocalTwilio::SENDER"]), users => 60);
$job = start_campaign($node, $campaign);
sent_once($node, $twilio, $campaign, $job, 'both channels', total => 60);
my %channels;
for my $message ($twilio->ledger)
{
	$channels{ join ' ', map { /^whatsapp:/ ? 'WhatsApp' : 'SMS' } @$message{qw(from to)} }++;
}
is_deeply([ sort keys %channels ], [ 'SMS SMS', 'WhatsApp WhatsApp' ], 'never mixed');

# In doubt: with a link, and without
for my $link ('https://example.org/survey', undef)
{
	my $name = $link ? 'with a link' : 'without a link';
	$twilio->set(reset => 1, 'fault:drop-after' => '#4', 'fault:drop-before' => '#3');
	$campaign = whatsapp_campaign(users => 40, base_url => $link);
	ends_with(start_campaign($node, $campaign), '40 sent', "in doubt, $name");

	# the same text went to the same number by SMS: that is another message
	$twilio->set(reset => 1);
	my $sms = create_campaign($node, users => 1, base_url => undef);
	is(run_campaign($node, $sms)->{sent}, 1, 'the text is sent by SMS');
	$twilio->set('to-fault' => 'whatsapp:+15550000001=drop-before');
	$campaign = whatsapp_campaign(users => 40, base_url => $link);
	my $doubtful = start_campaign($node, $campaign);
	ok(poll(sub { ($twilio->stats->{faults}{'drop-before'} // 0) > 0 }), 'not taken by WhatsApp');
	$twilio->set('to-fault' => 'whatsapp:+15550000001=none');
	ends_with($doubtful, '40 sent', "by SMS and WhatsApp, $name");

	# a crash, and lost commits
	$twilio->set(reset => 1, hold => 1, 'hold-after' => 1);
	$campaign = whatsapp_campaign(users => 10, base_url => $link);
	$job = start_campaign($node, $campaign);
	wait_for_flight($twilio, 10);
	kill_worker($node);
	$twilio->set(hold => 0, 'hold-after' => 0);
	wake($node);
	ends_with($job, '10 sent', "a crash, $name");
	lose_commits($node, $job, 6);
	ends_with($job, '10 sent', "lost commits, $name");
}

# Redacted numbers
change_conf($node, "sendcampaign.request_timeout = '3s'");    # no other is in doubt
$twilio->set(reset => 1, redact => 1, 'to-fault' => 'whatsapp:+15550000001=drop-after');
$campaign = whatsapp_campaign(users => 5);
$job = start_campaign($node, $campaign);
ends_with($job, '1 in_doubt, 4 sent', 'redacted');
like(reasons_of($node, $job), qr/message redaction is on/, 'redacted: the reason');
$twilio->set(redact => 0, 'to-fault' => 'whatsapp:+15550000001=none');
change_conf($node, "sendcampaign.request_timeout = '1s'");

# Opt-outs and duplicates are by the number, whatever the channel.
$twilio->set(reset => 1, 'to-fault' => 'whatsapp:+15550000001=code:21610');
$campaign = whatsapp_campaign(users => 2);
$job = run_campaign($node, $campaign)->{job};
is(outcome_of($node, $job), '1 failed, 1 sent', 'Twilio says that one has opted out');
$twilio->set('to-fault' => 'whatsapp:+15550000001=none');
my $group = group_of($campaign);
is(sql($node, "SELECT phone FROM sendcampaign.opt_outs($group)", role => 'app'),
	'+15550000001', 'its number is known');
configure($node, $campaign, <<~"SQL");
	configuration || jsonb_build_object('twilioFromSmsNumber', '$LocalTwilio::SENDER')
	SQL
$job = run_campaign($node, $campaign)->{job};
is(outcome_of($node, $job), '1 sent, 1 skipped', 'by SMS, it is skipped');
$campaign = whatsapp_campaign(users => 3, phone => '+1 555 000 0077');
$job = run_campaign($node, $campaign)->{job};
is(outcome_of($node, $job), '1 sent, 2 skipped', 'one message for one number');

# The sender is changed while a message is in doubt: it is looked for where it went.
$twilio->set(reset => 1, hold => 1, 'hold-after' => 1);
$campaign = whatsapp_campaign(users => 10);
$job = start_campaign($node, $campaign);
wait_for_flight($twilio, 10);
kill_worker($node);
configure($node, $campaign, <<~"SQL");
	configuration || jsonb_build_object('twilioFromSmsNumber', '$LocalTwilio::SENDER')
	SQL
$twilio->set(hold => 0, 'hold-after' => 0);
wake($node);
ends_with($job, '10 sent', 'another sender after a crash');
is($twilio->stats->{accepted}, 10, 'none is sent by SMS as well');

# A test, by its author's number
$twilio->set(reset => 1);
$campaign = whatsapp_campaign(users => 1);
my $test = sql($node, "SELECT sendcampaign.send_test($campaign, '+15550009999')", role => 'app');
is(wait_for_run($node, $test)->{sent}, 1, 'a test is sent');
is(($twilio->ledger)[0]{to}, 'whatsapp:+15550009999', 'through WhatsApp');

$node->stop;
my $of_crash = qr/.*(?:terminating connection because of crash|terminated by signal 9).*\n?/;
is(worker_errors($node) =~ s/$of_crash//gr, '', 'no worker complains');
done_testing();
