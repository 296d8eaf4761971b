# Who opts out gets nothing more: from the next claim on, whoever wrote it down.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";

use Campaign;
use LocalTwilio;
use PostgreSQL::Test::Utils;
use Session;
use Test::More;

my $twilio = LocalTwilio->start;
my $node = new_cluster('opt_outs', $twilio);
sql($node, <<~'SQL');
    CREATE ROLE other LOGIN;
    CREATE ROLE boss LOGIN IN ROLE app;
    GRANT USAGE ON SCHEMA sendcampaign TO other, boss;
    GRANT INSERT ON sendcampaign.opt_out TO other;
    INSERT INTO groups (id) VALUES (7);
    SELECT setval('groups_id_seq', 100);
    CREATE SCHEMA second;
    GRANT CREATE, USAGE ON SCHEMA second TO app;

    SET ROLE app;
    SELECT sendcampaign.create_tables('second');
    INSERT INTO second.groups (id) SELECT generate_series(1, 200);
SQL

# Runs SQL as a role and returns what it prints.
sub as
{
	my ($role, $sql) = @_;
	return sql($node, $sql, role => $role);
}

# What a function of the extension returns to a role.
sub call
{
	my ($role, $call) = @_;
	return as($role, "SELECT sendcampaign.$call");
}

# The first error of some SQL, run by a role.
sub error_as
{
	my ($role, $sql) = @_;
	return sql_error($node, $sql, role => $role);
}

# All opt-outs.
my $opt_outs = <<~'SQL';
    SELECT phone, schema, group_id, reason, role
    FROM sendcampaign.opt_out
    ORDER BY phone, schema NULLS FIRST, group_id
SQL

sub rows
{
	return sql($node, $opt_outs);
}

# Removes all opt-outs.
sub forget_opt_outs
{
	sql($node, 'DELETE FROM sendcampaign.opt_out');
}

# The group that a campaign is of.
sub group_id
{
	my $campaign = shift;
	return sql($node, 'SELECT ' . group_of($campaign));
}

# The phone of the list user of that number.
sub phone
{
	my $number = shift;
	return sprintf '+1555%07d', $number;
}

# Opts the first so many phones out, as a role.
sub opt_many_out
{
	my ($role, $number) = @_;
	as($role, <<~SQL);
	    SELECT count(sendcampaign.opt_out('+1555' || lpad(i::text, 7, '0')))
	    FROM generate_series(1, $number) i
	SQL
}

# The numbers of those who were skipped as they have opted out.
sub skipped
{
	my $job = shift;
	return sql($node, <<~SQL);
	    SELECT string_agg(right(phone, 3)::int::text, ' ' ORDER BY phone)
	    FROM sendcampaign.message
	    WHERE job_id = $job AND status = 'skipped' AND error_message = 'opted out'
	SQL
}

# opt_out() and opt_in().
is(call('app', q{opt_out('+15550000001')}), 't', 'a phone is opted out');
is(call('app', q{opt_out('00 1 (555) 000-00.01')}), 'f', 'it is so already, in another notation');
is(call('other', q{opt_out('+15550000001', NULL, 'STOP')}), 't', 'each role opts out for itself');
is(call('other', q{opt_in('+15550000001')}), 't', 'and opts in for itself');
is(call('app', q{opt_out('+15550000001', 7, 'STOP')}), 't', 'opted out of one group');
is(as('app', <<~'SQL'), 't', 'opted out of a group in another schema');
    SET sendcampaign.schema = 'second';
    SELECT sendcampaign.opt_out('+1 555 000 0001', 7)
SQL
my @written =
  ('+15550000001||||app', '+15550000001|public|7|STOP|app', '+15550000001|second|7||app');
