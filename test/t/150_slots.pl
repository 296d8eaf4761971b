# No role can keep the slots for workers from others: not by transactions that
# do not end, nor by what keeps its workers from connecting.
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
my $node = new_cluster('slots', $twilio, init => { allows_streaming => 1 }, conf => <<~'CONF');
	max_prepared_transactions = 20
	max_worker_processes = 8
	max_connections = 40
	log_min_messages = debug1
	CONF
sql($node, <<~'SQL');
	CREATE ROLE other LOGIN;
	GRANT SELECT, INSERT, UPDATE ON ALL TABLES IN SCHEMA public TO other;
	GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO other;
	GRANT USAGE ON SCHEMA sendcampaign TO other;
	SQL

# How many workers a role has
sub workers_of
{
	my $role = shift;
	return sql($node, <<~SQL);
		SELECT count(*)
		FROM pg_stat_activity
		WHERE backend_type = 'sendcampaign worker' AND usename = '$role'
		SQL
}

# Waits until no more than one worker is left of those that were asked for: those who
# find another one there go.
sub others_are_gone
{
	return poll(sub {
		my $log = log_of($node);
		my @registered = $log =~ / registering background worker "sendcampaign worker/g;
		my @ended = $log =~ / unregistering background worker "sendcampaign worker/g;
		return @registered <= @ended + 1;
	});
}

# The other role's campaign is sent, without a warning.
my $count = 0;

sub other_is_sent
{
	my ($name, $session) = @_;
	my $text = 'Other ' . ++$count;
	my $campaign = create_campaign($node, users => 2, message => $text);
	my ($out, $err) = ('', '');
	$node->psql(
		'postgres', "SET ROLE other; SELECT send_campaign($campaign)",
		stdout => \$out,
		stderr => \$err);
	is($err, '', "$name: no warning for the other role");
	ok(poll(sub { sent_with($twilio, $text) == 2 }), "$name: and its campaign is sent");
}

# Prepared transactions
my @jobs;
for my $n (1 .. 9)
{
	my $campaign = create_campaign($node, users => 1, message => "Prepared $n");
	push @jobs, sql($node, <<~SQL, role => 'app');
		BEGIN;
		SELECT send_campaign($campaign);
		PREPARE TRANSACTION 'p$n';
		SQL
}
other_is_sent('nine prepared transactions');
cmp_ok(workers_of('app'), '<=', 1, 'one worker waits for them');
sql($node, "COMMIT PREPARED 'p$_'") for 1 .. 8;
is(wait_for_run($node, $_)->{state}, 'completed', 'what is committed is sent') for @jobs[ 0 .. 7 ];
is(sent_with($twilio, 'Prepared 9'), 0, 'and what is prepared still is not');
sql($node, "ROLLBACK PREPARED 'p9'");
ok(worker_is_gone($node, 20), 'nobody waits for longer than it takes');

# Commits that wait for a standby
my @campaigns = map { create_campaign($node, users => 1, message => "Standby $_") } 1 .. 8;
my @sessions = map { Session->open($node) } 1 .. 8;
$_->query('SET ROLE app') for @sessions;
sql($node, "ALTER ROLE $_ SET synchronous_commit = local") for 'app', 'other';
$node->append_conf('postgresql.conf', <<~'CONF');
	synchronous_commit = local
	synchronous_standby_names = 'nobody'
	CONF
$node->reload;
$node->poll_query_until('postgres', 'SHOW synchronous_standby_names', 'nobody');

for my $n (0 .. 7)
{
	$sessions[$n]->query('SET synchronous_commit = on');
	$sessions[$n]->start_query("SELECT send_campaign($campaigns[$n])");
}
ok(wait_until($node, <<~'SQL'), 'eight commits wait for a standby');
	SELECT count(*) = 8
	FROM pg_stat_activity
	WHERE backend_type = 'client backend' AND wait_event = 'SyncRep'
	SQL
