# Race: many sessions and roles do, at random, all that the SQL interface
# offers, to the same campaigns, in two schemas whose ids are the same, while
# the local Twilio loses answers, commits are lost, nights fall, and tables are
# replaced.  In the end its ledger and the tables agree: each message of each
# run was sent once, and nobody was forgotten.
#
# SEED chooses what is done (as far as timing can be repeated), DURATION for how
# many seconds, SESSIONS by how many sessions; script/torture runs it for minutes.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../perl";
use Campaign;
use LocalTwilio;
use POSIX ();
use PostgreSQL::Test::Utils;
use Session;
use Test::More;
use Time::HiRes ();

my $seed = $ENV{SEED} || time ^ $$ << 8;
my $seconds = $ENV{DURATION} || 12;
my $sessions = $ENV{SESSIONS} || 6;
diag("race: SEED=$seed DURATION=$seconds SESSIONS=$sessions");

# How many percent of the requests have which fault
my %percent = (
	'429' => 2,
	'503' => 1,
	'500-after' => 1,
	'500-before' => 1,
	'drop-after' => 1,
	'drop-before' => 1,
	'never-after' => 0.3,
	'truncated' => 0.5,
	'list-500' => 1,
	'list-drop' => 1);
my @faults = map { ('--fault', "$_=$percent{$_}") } sort keys %percent;
my $twilio = LocalTwilio->start(
	options => [
		'--seed' => $seed,
		'--latency' => 10,
		'--latency-spread' => 10,
		'--concurrency' => 60,
		'--list-lag' => 100,
		@faults
	]);
my $linger = $ENV{LINGER} // (0, 300, 5000)[ rand 3 ];
my $node = new_cluster('race', $twilio, linger => $linger, conf => <<~'CONF');
	sendcampaign.request_timeout = '1s'
	sendcampaign.lookup_delay = '300ms'
	sendcampaign.failure_threshold = -1
	max_worker_processes = 16
	deadlock_timeout = '100ms'
	log_statement = 'none'
	CONF
my @schemas = qw(public tenant);
my @roles = qw(racer1 racer2 boss);

# Roles that share the tables of each schema; the last one is a member of the others.
sub set_up
{
	sql($node, "CREATE ROLE $_ LOGIN") for @roles;
	sql($node, <<~'SQL');
		GRANT app, racer1, racer2 TO boss;
		GRANT USAGE ON SCHEMA sendcampaign TO PUBLIC;
		CREATE SCHEMA tenant AUTHORIZATION app;
		SET ROLE app;
		SELECT sendcampaign.create_tables('tenant');
		SQL
	for my $schema (@schemas)
	{
		sql($node, <<~SQL, role => 'app');
			SET search_path = $schema;
			CREATE TABLE touched (list_user_id int);
			GRANT USAGE ON SCHEMA $schema TO PUBLIC;
			GRANT ALL ON ALL TABLES IN SCHEMA $schema TO PUBLIC;
			GRANT ALL ON ALL SEQUENCES IN SCHEMA $schema TO PUBLIC;
			INSERT INTO groups (configuration)
			SELECT jsonb_build_object(
			    'twilioAccountSid', '$LocalTwilio::ACCOUNT',
			    'twilioAuthToken', '$LocalTwilio::TOKEN',
			    'twilioFromSmsNumber', '$LocalTwilio::SENDER')
			FROM generate_series(1, 3);
			SQL
	}
}

# One of the arguments, at random
sub any
{
	return $_[ rand @_ ];
}

# These statements with this probability, or else one that does nothing
sub sometimes
{
	my ($probability, $sql) = @_;
	return rand() < $probability ? $sql : 'SELECT';
}

# A random run in one of these states, as an item of FROM with the alias r
sub some_run
{
	my @states = @_;
	my $states = join ', ', map { "'$_'" } @states;
	return <<~SQL;
		(SELECT *
		FROM sendcampaign.run
		WHERE schema = current_setting('sendcampaign.schema') AND state IN ($states)
		ORDER BY random()
		LIMIT 1) r
		SQL
}
my $some_run = some_run(qw(queued running paused completed failed));
my $active_run = some_run(qw(queued running));
my $unfinished_run = some_run(qw(queued running paused));
my $paused_run = some_run('paused');
my $completed_run = some_run('completed');
my $begun_run = some_run(qw(running completed));
my $run_to_call_again = some_run(qw(failed failed running completed));

