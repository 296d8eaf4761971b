# After its time a campaign is sent to nobody any more.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";

use Campaign;
use LocalTwilio;
use PostgreSQL::Test::Utils;
use Test::More;

my $twilio = LocalTwilio->start;
my $node = new_cluster('send_until', $twilio);

# Sets until when a campaign is to be sent, given as SQL.
sub set_until
{
	my ($campaign, $value) = @_;
	sql($node, <<~SQL);
	    UPDATE ac_campaigns
	    SET data = data || jsonb_build_object('sendUntil', $value)
	    WHERE id = $campaign
	SQL
}

# Merges an SQL expression of type jsonb into the configuration of the campaign's
# group.
sub add_to_configuration
{
	my ($campaign, $configuration) = @_;
	my $group = group_of($campaign);
	sql($node, <<~SQL);
	    UPDATE groups
	    SET configuration = configuration || $configuration
	    WHERE id = $group
	SQL
}

# How many recipients of a job are skipped as their messages have expired.
sub expired
{
	my $job = shift;
	return sql($node, <<~SQL);
	    SELECT count(*)
	    FROM sendcampaign.message
	    WHERE job_id = $job
	        AND status = 'skipped'
	        AND error_message LIKE 'expired: %'
	        AND sid IS NULL
	        AND attempts = 0
	SQL
}

# Over before it began, in all notations.
my @past = (
	q{now() - interval '1 s'},
	q{'2024-02-29 12:00:00+05:45'},
	q{'2024-02-29T12:00:00Z'},
	q{'2000-01-01 00:00:00+00'},
	q{'1999-12-31 UTC'},
	q{'-infinity'});
for my $past (@past)
{
	my $campaign = create_campaign($node, users => 300);
	set_until($campaign, $past);
	my $job = start_campaign($node, $campaign);
	sent_once($node, $twilio, $campaign, $job, "until $past", skipped => 300, total => 300);
	is(expired($job), 300, "until $past: all have expired");
}
# apart from a campaign that is sent beside one that takes long
is(scalar(grep { $_->{body} !~ /^Companion\b/ } $twilio->ledger), 0, 'nothing is sent');
is( sql($node, 'SELECT DISTINCT error FROM ac_background_jobs WHERE error IS NOT NULL'),
	'nothing was sent: 300 of 300 skipped: expired: it was to be sent before (300)',
	'the job says so');

# There is time.
for my $future (q{now() + interval '1 hour'}, q{'infinity'}, q{NULL::text})
{
	my $campaign = create_campaign($node, users => 10);
	set_until($campaign, $future);
	my $job = start_campaign($node, $campaign);
	sent_once($node, $twilio, $campaign, $job, "until $future", total => 10);
}

# A column of the application.
for my $column ('send_until timestamptz', '"sendUntil" text', 'send_until text')
{
	my ($name) = split / /, $column;
	sql($node, "ALTER TABLE ac_campaigns ADD $column");
	my $campaign = create_campaign($node, users => 10);
	set_until($campaign, q{now() + interval '1 hour'});
	sql($node, "UPDATE ac_campaigns SET $name = now() - interval '1 s' WHERE id = $campaign");
	my $job = start_campaign($node, $campaign);
	sent_once($node, $twilio, $campaign, $job, "a column $column", total => 10, skipped => 10);
	sql($node, "ALTER TABLE ac_campaigns DROP $name");
}

# The time comes while the run goes on: with a slow sender, and where Twilio asks
# to wait for longer.
my $campaign = create_campaign($node, users => 1000);
add_to_configuration($campaign, q('{"twilioSegmentsPerSecond": 5}'));
set_until($campaign, q{clock_timestamp() + interval '8 s'});
my $job = start_campaign($node, $campaign);
my $run = wait_for_run($node, $job);
my $sum = $run->{sent} + $run->{skipped};
is("$run->{state} $sum", 'completed 1000', 'a slow sender: the counts add up');
cmp_ok($run->{skipped}, '>', 500, 'a slow sender: most have expired');
sent_once(
	$node, $twilio, $campaign, $job, 'a slow sender',
	total => 1000,
	skipped => expired($job));

$twilio->set(reset => 1, 'retry-after' => 3, 'fault:429' => '#20');
$campaign = create_campaign($node, users => 20);
set_until($campaign, q{clock_timestamp() + interval '7 s'});
$job = start_campaign($node, $campaign);
sent_once(
	$node, $twilio, $campaign, $job, 'Twilio asks to wait for too long',
	total => 20,
	skipped => 20);
is(expired($job), 20, 'all have expired');
$twilio->set('retry-after' => 0, 'fault:429' => 0);

