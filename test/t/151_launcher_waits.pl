# Neither a database nor a role can stop the launcher, or wake(), for others.
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
my $node = new_cluster('launcher_waits', $twilio, conf => <<~'CONF');
	shared_preload_libraries = 'sendcampaign'
	sendcampaign.launcher_interval = '1s'
	sendcampaign.enabled = off
	CONF
sql($node, 'CREATE ROLE owner LOGIN CREATEDB; CREATE DATABASE aaa OWNER owner');
install_extension($node, 'aaa');
sql($node, 'CREATE DATABASE zzz');
install_extension($node, 'zzz');
sql($node, 'ALTER SEQUENCE ac_campaigns_id_seq RESTART 1001', db => 'zzz');

# Queues a run that waits for the launcher; returns its job.
sub queue
{
	my ($db, $text, $role) = @_;
	my $campaign = create_campaign($node, db => $db, users => 2, message => $text);
	return start_campaign($node, $campaign, db => $db, role => $role);
}

sub is_sent
{
	my ($text, $name) = @_;
	ok(poll(sub { sent_with($twilio, $text) == 2 }, 60), $name);
}

# Switches the extension on or off.
sub set_enabled
{
	my $value = shift;
	set_and_reload($node, 'sendcampaign.enabled', $value);
}

# The owner of a database renames it, and does not commit: nobody can connect to it.
queue($_, "Renamed $_") for 'postgres', 'zzz';
my $session = Session->open($node);
$session->query('SET ROLE owner; BEGIN; ALTER DATABASE aaa RENAME TO bbb');
set_enabled('on');
is_sent("Renamed $_", "a database is locked: $_ goes on") for 'postgres', 'zzz';
ok(worker_is_gone($node, 20), 'and ends');
set_enabled('off');
queue($_, "Again $_") for 'postgres', 'zzz';
set_enabled('on');
is_sent("Again $_", "a database is locked for long: $_ goes on") for 'postgres', 'zzz';
$session->query('ROLLBACK; RESET ROLE');

# Tables of the extension are locked in one of them.
set_enabled('off');
my $in = Session->open($node, 'aaa');
$in->query('BEGIN; LOCK TABLE sendcampaign.run_data');
queue($_, "Locked $_") for 'postgres', 'zzz';
set_enabled('on');
is_sent("Locked $_", "tables are locked elsewhere: $_ goes on") for 'postgres', 'zzz';
$in->query('COMMIT');
$in->close;
ok(worker_is_gone($node, 20), 'no worker is left');

# Roles that cannot work, with a run that somebody has locked, are no obstacle
# to those that can: of nine, the fifth can.
set_enabled('off');
my @jobs;
my @unable = grep { $_ != 5 } 1 .. 9;
for my $n (1 .. 9)
{
	my $role = $n == 5 ? 'able' : "gone$n";
	sql($node, <<~SQL);
		CREATE ROLE $role LOGIN;
		GRANT SELECT, INSERT, UPDATE ON ALL TABLES IN SCHEMA public TO $role;
		GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO $role;
		GRANT USAGE ON SCHEMA sendcampaign TO $role;
		SQL
	$jobs[$n] = queue('postgres', "Role $n", $role);
}
queue('postgres', 'Role 10', 'app');
sql($node, "DROP OWNED BY gone$_; DROP ROLE gone$_") for @unable;
my @gone = @jobs[@unable];
$session->query('BEGIN');
$session->query("SELECT sendcampaign.pause($_)") for @gone[ 0 .. 5 ];
my $waker = Session->open($node);
$waker->query('SET sendcampaign.enabled = on');
$waker->start_query('SELECT sendcampaign.wake()');
ok(wait_until($node, <<~'SQL'), 'wake() does not wait');
	SELECT count(*) = 0
	FROM pg_stat_activity
	WHERE query LIKE 'SELECT sendcampaign.wake()%' AND state = 'active'
	SQL
$waker->finish_query;
is(run_row($node, $gone[6])->{state}, 'failed', 'a run of a role that is gone has failed');
like(run_row($node, $gone[6])->{error}, qr/does not exist/, 'with that reason');
is(run_row($node, $gone[0])->{state}, 'queued', 'one that is locked has not');
$waker->close;
set_enabled('on');
is_sent("Role $_", "role $_ goes on beside them") for 5, 10;
$session->query('ROLLBACK');
is(wait_for_run($node, $_)->{state}, 'failed', 'when it is free, it fails') for @gone;

$session->close;
wait_for_no_worker($node);
$node->stop;
done_testing();
