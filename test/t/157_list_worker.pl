# A run with a long list begins in a process of its own.  Whatever happens to
# that process meanwhile, each recipient gets one message, and the other runs do
# not wait.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../perl";
use Campaign;
use LocalTwilio;
use PostgreSQL::Test::Utils;
use Session;
use Test::More;

plan skip_all => 'the library is built without debug points' if !$ENV{SENDCAMPAIGN_DEBUG_POINTS};

my $users = 500;    # enough for each second run of a build for tests (see long_lists.c)
my $twilio = LocalTwilio->start;
my $node = new_cluster(
	'list_worker', $twilio,
	init => { allows_streaming => 1 },
	conf => <<~'CONF');
	sendcampaign.receipts = off
	max_worker_processes = 12
	restart_after_crash = on
	CONF
my $small = create_campaign($node, users => 2, message => 'small');
run_campaign($node, $small);
my $holder = Session->open($node);

sub hold { $holder->query('SELECT pg_advisory_lock(5005, 8)') }
sub let_go { $holder->query('SELECT pg_advisory_unlock(5005, 8)') }

sub list_workers { return scalar(my @pids = list_worker_pids($node)) }

sub state_of
{
	my $job = shift;
	return sql($node, "SELECT state, total FROM sendcampaign.run WHERE job_id = $job");
}

sub start_long { return start_with_id($node, 1, @_) }

# Queues one, and stops the list worker when it has stored the list.
sub stop_list_worker
{
	my $name = shift;
	hold();
	my $campaign = create_campaign($node, users => $users, message => $name);
	my $job = start_long($campaign);
	ok(waits_at($node, 8), "$name: a list worker stores the list");
	return ($campaign, $job);
}

sub no_list_worker_is_left
{
	my $name = shift;
	ok(poll(sub { list_workers() == 0 }), "$name: no list worker is left");
}

sub is_sent_once
{
	my ($campaign, $job, $name) = @_;
	wait_for_run($node, $job);
	sent_once($node, $twilio, $campaign, $job, $name, total => $users);
	no_list_worker_is_left($name);
}

# Others go on, and so does whoever pauses.
my ($campaign, $job) = stop_list_worker('beside others');
my $other = start_campaign($node, $small);
ok(wait_for_run($node, $other), 'beside others: a small run is sent meanwhile');
is(state_of($job), 'queued|', 'beside others: the long one has not begun');
let_go();
is_sent_once($campaign, $job, 'beside others');

# Several long lists: one at a time, and small ones beside them.
hold();
my @long = map { create_campaign($node, users => $users, message => "list $_") } 1 .. 3;
my @jobs = map { start_long($_) } @long;
ok(waits_at($node, 8), 'several: a list worker stores the first one');
$other = start_campaign($node, $small);
ok(wait_for_run($node, $other), 'several: a small run is sent meanwhile');
is(list_workers(), 1, 'several: there is one list worker');
let_go();
is_sent_once($long[$_], $jobs[$_], "several: list $_") for 0 .. 2;

# A list that is not long, but takes long to read
wait_for_no_worker($node);
sql($node, 'ALTER ROLE app SET cpu_tuple_cost = 1e6');
hold();
$campaign = create_campaign($node, users => $users, message => 'costly');
$job = start_with_id($node, 0, $campaign);
ok(waits_at($node, 8), 'costly: a list worker stores it');
let_go();
is_sent_once($campaign, $job, 'costly');
sql($node, 'ALTER ROLE app RESET cpu_tuple_cost');

# Somebody terminates the list worker: the worker stores the list itself.
($campaign, $job) = stop_list_worker('terminated');
sql($node, "SELECT pg_terminate_backend($_)") for list_worker_pids($node);
is_sent_once($campaign, $job, 'terminated');
let_go();

# Somebody terminates the worker: the next one waits for the list worker.
($campaign, $job) = stop_list_worker('worker terminated');
my ($pid) = worker_pids($node);
sql($node, "SELECT pg_terminate_backend($pid)");
ok(poll(sub { my @pids = worker_pids($node); @pids && $pids[0] != $pid }),
	'worker terminated: there is a new one');
$other = start_campaign($node, $small);
ok(wait_for_run($node, $other), 'worker terminated: it sends a small run');
is(state_of($job), 'queued|', 'worker terminated: the long one has not begun');
let_go();
is_sent_once($campaign, $job, 'worker terminated');

# The server crashes.
($campaign, $job) = stop_list_worker('crash');
$node->stop('immediate');
$node->start;
$holder = Session->open($node);
wake($node);
is_sent_once($campaign, $job, 'crash');

# The list worker is killed, as by a system that is short of memory.
($campaign, $job) = stop_list_worker('killed');
my ($killed) = list_worker_pids($node);
kill 'KILL', $killed;
poll(sub { !kill 0, $killed });
wait_until_up($node);
$holder = Session->open($node);
wake($node);
is_sent_once($campaign, $job, 'killed');

# It is called once more with the same job.
($campaign, $job) = stop_list_worker('called again');
is(start_campaign($node, $campaign, job => $job), $job, 'called again: it is the same job');
let_go();
is_sent_once($campaign, $job, 'called again');

