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

# A job's state, progress and error
sub job_summary
{
	my $job = shift;
	return sql($node, <<~SQL);
		SELECT data->>'state', progress, coalesce(error, '')
		FROM ac_background_jobs
		WHERE id = $job
		SQL
}

# A job's state
sub state_of
{
	my $job = shift;
	return sql($node, "SELECT data->>'state' FROM ac_background_jobs WHERE id = $job");
}

# Calls a function of the extension as the role "app".
sub call
{
	my $call = shift;
	return sql($node, "SELECT sendcampaign.$call", role => 'app');
}

# The messages are sent, as usual.
my $campaign = create_campaign($node, users => 3);
my $job = run_campaign($node, $campaign)->{job};
is(job_summary($job), 'completed|100|', 'a completed run is reported');
like(
	sql($node, "SELECT data FROM ac_background_jobs WHERE id = $job"),
	qr/"sent": 3, .*"total": 3/,
	'with its counts');

# Nothing is sent.
my $other_key = create_campaign($node, users => 4);
sql($node, <<~SQL);
	UPDATE ac_list_users
	SET data = '{"phone": "+15550000001"}'
	WHERE ac_list_id = (SELECT ac_list_id FROM ac_campaigns WHERE id = $other_key)
	SQL
$job = run_campaign($node, $other_key)->{job};
is( job_summary($job),
	'completed|100|nothing was sent: 4 of 4 skipped: no phone number (4)',
	'phones are under another key');
my $empty = create_campaign($node, users => 0);
my $run = run_campaign($node, $empty);
$job = $run->{job};
like(
	job_summary($job),
	qr/^completed\|100\|nothing was sent: list \d+ has no users that role "app" may see$/,
	'a list is empty');
is( $run->{error},
	sql($node, "SELECT error FROM ac_background_jobs WHERE id = $job"),
	'so says the run');

# A person pauses and resumes the run.
$campaign = create_campaign($node, users => 300);
$twilio->set(hold => 1);
$job = start_campaign($node, $campaign);
wait_for_flight($twilio, 20);
call("pause($job)");
is(state_of($job), 'paused', 'a pause is reported at once');
$twilio->set(hold => 0);
wait_for_no_worker($node);
like(job_summary($job), qr/^paused\|\d+\|$/,
	'it is paused still when what was under way has been recorded');
call("resume($job)");
wait_for_run($node, $job);
is(job_summary($job), 'completed|100|', 'it is resumed, and completes');

# The run pauses itself.
$campaign = create_campaign($node, users => 600);
my @phones = map { sprintf '+1555%07d', $_ } 1 .. 200;
$twilio->set(reset => 1, map { ('to-fault' => "$_=code:21211") } @phones);
$job = start_campaign($node, $campaign);
wait_for_run($node, $job, state => 'paused');
like(
	job_summary($job),
	qr/^paused\|\d+\|\d+ of \d+ messages? failed, .*21211/,
	'a run that pauses itself says why');
call("cancel($job)");
wait_for_run($node, $job);
is(state_of($job), 'cancelled', 'a cancelled run is reported');
$twilio->set(map { ('to-fault' => "$_=none") } @phones);

# All recipients are asleep.
$campaign = create_campaign($node, users => 5);
my $group = group_of($campaign);
sql($node, <<~SQL);
	UPDATE groups
	SET configuration = configuration || jsonb_build_object(
	    'quietHours', jsonb_build_object(
	        'from', to_char(now() AT TIME ZONE 'UTC' - interval '1 hour', 'HH24:MI'),
	        'to', to_char(now() AT TIME ZONE 'UTC' + interval '2 hours', 'HH24:MI')))
	WHERE id = $group
	SQL
$job = start_campaign($node, $campaign);
wait_until($node, "SELECT next_at IS NOT NULL FROM sendcampaign.run WHERE job_id = $job");
is(sql($node, <<~SQL), 't|running', 'the job says until when all are asleep');
	SELECT (data->>'nextAt')::timestamptz = next_at, data->>'state'
	FROM ac_background_jobs j
	JOIN sendcampaign.run r ON r.job_id = j.id
	WHERE j.id = $job
	SQL
wait_for_no_worker($node);
call("pause($job)");
is(state_of($job), 'paused', 'it is paused where no worker has it');
sql($node, q{UPDATE groups SET configuration = configuration - 'quietHours'});
call("resume($job)");
wait_for_run($node, $job);
is(sql($node, <<~SQL), 'f|completed', 'all are awake, and the run completes');
	SELECT data ? 'nextAt', data->>'state' FROM ac_background_jobs WHERE id = $job
	SQL

# The job's last update is suppressed, or raises an error.
my %error_of = (
	'RETURN NULL' => qr/could\ not\ update\ background\ job\ \d+\.
		\ A\ trigger,\ rule\ or\ policy\ suppressed\ the\ UPDATE\.
		\ Change\ it\ so\ that\ it\ lets\ the\ UPDATE\ pass\.$/x,
	q{RAISE 'not this one'} => qr/not this one/);
for my $action (sort keys %error_of)
{
	sql($node, <<~SQL);
		CREATE FUNCTION at_end() RETURNS trigger LANGUAGE plpgsql AS \$\$
		BEGIN
		    $action;
		END \$\$;
		CREATE TRIGGER at_end BEFORE UPDATE ON ac_background_jobs
		    FOR EACH ROW WHEN (new.progress = 100) EXECUTE FUNCTION at_end();
		SQL
	$twilio->set(reset => 1);
	$campaign = create_campaign($node, users => 5);
	$run = run_campaign($node, $campaign);
	$job = $run->{job};
	is($run->{state}, 'failed', "$action: not completed as if nothing were wrong");
	like($run->{error}, $error_of{$action}, "$action: the run says why");
	like(job_summary($job), qr/^failed\|\d+\|/, "$action: and the job");
	sql($node, 'DROP TRIGGER at_end ON ac_background_jobs; DROP FUNCTION at_end()');
	is(run_campaign($node, $campaign, job => $job)->{state},
		'completed', "$action: called again, it ends");
	is($twilio->stats->{accepted}, 5, "$action: nothing was sent again");
}
is(worker_errors($node), '', 'there are no errors in the log');
$node->stop;
done_testing();
