# A worker that stays after its last run: the next runs have it, its settings
# and its connections, and meanwhile it costs next to nothing.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../perl";
use Campaign;
use LocalTwilio;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time);

my $twilio = LocalTwilio->start(tls => 1);
my $node = new_cluster('linger', $twilio, linger => 600000, conf => <<~'CONF');
	restart_after_crash = on
	sendcampaign.receipts = off
	sendcampaign.request_timeout = '5s'
	sendcampaign.lookup_delay = 0
	CONF
my $campaign = create_campaign($node, users => 1);

# The worker, once it lingers
sub lingering
{
	my $pid;
	poll(sub {
		$pid = sql($node, <<~'SQL');
				SELECT pid FROM pg_stat_activity
				WHERE backend_type = 'sendcampaign worker'
					AND (state, query) = ('idle', 'waiting for the next campaign')
				SQL
		return $pid =~ /^\d+$/;
	}) or diag('no worker lingers');
	return $pid;
}

# Sends a campaign of one message; returns the worker that lingers then.
sub send_one
{
	my ($name, $which) = @_;
	my $run = run_campaign($node, $which // $campaign);
	is("$run->{state} $run->{sent}", 'completed 1', $name) if $name;
	return lingering();
}

# How often the process has waited, and its CPU time in ticks
sub costs_of
{
	my $pid = shift;
	my ($waits) = slurp_file("/proc/$pid/status") =~ /^voluntary_ctxt_switches:\s*(\d+)/m;
	my @stat = split ' ', slurp_file("/proc/$pid/stat") =~ s/^.*\)//sr;
	return ($waits, $stat[11] + $stat[12]);
}

# Many runs in a row
my %pids;
$pids{ send_one('') } = 1 for 1 .. 30;
is(scalar keys %pids, 1, '30 runs in a row have one worker');
is(scalar $twilio->ledger, 30, 'each is sent once');
cmp_ok($twilio->stats->{connections}, '<=', 2, 'over a connection or two');

# What it has meanwhile
my ($pid) = keys %pids;
is(sql($node, <<~"SQL"), '|', 'it has no transaction and no snapshot');
	SELECT backend_xid, backend_xmin FROM pg_stat_activity WHERE pid = $pid
	SQL
is(sql($node, <<~"SQL"), 'ExclusiveLock object|ExclusiveLock object', 'and two locks: its own');
	SELECT string_agg(mode || ' ' || locktype, '|')
	FROM pg_locks
	WHERE pid = $pid AND locktype <> 'virtualxid'
	SQL
my $statement = "SELECT query_start FROM pg_stat_activity WHERE pid = $pid";
my $began = sql($node, $statement);
my ($waits, $ticks) = costs_of($pid);
my $begin = time;
poll(sub { time - $begin > 3 });
my ($waits_now, $ticks_now) = costs_of($pid);
my $seconds = time - $begin;
cmp_ok($waits_now - $waits, '<=', 10 * $seconds, 'it wakes up ten times a second at most');
cmp_ok($ticks_now - $ticks, '<=', 2, 'and has hardly any CPU time');
is(sql($node, $statement), $began, 'it runs no statement');

# Connections that Twilio closes
$twilio->set(drop => 1);
is(send_one('after its connections were closed, the next message is sent'), $pid, 'by it');
is(scalar $twilio->ledger, 31, 'once');
is($twilio->stats->{lists}, 0, 'and is not in doubt');
$twilio->set('fault:drop-after' => '#1');
my $other = create_campaign($node, users => 1, message => 'Another');
is(send_one('one whose connection dies after Twilio took it', $other), $pid, 'is sent, too');
is(sent_with($twilio, 'Another'), 1, 'once');

# Settings of a role or a database count for the next run, though not for this
# worker.
my $elsewhere = LocalTwilio->start;
my $url = $elsewhere->url;
sql($node, "ALTER ROLE app SET sendcampaign.api_url = '$url'");
isnt(send_one('of a role with a changed setting'), $pid, 'another worker sends');
is(scalar $elsewhere->ledger, 1, 'as it says');
sql($node, 'ALTER ROLE app RESET sendcampaign.api_url');
$pid = send_one('of a role without it');
is(scalar $twilio->ledger, 33, 'as it was');