# A list and its campaign, which is sent in the same transaction
sub welcome
{
	my $users = any(1, 1, 2, 3, 10, 40, 300);
	my $first = int rand 100000;
	my $phones = any($users, $users, int($users / 2) + 1);
	my $end = rand() < 0.85 ? 'COMMIT' : 'ROLLBACK';
	my $word = $end eq 'COMMIT' ? 'kept' : 'undone';
	return <<~SQL;
		BEGIN;
		WITH l AS (
		    INSERT INTO ac_lists (group_id) VALUES (1 + (random() * 2)::int) RETURNING id),
		u AS (
		    INSERT INTO ac_list_users (ac_list_id, data)
		    SELECT l.id, jsonb_build_object(
		        'sms', '+1555' || lpad((i % $phones + $first)::text, 7, '0'))
		    FROM l, generate_series(1, $users) i)
		INSERT INTO ac_campaigns (ac_list_id, data)
		SELECT id, jsonb_build_object(
		    'message', '$word',
		    'baseUrl', 'https://' || current_setting('sendcampaign.schema') || '.example.org')
		FROM l
		RETURNING id AS campaign
		\\gset
		SELECT send_campaign(:campaign);
		$end;
		SQL
}

# A pause that takes its time, and that may be rolled back
sub pause_in_transaction
{
	my $end = any('COMMIT', 'ROLLBACK');
	return <<~SQL;
		BEGIN;
		SELECT sendcampaign.pause(r.job_id) FROM $active_run;
		SELECT pg_sleep(0.05);
		$end;
		SQL
}

# Locks some rows of a table for a while.
sub hold_rows
{
	my $table = any(qw(ac_list_users ac_background_jobs ac_campaigns groups));
	my $time = rand(0.3);
	return <<~SQL;
		BEGIN;
		SELECT count(*) FROM (SELECT FROM $table WHERE random() < 0.3 FOR UPDATE) x;
		SELECT pg_sleep($time);
		COMMIT;
		SQL
}

# Commits of a run are not known any more, as after the loss of a server.
sub lose
{
	return sometimes(0.1, <<~SQL);
		RESET ROLE;
		UPDATE sendcampaign.run_data SET timeline = '0/0' WHERE id = (SELECT r.id FROM $some_run);
		SQL
}

# Another table with the same rows takes the place of the list users'.
sub replace
{
	my $old = 'old' . int rand 1e9;
	return sometimes(0.05, <<~SQL);
		RESET ROLE;
		SET ROLE app;
		BEGIN;
		ALTER TABLE ac_list_users RENAME TO $old;
		CREATE TABLE ac_list_users (LIKE $old INCLUDING ALL);
		INSERT INTO ac_list_users TABLE $old;
		GRANT ALL ON ac_list_users TO PUBLIC;
		COMMIT;
		SQL
}

