# pause() and resume(): from the commit on nothing more is sent, and after
# resume() everybody has the message once.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";

use Campaign;
use LocalTwilio;
use Session;
use Test::More;
use Time::HiRes ();

my $twilio = LocalTwilio->start;
my $node = new_cluster('pause', $twilio, conf => <<~CONF);
    sendcampaign.receipts = off
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

# Calls a function of the extension as the application's role.
sub call
{
	my $call = shift;
	return sql($node, "SELECT sendcampaign.$call", role => 'app');
}

# Changes the time that a request may take; what is in doubt is looked up after it.
sub set_timeout
{
	my $timeout = shift;
	set_and_reload($node, 'sendcampaign.request_timeout', $timeout);
}

# Waits until the run has left the worker's memory: every recipient is in a batch
# or recorded.
sub all_is_put_away
{
	my $job = shift;
	my $run_id = run_of($job);
	return wait_until($node, <<~SQL);
	    SELECT NOT EXISTS (SELECT FROM sendcampaign.claim WHERE run_id = $run_id)
	        AND total = sent + failed + skipped + in_doubt + (
	            SELECT coalesce(sum(cardinality(list_user_ids)), 0)
	            FROM sendcampaign.batch
	            WHERE run_id = $run_id)
	    FROM sendcampaign.run
	    WHERE job_id = $job
	SQL
}

# In the middle of many.
my $campaign = create_campaign($node, users => 10000);
$twilio->set(latency => 100);
my $job = start_campaign($node, $campaign);
wait_until($node, "SELECT sent > 500 FROM sendcampaign.run WHERE job_id = $job");
is(call_error($node, "pause($job)")->{message}, '', 'a run is paused in the middle');
my $run = run_row($node, $job);
is("$run->{state}: $run->{error}", 'paused: paused by app', 'the run says so');
ok(all_is_put_away($job), 'what has not left is put back');
my $sent = run_row($node, $job)->{sent};
is(sent_of($twilio, $campaign), $sent, 'what was on its way is recorded');
cmp_ok($sent, '<', 10000, 'the rest is not sent');
ok(worker_is_gone($node, 20), 'with nothing else to do the worker leaves');
is(sent_of($twilio, $campaign), $sent, 'nothing more is sent');
is(sql($node, 'SELECT sendcampaign.wake()'), 0, 'wake() does not wake the run');
my $error = sql_error($node, "SELECT send_campaign($campaign)", role => 'app');
is($error->{sqlstate}, '55006', 'it keeps other jobs from sending the campaign');
like(
	$error->{hint},
	qr/If it is paused, call sendcampaign\.resume\(\) or sendcampaign\.cancel\(\)/,
	'until somebody decides');
my (undef, undef, $notice) =
  $node->psql('postgres', "SET ROLE app; SELECT send_campaign($campaign, $job)");
my $paused_already = qr/NOTICE:  campaign $campaign is already in state "paused" /;
my $how_to_resume = qr/^HINT:  Call sendcampaign\.resume\(\) to continue it\.$/m;
like($notice, qr/$paused_already.*$how_to_resume/s, 'its own job does not go on by being called');

$error = call_error($node, "pause($job)");
is( "$error->{sqlstate} $error->{message}",
	qq{55000 the run of background job $job is in state "paused"},
	'a run is not paused twice');
is($error->{hint}, 'Only a queued or running run can be paused.', 'the hint says why');
my $unknown = call_error($node, 'pause(424242)')->{message};
like($unknown, qr/there is no run of background job 424242/, 'an unknown job is refused');
for my $function (qw(pause resume cancel))
{
	is( call_error($node, "$function($job)", role => 'stranger')->{message},
		$unknown =~ s/424242/$job/r,
		"$function() of another role's run is refused in the same words");
}

# How many requests come later than 100 ms after a pause.
sub late_after_pause
{
	call("resume($job)");
	my $before = $twilio->stats->{accepted};
	poll(sub { $twilio->stats->{accepted} > $before + 200 });
	call("pause($job)");
	my $until = (Time::HiRes::time() + 0.1) * 1e6;
	all_is_put_away($job);
	return scalar grep { $_->{time} > $until } $twilio->ledger;
}

