# The role of a run is renamed or dropped.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../perl";
use Campaign;
use Session;
use Shop;
use Test::More;

my $shop = Shop->new('roles');
my $node = $shop->node;
my $twilio = $shop->twilio;

sub rename_role
{
	my ($from, $to) = @_;
	sql($node, "ALTER ROLE $from RENAME TO $to");
}

sub role_of
{
	my $job = shift;
	return sql($node, "SELECT role FROM sendcampaign.run WHERE job_id = $job");
}

# Renamed in mid-run: it is the same role, and so is who calls by the new name.
my ($campaign, $job) = $shop->start_held;
rename_role('shop', 'store');
my $next = create_campaign($node, users => 30);
my $next_job = start_campaign($node, $next, role => 'store');
$twilio->set(hold => 0);
sent_once($node, $twilio, $next, $next_job, 'called by the new name', total => 30);
is( wait_for_run($node, $job)->{sent},
	sent_of($twilio, $campaign),
	'renamed in mid-run: what was sent is counted');
start_campaign($node, $campaign, job => $job, role => 'store')
  if run_row($node, $job)->{state} eq 'failed';
sent_once($node, $twilio, $campaign, $job, 'renamed in mid-run', total => 3000);
ok(worker_is_gone($node, 20), 'the worker ends');
rename_role('store', 'shop');

# Renamed in mid-run, and woken
($campaign, $job) = $shop->start_held;
rename_role('shop', 'store');
wake($node);
$twilio->set(hold => 0);
wait_for_run($node, $job);
ok(worker_is_gone($node, 20), 'renamed in mid-run and woken: the worker ends');
my $state = run_row($node, $job)->{state};
my @ledger = $twilio->ledger;
is(run_row($node, $job)->{sent}, scalar @ledger, 'what was sent is counted');
start_campaign($node, $campaign, job => $job, role => 'store') if $state eq 'failed';
sent_once($node, $twilio, $campaign, $job, 'renamed and woken', total => 3000);
rename_role('store', 'shop');

# Renamed while queued
($campaign, $job) = $shop->start_queued;
rename_role('shop', 'store');
$shop->switch_on;
is(wait_for_run($node, $job)->{state},
	'completed', 'renamed while queued: the run is complete, as it is the same role');
is(role_of($job), 'store', 'the run shows its new name');
rename_role('store', 'shop');

# Renamed in mid-run, while somebody has locked another of its runs
my $paused = create_job($node, role => 'shop');
my $other = create_campaign($node, users => 3);
sql($node, <<~"SQL", role => 'shop');
	SELECT sendcampaign.pause(job) FROM send_campaign($other, $paused) job
	SQL
my $holder = Session->open($node);
($campaign, $job) = $shop->start_held;
$holder->query("BEGIN; SELECT FROM sendcampaign.run_data WHERE job_id = $paused FOR UPDATE");
rename_role('shop', 'store');
wake($node);
ok(poll(sub { role_of($job) eq 'store' }, 30), 'renamed beside a locked run: its worker goes on');
is(role_of($paused), 'shop', 'the locked run has the old name');
$holder->query('COMMIT');
$holder->close;
$twilio->set(hold => 0);
sent_once($node, $twilio, $campaign, $job, 'renamed beside a locked run', total => 3000);
is(role_of($paused), 'store', 'the locked run has the new name in the end');
sql($node, "SELECT sendcampaign.cancel($paused)");
ok(worker_is_gone($node, 20), 'renamed beside a locked run: the worker ends');
rename_role('store', 'shop');

# Dropped in mid-run
($campaign, $job) = $shop->start_held;
sql($node, 'DROP OWNED BY shop; DROP ROLE shop');
$shop->fails_with(qr/permission denied|does not exist/, 'dropped in mid-run');
is(sql($node, "SELECT send_campaign($campaign, $job)"), $job, 'a superuser calls again');
sent_once($node, $twilio, $campaign, $job, 'dropped in mid-run', total => 3000);
is(role_of($job), 'app', 'it is sent with the owner\'s rights');

# Dropped while queued
$shop->create_role;
($campaign, $job) = $shop->start_queued;
sql($node, 'DROP OWNED BY shop; DROP ROLE shop');
$shop->switch_on;
$shop->fails_with(qr/role "shop" does not exist/, 'dropped while queued');
is(sql($node, "SELECT send_campaign($campaign, $job)"), $job, 'a superuser calls again');
sent_once($node, $twilio, $campaign, $job, 'dropped while queued', total => 30);

$node->stop;
is(worker_errors($node), '', 'no worker met an error');
done_testing();