# What sessions do: how often, and the statements, or what returns them
my %op = (
	welcome => [ 12, \&welcome ],
	in_transaction => [ 1, \&pause_in_transaction ],
	hold_rows => [ 2, \&hold_rows ],
	lose => [ 1, \&lose ],
	replace => [ 1, \&replace ],
	wake => [ 2, 'SELECT sendcampaign.wake()' ],
	look => [ 1, 'TABLE sendcampaign.progress' ],
	pause => [ 3, "SELECT sendcampaign.pause(r.job_id) FROM $active_run" ],
	resume => [ 4, "SELECT sendcampaign.resume(r.job_id) FROM $paused_run" ],
	cancel => [ 1, "SELECT sendcampaign.cancel(r.job_id) FROM $unfinished_run" ],
	retry => [ 1, "SELECT sendcampaign.retry_failed(r.job_id) FROM $completed_run" ],
	same_job => [ 3, "SELECT send_campaign(r.campaign_id, r.job_id) FROM $run_to_call_again" ],
	day => [ 3, q{UPDATE groups SET configuration = configuration - 'quietHours'} ],
	again => [ 2, <<~'SQL' ],
		SELECT send_campaign(id)
		FROM (SELECT id FROM ac_campaigns ORDER BY random() LIMIT 1) c
		SQL
	opt_out => [ 1, <<~'SQL' ],
		SELECT sendcampaign.opt_out(data->>'sms', 1)
		FROM ac_list_users
		ORDER BY random()
		LIMIT 1
		SQL
	opt_in => [ 1, <<~'SQL' ],
		SELECT sendcampaign.opt_in(phone, group_id)
		FROM sendcampaign.opt_out
		ORDER BY random()
		LIMIT 1
		SQL
	preview => [ 1, <<~'SQL' ],
		SELECT count(*)
		FROM (SELECT id FROM ac_campaigns ORDER BY random() LIMIT 1) c, sendcampaign.preview(c.id)
		SQL
	touch => [ 3, <<~'SQL' ],
		WITH u AS (
		    UPDATE ac_list_users
		    SET data = data
		        || jsonb_build_object('touched', coalesce((data->>'touched')::int, 0) + 1)
		    WHERE id IN (SELECT id FROM ac_list_users ORDER BY random() LIMIT 20)
		    RETURNING id)
		INSERT INTO touched SELECT id FROM u
		SQL
	move => [ 1, <<~'SQL' ],
		UPDATE ac_list_users
		SET ac_list_id = (SELECT id FROM ac_lists ORDER BY random() LIMIT 1)
		WHERE id IN (SELECT id FROM ac_list_users ORDER BY random() LIMIT 3)
		SQL
	renumber => [ 1, <<~'SQL' ],
		UPDATE ac_list_users
		SET data = data || jsonb_build_object('sms', '+1777' || lpad(id::text, 7, '0'))
		WHERE id IN (SELECT id FROM ac_list_users ORDER BY random() LIMIT 3)
		SQL
	break => [ 1, <<~'SQL' ],
		UPDATE groups
		SET configuration = configuration - 'twilioAuthToken'
		WHERE id = 1 + (random() * 2)::int
		SQL
	mend => [ 3, <<~SQL ],
		UPDATE groups
		SET configuration = configuration || '{"twilioAuthToken": "$LocalTwilio::TOKEN"}'
		SQL
	swap_names => [ 1, <<~'SQL' ],
		RESET ROLE;
		BEGIN;
		ALTER ROLE racer1 RENAME TO racer;
		ALTER ROLE racer2 RENAME TO racer1;
		ALTER ROLE racer RENAME TO racer2;
		COMMIT
		SQL
	settle => [ 1, <<~SQL ],
		SELECT sendcampaign.settle(r.job_id, m.list_user_id, true)
		FROM $begun_run
		JOIN sendcampaign.message m ON m.run_id = r.id AND m.status = 'in_doubt'
		LIMIT 1
		SQL
	test => [ 1, <<~'SQL' ],
		SELECT sendcampaign.send_test(id, '+1888' || lpad(id::text, 7, '0'))
		FROM (SELECT id FROM ac_campaigns ORDER BY random() LIMIT 1) c
		SQL
	night => [ 1, <<~'SQL' ],
		UPDATE groups
		SET configuration = configuration || jsonb_build_object(
		    'timeZone', 'UTC',
		    'quietHours', jsonb_build_object(
		        'from', to_char(now() AT TIME ZONE 'UTC' - interval '1 hour', 'HH24:MI'),
		        'to', to_char(now() AT TIME ZONE 'UTC' + interval '1 hour', 'HH24:MI')))
		WHERE id = 1 + (random() * 2)::int
		SQL
	terminate => [ 1, <<~'SQL' ]);
		RESET ROLE;
		SELECT pg_terminate_backend(pid)
		FROM pg_stat_activity
		WHERE backend_type = 'sendcampaign worker' AND random() < 0.5
		SQL
my @ops = map { ($_) x $op{$_}[0] } sort keys %op;

# The life of one session; what it did and its errors go to a file.
sub race
{
	my ($n, $file) = @_;
	srand($seed + $n);
	my $session = Session->open($node);
	my $until = Time::HiRes::time() + $seconds;
	my %done;
	$session->query("\\set VERBOSITY verbose\nSELECT setseed(" . rand() . ')');
	while (Time::HiRes::time() < $until)
	{
		my $op = any(@ops);
		my $role = any('app', @roles);
		my $schema = any(@schemas);
		my $statements = $op{$op}[1];
		$statements = $statements->() if ref $statements;
		$session->query(<<~SQL);
			SET ROLE $role;
			SET sendcampaign.schema = $schema;
			SET search_path = $schema, public;
			$statements
			SQL
		$done{$op}++;
	}
	my $errors = $session->errors;
	append_to_file($file, join '', map({ "did $_ $done{$_}\n" } sort keys %done), $errors);
	$session->close;
	POSIX::_exit(0);
}