# A machine that is busy just then gets another chance.
my $late;
for (1 .. 5)
{
	$late = late_after_pause();
	last if $late <= 40;
}
cmp_ok($late, '<=', 40, 'after 100 ms there comes at most what was in flight');

$twilio->set(latency => 0);
is(call_error($node, "resume($job)")->{message}, '', 'the run is resumed');
sent_once($node, $twilio, $campaign, $job, 'resumed', total => 10000);
is( call_error($node, "pause($job)")->{message},
	qq{the run of background job $job is in state "completed"},
	'what has ended is not paused');
is( call_error($node, "resume($job)")->{hint},
	'Only a paused run can be resumed.',
	'nor is it resumed');

# A pause that is rolled back is none.
($campaign, $job) = hold_campaign($node, $twilio, users => 300);
sql($node, "BEGIN; SELECT sendcampaign.pause($job); ROLLBACK", role => 'app');
$twilio->set(hold => 0);
sent_once($node, $twilio, $campaign, $job, 'rolled back', total => 300);

# Before a worker has it: what is queued stays so.
$campaign = create_campaign($node, users => 5);
$job = sql($node, <<~SQL, role => 'app');
    BEGIN;
    SELECT send_campaign($campaign) AS job \\gset
    SELECT sendcampaign.pause(:job);
    COMMIT;
    SELECT :job;
SQL
$job =~ s/\s//g;
ok(no_worker_is_to_come($node), 'paused in the queue: no worker stays');
is(sql($node, "SELECT state, total IS NULL FROM sendcampaign.run WHERE job_id = $job"),
	'paused|t', 'paused in the queue: the run is not begun');
call("resume($job)");
sent_once($node, $twilio, $campaign, $job, 'paused in the queue', total => 5);

# Resumed before the worker has let go of it.
($campaign, $job) = hold_campaign($node, $twilio, users => 500);
my $run_id = run_of($job);
call("pause($job)");
ok(wait_until($node, <<~SQL), 'answers are outstanding: the rest is put back already');
    SELECT sum(cardinality(list_user_ids)) >= 460
    FROM sendcampaign.batch
    WHERE run_id = $run_id
SQL
call("resume($job)");
$twilio->set(hold => 0);
sent_once($node, $twilio, $campaign, $job, 'resumed at once', total => 500);
ok(!(grep { $_ != 1 } values %{ $twilio->count_by_phone }), 'resumed at once: each once');

# One of several runs in the worker is paused; the other goes on.
my ($other, $other_job) = hold_campaign($node, $twilio, users => 400);
$campaign = create_campaign($node, users => 400);
$job = start_campaign($node, $campaign);
ok(wait_until($node, "SELECT total = 400 FROM sendcampaign.run WHERE job_id = $job"),
	'both are under way');
call("pause($job)");
$twilio->set(hold => 0);
sent_once($node, $twilio, $other, $other_job, 'the other run', total => 400);
is(run_row($node, $job)->{state}, 'paused', 'this run is paused');
ok(all_is_put_away($job), 'and put away');
call("resume($job)");
sent_once($node, $twilio, $campaign, $job, 'this run', total => 400);