# It is set, made longer or taken away in mid-run: the next claim knows.
($campaign, $job) = hold_campaign($node, $twilio, users => 600);
my $run_id = run_of($job);
my $claimed = sql($node, <<~SQL);
    SELECT sum(cardinality(list_user_ids)) FROM sendcampaign.claim WHERE run_id = $run_id
SQL
set_until($campaign, q{now() - interval '1 s'});
$twilio->set(hold => 0);
sent_once(
	$node, $twilio, $campaign, $job, 'set in mid-run',
	total => 600,
	skipped => 600 - $claimed);
is(expired($job), 600 - $claimed, 'those who were not claimed before have expired');

for my $longer (q{now() + interval '1 hour'}, q{NULL::text})
{
	$campaign = create_campaign($node, users => 600);
	set_until($campaign, q{now() + interval '10 minutes'});
	$twilio->set(hold => 1, reset => 1);
	$job = start_campaign($node, $campaign);
	wait_for_flight($twilio, 20);
	set_until($campaign, $longer);
	$twilio->set(hold => 0);
	sent_once($node, $twilio, $campaign, $job, "in mid-run, until $longer", total => 600);
}

# What is no time fails the run, and it goes on once that is mended.
my @wrong = (q{'tomorrow, perhaps'}, q{'2024-02-30 12:00'}, q{''}, q{42}, q{true}, q{'{}'::jsonb});
for my $wrong (@wrong)
{
	my $requests = $twilio->stats->{create_requests};
	$campaign = create_campaign($node, users => 10);
	set_until($campaign, $wrong);
	$job = start_campaign($node, $campaign);
	$run = wait_for_run($node, $job);
	like(
		"$run->{state} $run->{error}",
		qr/^failed .*(timestamp|date\/time)/,
		"until $wrong: the run fails, and says why");
	is($twilio->stats->{create_requests}, $requests, 'nothing is sent');
}
set_until($campaign, 'NULL::text');
is(start_campaign($node, $campaign, job => $job), $job, 'the campaign is called again');
sent_once($node, $twilio, $campaign, $job, 'mended', total => 10);

($campaign, $job) = hold_campaign($node, $twilio, users => 600);
set_until($campaign, q{'soon'});
$twilio->set(hold => 0);
$run = wait_for_run($node, $job);
is($run->{state}, 'failed', 'what is no time in mid-run fails the run');
cmp_ok($run->{sent}, '<', 600, 'not all are sent');
set_until($campaign, q{now() + interval '1 hour'});
start_campaign($node, $campaign, job => $job);
sent_once($node, $twilio, $campaign, $job, 'mended in mid-run', total => 600);

# A night that ends later: put off, and then it is too late.
$campaign = create_campaign($node, users => 40);
add_to_configuration($campaign, <<~'SQL');
    jsonb_build_object('quietHours', jsonb_build_object(
        'from', to_char((now() - interval '1 hour') AT TIME ZONE 'UTC', 'HH24:MI:SS'),
        'to', to_char((now() + interval '2 hours') AT TIME ZONE 'UTC', 'HH24:MI:SS')))
SQL
sql($node, <<~SQL);
    UPDATE ac_list_users
    SET data = data || '{"timeZone": "Asia/Kathmandu"}'
    WHERE id % 2 = 0
        AND ac_list_id = (SELECT ac_list_id FROM ac_campaigns WHERE id = $campaign)
SQL
set_until($campaign, q{now() + interval '1 hour'});
$job = start_campaign($node, $campaign);
wait_until($node, "SELECT next_at > now() FROM sendcampaign.run WHERE job_id = $job");
is(run_row($node, $job)->{sent}, 20, 'those who are awake get it in time');
is(sql($node, <<~SQL), 't', 'nobody waits for a morning that is too late');
    SELECT next_at = (data->>'sendUntil')::timestamptz
    FROM sendcampaign.run r JOIN ac_campaigns c ON c.id = r.campaign_id
    WHERE job_id = $job
SQL
wait_for_no_worker($node);
set_until($campaign, q{now() - interval '1 s'});
sql($node, <<~SQL);
    UPDATE sendcampaign.batch SET due = now();
    UPDATE sendcampaign.run SET next_at = now() WHERE job_id = $job;
    SELECT sendcampaign.wake();
SQL
sent_once(
	$node, $twilio, $campaign, $job, 'too late in the morning',
	total => 40,
	skipped => 20);
is(expired($job), 20, 'the others have expired');

$node->stop;
is(worker_errors($node), '', 'no worker complains');
done_testing();
