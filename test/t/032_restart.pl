# Without preload: the postmaster's death, a crash, and no free worker slot.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../perl";
use Campaign;
use LocalTwilio;
use Test::More;

my $twilio = LocalTwilio->start;
my $node = new_cluster('restart', $twilio, conf => <<~'CONF');
	sendcampaign.request_timeout = '1s'
	sendcampaign.lookup_delay = '200ms'
	restart_after_crash = on
	sendcampaign.receipts = off
	CONF

sub start_held
{
	my $campaign = create_campaign($node, users => 40);
	$twilio->set(hold => 1, 'hold-after' => 0);
	my $job = start_campaign($node, $campaign);
	wait_for_flight($twilio, 20);
	return ($campaign, $job);
}

# A run of before the restart goes on together with a new one.
my ($campaign, $job) = start_held();
$node->restart;
is(scalar worker_pids($node), 0, 'after a restart nothing goes on by itself');
$twilio->set(hold => 0);
my $next = create_campaign($node, users => 10);
my $next_job = start_campaign($node, $next);
sent_once($node, $twilio, $next, $next_job, 'the next campaign', total => 10);
sent_once($node, $twilio, $campaign, $job, 'the one before, with it', total => 40);

# The worker dies by a signal: the server restarts itself.
($campaign, $job) = start_held();
ok(kill_worker($node), 'the worker is killed');
is(wake($node), 1, 'wake() starts a worker');
is(wake($node), 1, 'and again wakes the same one');
cmp_ok(scalar worker_pids($node), '<=', 1, 'there is only one');
$twilio->set(hold => 0);
sent_once($node, $twilio, $campaign, $job, 'killed', total => 40);

# The postmaster dies.
($campaign, $job) = start_held();
my ($pid) = worker_pids($node);
$node->kill9;
ok(poll(sub { !kill(0, $pid) }, 20), 'the worker does not outlive the postmaster');
$twilio->set(hold => 0);
poll(sub { !-e $node->data_dir . '/postmaster.pid' || $node->start(fail_ok => 1) }, 30);
is(wake($node), 1, 'wake() starts a worker');
sent_once($node, $twilio, $campaign, $job, 'postmaster killed', total => 40);

# No slot for a worker: the only one is the logical replication launcher's.
ok(worker_is_gone($node, 10), 'the worker ends');
$node->append_conf('postgresql.conf', 'max_worker_processes = 1');
$node->restart;
$campaign = create_campaign($node, users => 10);
my $stderr;
($job, $stderr) = sql_output($node, "SELECT send_campaign($campaign)", role => 'app');
like($job, qr/^\d+$/, 'send_campaign() succeeds without a free slot');
like($stderr, qr/WARNING:  could not start a sendcampaign worker/, 'with a warning');
my $is_queued =
	"DETAIL:  All background worker slots are taken.\n"
  . 'HINT:  Unfinished runs continue after the next call of send_campaign() or'
  . ' sendcampaign.wake(). Consider increasing "max_worker_processes".';
like($stderr, qr/\Q$is_queued\E/, 'with a detail and a hint');
is(run_row($node, $job)->{state}, 'queued', 'the run is queued');
is(wake($node), 0, 'wake() cannot start a worker either');
$node->append_conf('postgresql.conf', 'max_worker_processes = 8');
$node->restart;
is(wake($node), 1, 'until there is a slot');
sent_once($node, $twilio, $campaign, $job, 'no slot', total => 10);
ok(worker_is_gone($node, 10), 'the worker ends');
is(wake($node), 0, 'with no work, wake() starts none');

$node->stop;
done_testing();
