# Race: many sessions and roles do, at random, all that the SQL interface
# offers, to the same campaigns, in two schemas whose numbers are the same,
# while the local Twilio loses answers, commits are lost, nights fall, and tables
# are replaced.  In the end its ledger and the tables say the same: each message
# of each run once, nobody forgotten.
#
# SEED chooses what is done (within what timing lets be repeated), DURATION how
# many seconds long, SESSIONS by how many; script/torture makes it minutes.
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

my %percent = ('429' => 2, '503' => 1, '500-after' => 1, '500-before' => 1, 'drop-after' => 1,
	'drop-before' => 1, 'never-after' => 0.3, 'truncated' => 0.5, 'list-500' => 1, 'list-drop' => 1);
my $twilio = LocalTwilio->start(options => [ '--seed', $seed, '--latency', 10, '--latency-spread', 10,
	'--concurrency', 60, '--list-lag', 100, map { ('--fault', "$_=$percent{$_}") } sort keys %percent ]);
my $node = new_cluster('race', $twilio, conf => q{
	sendcampaign.request_timeout = '1s'
	sendcampaign.lookup_delay = '300ms'
	sendcampaign.failure_threshold = -1
	max_worker_processes = 16
	deadlock_timeout = '100ms'
	log_statement = 'none'
});
my @schemas = qw(public tenant);
my @roles = qw(racer1 racer2 boss);

# Roles that share the tables of each schema, the last one being a member of the others.
sub set_up
{
	$node->safe_psql('postgres', join '', (map { "CREATE ROLE $_ LOGIN;" } @roles), q{
		GRANT app, racer1, racer2 TO boss;
		GRANT USAGE ON SCHEMA sendcampaign TO PUBLIC;
		CREATE SCHEMA tenant AUTHORIZATION app;
		SET ROLE app;
		SELECT sendcampaign.create_tables('tenant');
	});
	for my $schema (@schemas)
	{
		$node->safe_psql('postgres', qq{
			SET ROLE app;
			SET search_path = $schema;
			CREATE TABLE touched (list_user_id int);
			GRANT USAGE ON SCHEMA $schema TO PUBLIC;
			GRANT ALL ON ALL TABLES IN SCHEMA $schema TO PUBLIC;
			GRANT ALL ON ALL SEQUENCES IN SCHEMA $schema TO PUBLIC;
			INSERT INTO groups (configuration) SELECT jsonb_build_object('twilioAccountSid', '$LocalTwilio::ACCOUNT',
				'twilioAuthToken', '$LocalTwilio::TOKEN', 'twilioFromSmsNumber', '$LocalTwilio::SENDER')
			FROM generate_series(1, 3)});
	}
}

sub any { return $_[ rand @_ ]; }

# SQL for a run in one of these states, as the alias r with its columns.
sub some_run
{
	my $states = join ',', map { "'$_'" } @_;
	return "(SELECT * FROM sendcampaign.run WHERE schema = current_setting('sendcampaign.schema') AND state IN ($states) ORDER BY random() LIMIT 1) r";
}

# A list of its own, and its campaign, sent in the same transaction.
sub welcome
{
	my $users = any(1, 1, 2, 3, 10, 40, 300);
	my $first = int rand 100000;
	my $phones = any($users, $users, int($users / 2) + 1);
	my $end = rand() < 0.85 ? 'COMMIT' : 'ROLLBACK';
	my $word = $end eq 'COMMIT' ? 'kept' : 'undone';
	return qq{BEGIN; WITH l AS (INSERT INTO ac_lists (group_id) VALUES (1 + (random() * 2)::int) RETURNING id),
		u AS (INSERT INTO ac_list_users (ac_list_id, data) SELECT l.id, jsonb_build_object('sms', '+1555' || lpad((i % $phones + $first)::text, 7, '0'))
			FROM l, generate_series(1, $users) i)
		INSERT INTO ac_campaigns (ac_list_id, data) SELECT id, jsonb_build_object('message', '$word',
			'baseUrl', 'https://' || current_setting('sendcampaign.schema') || '.example.org') FROM l RETURNING id AS campaign
		\\gset
		SELECT send_campaign(:campaign); $end};
}

