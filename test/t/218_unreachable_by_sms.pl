# Whether a phone can be reached by SMS says nothing about WhatsApp, nor what became
# of a message there about SMS: it goes by the sender that each recipient has.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../perl";
use Campaign;
use LocalTwilio;
use Sweeps;
use Test::More;
use Webhook;

my $twilio = LocalTwilio->start;
my $node = new_cluster('by_sms', $twilio);
create_webhook_role($node);
$twilio->set('sent-after' => 0, 'deliver-after' => 0);
my $whatsapp = "whatsapp:$LocalTwilio::SENDER";
my $skipped = 'the phone number cannot be reached by SMS';

# A campaign whose group has these senders, as JSON
sub campaign_from
{
	my ($senders, %arg) = @_;
	my $campaign = create_campaign($node, %arg);
	configure($node, $campaign, <<~"SQL");
		configuration || jsonb_build_object('twilioFromSmsNumber', '$senders'::jsonb,
			'twilioStatusCallback', '$URL')
		SQL
	return $campaign;
}

# The last digits of the phones that are marked.
sub marks
{
	return sql($node, <<~'SQL', role => 'app');
		SELECT coalesce(string_agg(right(phone, 1), ' ' ORDER BY phone), '')
		FROM sendcampaign.unreachable
		SQL
}

# Two phones are not reached by SMS.
$twilio->set('to-delivery' => "+1555000000$_=undelivered:30005") for 1 .. 2;
my $job = run_campaign($node, campaign_from(qq("$LocalTwilio::SENDER"), users => 4))->{job};
sweep_now($node, $job);
is(marks(), '1 2', 'two phones cannot be reached by SMS');

# Through WhatsApp, nobody is skipped.
my $campaign = campaign_from(qq("$whatsapp"), users => 4);
my $skip = 'SET sendcampaign.skip_unreachable = on';
is(sql($node, <<~"SQL", user => 'app'), '0|0', 'preview() shows that nowhere');
	$skip;
	SELECT count(skipped), count(unreachable) FROM sendcampaign.preview($campaign)
	SQL
is(sql($node, <<~"SQL", user => 'app'), '4|0', 'estimate() does not count it');
	$skip;
	SELECT messages, unreachable FROM sendcampaign.estimate($campaign)
	SQL
sql($node, 'ALTER ROLE app SET sendcampaign.skip_unreachable = on');
wait_for_no_worker($node);
my $run = run_campaign($node, $campaign);
is("$run->{sent} $run->{skipped}", '4 0', 'all get the message through WhatsApp');

# What became of it there: by the list, by a callback, and by one that came early.
$twilio->set('to-delivery' => 'whatsapp:+15550000003=undelivered:30006');
sweep_now($node, $run->{job});
is(counts_of($node, $run->{job}), '4|3|1|0', 'three are delivered there, and one is not');
is(marks(), '1 2', 'which clears and sets no mark');

sub report
{
	my ($sid, $phone, $status, $code, $channel) = @_;
	return receive(
		$node,
		signed_form({
			MessageSid => $sid,
			MessageStatus => $status,
			$code ? (ErrorCode => $code) : (),
			AccountSid => $LocalTwilio::ACCOUNT,
			From => $channel . $LocalTwilio::SENDER,
			To => $channel . $phone
		}));
}

my $sids = 'SELECT sid FROM sendcampaign.message WHERE job_id = %d ORDER BY list_user_id';
$run = run_campaign($node, $campaign);
my @sid = split /\n/, sql($node, sprintf $sids, $run->{job});
is(report($sid[0], '+15550000001', 'delivered', 0, 'whatsapp:'), 'receipt', 'a callback');
is(report($sid[3], '+15550000004', 'failed', 30005, 'whatsapp:'), 'receipt', 'and another');
is(marks(), '1 2', 'clear and set no mark either');

