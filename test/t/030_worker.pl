# The worker's life: there while there is work, gone at once when told to go.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../perl";
use Campaign;
use LocalTwilio;
use Test::More;
use Time::HiRes qw(time);

my $twilio = LocalTwilio->start;
my $node = new_cluster('worker', $twilio, no_extension => 1, conf => <<~'CONF');
	sendcampaign.request_timeout = '1s'
	sendcampaign.lookup_delay = '200ms'
	sendcampaign.receipts = off
	CONF
sql($node, 'CREATE DATABASE shop');
install_extension($node, 'shop');

# A campaign of 40, with 20 requests that wait for their answer.
sub start_held
{
	my $campaign = create_campaign($node, db => 'shop', users => 40);
	$twilio->set(hold => 1);
	my $job = start_campaign($node, $campaign, db => 'shop');
	wait_for_flight($twilio, 20);
	return ($campaign, $job);
}

sub goes_on
{
	my ($campaign, $job, $name) = @_;
	$twilio->set(hold => 0, 'hold-after' => 0, 'fault:never-after' => 0);
	is(wake($node, db => 'shop'), 1, "$name: wake() starts a worker");
	sent_once($node, $twilio, $campaign, $job, $name, db => 'shop', total => 40);
}

# Idle: no process, and nothing that keeps a database from being copied.
my $campaign = create_campaign($node, db => 'shop', users => 40);
my $job = start_campaign($node, $campaign, db => 'shop');
sent_once($node, $twilio, $campaign, $job, 'undisturbed', db => 'shop', total => 40);
ok(worker_is_gone($node, 10), 'the worker ends when there is no work');
end_sessions($node);
ok(wait_until($node, <<~'SQL'), 'no process of it is left');
	SELECT count(*) = 0 FROM pg_stat_activity
	WHERE backend_type LIKE 'sendcampaign%' OR datname = 'shop'
	SQL
sql($node, 'CREATE DATABASE copy TEMPLATE shop');
sql($node, 'DROP DATABASE copy');
pass('the database can be copied and dropped');

# Told to go, by SQL and by signal, with requests on their way
my ($soon, $begin);
($campaign, $job) = start_held();
is(sql($node, <<~'SQL'), 'app|shop', 'pg_stat_activity shows the worker, under its role');
	SELECT usename, datname FROM pg_stat_activity WHERE backend_type = 'sendcampaign worker'
	SQL
$soon = seconds_here($node, 5);
$begin = time;
terminate_workers($node);
ok(worker_is_gone($node, 10), 'pg_terminate_backend() ends the worker');
cmp_ok(time - $begin, '<', $soon, 'soon');
is(run_row($node, $job, 'shop')->{state}, 'running', 'the run has not ended');
goes_on($campaign, $job, 'terminated');

$campaign = create_campaign($node, db => 'shop', users => 40);
$twilio->set('fault:never-after' => 100);
$job = start_campaign($node, $campaign, db => 'shop');
wait_for_flight($twilio, 20);
$soon = seconds_here($node, 5);
$begin = time;
kill 'TERM', worker_pids($node);
ok(worker_is_gone($node, 10), 'SIGTERM ends the worker of a server that never answers');
cmp_ok(time - $begin, '<', $soon, 'soon');
goes_on($campaign, $job, 'never answered');

# Answers that come while it leaves are not lost.
($campaign, $job) = start_held();
$twilio->set('hold-after' => 1);
terminate_workers($node);
$twilio->set(hold => 0);
ok(worker_is_gone($node, 10), 'the worker leaves while answers come');
goes_on($campaign, $job, 'answered late');

# pg_cancel_backend() does nothing to a worker.
$campaign = create_campaign($node, db => 'shop', users => 200);
$twilio->set(latency => 20);
$job = start_campaign($node, $campaign, db => 'shop');
wait_for_flight($twilio, 1);
for (1 .. 10)
{
	sql($node, <<~'SQL');
		SELECT pg_cancel_backend(pid) FROM pg_stat_activity
		WHERE backend_type = 'sendcampaign worker'
		SQL
}
sent_once($node, $twilio, $campaign, $job, 'cancelled', db => 'shop', total => 200);
$twilio->set(latency => 0);

# Every way to stop the server
for my $mode ('fast', 'immediate')
{
	($campaign, $job) = start_held();
	my $quickly = seconds_here($node, 8);
	$begin = time;
	$node->stop($mode);
	cmp_ok(time - $begin, '<', $quickly, "stop -m $mode in mid-run is quick");
	$node->start;
	is(scalar worker_pids($node), 0, 'without preload nothing goes on by itself');
	goes_on($campaign, $job, "stopped $mode");
}

# A run that has not ended does not keep a database from being dropped, once
# its worker is gone.
start_held();
terminate_workers($node);
ok(worker_is_gone($node, 10), 'the worker is gone');
sql($node, 'DROP DATABASE shop');

$node->stop;
is(worker_errors($node), '', 'no worker met an error');
done_testing();
