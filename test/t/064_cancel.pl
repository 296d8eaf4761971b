# cancel(): from its commit on nothing more is sent, and the counts add up.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";

use Campaign;
use LocalTwilio;
use PostgreSQL::Test::Utils;
use Session;
use Test::More;

my $twilio = LocalTwilio->start;
my $node = new_cluster('cancel', $twilio, conf => <<~CONF);
    restart_after_crash = on
    log_min_messages = debug1
    sendcampaign.max_concurrency = 40
    sendcampaign.request_timeout = '60s'
    sendcampaign.lookup_delay = '100ms'
CONF
sql($node, <<~'SQL');
    CREATE ROLE stranger LOGIN;
    GRANT USAGE ON SCHEMA sendcampaign TO stranger;
SQL

# Changes the time that a request may take; what is in doubt is looked up after it.
sub set_timeout
{
	my $timeout = shift;
	set_and_reload($node, 'sendcampaign.request_timeout', $timeout);
}

# Kills the worker, releases requests that are held, and has a new worker look up at
# once what the killed one had sent.
sub replace_worker
{
	kill_worker($node);
	$twilio->set(hold => 0);
	set_timeout('2s');
	wait_until($node, 'SELECT sendcampaign.wake() >= 0');
}

# Calls a function of the extension as the application's role.
sub call
{
	my $call = shift;
	return sql($node, "SELECT sendcampaign.$call", role => 'app');
}

# Waits until a run is wound up.
sub wait_until_finished
{
	my $job = shift;
	wait_until($node, "SELECT finished_at IS NOT NULL FROM sendcampaign.run WHERE job_id = $job");
}

# Waits until a run is wound up; compares its rows with what Twilio has accepted.
sub is_wound_up
{
	my ($campaign, $job, $name) = @_;
	my $run_id = run_of($job);
	wait_until_finished($job);
	my $run = run_row($node, $job);
	is($run->{state}, 'cancelled', "$name: the run is cancelled");
	is($run->{sent} + $run->{failed} + $run->{skipped} + $run->{in_doubt},
		$run->{total}, "$name: the counts add up");

	my %accepted;
	for my $message ($twilio->ledger)
	{
		$accepted{$1} = $message->{sid} if $message->{body} =~ /\?yu=(\d+)&yc=$campaign$/;
	}
	my $sent = sql($node, <<~SQL);
	    SELECT list_user_id, sid
	    FROM sendcampaign.message
	    WHERE job_id = $job AND status = 'sent'
	SQL
	my %sent = map { split /\|/ } split /\n/, $sent;
	is_deeply(\%sent, \%accepted, "$name: what Twilio accepted is recorded as sent");

	my $rows = sql($node, <<~SQL);
	    SELECT count(*),
	        count(*) FILTER (WHERE status = 'skipped' AND error_message = 'cancelled'),
	        (SELECT count(*) FROM sendcampaign.batch WHERE run_id = $run_id),
	        (SELECT count(*) FROM sendcampaign.claim WHERE run_id = $run_id)
	    FROM sendcampaign.message
	    WHERE job_id = $job
	SQL
	is($rows, "$run->{total}|$run->{skipped}|0|0", "$name: so are the rows, and nothing is left");
	is(sql($node, <<~SQL), $run->{sent}, "$name: each sentCount is right, too");
	    SELECT count(*)
	    FROM ac_list_users u JOIN ac_campaigns c USING (ac_list_id)
	    WHERE c.id = $campaign AND u.data->>'sentCount' = '1'
	SQL
	return $run;
}

# How many recipients of a run are sent to, skipped or in doubt.
sub accounted_for
{
	my $run = shift;
	return $run->{sent} + $run->{skipped} + $run->{in_doubt};
}

# What the application sees of its job.
sub job_summary
{
	my $job = shift;
	return sql($node, <<~SQL);
	    SELECT progress, error, data->>'sent', data->>'skipped'
	    FROM ac_background_jobs
	    WHERE id = $job
	SQL
}

# Sends a campaign and cancels it in one transaction; returns the job.
sub send_and_cancel
{
	my ($campaign, %arg) = @_;
	my $job = sql($node, <<~SQL, %arg);
	    BEGIN;
	    SELECT send_campaign($campaign) AS job \\gset
	    SELECT sendcampaign.cancel(:job);
	    COMMIT;
	    SELECT :job;
	SQL
	return $job =~ s/\s//gr;
}