is(rows(), join("\n", @written), 'what is written down');
is(call('app', q{opt_in('+1-555-000-0001', 7)}), 't', 'opted in to one group');
is(call('app', q{opt_in('+15550000001', 7)}), 'f', 'it is so already');
is(rows(), "$written[0]\n$written[2]", 'that opt-out is gone');
is(call('app', q{opt_in('+15550000001')}), 't', 'opted in to all groups');
is(rows(), '', 'all opt-outs are gone');

my @wrong_calls = (
	q{opt_out('555 0001')}, q{opt_out('')}, q{opt_out(NULL)}, q{opt_out('+1555x')},
	q{opt_in('nonsense')}, q{opt_in(NULL, 1)});
for my $call (@wrong_calls)
{
	my $error = call_error($node, $call);
	is( "$error->{sqlstate} $error->{message}",
		'22023 phone number is not in E.164 form',
		"the error of $call");
	like($error->{hint}, qr/plus sign.*\+15550000001/, "the hint of $call");
}
for my $call ('opt_out', 'opt_in')
{
	my $error = error_as('app', "BEGIN READ ONLY; SELECT sendcampaign.$call('+15550000001')");
	is($error->{sqlstate}, '25006', "$call() is refused in a read-only transaction");
}

# Who sees an opt-out, and who may take it back.
as('app', <<~'SQL');
    SELECT sendcampaign.opt_out('+15550000001', 7), sendcampaign.opt_out('+15550000002')
SQL
my $count = 'SELECT count(*) FROM sendcampaign.opt_out';
is(as('app', $count), 2, 'a role sees its own opt-outs');
is(as('boss', $count), 2, 'and those of roles that it is a member of');
is(as('other', q{SELECT string_agg(phone, ' ') FROM sendcampaign.opt_out}),
	'+15550000002', 'and what stops the messages of all groups');
for my $sql (
	q{INSERT INTO sendcampaign.opt_out (phone, role) VALUES ('x', 'app')},
	'DELETE FROM sendcampaign.opt_out',
	'UPDATE sendcampaign.opt_out SET phone = NULL',
	'TRUNCATE sendcampaign.opt_out')
{
	like(error_as('app', $sql)->{sqlstate}, qr/^(?:42501|42809|23502)$/, "$sql is refused");
}
my $written = rows();
my $error = call_error($node, "opt_in('+15550000002')", role => 'other');
is($error->{sqlstate}, '42501', 'opt_in() by another role is refused');
like(
	"$error->{message} $error->{hint}",
	qr/opted out by role.*members of that role/,
	'in these words');
call('other', q{opt_out('+15550000002')});
is(call('other', q{opt_in('+15550000002')}), 't', 'a role takes back its own opt-out');
is(rows(), $written, 'and that only');
is(call('boss', q{opt_in('+15550000002')}), 't', 'a member of the role may take it back');
is(sql($node, q{SELECT sendcampaign.opt_in('+15550000001')}), 't', 'a superuser may take it back');
is(rows(), '', 'all opt-outs are gone');
call('other', q{opt_out('+15550000003')});
sql($node, <<~'SQL');
    ALTER ROLE other RENAME TO gone;
    CREATE ROLE other;
    GRANT USAGE ON SCHEMA sendcampaign TO other;
SQL
is(call_error($node, q{opt_in('+15550000003')}, role => 'other')->{sqlstate},
	'42501', 'a role that has the same name now may not');
is(call('gone', q{opt_in('+15550000003')}), 't', 'the role itself may, whatever its name');
sql($node, 'DROP OWNED BY other; DROP ROLE other; ALTER ROLE gone RENAME TO other');
forget_opt_outs();