# A person pauses the run, which does not wait; later it goes on.
($campaign, $job) = stop_list_worker('paused');
sql($node, "SELECT sendcampaign.pause($job)");
let_go();
ok(poll(sub { list_workers() == 0 }), 'paused: the list worker gives up');
$other = start_campaign($node, $small);
wait_for_run($node, $other);
is(state_of($job), 'paused|', 'paused: the run has not begun');
is(sent_with($twilio, 'paused'), 0, 'paused: nothing is sent');
my $reason = "job $job was paused, cancelled or called again before it could begin."
  . ' To continue a paused run, call sendcampaign.resume().';
like(
	log_of($node),
	qr/sendcampaign: could not store a long list, leaving it to the worker: \Q$reason\E/,
	'paused: the log says why');
is(sql($node, 'SELECT count(*) FROM sendcampaign.batch'), 0, 'paused: no recipients are stored');
sql($node, "SELECT sendcampaign.resume($job)");
is_sent_once($campaign, $job, 'paused');

# It is paused, its text is corrected, a user is added, and it goes on, all while
# the list worker has read what was there before.
($campaign, $job) = stop_list_worker('old text');
sql($node, <<~"SQL");
	SELECT sendcampaign.pause($job);
	UPDATE ac_campaigns SET data = data || '{"message": "corrected"}' WHERE id = $campaign;
	INSERT INTO ac_list_users (ac_list_id, data)
	SELECT ${\ list_of($campaign) }, '{"sms": "+15558887777"}';
	SELECT sendcampaign.resume($job);
	SQL
let_go();
ok(poll(sub { log_of($node) =~ /to the worker: job $job was paused/ }), 'old text: it gives up');
wait_for_run($node, $job);
is(sent_with($twilio, 'old text'), 0, 'old text: nobody gets it');
is(sent_with($twilio, 'corrected'), $users + 1, 'old text: all get the new one');

# The same with cancel().
($campaign, $job) = stop_list_worker('cancelled');
sql($node, "SELECT sendcampaign.cancel($job)");
let_go();
wait_for_run($node, $job);
ok(poll(sub { list_workers() == 0 }), 'cancelled: the list worker gives up');
is(sent_with($twilio, 'cancelled'), 0, 'cancelled: nothing is sent');
is(sql($node, 'SELECT count(*) FROM sendcampaign.batch'), 0,
	'cancelled: no recipients are stored');

# A user whose id occurs twice makes the run fail, with the usual reason.
sql($node, <<~'SQL');
	ALTER TABLE ac_list_users DROP CONSTRAINT ac_list_users_pkey CASCADE;
	SQL
$campaign = create_campaign($node, users => $users, message => 'twice');
sql($node, <<~"SQL");
	INSERT INTO ac_list_users
	SELECT * FROM ac_list_users
	WHERE ac_list_id = ${\ list_of($campaign) }
	ORDER BY id LIMIT 1
	SQL
$job = start_long($campaign);
wait_for_run($node, $job);
like(
	run_row($node, $job)->{error},
	qr/two list users|twice|more than one/i,
	'twice: the run fails with the usual reason');
is(sent_with($twilio, 'twice'), 0, 'twice: nothing is sent');
no_list_worker_is_left('twice');

# Slots for background workers are scarce: the worker stores the list itself.
$node->append_conf('postgresql.conf', 'max_worker_processes = 3');
$node->restart;
$holder = Session->open($node);
hold();
sql($node,
	'DELETE FROM ac_list_users a USING ac_list_users b WHERE a.id = b.id AND a.ctid > b.ctid');
$campaign = create_campaign($node, users => $users, message => 'scarce');
$job = start_long($campaign);
is_sent_once($campaign, $job, 'scarce');

# The extension is dropped: that waits for the list worker, and then nothing is left.
$node->append_conf('postgresql.conf', 'max_worker_processes = 12');
$node->restart;
$holder = Session->open($node);
($campaign, $job) = stop_list_worker('dropped');
my $dropper = Session->open($node);
$dropper->start_query('DROP EXTENSION sendcampaign');
ok( wait_until(
		$node,
		"SELECT count(*) > 0 FROM pg_locks WHERE NOT granted AND mode = 'AccessExclusiveLock'"),
	'dropped: DROP EXTENSION waits');
let_go();
$dropper->finish_query;
is($dropper->errors, '', 'dropped: the extension is gone');
ok(poll(sub { list_workers() == 0 && !worker_pids($node) }), 'dropped: no process is left');
my %times;
$times{ $_->{to} }++ for grep { index($_->{body}, 'dropped') == 0 } $twilio->ledger;
is(scalar(grep { $_ > 1 } values %times), 0, 'dropped: nobody gets two messages');
my @errors = grep {
	!/ \(PID $killed\) was terminated by signal 9|: +terminating .* because of crash of another/
} split /\n/, worker_errors($node);
is("@errors", '', 'the log has no other errors');
$node->stop;
done_testing();
