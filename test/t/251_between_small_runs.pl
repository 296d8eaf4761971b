# What changes between small runs, or while they are under way, when one worker
# with kept plans sends all of them: columns, indexes, owners of code, accounts.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../perl";
use Campaign;
use LocalTwilio;
use Test::More;

my $other_account = 'AC00000000000000000000000000000002';
my $twilio = LocalTwilio->start(options => [ '--account', "$other_account:other" ]);
my $node = new_cluster('between', $twilio, conf => <<~'CONF');
	sendcampaign.worker_idle_timeout = '10min'
	sendcampaign.receipts = off
	wal_writer_delay = '10s'
	CONF

# Starts runs of these campaigns in one transaction; returns their jobs.
sub start_all
{
	my $ids = join ', ', @_;
	return split /\n/, sql($node, <<~"SQL", role => 'app');
		SELECT send_campaign(id) FROM unnest(ARRAY[$ids]) id
		SQL
}

# The same, and stops them all in flight; their messages are held until release().
sub hold_all
{
	my @campaigns = @_;
	$twilio->set(hold => 1);
	my @jobs = start_all(@campaigns);
	wait_for_flight($twilio, scalar @jobs);
	return @jobs;
}

# All answers come while the worker cannot take any, so that they are recorded together.
sub release
{
	my ($pid) = worker_pids($node);
	kill 'STOP', $pid;
	$twilio->set(hold => 0);
	poll(sub { $twilio->stats->{create_in_flight} == 0 });
	kill 'CONT', $pid;
	return;
}

sub small
{
	return create_campaign($node, users => 1, @_);
}

my $first = small(phone => '+15550009999');
sent_once($node, $twilio, $first, start_campaign($node, $first), 'the first run', total => 1);
my ($worker) = worker_pids($node);

# A claim is on disk before its message leaves, also if it is made with the run.
sql($node, 'ALTER ROLE app SET synchronous_commit = off');
terminate_workers($node);
wait_for_no_worker($node);
my @campaigns = map { small() } 1 .. 5;
my @jobs = hold_all(@campaigns);
$node->stop('immediate');
$node->start;
is( sql($node,
		'SELECT count(DISTINCT run_id), sum(cardinality(list_user_ids)) FROM sendcampaign.claim'),
	'5|5',
	'claims of runs that begin together are on disk');
$twilio->set(hold => 0);
sql($node, 'SELECT sendcampaign.wake()', role => 'app');
ok( poll_in_company(
		$node, $twilio,
		sub { sql($node, q{SELECT count(*) FROM sendcampaign.run WHERE state = 'running'}) eq '0' }
	),
	'they end');
sent_once($node, $twilio, $campaigns[$_], $jobs[$_], "run $_", total => 1) for 0 .. 4;
sql($node, 'ALTER ROLE app RESET synchronous_commit');
my $again = small();
sent_once($node, $twilio, $again, start_campaign($node, $again), 'once more', total => 1);
($worker) = worker_pids($node);

# A column that is added counts from the next run on, for the same worker.
sql($node, 'ALTER TABLE ac_list_users ADD sent_count int');
@campaigns = map { small() } 1 .. 3;
wait_for_run($node, $_) for start_all(@campaigns);
is(sql($node, 'SELECT count(*), sum(sent_count) FROM ac_list_users WHERE sent_count > 0'),
	'3|3', 'a column that is added counts from the next run on');
is((worker_pids($node))[0], $worker, 'one worker has sent them all');
sql($node, 'ALTER TABLE ac_list_users DROP sent_count');

# One of the runs is paused, one is cancelled, while all are under way.
@campaigns = map { small() } 1 .. 4;
@jobs = hold_all(@campaigns);
sql($node, "SELECT sendcampaign.pause($jobs[0]), sendcampaign.cancel($jobs[1])", role => 'app');
release();
wait_for_run($node, $_) for @jobs[ 1 .. 3 ];
wait_until($node, "SELECT sent = 1 FROM sendcampaign.run WHERE job_id = $jobs[0]");
is( join(' ', map { join '/', @{ run_row($node, $_) }{qw(state sent)} } @jobs),
	'paused/1 cancelled/1 completed/1 completed/1',
	'what is under way is recorded for each');
sql($node, "SELECT sendcampaign.resume($jobs[0])", role => 'app');
sent_once($node, $twilio, $campaigns[0], $jobs[0], 'the paused one', total => 1);

# Ids become unique while runs are under way, whose statements do not know it.
sql($node, 'ALTER TABLE ac_list_users DROP CONSTRAINT ac_list_users_pkey');
@campaigns = map { small() } 1 .. 5;
@jobs = hold_all(@campaigns);
sql($node, 'ALTER TABLE ac_list_users ADD PRIMARY KEY (id)');
release();
sent_once($node, $twilio, $campaigns[$_], $jobs[$_], "unique later $_", total => 1) for 0 .. 4;

