# A worker that stays after its last run is in nobody's way.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../perl";
use Campaign;
use LocalTwilio;
use PostgreSQL::Test::Utils;
use Test::More;

my $twilio = LocalTwilio->start;
my $node = new_cluster(
	'in_the_way', $twilio,
	init => { allows_streaming => 1 },
	linger => 600000,
	conf => <<~'CONF');
	max_worker_processes = 12
	sendcampaign.receipts = off
	CONF
clone_database($node, 'shop', $twilio);
my %campaign = map { $_ => create_campaign($node, db => $_, users => 1) } 'postgres', 'shop';

sub lingering
{
	my ($db, $role) = @_;
	return wait_until($node, <<~"SQL");
		SELECT count(*) = 1 FROM pg_stat_activity
		WHERE backend_type = 'sendcampaign worker' AND datname = '$db' AND usename = '$role'
			AND query = 'waiting for the next campaign'
		SQL
}

# Sends a campaign in that database, and waits until the worker lingers.
sub send_in
{
	my ($db, $name, %arg) = @_;
	my $run = run_campaign($node, $campaign{ $arg{campaign} // $db }, db => $db, %arg);
	is($run->{state}, 'completed', "$name: it is sent");
	ok(lingering($db, $arg{role} || 'app'), "$name: the worker stays");
}

# What needs a database without connections waits for 5 s, and succeeds.
send_in('shop', 'copied');
sql($node, 'CREATE DATABASE copy TEMPLATE shop');
send_in('shop', 'renamed');
sql($node, 'ALTER DATABASE shop RENAME TO store');
$campaign{store} = $campaign{shop};
my $directory = PostgreSQL::Test::Utils::tempdir();
sql($node, "CREATE TABLESPACE elsewhere LOCATION '$directory'");
send_in('store', 'moved');
sql($node, 'ALTER DATABASE store SET TABLESPACE elsewhere');
send_in('store', 'dropped');
sql($node, 'DROP DATABASE store');
sql($node, 'DROP TABLESPACE elsewhere');
pass('databases can be copied, renamed, moved and dropped');
$campaign{copy} = $campaign{shop};
send_in('copy', 'with others');
send_in('postgres', 'in another database');
sql($node, 'DROP DATABASE copy');
ok(lingering('postgres', 'app'), 'that of another database stays');

# Rights that are revoked, and roles that are dropped
my %loses = (
	'the right to log in' => 'ALTER ROLE %s NOLOGIN',
	'the right to connect' => 'REVOKE CONNECT ON DATABASE postgres FROM PUBLIC',
	'the role' => 'DROP OWNED BY %s CASCADE; DROP ROLE %s');
my $count = 0;
for my $what (sort keys %loses)
{
	my $role = 'tenant' . ++$count;
	make_tenant($node, $role, base_url => undef);
	sql($node, "SET sendcampaign.schema = $role; SELECT send_campaign(1, NULL)", user => $role);
	ok(lingering('postgres', $role), "$what: the worker stays");
	my $is_gone = sql($node, <<~"SQL");
		SELECT format('SELECT count(*) = 0 FROM pg_stat_activity WHERE pid = %s', pid)
		FROM pg_stat_activity
		WHERE backend_type = 'sendcampaign worker' AND usename = '$role'
		SQL
	sql($node, $loses{$what} =~ s/%s/$role/gr);
	ok(wait_until($node, $is_gone), "$what is lost: it leaves");
	sql($node, 'GRANT CONNECT ON DATABASE postgres TO PUBLIC');
}

# The extension is dropped, and created again.
send_in('postgres', 'extension');
sql($node, 'DROP EXTENSION sendcampaign CASCADE');
wait_for_no_worker($node);
pass('without the extension, no worker stays');
sql($node, 'CREATE EXTENSION sendcampaign; GRANT USAGE ON SCHEMA sendcampaign TO app');
sql($node, 'GRANT EXECUTE ON FUNCTION send_campaign TO app');
send_in('postgres', 'extension created again');
sql($node, <<~'SQL');
	DROP EXTENSION sendcampaign CASCADE;
	CREATE EXTENSION sendcampaign;
	GRANT USAGE ON SCHEMA sendcampaign TO app;
	GRANT EXECUTE ON FUNCTION send_campaign TO app;
	SQL
send_in('postgres', 'extension created again at once');

$node->stop;
is(worker_errors($node), '', 'no worker met an error');
done_testing();
