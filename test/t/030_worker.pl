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
my $node = new_cluster('worker', $twilio, no_extension => 1, conf => q{
	sendcampaign.request_timeout = '1s'
	sendcampaign.lookup_delay = '200ms'
});
$node->safe_psql('postgres', 'CREATE DATABASE shop');
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
	is($node->safe_psql('shop', 'SELECT sendcampaign.wake()'), 1, "$name: wake() starts a worker");
	sent_once($node, $twilio, $campaign, $job, $name, db => 'shop', total => 40);
}

# Idle: no process, and nothing that keeps a database from being copied.
my $campaign = create_campaign($node, db => 'shop', users => 40);
my $job = start_campaign($node, $campaign, db => 'shop');
sent_once($node, $twilio, $campaign, $job, 'undisturbed', db => 'shop', total => 40);
ok(worker_is_gone($node, 10), 'the worker ends when there is no work');
is($node->safe_psql('postgres', q{SELECT count(*) FROM pg_stat_activity
	WHERE backend_type LIKE 'sendcampaign%' OR datname = 'shop'}), 0, 'nothing of it runs');
$node->safe_psql('postgres', 'CREATE DATABASE copy TEMPLATE shop');
$node->safe_psql('postgres', 'DROP DATABASE copy');
pass('the database can be copied and dropped');

# Told to go, by SQL and by signal, with requests on their way
my $begin;
($campaign, $job) = start_held();
is($node->safe_psql('postgres', q{SELECT usename, datname
	FROM pg_stat_activity WHERE backend_type = 'sendcampaign worker'}), 'app|shop',
	'pg_stat_activity shows the worker, under its role');
$begin = time;
$node->safe_psql('postgres', 'SELECT pg_terminate_backend(' . (worker_pids($node))[0] . ')');
ok(worker_is_gone($node, 10), 'pg_terminate_backend ends the worker');
cmp_ok(time - $begin, '<', 5, 'soon');
is(run_row($node, $job, 'shop')->{state}, 'running', 'the run has not ended');
goes_on($campaign, $job, 'terminated');

$campaign = create_campaign($node, db => 'shop', users => 40);
$twilio->set('fault:never-after' => 100);
$job = start_campaign($node, $campaign, db => 'shop');
wait_for_flight($twilio, 20);
$begin = time;
kill 'TERM', worker_pids($node);
ok(worker_is_gone($node, 10), 'SIGTERM ends it, with a server that never answers');
cmp_ok(time - $begin, '<', 5, 'soon');
goes_on($campaign, $job, 'never answered');

# Answers that come while it leaves are not lost.
($campaign, $job) = start_held();
$twilio->set('hold-after' => 1);
$node->safe_psql('postgres', 'SELECT pg_terminate_backend(' . (worker_pids($node))[0] . ')');
$twilio->set(hold => 0);
ok(worker_is_gone($node, 10), 'it leaves while answers come');
goes_on($campaign, $job, 'answered late');

# A cancel has nothing to cancel.
$campaign = create_campaign($node, db => 'shop', users => 200);
$twilio->set(latency => 20);
$job = start_campaign($node, $campaign, db => 'shop');
wait_for_flight($twilio, 1);
$node->safe_psql('postgres', q{SELECT pg_cancel_backend(pid) FROM pg_stat_activity
	WHERE backend_type = 'sendcampaign worker'}) for 1 .. 10;
sent_once($node, $twilio, $campaign, $job, 'cancelled', db => 'shop', total => 200);
$twilio->set(latency => 0);

# Every way to stop the server
for my $mode ('fast', 'immediate')
{
	($campaign, $job) = start_held();
	$begin = time;
	$node->stop($mode);
	cmp_ok(time - $begin, '<', 8, "stop -m $mode in mid-run is quick");
	$node->start;
	is(scalar worker_pids($node), 0, 'without preload nothing goes on by itself');
	goes_on($campaign, $job, "stopped $mode");
}

# A run that has not ended does not keep a database from being dropped, once
# its worker is gone.
start_held();
$node->safe_psql('postgres', 'SELECT pg_terminate_backend(' . (worker_pids($node))[0] . ')');
ok(worker_is_gone($node, 10), 'the worker is gone');
$node->safe_psql('postgres', 'DROP DATABASE shop');

$node->stop;
is(worker_errors($node), '', 'no worker met an error');
done_testing();