for my $what ('ROLE app IN DATABASE postgres', 'DATABASE postgres')
{
	sql($node, "ALTER $what SET sendcampaign.api_url = '$url'");
	$elsewhere->set(reset => 1);
	$pid = send_one($what);
	is(scalar $elsewhere->ledger, 1, "$what: it counts");
	sql($node, "ALTER $what RESET sendcampaign.api_url");
	my $accepted = scalar $twilio->ledger;
	$pid = send_one($what);
	is(scalar $twilio->ledger, $accepted + 1, "$what: and no longer");
}
sql($node, "ALTER ROLE ALL SET sendcampaign.max_attempts = 9");
isnt(send_one('a setting of all roles'), $pid, 'counts as well');
sql($node, "ALTER ROLE ALL RESET sendcampaign.max_attempts");

# What a trigger has set does not stay.
sql($node, <<~'SQL', role => 'app');
	CREATE TABLE seen (setting text);
	CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$
	BEGIN
	    INSERT INTO public.seen VALUES (current_setting('my.setting', true));
	    PERFORM set_config('my.setting', 'left behind', false);
	    RETURN NEW;
	END $$;
	CREATE TRIGGER note BEFORE UPDATE ON ac_list_users FOR EACH ROW EXECUTE FUNCTION note();
	SQL
$pid = send_one('');
is(send_one(''), $pid, 'two runs have one worker');
is(sql($node, "SELECT count(*) FROM seen WHERE setting <> ''"),
	0, 'but not what triggers have set');
sql($node, 'DROP TRIGGER note ON ac_list_users');

# What a trigger keeps for its session, it would keep for longer.
for my $act (
	'PERFORM pg_advisory_lock(1)',
	'PERFORM pg_advisory_lock_shared(2)',
	'CREATE TEMP TABLE IF NOT EXISTS mine ()')
{
	sql($node, <<~"SQL", role => 'app');
		CREATE OR REPLACE FUNCTION act() RETURNS trigger LANGUAGE plpgsql AS \$\$
		BEGIN
		    $act;
		    RETURN NEW;
		END \$\$;
		CREATE TRIGGER act BEFORE UPDATE ON ac_list_users FOR EACH ROW EXECUTE FUNCTION act();
		SQL
	run_campaign($node, $campaign);
	wait_for_no_worker($node);
	pass("no worker stays after: $act");
	sql($node, 'DROP TRIGGER act ON ac_list_users');
}

# Wherever it is told to go, or for how long to stay
$pid = send_one('');
set_and_reload($node, 'sendcampaign.enabled', 'off');
wait_for_no_worker($node);
set_and_reload($node, 'sendcampaign.enabled', 'on');
pass('it leaves when nothing is to be sent');
send_one('');
my $soon = seconds_here($node, 5);
$begin = time;
terminate_workers($node);
ok(worker_is_gone($node, 10), 'pg_terminate_backend() ends it');
cmp_ok(time - $begin, '<', $soon, 'at once');
send_one('');
set_and_reload($node, 'sendcampaign.worker_idle_timeout', '200ms');
ok(worker_is_gone($node, 20), 'it leaves when its time is over');
run_campaign($node, $campaign);
ok(worker_is_gone($node, 20), 'and so do others');
sql($node, "ALTER ROLE app SET sendcampaign.worker_idle_timeout = '10min'");
send_one('a role may choose the time');
sql($node, "ALTER ROLE app SET sendcampaign.worker_idle_timeout = 0");
run_campaign($node, $campaign);
ok(worker_is_gone($node, 20), 'with 0, it leaves when there is nothing to do');
sql($node, 'ALTER ROLE app RESET sendcampaign.worker_idle_timeout');
like(
	sql_error($node, "SET sendcampaign.worker_idle_timeout = '2h'; LOAD 'sendcampaign'")->{message}
	  // '',
	qr/^$|outside the valid range/,
	'there is a limit');

# Shutdowns and a crash
set_and_reload($node, 'sendcampaign.worker_idle_timeout', '10min');
for my $mode ('smart', 'fast', 'immediate')
{
	send_one("before stop -m $mode");
	my $quickly = seconds_here($node, 8);
	$begin = time;
	$node->stop($mode);
	cmp_ok(time - $begin, '<', $quickly, "stop -m $mode does not wait for it");
	$node->start;
}
send_one('before it is killed');
my $accepted = scalar $twilio->ledger;
ok(kill_worker($node), 'killed');
send_one('it sends again');
is(scalar $twilio->ledger, $accepted + 1, 'what is new, and nothing else');

$node->stop;
is( worker_errors($node) =~ s/^.*(terminated by signal 9|terminating connection|WARNING).*\n?//mgr,
	'',
	'no worker met an error');
done_testing();