# A policy keeps sentCount of one user at 1: that is said of the run that could not
# count him, and not of the one that had done so before.
my $slow = create_campaign($node, users => 2);
configure(
	$node, $slow, q(configuration ||
	'{"twilioSegmentsPerSecond": 1, "twilioFromSmsNumber": "+15551230000"}'));
sql($node, <<~'SQL');
	ALTER TABLE ac_list_users ENABLE ROW LEVEL SECURITY;
	ALTER TABLE ac_list_users FORCE ROW LEVEL SECURITY;
	CREATE POLICY seen ON ac_list_users USING (true);
	CREATE POLICY kept ON ac_list_users AS RESTRICTIVE FOR UPDATE
		USING (coalesce((data->>'sentCount')::int, 0) < 1) WITH CHECK (true);
	SQL
my $slow_job = start_campaign($node, $slow);
wait_until($node, "SELECT sent >= 1 FROM sendcampaign.run WHERE job_id = $slow_job");
my $second = sql($node, <<~"SQL", role => 'app');
	INSERT INTO ac_campaigns (ac_list_id, data)
	SELECT ac_list_id, data FROM ac_campaigns WHERE id = $slow RETURNING id
	SQL
$twilio->set(hold => 1);
my $second_job = start_campaign($node, $second);
wait_for_flight($twilio, 2);
release();
wait_for_run($node, $_) for $slow_job, $second_job;
is(sql($node, <<~"SQL"), '1|1 1|1', 'of each user, one message is counted, as sentCount says');
		SELECT string_agg(concat_ws('|', counted, (u.data->>'sentCount')::int), ' ')
		FROM (SELECT m.list_user_id, count(*) FILTER (WHERE m.counted) AS counted
			FROM sendcampaign.message_data m JOIN sendcampaign.run_data r ON r.id = m.run_id
			WHERE r.job_id IN ($slow_job, $second_job) GROUP BY 1) x
		JOIN ac_list_users u ON u.id = x.list_user_id
		SQL
sql($node, <<~'SQL');
	DROP POLICY seen ON ac_list_users;
	DROP POLICY kept ON ac_list_users;
	ALTER TABLE ac_list_users DISABLE ROW LEVEL SECURITY;
	SQL

# An account that does not answer keeps no run of another account waiting.
my $crowd = create_campaign($node, users => 240);
my $single = small();
configure(
	$node, $single, qq(configuration ||
	'{"twilioAccountSid": "$other_account", "twilioAuthToken": "other"}'));
set_and_reload($node, 'sendcampaign.max_concurrency', 4);
$twilio->set(hold => 1);
my $crowd_job = start_campaign($node, $crowd);
wait_for_flight($twilio, 4);
my $single_job = start_campaign($node, $single);
ok( wait_until($node, "SELECT state = 'running' FROM sendcampaign.run WHERE job_id = $single_job"),
	'a run begins beside one whose account does not answer');
$twilio->set(hold => 0);
wait_for_run($node, $_) for $crowd_job, $single_job;

# A function of the tables changes hands while its plan is kept: the worker of a
# superuser does not run it, not even to make the plan anew.
my ($before, $after) = map { create_campaign($node, users => 1) } 1 .. 2;
sql($node, <<~'SQL');
	CREATE ROLE mallory LOGIN;
	GRANT USAGE, CREATE ON SCHEMA public TO mallory;
	CREATE TABLE ran (who name);
	GRANT INSERT ON ran TO PUBLIC;
	ALTER ROLE app SUPERUSER;
	SET ROLE app;
	CREATE FUNCTION f() RETURNS boolean IMMUTABLE LANGUAGE plpgsql AS $$
		BEGIN RETURN true; END $$;
	ALTER TABLE groups RENAME TO all_groups;
	CREATE VIEW groups AS SELECT id, CASE WHEN f() THEN configuration END AS configuration
		FROM all_groups;
	SQL
sent_once($node, $twilio, $before, start_campaign($node, $before), 'a view', total => 1);
my $bad_job = sql($node, <<~"SQL");
	BEGIN;
	SET ROLE app;
	SELECT send_campaign($after);
	ALTER FUNCTION f() OWNER TO mallory;
	SET ROLE mallory;
	CREATE OR REPLACE FUNCTION f() RETURNS boolean IMMUTABLE LANGUAGE plpgsql AS \$\$
		BEGIN RAISE LOG 'code of mallory as %', current_user; RETURN true; END \$\$;
	COMMIT;
	SQL
is(wait_for_run($node, $bad_job)->{state}, 'failed', 'the run fails');
unlike(log_of($node), qr/LOG:  code of mallory as app/, 'without her code');
$node->stop;
done_testing();