# In the middle of many.
my $listener = Session->open($node);
$listener->query('LISTEN sendcampaign');
my $campaign = create_campaign($node, users => 10000);
$twilio->set(latency => 100);
my $job = start_campaign($node, $campaign);
wait_until($node, "SELECT sent > 500 FROM sendcampaign.run WHERE job_id = $job");
is(call_error($node, "cancel($job)")->{message}, '', 'a run is cancelled in the middle');
my $run = is_wound_up($campaign, $job, 'in the middle');
is($run->{error}, 'cancelled by app', 'the run says who cancelled it');
my ($progress, $error, $sent, $skipped) = split /\|/, job_summary($job);
ok($progress >= 5 && $progress < 100, "the job's progress stays where it was") or diag($progress);
is( "$error $sent $skipped",
	"cancelled by app $run->{sent} $run->{skipped}",
	'the job says who cancelled it, and the counts');
wait_for_no_worker($node);    # it announces the end after its commit
is(scalar(() = $listener->query('SELECT 1') =~ /"state" : "cancelled"/g),
	1, 'there is one notification');
$listener->close;

is( call_error($node, "cancel($job)")->{message},
	qq{the run of background job $job is in state "cancelled"},
	'a run is not cancelled twice');
for my $function (qw(pause resume))
{
	is(call_error($node, "$function($job)")->{sqlstate},
		'55000', "$function() of a cancelled run is refused");
}
my $unknown = call_error($node, 'cancel(424242)')->{message};
is( call_error($node, "cancel($job)", role => 'stranger')->{message},
	$unknown =~ s/424242/$job/r,
	"another role's job is as one that does not exist");
like(sql_error($node, "SELECT send_campaign($campaign, $job)", role => 'app')->{message},
	qr/^$/, 'sending the campaign by the same job again is no error');
is(run_row($node, $job)->{state}, 'cancelled', 'and changes nothing');

# The campaign may be sent by another job.
$twilio->set(latency => 0, reset => 1);
my $again = start_campaign($node, $campaign);
is(wait_for_run($node, $again)->{sent}, 10000, 'another job sends it to all');
is($twilio->stats->{accepted}, 10000, 'once each');

# While it is in the queue.
$campaign = create_campaign($node, users => 5);
$job = send_and_cancel($campaign, role => 'app');
is(sql($node, <<~SQL), 'cancelled|0|t|cancelled by app', 'in the queue a run ends at once');
    SELECT state, total, finished_at IS NOT NULL, error FROM sendcampaign.run WHERE job_id = $job
SQL
is(job_summary($job), '5|cancelled by app|0|0', 'so does its job');
ok(no_worker_is_to_come($node), 'no worker stays');

# A superuser's call may do what the role may do.
$campaign = create_campaign($node, users => 5);
$job = send_and_cancel($campaign);
is(run_row($node, $job)->{state}, 'cancelled', "a superuser's call cancels the run");

# A run that is paused, whose worker is gone.
my $held;
($campaign, $held) = hold_campaign($node, $twilio, users => 600);
call("pause($held)");
$twilio->set(hold => 0);
ok(worker_is_gone($node, 20), 'the run is paused');
call("cancel($held)");
cmp_ok(is_wound_up($campaign, $held, 'paused')->{sent},
	'<=', 40, 'paused: only what was on its way is sent');

# Answers are outstanding.
($campaign, $held) = hold_campaign($node, $twilio, users => 600);
call("cancel($held)");
wait_until($node, "SELECT skipped > 0 FROM sendcampaign.run WHERE job_id = $held");
is(sql($node, "SELECT finished_at IS NULL FROM sendcampaign.run WHERE job_id = $held"),
	't', 'the run waits for answers');
$twilio->set(hold => 0);
my $flown = is_wound_up($campaign, $held, 'answers outstanding')->{sent};
ok($flown >= 20 && $flown <= 40, 'and records them') or diag($flown);

