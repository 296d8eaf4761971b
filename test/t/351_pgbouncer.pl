# Behind PgBouncer in transaction mode: what docs/install.md says works, works, and what
# it says belongs to a connection is shown to.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../perl";
use Campaign;
use File::Temp qw(tempdir);
use IPC::Run ();
use LocalTwilio;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Session;
use Test::More;

plan
  skip_all => 'pgbouncer is not installed'
  if !grep { -x "$_/pgbouncer" } split /:/,
  $ENV{PATH};

# An old one refuses the version for which clients ask from PostgreSQL 19 on.
$ENV{PGMAXPROTOCOLVERSION} = '3.0';
my $twilio = LocalTwilio->start;
my $node = new_cluster('server', $twilio);
make_tenant($node, 'tenant', role => 'app');
sql($node, 'CREATE ROLE clerk LOGIN; GRANT app TO clerk; CREATE ROLE stranger LOGIN');

#
# PgBouncer, with one connection to the server for each role
#

my $port = PostgreSQL::Test::Cluster::get_free_port();
my $dir = tempdir(CLEANUP => 1);
append_to_file("$dir/users", qq("$_" ""\n)) for qw(app clerk stranger);
append_to_file("$dir/pgbouncer.ini", <<~"INI");
	[databases]
	postgres = host=${\ $node->host} port=${\ $node->port} dbname=postgres
	[pgbouncer]
	listen_addr = 127.0.0.1
	listen_port = $port
	unix_socket_dir =
	auth_type = trust
	auth_file = $dir/users
	pool_mode = transaction
	default_pool_size = 1
	ignore_startup_parameters = extra_float_digits,options
	INI
my $bouncer;
{
	local $ENV{LD_LIBRARY_PATH} = $ENV{UNPACKED_LIBRARIES} // '';
	$bouncer = IPC::Run::start([ 'pgbouncer', "$dir/pgbouncer.ini" ],
		'<', \undef, '>>', "$PostgreSQL::Test::Utils::log_path/pgbouncer.log", '2>&1');
}
END { my $status = $?; $bouncer->kill_kill if $bouncer; $? = $status }

# Starts a client that runs a statement.
sub start_through
{
	my ($user, $sql) = @_;
	return IPC::Run::start(
		[
			qw(psql -XAtq), '-d', "host=127.0.0.1 port=$port user=$user dbname=postgres",
			'-c', $sql
		],
		'<',
		\undef,
		'>',
		'/dev/null',
		'2>&1');
}

# Runs SQL through it, as a client of its own; returns what it prints, and its errors.
sub through
{
	my ($user, $sql) = @_;
	my ($out, $err) = ('', '');
	IPC::Run::run(
		[
			qw(psql -XAtq -v ON_ERROR_STOP=1 -d),
			"host=127.0.0.1 port=$port user=$user dbname=postgres"
		],
		'<',
		\$sql,
		'>',
		\$out,
		'2>',
		\$err);
	chomp $out;
	return ($out, $err);
}
poll(sub { (through('app', 'SELECT 1'))[0] eq '1' }, 60) or die 'PgBouncer does not start';
my ($backends) = through('app', 'SELECT pg_backend_pid()');
is((through('app', 'SELECT pg_backend_pid()'))[0], $backends, 'clients share a connection');

#
# Calls
#

my $campaign = create_campaign($node, users => 20);
my ($job, $error) = through('app', <<~"SQL");
	BEGIN;
	SELECT send_campaign($campaign);
	COMMIT;
	SQL
is($error, '', 'a call in a transaction');
sent_once($node, $twilio, $campaign, $job, 'a call');

$campaign = create_campaign($node, users => 5);
through('app', "BEGIN; SELECT send_campaign($campaign); ROLLBACK");
is(sql($node, "SELECT count(*) FROM sendcampaign.run WHERE campaign_id = $campaign"),
	0, 'rolled back');

# A client that goes away in its transaction
my $in = "BEGIN; SELECT send_campaign($campaign);\n";
my $client =
  IPC::Run::start([ qw(psql -XAtq -d), "host=127.0.0.1 port=$port user=app dbname=postgres" ],
	'<', \$in, '>', '/dev/null', '2>&1');
$client->pump_nb while $in ne '';
wait_until($node, <<~'SQL');
	SELECT count(*) = 1 FROM pg_stat_activity WHERE state = 'idle in transaction' AND usename = 'app'
	SQL