# While Twilio asks to try later.
$twilio->set(reset => 1, 'fault:429' => 100);
$campaign = create_campaign($node, users => 50);
$job = start_campaign($node, $campaign);
ok(poll(sub { ($twilio->stats->{faults}{429} // 0) > 10 }), 'Twilio asks to try later');
call("pause($job)");
ok(all_is_put_away($job), 'what waits to be tried again is put back');
$twilio->set('fault:429' => 0);
ok(worker_is_gone($node, 20), 'nothing is tried again');
is($twilio->stats->{accepted}, 0, 'nothing is sent');
call("resume($job)");
sent_once($node, $twilio, $campaign, $job, 'try later', total => 50);

# What is in doubt stays claimed until the run is resumed.
$twilio->set(reset => 1, 'fault:drop-after' => '#5');
$campaign = create_campaign($node, users => 30);
$job = start_campaign($node, $campaign);
$run_id = run_of($job);
ok(poll(sub { ($twilio->stats->{faults}{'drop-after'} // 0) == 5 }), 'five are in doubt');
call("pause($job)");
ok(worker_is_gone($node, 20), 'the worker does not wait for lookups');
is($twilio->stats->{lists}, 0, 'nothing is looked up');
is(sql($node, <<~SQL), 5, 'five are claimed');
    SELECT count(*)
    FROM sendcampaign.claim c, unnest(c.list_user_ids) u(id)
    WHERE c.run_id = $run_id
        AND u.id NOT IN (SELECT list_user_id FROM sendcampaign.message WHERE job_id = $job)
SQL
set_timeout('3s');
call("resume($job)");
sent_once($node, $twilio, $campaign, $job, 'in doubt', total => 30);
set_timeout('60s');

# The worker is killed while it waits for the last answers.
($campaign, $job) = hold_campaign($node, $twilio, users => 100);
$run_id = run_of($job);
call("pause($job)");
wait_until($node, "SELECT count(*) > 0 FROM sendcampaign.batch WHERE run_id = $run_id");
kill_worker($node);
$twilio->set(hold => 0);
is(sql($node, 'SELECT sendcampaign.wake()'), 0, 'killed: the run stays paused');
set_timeout('3s');
call("resume($job)");
sent_once($node, $twilio, $campaign, $job, 'killed', total => 100);
set_timeout('60s');

# Paused while sending is switched off.
($campaign, $job) = hold_campaign($node, $twilio, users => 100);
set_and_reload($node, 'sendcampaign.enabled', 'off');
call("pause($job)");
$twilio->set(hold => 0);
ok(worker_is_gone($node, 20), 'switched off and paused: the worker leaves');
set_and_reload($node, 'sendcampaign.enabled', 'on');
is(sql($node, 'SELECT sendcampaign.wake()'), 0, 'switched on again: the run stays paused');
call("resume($job)");
sent_once($node, $twilio, $campaign, $job, 'switched off', total => 100);

# Paused while it reads back what was sent before commits were lost.
($campaign, $job) = hold_campaign($node, $twilio, users => 300);
$run_id = run_of($job);
call("pause($job)");
$twilio->set(hold => 0);
ok(worker_is_gone($node, 20), 'the run is paused once');
lose_all($node, $job);
$twilio->set('fault:list-500' => 100);
set_timeout('3s');
my $lists = $twilio->stats->{lists};
call("resume($job)");
ok(poll(sub { $twilio->stats->{lists} > $lists }), 'the run reads back');
call("pause($job)");
ok(worker_is_gone($node, 20), 'it is paused while it does');
call("resume($job)");
$lists = $twilio->stats->{lists};
ok(poll(sub { $twilio->stats->{lists} > $lists }), 'resumed, it reads back again');
$twilio->set('fault:list-500' => 0);
sent_once($node, $twilio, $campaign, $job, 'read back', total => 300);
set_timeout('60s');

# A caller who takes his time to commit keeps nothing from being sent.
($campaign, $job) = hold_campaign($node, $twilio, users => 1000);
my $session = Session->open($node);
$session->query("BEGIN; SET LOCAL ROLE app; SELECT sendcampaign.pause($job)");
$twilio->set(hold => 0);
ok(poll(sub { sent_of($twilio, $campaign) > 200 }), 'before the commit the run goes on');
$session->query('COMMIT');
$session->close;
ok(all_is_put_away($job), 'after the commit it is paused');
is(sent_of($twilio, $campaign), run_row($node, $job)->{sent}, 'what was sent is recorded');
is(run_row($node, $job)->{state}, 'paused', 'whether or not all of it is sent');
call("resume($job)");
sent_once($node, $twilio, $campaign, $job, 'slow to commit', total => 1000);

$node->stop;
done_testing();