set_up();
my $dir = PostgreSQL::Test::Utils::tempdir();
my @pids;
for my $n (1 .. $sessions)
{
	my $pid = fork // die "fork: $!";
	race($n, "$dir/$n") if $pid == 0;
	push @pids, $pid;
}
waitpid $_, 0 for @pids;

# What is refused for the state of a run, for what is not there (any more), for
# a lock or for a right is no accident; nor is that two sessions rename a role.
my $harmless = qr{
	ERROR:\s\s(55000|55006|02000|42710|40P01|55P03|25P02|42501|40001):\s
	| XX000:\stuple\sconcurrently\supdated}x;
my $calls = 0;
my %unexpected;
for my $file (grep { -e } map { "$dir/$_" } 1 .. $sessions)
{
	for my $line (split /\n/, slurp_file($file))
	{
		$calls += $1 if $line =~ /^did \w+ (\d+)/;
		next if $line =~ $harmless;
		$unexpected{$line}++ if $line =~ /ERROR|FATAL|PANIC|server closed/;
	}
}
is_deeply(\%unexpected, {}, 'there are no errors but those that may be');

# All runs that are paused or have failed go on, until nothing is left to do.
# Messages after which nothing is sent soon stay in doubt.
sql($node, q{ALTER SYSTEM SET sendcampaign.lookup_timeout = '5s'});
$node->reload;
sql($node, <<~SQL) for @schemas;
	UPDATE $_.groups
	SET configuration = configuration - 'quietHours'
	    || '{"twilioAuthToken": "$LocalTwilio::TOKEN"}'
	SQL

# Ten times a call for one of these runs, whatever becomes of it
sub call_for_some
{
	my ($schema, $call, $condition) = @_;
	my $statement = <<~SQL;
		SELECT $call
		FROM (
		    SELECT *
		    FROM sendcampaign.run
		    WHERE $condition AND schema = '$schema'
		    ORDER BY random()
		    LIMIT 1) r;
		SQL
	my $statements = $statement x 10;
	$node->psql('postgres', <<~SQL);
		SET client_min_messages = error;
		SET ROLE boss;
		SET sendcampaign.schema = $schema;
		$statements
		SQL
}

# Lets all runs go on, and returns whether all of them have come to an end.
sub are_through
{
	for my $schema (@schemas)
	{
		call_for_some($schema, 'send_campaign(campaign_id, job_id)', "state = 'failed'");
		call_for_some($schema, 'sendcampaign.pause(job_id)',
			"state = 'running' AND next_at IS NOT NULL");
		call_for_some($schema, 'sendcampaign.resume(job_id)', "state = 'paused'");
	}
	$node->psql('postgres', 'SELECT sendcampaign.wake()');
	return sql($node, <<~'SQL') eq '0';
		SELECT count(*) FROM sendcampaign.run WHERE finished_at IS NULL OR state = 'failed'
		SQL
}
ok(poll(\&are_through, 600 + 15 * $seconds), 'all runs come to an end')
  or diag(sql($node, <<~'SQL'));
	SELECT schema, job_id, role, state, total, sent, error
	FROM sendcampaign.run
	WHERE finished_at IS NULL OR state = 'failed'
	SQL

# The ledger and the tables, message by message
my (%row, %doubt);
my $messages = sql($node, <<~'SQL');
	SELECT m.schema, r.campaign_id, m.list_user_id, m.status, coalesce(m.sid, '')
	FROM sendcampaign.message m
	JOIN sendcampaign.run r ON r.id = m.run_id
	SQL
