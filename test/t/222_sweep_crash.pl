# A worker that is killed in a sweep, or told to end; databases that are swept
# side by side, dropped and copied.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../perl";
use Campaign;
use LocalTwilio;
use Session;
use Sweeps;
use Test::More;

plan skip_all => 'the library is built without debug points' if !$ENV{SENDCAMPAIGN_DEBUG_POINTS};

my $users = 2500;
my $point = 5;
my $twilio = LocalTwilio->start;
my $node = new_cluster('crash', $twilio, conf => <<~'CONF');
	restart_after_crash = on
	CONF
$twilio->set('sent-after' => 0, 'deliver-after' => 0);

# Starts a sweep that stops after its first page, of three; returns the job and
# the session that holds it.
sub stop_in_sweep
{
	my $job = run_campaign($node, create_campaign($node, users => $users))->{job};
	wait_for_no_worker($node);
	my $session = Session->open($node);
	$session->query("SELECT pg_advisory_lock(5005, $point)");
	sql($node, "UPDATE sendcampaign.run_data SET sweep_at = now() WHERE job_id = $job");
	wake($node);
	wait_until($node, <<~"SQL");
		SELECT count(*) > 0 FROM pg_locks
		WHERE locktype = 'advisory' AND classid = 5005 AND objid = $point AND NOT granted
		SQL
	return ($job, $session);
}

{
	my ($job, $session) = stop_in_sweep();
	is(sql($node, <<~"SQL"), 't', 'killed: some receipts are stored, not all');
		SELECT count(delivery) BETWEEN 1 AND $users - 1 FROM sendcampaign.message WHERE job_id = $job
		SQL
	ok(kill_worker($node), 'killed: the worker is gone');
	eval { $session->close };
	is(sql($node, <<~"SQL"), 't', 'killed: the sweep is still due');
		SELECT sweep_at <= now() FROM sendcampaign.run_data WHERE job_id = $job
		SQL
	wake($node);
	wait_for_sweep($node, $job);
	is(counts_of($node, $job), "$users|$users|0|0", 'killed: each receipt is counted once');
	is(receipts_of($node, $job), "delivered $users", 'killed: and stored');
	wait_for_no_worker($node);
}

{
	my ($job, $session) = stop_in_sweep();
	terminate_workers($node);
	$session->close;
	wait_for_no_worker($node);
	wake($node);
	ok(wait_for_sweep($node, $job), 'told to end: another worker begins anew');
	is(counts_of($node, $job), "$users|$users|0|0", 'told to end: each receipt is counted once');
	wait_for_no_worker($node);
}

# The extension is dropped in mid-sweep, and created again.
{
	my (undef, $session) = stop_in_sweep();
	$twilio->set(latency => 1000);
	sql($node, 'DROP EXTENSION sendcampaign CASCADE');
	$session->close;
	wait_for_no_worker($node);
	pass('the extension is dropped: the worker ends');
	$twilio->set(latency => 0);
	install_extension($node, 'postgres');
}

# Two databases with one account, each with runs of its own.
{
	$twilio->set(reset => 1);
	sql($node, 'CREATE DATABASE second TEMPLATE postgres', db => 'template1');
	# so that no two texts are alike
	sql($node, 'ALTER SEQUENCE ac_campaigns_id_seq RESTART 1001', db => 'second');
	my %job;
	for my $db (qw(postgres second))
	{
		$job{$db} =
		  run_campaign($node, create_campaign($node, db => $db, users => 300), db => $db)->{job};
	}
	for my $db (qw(postgres second))
	{
		sql($node, <<~"SQL", db => $db);
			UPDATE sendcampaign.run_data SET sweep_at = now() WHERE job_id = $job{$db};
			SELECT sendcampaign.wake()
			SQL
	}
	for my $db (qw(postgres second))
	{
		wait_for_sweep($node, $job{$db}, db => $db);
		is(counts_of($node, $job{$db}, db => $db), '300|300|0|0', "two databases: $db");
	}
	wait_for_no_worker($node);
	sql($node, 'DROP DATABASE second', db => 'template1');
	pass('the database can be dropped between sweeps');
}

# The launcher makes the sweeps that are due.
{
	my $job = run_campaign($node, create_campaign($node, users => 300))->{job};
	wait_for_no_worker($node);
	change_conf($node, <<~'CONF');
		shared_preload_libraries = 'sendcampaign'
		sendcampaign.launcher_interval = '1s'
		CONF
	$node->restart;
	sql($node, "UPDATE sendcampaign.run_data SET sweep_at = now() WHERE job_id = $job");
	ok(wait_for_sweep($node, $job), 'the launcher sees to it');
	is(counts_of($node, $job), '300|300|0|0', 'and the receipts are there');
	wait_for_no_worker($node);
	# a role that cannot work
	sql($node, "ALTER ROLE app NOLOGIN; UPDATE sendcampaign.run_data SET sweep_at = now()");
	ok(wait_for_sweep($node, $job), 'a role that may not log in: the sweep is put off')
	  if $node->pg_version->major < 17;
}

is(scalar(grep { !/terminated by signal 9/ } split /\n/, worker_errors($node)),
	0, 'no other errors');
$node->stop;
done_testing();