# before it takes a connection, the server sees what it was asked for
$node->safe_psql('postgres', 'SELECT 1');
others_are_gone();
other_is_sent('commits that do not end');
cmp_ok(workers_of('app'), '<=', 1, 'one worker waits for them');
my $campaign = create_campaign($node, users => 2, message => 'Meanwhile');
start_campaign($node, $campaign);
ok(poll(sub { sent_with($twilio, 'Meanwhile') == 2 }), 'and works for the role meanwhile');
is(sent_with($twilio, 'Standby'), 0, 'nothing is sent before its commit');
$node->append_conf('postgresql.conf', "synchronous_standby_names = ''");
$node->reload;
$_->finish_query for @sessions;
ok(poll(sub { sent_with($twilio, 'Standby') == 8 }), 'what was committed then is sent');
ok(worker_is_gone($node, 20), 'and the worker ends');

# Nothing lets workers connect: each session would start one more.
@campaigns = map { create_campaign($node, users => 1, message => "Locked $_") } 1 .. 9;
$_->query('SELECT sendcampaign.version(); SELECT FROM ac_campaigns') for @sessions;
my $other = Session->open($node);
$other->query('SET ROLE other; SELECT sendcampaign.version()');
my $admin = Session->open($node);
$admin->query('BEGIN; LOCK TABLE pg_db_role_setting');
for my $n (0 .. 7)
{
	$sessions[$n]->query("SELECT send_campaign($campaigns[$n])");
}
my $connecting = <<~'SQL';
	SELECT count(DISTINCT pid)
	FROM pg_locks
	WHERE NOT granted AND relation = 'pg_db_role_setting'::regclass
	SQL
poll(sub { $admin->query($connecting) > 0 });
others_are_gone();
ok(poll(sub { $admin->query($connecting) == 1 }), 'one worker of a role waits to connect')
  or diag $admin->query(<<~'SQL');
	SELECT pid, locktype, relation::regclass, mode, granted FROM pg_locks WHERE NOT granted
	SQL
$other->query("SELECT send_campaign($campaigns[8])");
unlike($other->errors, qr/could not start/, 'there is a slot for another role');
$admin->query('COMMIT');
sql($node, 'SELECT sendcampaign.wake()');
ok(poll(sub { sent_with($twilio, 'Locked') == 9 }), 'all are sent when they can connect')
  or diag sent_with($twilio, 'Locked');

# In all databases together, a role gets half of the slots.
$_->close for @sessions, $other, $admin;
ok(worker_is_gone($node, 20), 'no worker is left');
my @databases = map { "tenant$_" } 1 .. 6;
clone_database($node, $_, $twilio) for @databases;
$twilio->set(hold => 1);
my $warning =
  qr/WARNING:  could not start a sendcampaign worker.*most that "max_worker_processes" allows/s;
my $warnings = 0;

for my $db (@databases)
{
	my $campaign = create_campaign($node, db => $db, users => 1, message => "Tenant $db");
	my $err = '';
	$node->psql($db, "SET ROLE app; SELECT send_campaign($campaign)", stderr => \$err);
	$warnings++ if $err =~ $warning;
	wait_until($node, <<~SQL) if !$err;
		SELECT count(*) = 1
		FROM pg_stat_activity
		WHERE backend_type = 'sendcampaign worker' AND datname = '$db'
		SQL
}
is($warnings, 2, 'a role gets half of the slots');
is(workers_of('app'), 4, 'in all databases together');
$twilio->set(hold => 0);
other_is_sent('a role with many databases');
ok(worker_is_gone($node, 20), 'no worker is left');
sql($node, 'SELECT sendcampaign.wake()', db => $_) for @databases;
ok(poll(sub { sent_with($twilio, 'Tenant') == 6 }), 'woken, the others are sent');

wait_for_no_worker($node);
$node->stop;
done_testing();
