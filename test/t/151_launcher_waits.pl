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
my $node = new_cluster('launcher_waits', $twilio, conf => q{
	shared_preload_libraries = 'sendcampaign'
	sendcampaign.launcher_interval = '1s'
	sendcampaign.enabled = off
});
$node->safe_psql('postgres', 'CREATE ROLE owner LOGIN CREATEDB; CREATE DATABASE aaa OWNER owner');
install_extension($node, 'aaa');
$node->safe_psql('postgres', "CREATE DATABASE zzz");
install_extension($node, 'zzz');
$node->safe_psql('zzz', 'ALTER SEQUENCE ac_campaigns_id_seq RESTART 1001');

# A run that waits for the launcher
sub queue
{
	my ($db, $text, $role) = @_;
	return start_campaign($node, create_campaign($node, db => $db, users => 2, message => $text), db => $db,
		role => $role);
}
sub is_sent { my ($text, $name) = @_; ok(poll(sub { sent_with($twilio, $text) == 2 }, 60), $name); }
sub switch { set_and_reload($node, 'sendcampaign.enabled', shift); }

# The owner of a database renames it, and does not commit: nobody can connect to it.
queue($_, "Renamed $_") for 'postgres', 'zzz';
my $session = Session->open($node);
$session->query('SET ROLE owner; BEGIN; ALTER DATABASE aaa RENAME TO bbb');
switch('on');
is_sent("Renamed $_", "a database is locked: $_ goes on") for 'postgres', 'zzz';
ok(worker_is_gone($node, 20), 'and ends');
switch('off');
queue($_, "Again $_") for 'postgres', 'zzz';
switch('on');
is_sent("Again $_", "a database is locked for long: $_ goes on") for 'postgres', 'zzz';
$session->query('ROLLBACK; RESET ROLE');


# Tables of the extension are locked in one of them.
switch('off');
my $in = Session->open($node, 'aaa');
$in->query('BEGIN; LOCK TABLE sendcampaign.run_data');
queue($_, "Locked $_") for 'postgres', 'zzz';
switch('on');
is_sent("Locked $_", "tables are locked elsewhere: $_ goes on") for 'postgres', 'zzz';
$in->query('COMMIT');
$in->close;
ok(worker_is_gone($node, 20), 'no worker is left');

# Roles that cannot work, with a run that somebody has locked, are no obstacle
# to those that can.
switch('off');
my @gone;
my @left;
for my $n (1 .. 9)
{
	my $role = $n == 5 ? 'able' : "gone$n";
	$node->safe_psql('postgres', qq{
		CREATE ROLE $role LOGIN;
		GRANT SELECT, INSERT, UPDATE ON ALL TABLES IN SCHEMA public TO $role;
		GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO $role;
		GRANT USAGE ON SCHEMA sendcampaign TO $role});
	push @{ $role eq 'able' ? \@left : \@gone }, queue('postgres', "Role $n", $role);
}
push @left, queue('postgres', 'Role 10', 'app');
for my $n (1 .. 9)
{
	$node->safe_psql('postgres', "DROP OWNED BY gone$n; DROP ROLE gone$n") if $n != 5;
}
$session->query('BEGIN');
$session->query("SELECT sendcampaign.pause($_)") for @gone[0 .. 5];
my $waker = Session->open($node);
$waker->query('SET sendcampaign.enabled = on');
$waker->start_query('SELECT sendcampaign.wake()');
ok($node->poll_query_until('postgres', q{SELECT count(*) = 0 FROM pg_stat_activity
	WHERE query LIKE 'SELECT sendcampaign.wake()%' AND state = 'active'}), 'wake() does not wait');
$waker->finish_query;
is(run_row($node, $gone[6])->{state}, 'failed', 'a run of a role that is gone has failed');
like(run_row($node, $gone[6])->{error}, qr/does not exist/, 'with that reason');
is(run_row($node, $gone[0])->{state}, 'queued', 'one that is locked has not');
$waker->close;
switch('on');
is_sent("Role $_", "role $_ goes on beside them") for 5, 10;
$session->query('ROLLBACK');
is(wait_for_run($node, $_)->{state}, 'failed', 'when it is free, it fails') for @gone;

# Cancelled, with a role that is gone
$session->close;
wait_for_no_worker($node);
$node->stop;
done_testing();