# What is in doubt is looked up; meanwhile no other run of the campaign begins.  The
# lookups come late enough for the run to be cancelled before them.
set_timeout('10s');
my $faults_are_hit = sub {
	my $faults = $twilio->stats->{faults};
	return ($faults->{'drop-after'} // 0) == 3 && ($faults->{'drop-before'} // 0) == 3;
};
$twilio->set(reset => 1, 'fault:drop-after' => '#3', 'fault:drop-before' => '#3');
$campaign = create_campaign($node, users => 100);
$twilio->set(latency => 100);
$job = start_campaign($node, $campaign);
ok(poll($faults_are_hit), 'some are in doubt');
call("cancel($job)");
$again = start_campaign($node, $campaign);
$run = wait_for_run($node, $again);
is(sql($node, <<~SQL), 't', 'another job waits');
    SELECT a.started_at >= c.finished_at
    FROM sendcampaign.run a, sendcampaign.run c
    WHERE a.job_id = $again AND c.job_id = $job
SQL
is("$run->{sent} of $run->{total}", '100 of 100', 'and goes on when the doubt is resolved');
my @sids = split /\n/, sql($node, <<~SQL);
    SELECT sid
    FROM sendcampaign.message
    WHERE job_id IN ($job, $again) AND status = 'sent'
    ORDER BY 1
SQL
is_deeply(\@sids, [ sort map { $_->{sid} } $twilio->ledger ], 'each SID is that of one message');
$run = run_row($node, $job);
is(accounted_for($run), 100, 'what was found is sent, the rest is skipped');
cmp_ok($run->{in_doubt}, '<=', 3, 'what was not found stays in doubt, as nothing is sent later');
set_timeout('60s');

# The worker is killed.
$twilio->set(latency => 0);
for my $case ('held', 'winding up')
{
	($campaign, $job) = hold_campaign($node, $twilio, users => 30000);
	call("cancel($job)");
	wait_until($node, "SELECT skipped > 0 FROM sendcampaign.run WHERE job_id = $job")
	  if $case ne 'held';
	replace_worker();
	is_wound_up($campaign, $job, "killed, $case");
	set_timeout('60s');
}

# Sending is switched off meanwhile.
($campaign, $job) = hold_campaign($node, $twilio, users => 300);
set_and_reload($node, 'sendcampaign.enabled', 'off');
call("cancel($job)");
$twilio->set(hold => 0);
ok(worker_is_gone($node, 20), 'switched off: the worker leaves');
is(run_row($node, $job)->{state}, 'cancelled', 'switched off: the run is cancelled');
set_and_reload($node, 'sendcampaign.enabled', 'on');
sql($node, 'SELECT sendcampaign.wake()');
is_wound_up($campaign, $job, 'switched on');

# Commits were lost: what was sent is read back first, and not called skipped.
($campaign, $job) = hold_campaign($node, $twilio, users => 300);
call("pause($job)");
$twilio->set(hold => 0);
ok(worker_is_gone($node, 20), 'the run is paused');
my $run_id = run_of($job);
lose_all($node, $job);
set_timeout('2s');
call("cancel($job)");
cmp_ok(is_wound_up($campaign, $job, 'commits lost')->{sent},
	'>=', 20, 'what was sent is known again');
set_timeout('60s');

# Without the application's tables what is in doubt can no longer be looked up.
($campaign, $job) = hold_campaign($node, $twilio, users => 300);
kill_worker($node);
sql($node, "ALTER TABLE groups RENAME TO gone; SELECT sendcampaign.cancel($job)", role => 'app');
$twilio->set(hold => 0);
set_timeout('2s');
wait_until($node, 'SELECT sendcampaign.wake() >= 0');
wait_until_finished($job);
$run = run_row($node, $job);
is($run->{state}, 'cancelled', "without the application's tables the run ends");
is(accounted_for($run), 300, 'the counts add up');
like(
	$run->{error},
	qr/^cancelled by app\. table "public.groups" does not exist/,
	'the run says the reason');
sql($node, 'ALTER TABLE gone RENAME TO groups');
set_timeout('60s');

# A role that can have no worker any more, while the one that it has waits for answers.
($campaign, $job) = hold_campaign($node, $twilio, users => 300);
call("cancel($job)");
wait_until($node, "SELECT skipped > 0 FROM sendcampaign.run WHERE job_id = $job");
sql($node, 'REVOKE CONNECT ON DATABASE postgres FROM PUBLIC');
sql($node, 'SELECT sendcampaign.wake()');
is(sql($node, "SELECT finished_at IS NULL FROM sendcampaign.run WHERE job_id = $job"),
	't', 'wake() leaves a run to the worker that has it');
$twilio->set(hold => 0);
$run = is_wound_up($campaign, $job, 'no other worker may begin');
is($run->{in_doubt}, 0, 'no other worker may begin: nothing is in doubt');
wait_for_no_worker($node);
sql($node, 'GRANT CONNECT ON DATABASE postgres TO PUBLIC');

# A role that no worker can work for.
sql($node, <<~'SQL');
    CREATE ROLE leaver LOGIN;
    GRANT app TO leaver;
    GRANT USAGE ON SCHEMA sendcampaign TO leaver;
    GRANT ALL ON ALL TABLES IN SCHEMA public TO leaver;
    GRANT ALL ON ALL SEQUENCES IN SCHEMA public TO leaver;
SQL
($campaign, $job) = hold_campaign($node, $twilio, users => 300, role => 'leaver');
kill_worker($node);
sql($node, "SELECT sendcampaign.pause($job)", role => 'leaver');
$twilio->set(hold => 0);
sql($node, 'DROP OWNED BY leaver; DROP ROLE leaver');
sql($node, "SELECT sendcampaign.cancel($job); SELECT sendcampaign.wake()");
$run = run_row($node, $job);
is(accounted_for($run), 300, 'the role is gone: the counts add up');
like(
	$run->{error},
	qr/^cancelled by \w+\. role "leaver" does not exist/,
	'the role is gone: the run says the reason');

$node->stop;
done_testing();
