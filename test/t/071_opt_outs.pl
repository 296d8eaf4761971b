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
$node->safe_psql('postgres', q{
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
	INSERT INTO second.groups (id) SELECT generate_series(1, 200)});

sub as { my ($role, $sql) = @_; return $node->safe_psql('postgres', "SET ROLE $role; $sql"); }
sub error_as { my ($role, $sql) = @_; return sql_error($node, "SET ROLE $role; $sql"); }
sub rows
{
	return $node->safe_psql('postgres', q{SELECT phone, schema, group_id, reason, role FROM sendcampaign.opt_out
		ORDER BY phone, schema NULLS FIRST, group_id});
}
sub forget { $node->safe_psql('postgres', 'DELETE FROM sendcampaign.opt_out'); }
sub group_id { return $node->safe_psql('postgres', "SELECT " . group_of(shift)); }
sub phone { return sprintf '+1555%07d', shift; }
sub send_to_all { my $job = start_campaign($node, shift); return ($job, wait_for_run($node, $job)); }
sub skipped
{
	my $job = shift;
	return $node->safe_psql('postgres', qq{SELECT string_agg(right(phone, 3)::int::text, ' ' ORDER BY phone)
		FROM sendcampaign.message WHERE job_id = $job AND status = 'skipped' AND error_message = 'opted out'});
}

# The two functions.
is(as('app', q{SELECT sendcampaign.opt_out('+15550000001')}), 't', 'opted out');
is(as('app', q{SELECT sendcampaign.opt_out('00 1 (555) 000-00.01')}), 'f', 'it is so already, in another notation');
is(as('other', q{SELECT sendcampaign.opt_out('+15550000001', NULL, 'STOP')}), 't', 'each role for itself');
is(as('other', q{SELECT sendcampaign.opt_in('+15550000001')}), 't', 'and takes that back for itself');
is(as('app', q{SELECT sendcampaign.opt_out('+15550000001', 7, 'STOP')}), 't', 'of one group');
is(as('app', q{SET sendcampaign.schema = 'second'; SELECT sendcampaign.opt_out('+1 555 000 0001', 7)}), 't',
	'of one in another schema');
is(rows(), "+15550000001||||app\n+15550000001|public|7|STOP|app\n+15550000001|second|7||app", 'what is written down');
is(as('app', q{SELECT sendcampaign.opt_in('+1-555-000-0001', 7)}), 't', 'opted in again');
is(as('app', q{SELECT sendcampaign.opt_in('+15550000001', 7)}), 'f', 'it is so already');
is(rows(), "+15550000001||||app\n+15550000001|second|7||app", 'that one is gone');
is(as('app', q{SELECT sendcampaign.opt_in('+15550000001')}), 't', 'opted in to all');
is(rows(), '', 'all are gone');

for my $call (q{opt_out('555 0001')}, q{opt_out('')}, q{opt_out(NULL)}, q{opt_out('+1555x')}, q{opt_in('nonsense')}, q{opt_in(NULL, 1)})
{
	my $error = error_as('app', "SELECT sendcampaign.$call");
	is("$error->{sqlstate} $error->{message}", '22023 phone number is not in E.164 form', "$call: the error");
	like($error->{hint}, qr/plus sign.*\+15550000001/, "$call: the hint");
}
for my $call ('opt_out', 'opt_in')
{
	is(error_as('app', "BEGIN READ ONLY; SELECT sendcampaign.$call('+15550000001')")->{sqlstate}, '25006', "$call() writes");
}