$client->kill_kill;
is((through('app', 'SELECT 1'))[0], 1, 'a client has gone away: the connection is used again');
is(sql($node, "SELECT count(*) FROM sendcampaign.run WHERE campaign_id = $campaign"),
	0, 'and its call was rolled back');

# Statements with parameters, as drivers send them
($job, $error) = through('app', <<~"SQL");
	BEGIN;
	PREPARE call (bigint) AS SELECT send_campaign(\$1);
	EXECUTE call ($campaign);
	DEALLOCATE call;
	COMMIT;
	SQL
is($error, '', 'a prepared statement, within a transaction');
sent_once($node, $twilio, $campaign, $job, 'prepared');

#
# Settings and roles
#

($job, $error) = through('app', <<~'SQL');
	BEGIN;
	SET LOCAL sendcampaign.schema = 'tenant';
	SELECT send_campaign(1);
	COMMIT;
	SELECT current_setting('sendcampaign.schema');
	SQL
is($error, '', 'SET LOCAL sendcampaign.schema');
like($job, qr/^\d+\npublic$/, 'it ends with the transaction');
wait_until($node, q{SELECT state = 'completed' FROM sendcampaign.run WHERE schema = 'tenant'});
is(sql($node, q{SELECT sent FROM sendcampaign.run WHERE schema = 'tenant'}),
	1, 'the tenant\'s campaign is sent');
through('app', 'SET sendcampaign.schema = \'tenant\'');
is((through('app', 'SHOW sendcampaign.schema'))[0],
	'tenant', 'without LOCAL, it is the next client\'s as well');
through('app', 'RESET sendcampaign.schema');

$campaign = create_campaign($node, users => 5);
($job, $error) = through('clerk', <<~"SQL");
	BEGIN;
	SET LOCAL ROLE app;
	SELECT send_campaign($campaign);
	COMMIT;
	SELECT current_user;
	SQL
is($error, '', 'SET LOCAL ROLE');
like($job, qr/^\d+\nclerk$/, 'it ends with the transaction as well');
($job) = $job =~ /^(\d+)/;
sent_once($node, $twilio, $campaign, $job, 'as another role');
is(sql($node, "SELECT role FROM sendcampaign.run WHERE job_id = $job"),
	'app', 'the run is that role\'s');
like(
	(through('stranger', "SELECT send_campaign($campaign)"))[1],
	qr/permission denied for table/,
	'a role without rights has none through the pooler either');

#
# Waiting
#

$campaign = create_campaign($node, users => 30);
$twilio->set(hold => 1);
($job) = through('app', "SELECT send_campaign($campaign)");
wait_for_flight($twilio, 20);
my $waiting = start_through('app', "CALL sendcampaign.wait($job)");
wait_until($node, q{SELECT count(*) = 1 FROM pg_stat_activity WHERE query LIKE 'CALL%wait(%'});
my $other = start_through('app', "SELECT sendcampaign.pause($job)");
is(sql($node, "SELECT state FROM sendcampaign.run WHERE job_id = $job"),
	'running', 'wait() has the only connection, so that pause() has to wait');
is((sql_output($node, "SELECT sendcampaign.pause($job)", role => 'app'))[1],
	'', 'outside the pool it does not');
$twilio->set(hold => 0);
$_->kill_kill for $waiting, $other;
# what the one that waits has sent may still have its turn, but before this
is((through('app', 'SELECT 1'))[0], 1, 'their connection is used again');
wait_for_run($node, $job, state => 'paused');
sql($node, "SELECT sendcampaign.resume($job)", role => 'app');
sent_once($node, $twilio, $campaign, $job, 'paused beside a full pool');

# A connection of the pool that has ended takes nothing with it
$campaign = create_campaign($node, users => 30);
$twilio->set(hold => 1);
($job) = through('app', "SELECT send_campaign($campaign)");
wait_for_flight($twilio, 20);
sql($node, q{SELECT pg_terminate_backend(pid) FROM pg_stat_activity
	WHERE backend_type = 'client backend' AND usename = 'app'});
$twilio->set(hold => 0);
sent_once($node, $twilio, $campaign, $job, 'the pool\'s connections were closed');

$node->stop;
done_testing();