for (split /\n/, $messages)
{
	my ($schema, $campaign, $user, $status, $sid) = split /\|/, $_, -1;
	$row{$sid}++ if $sid ne '';
	$doubt{"$schema $campaign $user"}++
	  if $status eq 'in_doubt' || ($status eq 'sent' && $sid eq '');
}
my (@unknown, @undone, %accepted);
for my $message ($twilio->ledger)
{
	my ($sid, $to, $body) = @$message{qw(sid to body)};
	push @undone, $body if $body =~ /^undone/;
	$accepted{$sid} = 1;
	next if $row{$sid};
	if ($body =~ m{https://(\w+)\.example\.org\?yu=(\d+)&yc=(\d+)$})
	{
		my ($schema, $user, $campaign) = ($1, $2, $3);
		my $recipient = "$schema $campaign $user";
		if ($doubt{$recipient})
		{
			$doubt{$recipient}--;
			next;
		}
	}
	push @unknown, "$sid $to $body";
}
is_deeply(\@unknown, [],
	'what Twilio accepted is in the tables, or in doubt there: no duplicates');
is_deeply([ grep { !$accepted{$_} } keys %row ],
	[], 'what the tables call sent was accepted: no losses');
is_deeply([ grep { $row{$_} > 1 } keys %row ], [], 'each of them is one message');
is_deeply(\@undone, [], 'nothing was sent for a transaction that was rolled back');
is(sql($node, <<~'SQL'), 0, 'all runs add up');
	SELECT count(*)
	FROM sendcampaign.run r
	WHERE total IS DISTINCT FROM sent + failed + skipped + in_doubt
	    OR total <> (SELECT count(*) FROM sendcampaign.message_data m WHERE m.run_id = r.id)
	SQL
is(sql($node, <<~'SQL'), 0, 'nothing is claimed or left over');
	SELECT (SELECT count(*) FROM sendcampaign.claim) + (SELECT count(*) FROM sendcampaign.batch)
	SQL
is(sql($node, <<~'SQL'), 0, 'no run has two messages to one phone');
	SELECT count(*)
	FROM (
	    SELECT
	    FROM sendcampaign.message
	    WHERE status IN ('sent', 'in_doubt')
	    GROUP BY run_id, phone
	    HAVING count(*) > 1) m
	SQL

for my $schema (@schemas)
{
	is(sql($node, <<~SQL), 0, "$schema: no list was taken for an empty one");
		SELECT count(*)
		FROM $schema.ac_campaigns c
		JOIN sendcampaign.run r ON r.campaign_id = c.id AND r.schema = '$schema'
		WHERE r.total = 0
		    AND r.state = 'completed'
		    AND r.id = (
		        SELECT min(id)
		        FROM sendcampaign.run o
		        WHERE o.campaign_id = c.id AND o.schema = r.schema)
		    AND EXISTS (
		        SELECT
		        FROM $schema.ac_list_users u
		        WHERE u.ac_list_id = c.ac_list_id AND u.updated_at = u.created_at)
		SQL
	is(sql($node, <<~SQL), 0, "$schema: sentCount is right");
		SELECT count(*)
		FROM $schema.ac_list_users u
		LEFT JOIN (
		    SELECT list_user_id, count(*) AS n
		    FROM sendcampaign.message
		    WHERE status = 'sent' AND counted AND schema = '$schema' AND job_id > 0
		    GROUP BY 1) m ON m.list_user_id = u.id
		WHERE coalesce((u.data->>'sentCount')::int, 0) <> coalesce(m.n, 0)
		SQL
	is(sql($node, <<~SQL), 0, "$schema: all are counted whose table was not replaced");
		SELECT count(*)
		FROM sendcampaign.message_data m
		JOIN sendcampaign.run_data r ON r.id = m.run_id
		WHERE NOT m.counted
		    AND r.schema = '$schema'
		    AND r.list_users = '$schema.ac_list_users'::regclass
		SQL
	is(sql($node, <<~SQL), 't', "$schema: no change of the application is lost");
		SELECT (SELECT sum((data->>'touched')::int) FROM $schema.ac_list_users)
		    IS NOT DISTINCT FROM (SELECT nullif(count(*), 0) FROM $schema.touched)
		SQL
}
my $accidents = join '|', 'PANIC', 'TRAP', 'terminated by signal', 'gives up', 'do not add up',
  'already held', "you don't own";
unlike(log_of($node), qr/$accidents/, 'there are no accidents');
my $runs = sql($node, 'SELECT count(*) FROM sendcampaign.run');
my $in_doubt = sql($node, q{SELECT count(*) FROM sendcampaign.message WHERE status = 'in_doubt'});
diag("race: SEED=$seed: $sessions sessions, $calls calls, $runs runs, " .
	  keys(%accepted) . " messages, $in_doubt in doubt");
$node->stop;
done_testing();
