# An application that only polls its background job sees the state of the run,
# why nothing was sent, and what waits for a person.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../perl";
use Campaign;
use LocalTwilio;
use Test::More;

my $twilio = LocalTwilio->start;
my $node = new_cluster('told', $twilio);
sub sql { return $node->safe_psql('postgres', $_[0]); }
sub job { return sql("SELECT data->>'state', progress, coalesce(error, '') FROM ac_background_jobs WHERE id = $_[0]"); }
sub state_of { return sql("SELECT data->>'state' FROM ac_background_jobs WHERE id = $_[0]"); }

# sent: the usual
my $campaign = create_campaign($node, users => 3);
my $job = start_campaign($node, $campaign);
wait_for_run($node, $job);
is(job($job), 'completed|100|', 'a completed run');
like(sql("SELECT data FROM ac_background_jobs WHERE id = $job"), qr/"sent": 3, .*"total": 3/, 'with its counts');

# nothing was sent
my $other_key = create_campaign($node, users => 4);
sql(qq{UPDATE ac_list_users SET data = '{"phone": "+15550000001"}' WHERE ac_list_id = (SELECT ac_list_id FROM ac_campaigns WHERE id = $other_key)});
$job = start_campaign($node, $other_key);
wait_for_run($node, $job);
is(job($job), 'completed|100|nothing was sent: 4 of 4 skipped: no phone number (4)', 'phones under another key');
my $empty = create_campaign($node, users => 0);
$job = start_campaign($node, $empty);
my $run = wait_for_run($node, $job);
like(job($job), qr/^completed\|100\|nothing was sent: list \d+ has no users that role "app" may see$/, 'an empty list');
is($run->{error}, sql("SELECT error FROM ac_background_jobs WHERE id = $job"), 'so says the run');

# a person pauses and resumes; the job is locked by somebody, and nobody waits
$campaign = create_campaign($node, users => 300);
$twilio->set(hold => 1);
$job = start_campaign($node, $campaign);
wait_for_flight($twilio, 20);
sql("SET ROLE app; SELECT sendcampaign.pause($job)");
is(state_of($job), 'paused', 'paused: at once');
$twilio->set(hold => 0);
wait_for_no_worker($node);
like(job($job), qr/^paused\|\d+\|$/, 'paused: still, when what was under way has been recorded');
sql("SET ROLE app; SELECT sendcampaign.resume($job)");
wait_for_run($node, $job);
is(job($job), 'completed|100|', 'resumed');

# it pauses itself
$campaign = create_campaign($node, users => 600);
$twilio->set(reset => 1, map { ('to-fault' => sprintf('+1555%07d=code:21211', $_)) } 1 .. 200);
$job = start_campaign($node, $campaign);
wait_for_run($node, $job, state => 'paused');
like(job($job), qr/^paused\|\d+\|\d+ of \d+ messages failed, .*21211/, 'a run that pauses itself says why');
sql("SET ROLE app; SELECT sendcampaign.cancel($job)");
wait_for_run($node, $job);
is(state_of($job), 'cancelled', 'cancelled');
$twilio->set(map { ('to-fault' => sprintf('+1555%07d=none', $_)) } 1 .. 200);

# all are asleep
$campaign = create_campaign($node, users => 5);
sql(q{UPDATE groups SET configuration = configuration || jsonb_build_object('quietHours', jsonb_build_object(
	'from', to_char(now() AT TIME ZONE 'UTC' - interval '1 hour', 'HH24:MI'), 'to', to_char(now() AT TIME ZONE 'UTC' + interval '2 hours', 'HH24:MI')))
	WHERE id = } . group_of($campaign));
$job = start_campaign($node, $campaign);
$node->poll_query_until('postgres', "SELECT next_at IS NOT NULL FROM sendcampaign.run WHERE job_id = $job");
is(sql("SELECT (data->>'nextAt')::timestamptz = next_at, data->>'state' FROM ac_background_jobs j JOIN sendcampaign.run r ON r.job_id = j.id WHERE j.id = $job"),
	't|running', 'asleep: until when');
wait_for_no_worker($node);
sql("SET ROLE app; SELECT sendcampaign.pause($job)");
is(state_of($job), 'paused', 'paused where no worker has it');
sql('UPDATE groups SET configuration = configuration - $$quietHours$$');
sql("SET ROLE app; SELECT sendcampaign.resume($job)");
wait_for_run($node, $job);
is(sql("SELECT data ? 'nextAt', data->>'state' FROM ac_background_jobs WHERE id = $job"), 'f|completed', 'awake, and through');

# the job's last update is suppressed, or raises an error
my %trigger = (
	'RETURN NULL' => qr/background job \d+ could not be updated\. A trigger, a rule or a policy suppresses the update\. \w.*\.$/,
	q{RAISE 'not this one'} => qr/not this one/);
for my $action (sort keys %trigger)
{
	sql(qq{CREATE FUNCTION at_end() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN } . $action =~ s/'/''/gr . qq{; END';
		CREATE TRIGGER at_end BEFORE UPDATE ON ac_background_jobs FOR EACH ROW WHEN (new.progress = 100) EXECUTE FUNCTION at_end()});
	$twilio->set(reset => 1);
	$campaign = create_campaign($node, users => 5);
	$job = start_campaign($node, $campaign);
	$run = wait_for_run($node, $job);
	is($run->{state}, 'failed', "$action: not completed as if nothing were wrong");
	like($run->{error}, $trigger{$action}, "$action: the run says why");
	like(job($job), qr/^failed\|\d+\|/, "$action: and the job");
	sql('DROP TRIGGER at_end ON ac_background_jobs; DROP FUNCTION at_end()');
	start_campaign($node, $campaign, job => $job);
	is(wait_for_run($node, $job)->{state}, 'completed', "$action: called again, it ends");
	is($twilio->stats->{accepted}, 5, "$action: nothing was sent again");
}
is(worker_errors($node), '', 'no errors in the log');
$node->stop;
done_testing();