# Who sees it, and who may take it back.
as('app', q{SELECT sendcampaign.opt_out('+15550000001', 7), sendcampaign.opt_out('+15550000002')});
is(as('app', 'SELECT count(*) FROM sendcampaign.opt_out'), 2, 'a role sees its own');
is(as('boss', 'SELECT count(*) FROM sendcampaign.opt_out'), 2, 'and those of roles that it is a member of');
is(as('other', q{SELECT string_agg(phone, ' ') FROM sendcampaign.opt_out}), '+15550000002', 'and what stops all messages');
for my $sql (q{INSERT INTO sendcampaign.opt_out (phone, role) VALUES ('x', 'app')}, 'DELETE FROM sendcampaign.opt_out',
	'UPDATE sendcampaign.opt_out SET phone = NULL', 'TRUNCATE sendcampaign.opt_out')
{
	like(error_as('app', $sql)->{sqlstate}, qr/^(?:42501|42809|23502)$/, "$sql: refused");
}
my $written = rows();
my $error = error_as('other', "SELECT sendcampaign.opt_in('+15550000002')");
is($error->{sqlstate}, '42501', 'opt_in() by another role is refused');
like("$error->{message} $error->{hint}", qr/another role.*members of that role/, 'in these words');
as('other', q{SELECT sendcampaign.opt_out('+15550000002')});
is(as('other', q{SELECT sendcampaign.opt_in('+15550000002')}), 't', 'its own it takes back');
is(rows(), $written, 'and that only');
is(as('boss', q{SELECT sendcampaign.opt_in('+15550000002')}), 't', 'a member may');
is($node->safe_psql('postgres', q{SELECT sendcampaign.opt_in('+15550000001')}), 't', 'a superuser may');
is(rows(), '', 'all are gone');
as('other', q{SELECT sendcampaign.opt_out('+15550000003')});
$node->safe_psql('postgres', 'ALTER ROLE other RENAME TO gone; CREATE ROLE other; GRANT USAGE ON SCHEMA sendcampaign TO other');
is(error_as('other', q{SELECT sendcampaign.opt_in('+15550000003')})->{sqlstate}, '42501', 'not one that has its name now');
is(as('gone', q{SELECT sendcampaign.opt_in('+15550000003')}), 't', 'itself, by whatever name');
$node->safe_psql('postgres', 'DROP OWNED BY other; DROP ROLE other; ALTER ROLE gone RENAME TO other');
forget();

# What a campaign makes of it.
my $campaign = create_campaign($node, users => 12);
my $group = group_id($campaign);
$node->safe_psql('postgres', qq{
	UPDATE ac_list_users SET data = '{"sms": "001 (555) 000-0007"}' WHERE data->>'sms' = '+15550000007';
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
	SELECT sendcampaign.opt_out('00 1 555 000 00 07'), sendcampaign.opt_out('+15550000008')});
my $open = Session->open($node);
$open->query(q{BEGIN; SELECT sendcampaign.opt_out('+15550000009')});
my ($job, $run) = send_to_all($campaign);
$open->query('ROLLBACK');
is(skipped($job), '1 2 7 8', 'those who opted out are skipped');
sent_once($node, $twilio, $campaign, $job, 'opted out', skipped => 4);
is($run->{error}, '', 'that is no failure');

# It is committed while the run is on.
{
	my $users = 600;
	forget();
	my ($campaign, $job) = hold_campaign($node, $twilio, users => $users);
	as('other', "SELECT count(sendcampaign.opt_out('+1555' || lpad(i::text, 7, '0'))) FROM generate_series(1, $users) i");
	my $claimed = $node->safe_psql('postgres', "SELECT sum(cardinality(list_user_ids)) FROM sendcampaign.claim WHERE run_id = ${\ run_of($job)}");
	cmp_ok($claimed, '<', $users, 'opted out in mid-run: not all are claimed yet');
	$twilio->set(hold => 0);
	sent_once($node, $twilio, $campaign, $job, 'opted out in mid-run', total => $users, skipped => $users - $claimed);
	is($node->safe_psql('postgres', qq{SELECT count(*) FROM sendcampaign.message
			WHERE job_id = $job AND error_message = 'opted out' AND sid IS NULL AND attempts = 0}),
		$users - $claimed, 'nobody who was claimed later got a message');
}

# What is put back is asked for again, as it is claimed again.
forget();
($campaign, $job) = hold_campaign($node, $twilio, users => 200);
set_and_reload($node, 'sendcampaign.enabled', 'off');
$twilio->set(hold => 0);
wait_for_no_worker($node);
as('app', q{SELECT count(sendcampaign.opt_out('+1555' || lpad(i::text, 7, '0'))) FROM generate_series(1, 200) i});
my $sent = run_row($node, $job)->{sent};
cmp_ok($sent, '<', 200, 'switched off in mid-run');
set_and_reload($node, 'sendcampaign.enabled', 'on');
$node->safe_psql('postgres', 'SELECT sendcampaign.wake()');
sent_once($node, $twilio, $campaign, $job, 'opted out while switched off', total => 200, skipped => 200 - $sent);