my %op = (
	welcome => [ 12, \&welcome ],
	again => [ 2, sub { 'SELECT send_campaign(id) FROM (SELECT id FROM ac_campaigns ORDER BY random() LIMIT 1) c' } ],
	same_job => [ 3, sub { 'SELECT send_campaign(r.campaign_id, r.job_id) FROM ' . some_run(qw(failed failed running completed)) } ],
	pause => [ 3, sub { 'SELECT sendcampaign.pause(r.job_id) FROM ' . some_run(qw(queued running)) } ],
	resume => [ 4, sub { 'SELECT sendcampaign.resume(r.job_id) FROM ' . some_run('paused') } ],
	cancel => [ 1, sub { 'SELECT sendcampaign.cancel(r.job_id) FROM ' . some_run(qw(queued running paused)) } ],
	retry => [ 1, sub { 'SELECT sendcampaign.retry_failed(r.job_id) FROM ' . some_run('completed') } ],
	opt_out => [ 1, sub { q{SELECT sendcampaign.opt_out(data->>'sms', 1) FROM ac_list_users ORDER BY random() LIMIT 1} } ],
	opt_in => [ 1, sub { 'SELECT sendcampaign.opt_in(phone, group_id) FROM sendcampaign.opt_out ORDER BY random() LIMIT 1' } ],
	wake => [ 2, sub { 'SELECT sendcampaign.wake()' } ],
	look => [ 1, sub { 'TABLE sendcampaign.progress' } ],
	preview => [ 1, sub { 'SELECT count(*) FROM (SELECT id FROM ac_campaigns ORDER BY random() LIMIT 1) c, sendcampaign.preview(c.id)' } ],
	in_transaction => [ 1, sub { 'BEGIN; SELECT sendcampaign.pause(r.job_id) FROM ' . some_run(qw(queued running)) . '; SELECT pg_sleep(0.05); '
			. any('COMMIT', 'ROLLBACK') } ],
	touch => [ 3, sub { q{WITH u AS (UPDATE ac_list_users SET data = data || jsonb_build_object('touched', coalesce((data->>'touched')::int, 0) + 1)
		WHERE id IN (SELECT id FROM ac_list_users ORDER BY random() LIMIT 20) RETURNING id) INSERT INTO touched SELECT id FROM u} } ],
	move => [ 1, sub { 'UPDATE ac_list_users SET ac_list_id = (SELECT id FROM ac_lists ORDER BY random() LIMIT 1)
		WHERE id IN (SELECT id FROM ac_list_users ORDER BY random() LIMIT 3)' } ],
	renumber => [ 1, sub { q{UPDATE ac_list_users SET data = data || jsonb_build_object('sms', '+1777' || lpad(id::text, 7, '0'))
		WHERE id IN (SELECT id FROM ac_list_users ORDER BY random() LIMIT 3)} } ],
	hold_rows => [ 2, sub { 'BEGIN; SELECT count(*) FROM (SELECT FROM ' . any(qw(ac_list_users ac_background_jobs ac_campaigns groups))
			. ' WHERE random() < 0.3 FOR UPDATE) x; SELECT pg_sleep(' . rand(0.3) . '); COMMIT' } ],
	break => [ 1, sub { q{UPDATE groups SET configuration = configuration - 'twilioAuthToken' WHERE id = 1 + (random() * 2)::int} } ],
	mend => [ 3, sub { "UPDATE groups SET configuration = configuration || '{\"twilioAuthToken\": \"$LocalTwilio::TOKEN\"}'" } ],
	swap_names => [ 1, sub { 'RESET ROLE; BEGIN; ALTER ROLE racer1 RENAME TO racer; ALTER ROLE racer2 RENAME TO racer1; ALTER ROLE racer RENAME TO racer2; COMMIT' } ],
	settle => [ 1, sub { 'SELECT sendcampaign.settle(r.job_id, m.list_user_id, true) FROM ' . some_run(qw(running completed)) . " JOIN sendcampaign.message m ON m.run_id = r.id AND m.status = 'in_doubt' LIMIT 1" } ],
	test => [ 1, sub { q{SELECT sendcampaign.send_test(id, '+1888' || lpad(id::text, 7, '0')) FROM (SELECT id FROM ac_campaigns ORDER BY random() LIMIT 1) c} } ],
	night => [ 1, sub { q{UPDATE groups SET configuration = configuration || jsonb_build_object('timeZone', 'UTC', 'quietHours', jsonb_build_object(
		'from', to_char(now() AT TIME ZONE 'UTC' - interval '1 hour', 'HH24:MI'), 'to', to_char(now() AT TIME ZONE 'UTC' + interval '1 hour', 'HH24:MI')))
		WHERE id = 1 + (random() * 2)::int} } ],
	day => [ 3, sub { q{UPDATE groups SET configuration = configuration - 'quietHours'} } ],
	lose => [ 1, sub { return 'SELECT' if rand() < 0.9; q{RESET ROLE; UPDATE sendcampaign.run_data SET timeline = '0/0' WHERE id = (SELECT r.id FROM } . some_run(qw(queued running paused completed failed)) . ')' } ],
	replace => [ 1, sub { return 'SELECT' if rand() < 0.95; my $old = 'old' . int rand 1e9; return qq{RESET ROLE; SET ROLE app; BEGIN; ALTER TABLE ac_list_users RENAME TO $old;
		CREATE TABLE ac_list_users (LIKE $old INCLUDING ALL); INSERT INTO ac_list_users TABLE $old; GRANT ALL ON ac_list_users TO PUBLIC; COMMIT} } ],
	terminate => [ 1, sub { q{RESET ROLE; SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = 'sendcampaign worker' AND random() < 0.5} } ]);
my @ops = map { ($_) x $op{$_}[0] } sort keys %op;

# One session's life; its errors and what it did go to a file.
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
		my ($op, $role, $schema) = (any(@ops), any('app', @roles), any(@schemas));
		$session->query("SET ROLE $role; SET sendcampaign.schema = $schema; SET search_path = $schema, public; " . $op{$op}[1]->());
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

my $transactions = 0;
my %unexpected;
for my $line (map { split /\n/, slurp_file("$dir/$_") } grep { -e "$dir/$_" } 1 .. $sessions)
{
	$transactions += $1 if $line =~ /^did \w+ (\d+)/;
	# refused for the state it is in, for what is not there (any more), for a lock
	next if $line =~ /XX000: tuple concurrently updated/;    # two sessions rename a role
	$unexpected{$line}++ if $line =~ /ERROR|FATAL|PANIC|server closed/ && $line !~ /ERROR:  (55000|55006|02000|42710|40P01|55P03|25P02|42501|40001): /;
}
is_deeply(\%unexpected, {}, 'no errors but those that may be');

# All that is paused or has failed goes on, until nothing is left to do.  What
# nothing is sent after stays in doubt soon.
$node->safe_psql('postgres', q{ALTER SYSTEM SET sendcampaign.lookup_timeout = '5s'});
$node->reload;
$node->safe_psql('postgres', "UPDATE $_.groups SET configuration = configuration - 'quietHours' || '{\"twilioAuthToken\": \"$LocalTwilio::TOKEN\"}'") for @schemas;
my $through = poll(sub {
	for my $schema (@schemas)
	{
		for my $call ("send_campaign(campaign_id, job_id) FROM sendcampaign.run WHERE state = 'failed'",
			"sendcampaign.pause(job_id) FROM sendcampaign.run WHERE state = 'running' AND next_at IS NOT NULL",
			"sendcampaign.resume(job_id) FROM sendcampaign.run WHERE state = 'paused'")
		{
			my $each = $call =~ s/(.*) FROM (.*)/SELECT $1 FROM (SELECT * FROM $2 AND schema = '$schema' ORDER BY random() LIMIT 1) r/r;
			$node->psql('postgres', "SET client_min_messages = error; SET ROLE boss; SET sendcampaign.schema = $schema; " . "$each;" x 10);
		}
	}
	$node->psql('postgres', 'SELECT sendcampaign.wake()');
	return $node->safe_psql('postgres', "SELECT count(*) FROM sendcampaign.run WHERE finished_at IS NULL OR state = 'failed'") eq '0';
}, 600 + 15 * $seconds);
ok($through, 'all runs come to an end')
  or diag($node->safe_psql('postgres', "SELECT schema, job_id, role, state, total, sent, error FROM sendcampaign.run WHERE finished_at IS NULL OR state = 'failed'"));

# The ledger and the tables, message by message.
my (%row, %doubt);
for (split /\n/, $node->safe_psql('postgres', q{SELECT m.schema, r.campaign_id, m.list_user_id, m.status, coalesce(m.sid, '')
	FROM sendcampaign.message m JOIN sendcampaign.run r ON r.id = m.run_id}))
{
	my ($schema, $campaign, $user, $status, $sid) = split /\|/, $_, -1;
	$row{$sid}++ if $sid ne '';
	$doubt{"$schema $campaign $user"}++ if $status eq 'in_doubt' || ($status eq 'sent' && $sid eq '');
}
my (@unknown, @undone, %accepted);
for ($twilio->ledger)
{
	push @undone, $_->{body} if $_->{body} =~ /^undone/;
	$accepted{ $_->{sid} } = 1;
	next if $row{ $_->{sid} };
	my ($schema, $user, $campaign) = $_->{body} =~ m{https://(\w+)\.example\.org\?yu=(\d+)&yc=(\d+)$};
	next if defined $schema && ($doubt{"$schema $campaign $user"} // 0) > 0 && $doubt{"$schema $campaign $user"}--;
	push @unknown, "$_->{sid} $_->{to} $_->{body}";
}
is_deeply(\@unknown, [], 'what Twilio accepted is in the tables, or in doubt there: no duplicates');
is_deeply([ grep { !$accepted{$_} } keys %row ], [], 'what the tables call sent was accepted: no losses');
is_deeply([ grep { $row{$_} > 1 } keys %row ], [], 'each of them is one message');
is_deeply(\@undone, [], 'nothing was sent for a transaction that was rolled back');
is($node->safe_psql('postgres', q{SELECT count(*) FROM sendcampaign.run r WHERE total IS DISTINCT FROM sent + failed + skipped + in_doubt
	OR total <> (SELECT count(*) FROM sendcampaign.message_data m WHERE m.run_id = r.id)}), 0, 'all runs add up');
is($node->safe_psql('postgres', 'SELECT (SELECT count(*) FROM sendcampaign.claim) + (SELECT count(*) FROM sendcampaign.batch)'), 0, 'nothing is claimed or left over');
is($node->safe_psql('postgres', q{SELECT count(*) FROM (SELECT FROM sendcampaign.message WHERE status IN ('sent', 'in_doubt')
	GROUP BY run_id, phone HAVING count(*) > 1) m}), 0, 'no run has two messages to one phone');
for my $schema (@schemas)
{
	is($node->safe_psql('postgres', qq{SELECT count(*) FROM $schema.ac_campaigns c JOIN sendcampaign.run r ON r.campaign_id = c.id AND r.schema = '$schema'
		WHERE r.total = 0 AND r.state = 'completed' AND r.id = (SELECT min(id) FROM sendcampaign.run o WHERE o.campaign_id = c.id AND o.schema = r.schema)
		AND NOT EXISTS (SELECT FROM $schema.ac_list_users u WHERE u.ac_list_id = c.ac_list_id AND false)
		AND EXISTS (SELECT FROM $schema.ac_list_users u WHERE u.ac_list_id = c.ac_list_id AND u.updated_at = u.created_at)}), 0, "$schema: no list was taken for an empty one");
	is($node->safe_psql('postgres', qq{SELECT count(*) FROM $schema.ac_list_users u LEFT JOIN (SELECT list_user_id, count(*) AS n FROM sendcampaign.message
		WHERE status = 'sent' AND counted AND schema = '$schema' AND job_id > 0 GROUP BY 1) m ON m.list_user_id = u.id WHERE coalesce((u.data->>'sentCount')::int, 0) <> coalesce(m.n, 0)}), 0, "$schema: sentCount is right");
	is($node->safe_psql('postgres', qq{SELECT count(*) FROM sendcampaign.message_data m JOIN sendcampaign.run_data r ON r.id = m.run_id
		WHERE NOT m.counted AND r.schema = '$schema' AND r.list_users = '$schema.ac_list_users'::regclass}), 0, "$schema: all are counted whose table was not replaced");
	is($node->safe_psql('postgres', qq{SELECT (SELECT sum((data->>'touched')::int) FROM $schema.ac_list_users) IS NOT DISTINCT FROM
		(SELECT nullif(count(*), 0) FROM $schema.touched)}), 't', "$schema: no change of the application is lost");
}
unlike(slurp_file($node->logfile), qr/PANIC|TRAP|terminated by signal|gives up|do not add up|already held|you don't own/, 'no accidents');
diag(sprintf 'race: SEED=%s: %d sessions, %d calls, %d runs, %d messages, %d in doubt', $seed, $sessions, $transactions,
	$node->safe_psql('postgres', 'SELECT count(*), (SELECT count(*) FROM sendcampaign.message WHERE status = $$in_doubt$$) FROM sendcampaign.run') =~ /(\d+)\|/,
	scalar keys %accepted, $node->safe_psql('postgres', q{SELECT count(*) FROM sendcampaign.message WHERE status = 'in_doubt'}));
$node->stop;
done_testing();
