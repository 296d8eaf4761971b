# What recipients answer is read with the sweeps: stop words opt out while a run
# sends, and later.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../perl";
use Campaign;
use LocalTwilio;
use Sweeps;
use Test::More;

my $service = 'MG' . '0' x 31 . '1';
my $twilio = LocalTwilio->start;
my $node = new_cluster('replies', $twilio);
$twilio->set('sent-after' => 0, 'deliver-after' => 0);

# A phone of list user n answers; returns the SID.
sub answer
{
	my ($n, $body, %more) = @_;
	return $twilio->inbound(
		from => sprintf('+1555%07d', $n),
		to => $LocalTwilio::SENDER,
		body => $body,
		%more);
}

# The replies that are stored: phone, text and word, by time.
sub replies
{
	return sql($node, <<~'SQL');
		SELECT string_agg(right(phone, 4) || ' ' || body || coalesce(' (' || word || ')', ''), ', '
			ORDER BY received_at, phone)
		FROM sendcampaign.reply
		SQL
}

my $campaign = create_campaign($node, users => 1000);
configure($node, $campaign, <<~'SQL');
	configuration || '{"twilioSegmentsPerSecond": 20, "stopWords": ["arrêt"]}'
	SQL
my $job = start_campaign($node, $campaign);
wait_until($node, "SELECT sent > 50 FROM sendcampaign.run WHERE job_id = $job");
answer(1, 'Thanks');
answer(1000, ' stop ');
answer(3, 'STOP', to => '+15005550001');
sql($node, "UPDATE sendcampaign.run_data SET sweep_at = now() WHERE job_id = $job");
wait_for_sweep($node, $job);
is(replies(), '0001 Thanks, 1000  stop  (stop)',
	'while it sends: replies to its number are there');
configure($node, $campaign, q(configuration || '{"twilioSegmentsPerSecond": 1000}'));
my $run = wait_for_run($node, $job);
is($run->{sent}, 999, 'who has opted out is not sent to');
is($run->{skipped}, 1, 'but skipped');
wait_for_no_worker($node);

# Later, when everything is delivered; the list itself need not be read for that.
sweep_now($node, $job);
is(counts_of($node, $job), '999|999|0|0', 'all receipts are there');
answer(2, 'Arrêt');
my %before = %{ $twilio->stats };
sweep_now($node, $job, after => '1 hour');
my %after = %{ $twilio->stats };
is($after{lists} - $before{lists}, 1, 'one request asks for replies');
is($after{fetches} - $before{fetches}, 0, 'and none for messages');
is(replies(), '0001 Thanks, 1000  stop  (stop), 0002 Arrêt (stop)',
	'a word of the group opts out');
sweep_now($node, $job, after => '1 hour');
is(replies(), '0001 Thanks, 1000  stop  (stop), 0002 Arrêt (stop)', 'no reply is stored twice');
wait_for_no_worker($node);

# A group that has sent nothing for days: its next run reads what came meanwhile.
sweep_now($node, $job, after => '72 hours');
is(next_sweep($node, $job), 'never', 'after 72 hours, replies are not asked for');
let_time_pass($node, $job, '4 hours');
$twilio->set('clock-skew' => -7200);
answer(7, 'ARRÊT');
$twilio->set('clock-skew' => 0);
configure($node, $campaign, q(configuration || '{"twilioSegmentsPerSecond": 20}'));
my $next = start_campaign($node, $campaign);
wait_until($node, "SELECT sent > 0 FROM sendcampaign.run WHERE job_id = $next");
sql($node, "UPDATE sendcampaign.run_data SET sweep_at = now() WHERE job_id = $next");
wait_for_sweep($node, $next);
like(replies(), qr/0007 ARRÊT \(stop\)/, 'in the first sweep');
sql($node, "SELECT sendcampaign.cancel($next)", role => 'app');
wait_for_run($node, $next, state => 'cancelled');
wait_for_no_worker($node);

# Of a service, the numbers are not known: the list has its replies.
$twilio->set(reset => 1);
sql($node, 'SELECT sendcampaign.forget(now() + interval \'1 day\')');
my $other = create_campaign($node, users => 5);
configure($node, $other, <<~"SQL");
	configuration - 'twilioFromSmsNumber' || '{"twilioMessagingServiceSid": "$service"}'
	SQL
my $by_service = run_campaign($node, $other)->{job};
answer(4, 'Hello', to => '+15005550099', service => $service);
answer(5, 'Hello', to => '+15005550099');
sweep_now($node, $by_service);
is(replies(), '0004 Hello', 'a reply by the service is there, and no other');
is(worker_errors($node), '', 'workers have no errors');
$node->stop;
done_testing();
