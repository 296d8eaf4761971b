# Where tables are locked, the runs of their schema that are under way, perhaps many,
# keep no other schema's runs waiting.  They go on soon after the lock has gone.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../perl";
use Campaign;
use LocalTwilio;
use Session;
use Test::More;
use Time::HiRes qw(time);

my $twilio = LocalTwilio->start;
my $node = new_cluster('locked', $twilio);
my $num_called = 0;
my $num_accepted = 0;

# Calls new campaigns of a schema, as many.
sub call
{
	my ($schema, $count) = @_;
	my $first = $num_called + 2;
	$num_called += $count;
	my $last = $num_called + 1;
	sql($node, <<~"SQL");
		SET client_min_messages = error;
		SET ROLE app;
		SET sendcampaign.schema = '$schema';
		INSERT INTO $schema.ac_campaigns (id, ac_list_id, data)
		SELECT i, ac_list_id, data FROM $schema.ac_campaigns, generate_series($first, $last) i
		WHERE id = 1;
		SELECT send_campaign(i) FROM generate_series($first, $last) i;
		SQL
	return;
}

sub num_runs
{
	my ($schema, $condition) = @_;
	return sql($node,
		"SELECT count(*) FROM sendcampaign.run WHERE schema = '$schema' AND $condition");
}

# How long it takes until all runs of a schema have been sent
sub seconds_until_sent
{
	my ($schema, $most) = @_;
	my $begin = time;
	my $sent = poll(sub { num_runs($schema, 'finished_at IS NULL') == 0 }, $most);
	return $sent ? time - $begin : 1e9;
}

# Begins to send runs of the schema "one", all of which are under way.
sub begin_runs
{
	my $name = shift;
	$twilio->set(reset => 1, hold => 1);
	call('one', 100);
	ok(poll(sub { num_runs('one', "state = 'running'") == 100 }), "$name: runs are under way");
	return;
}

# A transaction that holds what the statement locks
sub lock_by
{
	my $statement = shift;
	my $session = Session->open($node);
	$session->query("BEGIN; $statement");
	$twilio->set(hold => 0);
	return $session;
}

# The lock goes, and the rest is sent.
sub release
{
	my ($session, $name) = @_;
	$session->query('COMMIT');
	$session->close;
	is_soon($node, seconds_until_sent('one', 90), 8, "$name has gone");
	$num_accepted += $twilio->stats->{accepted};
	return;
}

my $waits = "error LIKE 'trying again, as the database has raised an error: %lock timeout'";
make_tenant($node, $_, role => 'app') for qw(one other);
for my $lock (
	'LOCK TABLE one.ac_list_users IN ACCESS EXCLUSIVE MODE',
	'LOCK TABLE one.ac_list_users IN SHARE MODE',
	'LOCK TABLE one.ac_background_jobs IN ACCESS EXCLUSIVE MODE',
	'LOCK TABLE one.groups IN ACCESS EXCLUSIVE MODE',
	'SELECT FROM one.ac_background_jobs FOR UPDATE')
{
	begin_runs($lock);
	my $session = lock_by($lock);
	for my $time (qw(first second third))
	{
		call('other', 3);
		is_soon($node, seconds_until_sent('other', 90), 8, "$lock: another schema, $time time");
	}
	ok(poll(sub { num_runs('one', "state = 'running' AND $waits") > 90 }),
		"$lock: all runs say what they wait for")
	  if $lock =~ /IN ACCESS/ && $lock !~ /groups/;
	ok(poll(sub { num_runs('one', "state = 'running' AND $waits") > 0 }),
		"$lock: a run says what it waits for")
	  if $lock =~ /jobs/;
	release($session, $lock);
}

# Rows of some jobs, those of the oldest runs: the other runs are not kept waiting.
begin_runs('some rows');
my $last = $num_called + 1 - 100 + 10;
my $session = lock_by(<<~"SQL");
	SELECT FROM one.ac_background_jobs j
	WHERE id IN (SELECT job_id FROM sendcampaign.run WHERE schema = 'one' AND campaign_id <= $last)
	FOR UPDATE
	SQL
ok(poll(sub { num_runs('one', "state <> 'completed'") == 10 }), 'some rows: the others are sent');
call('one', 10);
ok( poll(sub { num_runs('one', "state <> 'completed'") == 10 }),
	'some rows: so are those that are called later');
release($session, 'some rows');

# What is cancelled, or paused
begin_runs('cancelled');
$session = lock_by('LOCK TABLE one.ac_list_users, one.groups IN ACCESS EXCLUSIVE MODE');
my $job = sql($node, "SELECT max(job_id) FROM sendcampaign.run WHERE schema = 'one'");
my $paused = $job - 1;
sql($node, <<~"SQL", role => 'app');
	SET sendcampaign.schema = 'one';
	SELECT sendcampaign.cancel($job), sendcampaign.pause($paused);
	SQL
for my $time (qw(first second))
{
	call('other', 1);
	is_soon($node, seconds_until_sent('other', 90), 8, "cancelled: another schema, $time time");
}
$session->query('COMMIT');
$session->close;
ok( poll(sub { num_runs('one', 'finished_at IS NULL') == 1 }),
	'cancelled: all have ended but the paused one');
sql($node, "SET sendcampaign.schema = 'one'; SELECT sendcampaign.resume($paused)", role => 'app');
ok(poll(sub { num_runs('one', 'finished_at IS NULL') == 0 }), '... which ends as well');
$num_accepted += $twilio->stats->{accepted};

# A server that is shut down does not wait for each of them.
begin_runs('shut down');
$session = lock_by('LOCK TABLE one.ac_list_users IN ACCESS EXCLUSIVE MODE');
ok(poll(sub { num_runs('one', "state = 'running' AND $waits") > 0 }), 'shut down: they wait');
my ($pid) = worker_pids($node);
my $begin = time;
terminate_workers($node);
ok( poll(
		sub {
			!grep { $_ == $pid } worker_pids($node);
		},
		90),
	'shut down: the worker ends');
is_soon($node, time - $begin, 8, 'shut down: ... soon');
$session->query('COMMIT');
$session->close;
wake($node);
call('other', 1);    # what is in doubt is looked up, and is there before this
ok(poll(sub { num_runs('one', 'finished_at IS NULL') == 0 }), 'shut down: all have ended');
ok(poll(sub { num_runs('other', 'finished_at IS NULL') == 0 }), '... and the other one');
$num_accepted += $twilio->stats->{accepted};

is( $num_accepted,
	sql($node, 'SELECT sum(sent) FROM sendcampaign.run'),
	'each message was sent once');
is( sql($node, "SELECT count(*) FROM sendcampaign.run WHERE state = 'completed' AND sent = 1"),
	$num_called - 1,
	'... and all but one, which was cancelled, were sent');
ok(worker_is_gone($node, 20), 'the worker ends');

done_testing();