# What a campaign makes of it.
my $campaign = create_campaign($node, users => 12);
my $group = group_id($campaign);
sql($node, <<~SQL);
    UPDATE ac_list_users
    SET data = '{"sms": "001 (555) 000-0007"}'
    WHERE data->>'sms' = '+15550000007';
    INSERT INTO groups (id) VALUES ($group + 1000);
    GRANT SELECT ON groups TO other;
    GRANT SELECT ON second.groups TO other;
    GRANT USAGE ON SCHEMA second TO other;

    SET ROLE other;
    SELECT sendcampaign.opt_out('+15550000001');
    SELECT sendcampaign.opt_out('+15550000002', $group);
    SELECT sendcampaign.opt_out('+15550000003', $group + 1000);
    SET sendcampaign.schema = 'second';
    SELECT sendcampaign.opt_out('+15550000004', $group);
    RESET sendcampaign.schema;
    BEGIN;
    SELECT sendcampaign.opt_out('+15550000005');
    ROLLBACK;
    SELECT sendcampaign.opt_out('+15550000006'), sendcampaign.opt_in('+15550000006');
    SELECT sendcampaign.opt_out('00 1 555 000 00 07'), sendcampaign.opt_out('+15550000008');
SQL
my $open = Session->open($node);
$open->query(q{BEGIN; SELECT sendcampaign.opt_out('+15550000009')});
my $run = run_campaign($node, $campaign);
$open->query('ROLLBACK');
is(skipped($run->{job}), '1 2 7 8', 'those who opted out are skipped');
sent_once($node, $twilio, $campaign, $run->{job}, 'opted out', skipped => 4);
is($run->{error}, '', 'that is no failure');

# An opt-out is committed while the run goes on.
my $users = 600;
forget_opt_outs();
my $job;
($campaign, $job) = hold_campaign($node, $twilio, users => $users);
my $run_id = run_of($job);
opt_many_out('other', $users);
my $claimed = sql($node, <<~SQL);
    SELECT sum(cardinality(list_user_ids)) FROM sendcampaign.claim WHERE run_id = $run_id
SQL
cmp_ok($claimed, '<', $users, 'opted out in mid-run: not all are claimed yet');
$twilio->set(hold => 0);
sent_once(
	$node, $twilio, $campaign, $job, 'opted out in mid-run',
	total => $users,
	skipped => $users - $claimed);
is(sql($node, <<~SQL), $users - $claimed, 'nobody who was claimed later gets a message');
    SELECT count(*)
    FROM sendcampaign.message
    WHERE job_id = $job AND error_message = 'opted out' AND sid IS NULL AND attempts = 0
SQL

# Who is put back may have opted out when claimed again.
forget_opt_outs();
($campaign, $job) = hold_campaign($node, $twilio, users => 200);
set_and_reload($node, 'sendcampaign.enabled', 'off');
$twilio->set(hold => 0);
wait_for_no_worker($node);
opt_many_out('app', 200);
my $sent = run_row($node, $job)->{sent};
cmp_ok($sent, '<', 200, 'switched off in mid-run');
set_and_reload($node, 'sendcampaign.enabled', 'on');
sql($node, 'SELECT sendcampaign.wake()');
sent_once(
	$node, $twilio, $campaign, $job, 'opted out while switched off',
	total => 200,
	skipped => 200 - $sent);

# Twilio knows of some who have opted out.
forget_opt_outs();
my @stopped = (phone(3), phone(300), phone(500));
$twilio->set(reset => 1, map { ('to-fault' => "$_=code:21610") } @stopped);
my $first = create_campaign($node, users => 520);
$group = group_id($first);
$run = run_campaign($node, $first);
is("$run->{state} $run->{sent} $run->{failed}", 'completed 517 3', 'Twilio refuses three');
is( rows(),
	join("\n", map { "$_|public|$group|Twilio's error 21610|app" } @stopped),
	'which is written down');
my $requests = $twilio->stats->{create_requests};
my $again = create_campaign($node, users => 520);
sql($node, <<~SQL);
    UPDATE ac_lists
    SET group_id = $group
    WHERE id = (SELECT ac_list_id FROM ac_campaigns WHERE id = $again)