my $before = scalar $twilio->ledger;
$twilio->set(hold => 1, 'hold-after' => 1);
$job = start_campaign($node, $campaign);
poll(sub { scalar $twilio->ledger == $before + 4 });
my %early = map { $_->{to} => $_->{sid} } ($twilio->ledger)[ -4 .. -1 ];
is(report($early{'whatsapp:+15550000002'}, '+15550000002', 'delivered', 0, 'whatsapp:'),
	'receipt', 'an early one');
is(report($early{'whatsapp:+15550000003'}, '+15550000003', 'failed', 30005, 'whatsapp:'),
	'receipt', 'and another');
$twilio->set(hold => 0);
wait_for_run($node, $job);
sweep_now($node, $job);
is(counts_of($node, $job), '4|3|1|0', 'count');
is(marks(), '1 2', 'and clear and set no mark');

# Both channels in one group: each recipient by its sender.
my $both = campaign_from(qq(["$whatsapp", "$LocalTwilio::SENDER"]), users => 40);
$twilio->set('to-delivery' => sprintf('+1555%07d=undelivered:30006', $_)) for 1 .. 40;
my $sms = campaign_from(qq("$LocalTwilio::SENDER"), users => 40);
sql($node, 'ALTER ROLE app RESET sendcampaign.skip_unreachable');
wait_for_no_worker($node);
sweep_now($node, run_campaign($node, $sms)->{job});
is(sql($node, 'SELECT count(*) FROM sendcampaign.unreachable'), 40, 'no phone can be reached');
my $preview = sql($node, <<~"SQL", user => 'app');
	$skip;
	SELECT count(sender) FILTER (WHERE sender = '$whatsapp'),
		count(*) FILTER (WHERE skipped = '$skipped' AND unreachable IS NOT NULL)
	FROM sendcampaign.preview($both, NULL)
	SQL
my ($through, $not) = split /\|/, $preview;
ok($through > 0 && $not > 0 && $through + $not == 40, 'preview(): some get it through WhatsApp')
  or diag($preview);
sql($node, 'ALTER ROLE app SET sendcampaign.skip_unreachable = on');
wait_for_no_worker($node);
$run = run_campaign($node, $both);
is("$run->{sent} $run->{skipped}", "$through $not", 'they do, and the others are skipped');

# A message by SMS still clears it.
sql($node, 'ALTER ROLE app RESET sendcampaign.skip_unreachable');
wait_for_no_worker($node);
$run = run_campaign($node, campaign_from(qq("$LocalTwilio::SENDER"), users => 2));
@sid = split /\n/, sql($node, sprintf $sids, $run->{job});
is(report($sid[0], '+15550000001', 'delivered', 0, ''), 'receipt', 'one is delivered by SMS');
is(sql($node, 'SELECT count(*) FROM sendcampaign.unreachable'), 39, 'which clears the mark');

# One that was delivered through WhatsApp later does not keep a phone from being marked.
my $mark = 'SELECT count(*) FROM sendcampaign.unreachable WHERE phone = $$+15550000001$$';
$run = run_campaign($node, $campaign);
my ($through_whatsapp) = split /\n/, sql($node, sprintf $sids, $run->{job});
is(report($through_whatsapp, '+15550000001', 'delivered', 0, 'whatsapp:'),
	'receipt', 'one is delivered through WhatsApp');
sql($node, <<~"SQL");
	UPDATE sendcampaign.receipt_data SET updated_at = updated_at + interval '1 day'
	WHERE sid = '$through_whatsapp'
	SQL
$run = run_campaign($node, campaign_from(qq("$LocalTwilio::SENDER"), users => 1));
@sid = split /\n/, sql($node, sprintf $sids, $run->{job});
is(sql($node, $mark), 0, 'there is no mark');
is(report($sid[0], '+15550000001', 'undelivered', 30006, ''), 'receipt', 'one by SMS is not');
is(sql($node, $mark), 1, 'which marks the phone');
is(worker_errors($node), '', 'workers have no errors');
$node->stop;
done_testing();
