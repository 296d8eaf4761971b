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
my $node = new_cluster('pause', $twilio, conf => qq{
	restart_after_crash = on
	sendcampaign.max_concurrency = 40
	sendcampaign.request_timeout = '3s'
	sendcampaign.lookup_delay = '100ms'
});
$node->safe_psql('postgres', 'CREATE ROLE stranger LOGIN; GRANT USAGE ON SCHEMA sendcampaign TO stranger');

sub call { return sql_error($node, "SET ROLE " . ($_[2] // 'app') . "; SELECT sendcampaign.$_[0]($_[1])"); }

sub sent_of
{
	my $campaign = shift;
	return scalar grep { $_->{body} =~ /&yc=$campaign$/ } $twilio->ledger;
}

# The run has left the worker's memory: everything is in a batch or recorded.
sub all_is_put_away
{
	my $job = shift;
	return $node->poll_query_until('postgres', qq{SELECT NOT EXISTS (SELECT FROM sendcampaign.claim WHERE run_id = ${\ run_of($job)})
		AND total = sent + failed + skipped + in_doubt + (SELECT coalesce(sum(cardinality(list_user_ids)), 0)
			FROM sendcampaign.batch WHERE run_id = ${\ run_of($job)}) FROM sendcampaign.run WHERE job_id = $job});
}

# in the middle of many
my $campaign = create_campaign($node, users => 10000);
$twilio->set(latency => 20);
my $job = start_campaign($node, $campaign);
$node->poll_query_until('postgres', "SELECT sent > 500 FROM sendcampaign.run WHERE job_id = $job");
is(call('pause', $job)->{message}, '', 'paused in the middle');
my $run = run_row($node, $job);
is("$run->{state}: $run->{error}", 'paused: paused by app', 'and so it says');
ok(all_is_put_away($job), 'what has not left is put back');
my $sent = run_row($node, $job)->{sent};
is(sent_of($campaign), $sent, 'what was on its way is recorded');
cmp_ok($sent, '<', 10000, 'the rest is not sent');
ok(worker_is_gone($node, 20), 'with nothing else to do the worker leaves');
is(sent_of($campaign), $sent, 'and nothing more is sent');
is($node->safe_psql('postgres', 'SELECT sendcampaign.wake()'), 0, 'wake() does not wake it');
my $error = sql_error($node, "SET ROLE app; SELECT send_campaign($campaign)");
is($error->{sqlstate}, '55006', 'it keeps other jobs from sending the campaign');
like($error->{hint}, qr/if it is paused, call sendcampaign\.resume\(\) or sendcampaign\.cancel\(\)/, 'until somebody decides');
my (undef, undef, $notice) = $node->psql('postgres', "SET ROLE app; SELECT send_campaign($campaign, $job)");
like($notice, qr/NOTICE:  campaign $campaign is paused already.*^HINT:  Call sendcampaign\.resume\(\) to have it go on\.$/ms,
	'and its own job does not go on by being called');

$error = call('pause', $job);
is("$error->{sqlstate} $error->{message}", "55000 the run of background job $job is paused", 'not paused twice');
is($error->{hint}, 'Only a queued or running run can be paused.', 'says the hint');
my $unknown = call('pause', 424242)->{message};
like($unknown, qr/there is no run of background job 424242/, 'an unknown job');
is(call($_, $job, 'stranger')->{message}, $unknown =~ s/424242/$job/r, "$_ of another role's, in the same words")
  for qw(pause resume cancel);

# Within 100 ms; a machine that was busy just then gets another chance.
sub late_after_pause
{
	call('resume', $job);
	my $before = $twilio->stats->{accepted};
	poll(sub { $twilio->stats->{accepted} > $before + 200 });
	call('pause', $job);
	my $until = (Time::HiRes::time() + 0.1) * 1e6;
	all_is_put_away($job);
	return scalar grep { $_->{time} > $until } $twilio->ledger;
}
my $late;
for (1 .. 5) { last if ($late = late_after_pause()) <= 40; }
cmp_ok($late, '<=', 40, 'after 100 ms there comes what was in flight at most');

$twilio->set(latency => 0);
is(call('resume', $job)->{message}, '', 'resumed');
sent_once($node, $twilio, $campaign, $job, 'resumed', total => 10000);
is(call('pause', $job)->{message}, "the run of background job $job is completed", 'what has ended is not paused');
is(call('resume', $job)->{hint}, 'Only a paused run can be resumed.', 'nor resumed');

# rolled back it was not; and pausing waits for the commit
($campaign, $job) = hold_campaign($node, $twilio, users => 300);
$node->safe_psql('postgres', "SET ROLE app; BEGIN; SELECT sendcampaign.pause($job); ROLLBACK");
$twilio->set(hold => 0);
sent_once($node, $twilio, $campaign, $job, 'rolled back', total => 300);

# before a worker has it: what is queued stays so
$campaign = create_campaign($node, users => 5);
$job = $node->safe_psql('postgres', "SET ROLE app; BEGIN; SELECT send_campaign($campaign) AS job \\gset\n"
	  . "SELECT sendcampaign.pause(:job); COMMIT; SELECT :job") =~ s/\s//gr;
ok(worker_is_gone($node, 20), 'paused in the queue: no worker stays');
is($node->safe_psql('postgres', "SELECT state, total IS NULL FROM sendcampaign.run WHERE job_id = $job"), 'paused|t', 'it was not begun');
call('resume', $job);
sent_once($node, $twilio, $campaign, $job, 'paused in the queue', total => 5);

# resumed before the worker has let go of it
($campaign, $job) = hold_campaign($node, $twilio, users => 500);
call('pause', $job);
ok($node->poll_query_until('postgres', "SELECT sum(cardinality(list_user_ids)) >= 460 FROM sendcampaign.batch WHERE run_id = ${\ run_of($job)}"),
	'answers are outstanding: the rest is put back already');
call('resume', $job);
$twilio->set(hold => 0);
sent_once($node, $twilio, $campaign, $job, 'resumed at once', total => 500);
ok(!grep({ $_ != 1 } values %{ $twilio->count_by_phone }), 'each once');

# paused, with one of several in the worker going on
my ($other, $other_job) = hold_campaign($node, $twilio, users => 400);
$campaign = create_campaign($node, users => 400);
$job = start_campaign($node, $campaign);
call('pause', $job);
$twilio->set(hold => 0);
sent_once($node, $twilio, $other, $other_job, 'the other one', total => 400);
is(run_row($node, $job)->{state}, 'paused', 'this one is paused');
ok(all_is_put_away($job), 'and put away');
call('resume', $job);
sent_once($node, $twilio, $campaign, $job, 'this one', total => 400);

# while Twilio asks to try later
$twilio->set(reset => 1, 'fault:429' => 100);
$campaign = create_campaign($node, users => 50);
$job = start_campaign($node, $campaign);
ok(poll(sub { ($twilio->stats->{faults}{429} // 0) > 10 }), 'Twilio asks for that');
call('pause', $job);
ok(all_is_put_away($job), 'what waits to be tried again is put back');
$twilio->set('fault:429' => 0);
ok(worker_is_gone($node, 20), 'nothing is tried again');
is($twilio->stats->{accepted}, 0, 'nothing was sent');
call('resume', $job);
sent_once($node, $twilio, $campaign, $job, 'try later', total => 50);

# what is in doubt stays claimed until it is resumed
$twilio->set(reset => 1, 'fault:drop-after' => '#5');
($campaign, $job) = (create_campaign($node, users => 30));
$job = start_campaign($node, $campaign);
ok(poll(sub { ($twilio->stats->{faults}{'drop-after'} // 0) == 5 }), 'in doubt');
call('pause', $job);
ok(worker_is_gone($node, 20), 'the worker does not wait for look-ups');
is($twilio->stats->{lists}, 0, 'nothing is looked up');
is($node->safe_psql('postgres', qq{SELECT count(*) FROM sendcampaign.claim c, unnest(c.list_user_ids) u(id)
	WHERE c.run_id = ${\ run_of($job)} AND u.id NOT IN (SELECT list_user_id FROM sendcampaign.message WHERE job_id = $job)}), 5, 'five are claimed');
call('resume', $job);
sent_once($node, $twilio, $campaign, $job, 'in doubt', total => 30);

# the worker is killed while it waits for the last answers
($campaign, $job) = hold_campaign($node, $twilio, users => 100);
call('pause', $job);
$node->poll_query_until('postgres', "SELECT count(*) > 0 FROM sendcampaign.batch WHERE run_id = ${\ run_of($job)}");
kill_worker($node);
$twilio->set(hold => 0);
is($node->safe_psql('postgres', 'SELECT sendcampaign.wake()'), 0, 'killed: it stays paused');
call('resume', $job);
sent_once($node, $twilio, $campaign, $job, 'killed', total => 100);

# paused while sending is switched off
($campaign, $job) = hold_campaign($node, $twilio, users => 100);
set_and_reload($node, 'sendcampaign.enabled', 'off');
call('pause', $job);
$twilio->set(hold => 0);
ok(worker_is_gone($node, 20), 'switched off and paused: the worker leaves');
set_and_reload($node, 'sendcampaign.enabled', 'on');
is($node->safe_psql('postgres', 'SELECT sendcampaign.wake()'), 0, 'on again: it stays paused');
call('resume', $job);
sent_once($node, $twilio, $campaign, $job, 'switched off', total => 100);

# while it reads back what was sent before commits were lost
($campaign, $job) = hold_campaign($node, $twilio, users => 300);
call('pause', $job);
$twilio->set(hold => 0);
ok(worker_is_gone($node, 20), 'paused once');
$node->safe_psql('postgres', qq{UPDATE sendcampaign.run SET timeline = '9/lost' WHERE job_id = $job;
	WITH lost AS (DELETE FROM sendcampaign.message_data WHERE run_id = ${\ run_of($job)} RETURNING list_user_id),
	back AS (INSERT INTO sendcampaign.batch SELECT ${\ run_of($job)}, 99, array_agg(list_user_id) FROM lost),
	uncount AS (UPDATE ac_list_users SET data = data - 'sentCount' WHERE id IN (SELECT list_user_id FROM lost))
	UPDATE sendcampaign.run SET sent = 0 WHERE job_id = $job});
$twilio->set('fault:list-500' => 100);
my $lists = $twilio->stats->{lists};
call('resume', $job);
ok(poll(sub { $twilio->stats->{lists} > $lists }), 'it reads back');
call('pause', $job);
ok(worker_is_gone($node, 20), 'paused while it does');
call('resume', $job);
$lists = $twilio->stats->{lists};
ok(poll(sub { $twilio->stats->{lists} > $lists }), 'resumed, it reads back again');
$twilio->set('fault:list-500' => 0);
sent_once($node, $twilio, $campaign, $job, 'read back', total => 300);

# a caller who takes his time to commit keeps nothing from being sent
($campaign, $job) = hold_campaign($node, $twilio, users => 1000);
my $session = Session->open($node);
$session->query("BEGIN; SET LOCAL ROLE app; SELECT sendcampaign.pause($job)");
$twilio->set(hold => 0);
ok(poll(sub { sent_of($campaign) > 200 }), 'not committed: it goes on');
$session->query('COMMIT');
$session->close;
ok(all_is_put_away($job), 'committed: paused');
is(sent_of($campaign), run_row($node, $job)->{sent}, 'and recorded');
is(run_row($node, $job)->{state}, 'paused', 'with all of it sent or not');
call('resume', $job);
sent_once($node, $twilio, $campaign, $job, 'slow to commit', total => 1000);

$node->stop;
done_testing();