SQL
$run = run_campaign($node, $again);
is(skipped($run->{job}), '3 300 500', 'the next campaign skips them');
is("$run->{sent} $run->{failed} $run->{skipped}", '517 0 3', 'and is sent to the others');
is($twilio->stats->{create_requests} - $requests, 517, 'Twilio is not asked about them');
$run = run_campaign($node, create_campaign($node, users => 520));
is("$run->{sent} $run->{failed}", '517 3', 'Twilio is asked for another group');
is(sql($node, 'SELECT count(DISTINCT group_id), count(*) FROM sendcampaign.opt_out'),
	'2|6', 'and its answer is written down');
$twilio->set(map { ('to-fault' => "$_=none") } @stopped);

# Twilio's answer is known elsewhere already, or will be in a moment.
forget_opt_outs();
$twilio->set(reset => 1, 'to-fault' => phone(3) . '=code:21610');
$campaign = create_campaign($node, users => 10);
$group = group_id($campaign);
$open->query("BEGIN; SELECT sendcampaign.opt_out('+15550000003', $group, 'first')");
$job = start_campaign($node, $campaign);
my $ended = poll(sub { run_row($node, $job)->{state} eq 'completed' }, 30);
ok($ended, 'outcomes do not wait for somebody who is writing it down');
$open->query('COMMIT');
is(wait_for_run($node, $job)->{failed}, 1, 'nor is one lost');
my $superuser = sql($node, 'SELECT current_user');
is( sql($node, <<~'SQL'),
    SELECT string_agg(role || ': ' || reason, ', ' ORDER BY role = 'app')
    FROM sendcampaign.opt_out
SQL
	"$superuser: first, app: Twilio's error 21610", 'it is written down for each');

# Many opt-outs are read through the index, also by a plan of the first day.
forget_opt_outs();
call('app', q{opt_out('+15550000001')});
sql($node, <<~'SQL');
    INSERT INTO sendcampaign.opt_out_data (phone, role, role_oid)
    SELECT '+1777' || lpad(i::text, 7, '0'), 'app', 'app'::regrole
    FROM generate_series(1, 200000) i
SQL

# How many sequential scans there were, rows read by them, and index scans.
sub scans
{
	return split /\|/, sql($node, <<~'SQL');
	    SELECT seq_scan, seq_tup_read, idx_scan
	    FROM pg_stat_user_tables
	    WHERE relid = 'sendcampaign.opt_out_data'::regclass
	SQL
}

wait_for_no_worker($node);
my ($seq, $read, $idx) = scans();
$campaign = create_campaign($node, users => 2000);
$twilio->set(reset => 1, 'to-fault' => phone(3) . '=none');
$run = run_campaign($node, $campaign);
sent_once(
	$node, $twilio, $campaign, $run->{job}, 'many opt-outs',
	skipped => 1,
	total => 2000);
wait_for_no_worker($node);
ok(poll(sub { (scans())[2] > $idx }, 30), 'the index is used');
my ($seq_after, $read_after) = scans();
is_deeply([ $seq_after, $read_after ], [ $seq, $read ], 'and only the index');
sql($node, q{DELETE FROM sendcampaign.opt_out WHERE phone LIKE '+1777%'});

# A dump has the opt-outs.
forget_opt_outs();
as('app', <<~'SQL');
    SELECT sendcampaign.opt_out('+15550000001', 7, E'tab\tand ''quote'''),
        sendcampaign.opt_out('+15550000002')
SQL
$written = rows();
my $dump = PostgreSQL::Test::Utils::tempdir() . '/dump.sql';
my @psql = ('psql', '-X', '-q', '-v', 'ON_ERROR_STOP=1');
$node->command_ok([ 'pg_dump', '-f', $dump, '-d', $node->connstr('postgres') ],
	'the database is dumped');
sql($node, 'CREATE DATABASE restored');
$node->command_ok([ @psql, '-f', $dump, '-d', $node->connstr('restored') ],
	'the dump is restored');
is(sql($node, $opt_outs, db => 'restored'), $written, 'with all opt-outs');

$open->close;
$node->stop;
is(worker_errors($node), '', 'no worker complains');
done_testing();
