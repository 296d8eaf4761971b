# A run that is committed in exactly the moment in which a worker ends its stay
# is not left behind.
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

my $twilio = LocalTwilio->start;
my $node = new_cluster(
	'linger_end', $twilio,
	init => { allows_streaming => 1 },
	linger => 100,
	conf => <<~'CONF');
	max_prepared_transactions = 5
	sendcampaign.receipts = off
	CONF
my $campaign = create_campaign($node, users => 1);
my $sent = 0;

# Has the worker linger, and stop at that point afterwards; returns the session
# that holds it, and the worker.
sub stop_at
{
	my ($point, $name) = @_;
	my $holder = Session->open($node);
	$holder->query("SELECT pg_advisory_lock(5005, $point)");
	run_campaign($node, $campaign);
	$sent++;
	ok(waits_at($node, $point), "$name: the worker has lingered, and stops");
	return ($holder, worker_pids($node));
}

sub all_is_sent
{
	my $name = shift;
	ok(poll(sub { scalar $twilio->ledger == $sent }), "$name: the run is sent");
	ok(wait_until($node, "SELECT bool_and(state = 'completed') FROM sendcampaign.run"),
		"$name: and completed");
	ok(worker_is_gone($node, 10), "$name: the worker leaves");
}

# Before it looks whether there is a run
my ($holder, $pid) = stop_at(6, 'before it looks');
start_campaign($node, $campaign);
$sent++;
$holder->close;
all_is_sent('before it looks');

# A commit is under way all the while, as it waits for a standby.
sql($node, 'ALTER ROLE app SET synchronous_commit = local');
($holder, $pid) = stop_at(6, 'while somebody commits');
set_and_reload($node, 'synchronous_commit', 'local');
set_and_reload($node, 'synchronous_standby_names', 'nobody');
sql($node, 'CHECKPOINT');    # by the process that tells others of it
my $slow = Session->open($node);
$slow->query('SET ROLE app; SET synchronous_commit = on');
$slow->start_query("SELECT send_campaign($campaign)");
$sent++;
wait_until($node, "SELECT count(*) = 1 FROM pg_stat_activity WHERE wait_event = 'SyncRep'");
$holder->close;
wait_until($node, <<~"SQL");
	SELECT wait_event = 'Extension' OR wait_event LIKE 'Sendcampaign%'
	FROM pg_stat_activity
	WHERE pid = $pid
	SQL
poll(sub { 0 }, 1);
is(join(' ', worker_pids($node)), $pid, 'while somebody commits: the worker waits for that');
set_and_reload($node, 'synchronous_standby_names', '');
$slow->finish_query;
all_is_sent('while somebody commits');
$slow->close;

# After it has looked: the commit waits until it has left.
($holder, $pid) = stop_at(7, 'after it has looked');
my $caller = Session->open($node);
$caller->query('SET ROLE app');
$caller->start_query("SELECT send_campaign($campaign)");
$sent++;
ok(wait_until($node, <<~'SQL'), 'after it has looked: the commit waits');
	SELECT count(*) > 0 FROM pg_locks WHERE NOT granted AND locktype = 'object' AND objsubid = 2
	SQL
$holder->close;
$caller->finish_query;
all_is_sent('after it has looked');
$caller->close;

# Somebody prepares a run meanwhile, and commits it later than a worker would
# stay otherwise.
sql($node, "ALTER ROLE app SET sendcampaign.worker_idle_timeout = '10min'");
run_campaign($node, $campaign);
$sent++;
wait_until($node, <<~'SQL');
	SELECT count(*) = 1 FROM pg_stat_activity WHERE query = 'waiting for the next campaign'
	SQL
sql($node, "BEGIN; SELECT send_campaign($campaign); PREPARE TRANSACTION 'later'", role => 'app');
wait_until($node, <<~'SQL');
	SELECT count(*) = 1 FROM pg_stat_activity
	WHERE backend_type = 'sendcampaign worker' AND query <> 'waiting for the next campaign'
	SQL
sql($node, "COMMIT PREPARED 'later'");
$sent++;
ok(poll(sub { scalar $twilio->ledger == $sent }), 'what was prepared is sent');

# One that is killed while it leaves
sql($node, 'ALTER ROLE app RESET sendcampaign.worker_idle_timeout');
$node->append_conf('postgresql.conf', 'restart_after_crash = on');
$node->reload;
terminate_workers($node);
wait_for_no_worker($node);
($holder, $pid) = stop_at(7, 'killed');
$holder->start_query('SELECT 1');
ok(kill_worker($node), 'killed while it leaves');
run_campaign($node, $campaign);
$sent++;
is(scalar $twilio->ledger, $sent, 'the next run is sent');

$node->stop;
done_testing();