# Twilio knows of some who have.
forget();
my @stopped = map { phone($_) } 3, 300, 500;
$twilio->set(reset => 1, map { ('to-fault' => "$_=code:21610") } @stopped);
my $first = create_campaign($node, users => 520);
$group = group_id($first);
($job, $run) = send_to_all($first);
is("$run->{state} $run->{sent} $run->{failed}", 'completed 517 3', 'Twilio refuses three');
is(rows(), join("\n", map { "$_|public|$group|Twilio's error 21610|app" } @stopped), 'which is written down');
my $requests = $twilio->stats->{create_requests};
my $again = create_campaign($node, users => 520);
$node->safe_psql('postgres', "UPDATE ac_lists SET group_id = $group WHERE id = (SELECT ac_list_id FROM ac_campaigns WHERE id = $again)");
($job, $run) = send_to_all($again);
is(skipped($job), '3 300 500', 'the next campaign skips them');
is("$run->{sent} $run->{failed} $run->{skipped}", '517 0 3', 'and sends to the others');
is($twilio->stats->{create_requests} - $requests, 517, 'Twilio is not asked about them');
($job, $run) = send_to_all(create_campaign($node, users => 520));
is("$run->{sent} $run->{failed}", '517 3', 'Twilio is asked for another group');
is($node->safe_psql('postgres', q{SELECT count(DISTINCT group_id), count(*) FROM sendcampaign.opt_out}), '2|6', 'and its answer is written down');
$twilio->set(map { ('to-fault' => "$_=none") } @stopped);

# Twilio's answer is known elsewhere already, or will be in a moment.
forget();
$twilio->set(reset => 1, 'to-fault' => phone(3) . '=code:21610');
$campaign = create_campaign($node, users => 10);
$group = group_id($campaign);
$open->query("BEGIN; SELECT sendcampaign.opt_out('+15550000003', $group, 'first')");
$job = start_campaign($node, $campaign);
my $ended = poll(sub { run_row($node, $job)->{state} eq 'completed' }, 30);
ok($ended, 'outcomes do not wait for somebody who is writing it down');
$open->query('COMMIT');
is(wait_for_run($node, $job)->{failed}, 1, 'nor is one lost');
is($node->safe_psql('postgres', q{SELECT string_agg(role || ': ' || reason, ', ' ORDER BY role = 'app') FROM sendcampaign.opt_out}),
	$node->safe_psql('postgres', 'SELECT current_user') . ": first, app: Twilio's error 21610", 'it is written down for each');

# Many of them: read through the index, also by a plan of the first day.
forget();
$node->safe_psql('postgres', q{
	SET ROLE app; SELECT sendcampaign.opt_out('+15550000001'); RESET ROLE;
	INSERT INTO sendcampaign.opt_out_data (phone, role, role_oid) SELECT '+1777' || lpad(i::text, 7, '0'), 'app', 'app'::regrole FROM generate_series(1, 200000) i});
sub scans
{
	return split /\|/, $node->safe_psql('postgres', q{SELECT seq_scan, seq_tup_read, idx_scan FROM pg_stat_user_tables
		WHERE relid = 'sendcampaign.opt_out_data'::regclass});
}
wait_for_no_worker($node);
my ($seq, $read, $idx) = scans();
$campaign = create_campaign($node, users => 2000);
$twilio->set(reset => 1, 'to-fault' => phone(3) . '=none');
($job) = send_to_all($campaign);
sent_once($node, $twilio, $campaign, $job, 'many opt-outs', skipped => 1, total => 2000);
wait_for_no_worker($node);
ok(poll(sub { (scans())[2] > $idx }, 30), 'the index is used');
my ($seq_after, $read_after) = scans();
is_deeply([ $seq_after, $read_after ], [ $seq, $read ], 'and only that');
$node->safe_psql('postgres', q{DELETE FROM sendcampaign.opt_out WHERE phone LIKE '+1777%'});

# A dump has them.
forget();
as('app', q{SELECT sendcampaign.opt_out('+15550000001', 7, E'tab\tand ''quote'''), sendcampaign.opt_out('+15550000002')});
$written = rows();
my $dump = PostgreSQL::Test::Utils::tempdir() . '/dump.sql';
$node->command_ok([ 'pg_dump', '-f', $dump, '-d', $node->connstr('postgres') ], 'pg_dump');
$node->safe_psql('postgres', 'CREATE DATABASE restored');
$node->command_ok([ 'psql', '-X', '-q', '-v', 'ON_ERROR_STOP=1', '-f', $dump, '-d', $node->connstr('restored') ], 'restored');
is($node->safe_psql('restored', q{SELECT phone, schema, group_id, reason, role FROM sendcampaign.opt_out
	ORDER BY phone, schema NULLS FIRST, group_id}), $written, 'with all opt-outs');

$open->close;
$node->stop;
is(worker_errors($node), '', 'no worker complained');
done_testing();
