# The role of a run is renamed or dropped.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../perl";
use Campaign;
use Shop;
use Test::More;

set_up_shop('roles');

# Renamed in mid-run: it is the same role, and so is who calls by the new name.
start_held();
$node->safe_psql('postgres', 'ALTER ROLE shop RENAME TO store');
my $next = create_campaign($node, users => 30);
my $next_job = start_campaign($node, $next, role => 'store');
$twilio->set(hold => 0);
sent_once($node, $twilio, $next, $next_job, 'called by the new name', total => 30);
is(wait_for_run($node, $job)->{sent}, scalar(grep { $_->{body} =~ /yc=$campaign$/ } $twilio->ledger),
	'renamed in mid-run: what was sent is counted');
start_campaign($node, $campaign, job => $job, role => 'store') if run_row($node, $job)->{state} eq 'failed';
sent_once($node, $twilio, $campaign, $job, 'renamed in mid-run', total => 3000);
ok(worker_is_gone($node, 20), 'the worker ends');
$node->safe_psql('postgres', 'ALTER ROLE store RENAME TO shop');

start_held();
$node->safe_psql('postgres', 'ALTER ROLE shop RENAME TO store');
$node->safe_psql('postgres', 'SELECT sendcampaign.wake()');
$twilio->set(hold => 0);
wait_for_run($node, $job);
ok(worker_is_gone($node, 20), 'renamed in mid-run and woken: the worker ends');
my $state = run_row($node, $job)->{state};
is(run_row($node, $job)->{sent}, scalar(() = $twilio->ledger), 'what was sent is counted');
start_campaign($node, $campaign, job => $job, role => 'store') if $state eq 'failed';
sent_once($node, $twilio, $campaign, $job, 'renamed and woken', total => 3000);
$node->safe_psql('postgres', 'ALTER ROLE store RENAME TO shop');

start_queued();
$node->safe_psql('postgres', 'ALTER ROLE shop RENAME TO store');
wake();
is(wait_for_run($node, $job)->{state}, 'completed', 'renamed while queued: it is the same role');
is($node->safe_psql('postgres', "SELECT role FROM sendcampaign.run WHERE job_id = $job"), 'store', 'under its new name');
$node->safe_psql('postgres', 'ALTER ROLE store RENAME TO shop');

# Dropped
start_held();
$node->safe_psql('postgres', 'DROP OWNED BY shop; DROP ROLE shop');
fails_with(qr/permission denied|does not exist/, 'dropped in mid-run');
is($node->safe_psql('postgres', "SELECT send_campaign($campaign, $job)"), $job, 'a superuser calls again');
sent_once($node, $twilio, $campaign, $job, 'dropped in mid-run', total => 3000);
is($node->safe_psql('postgres', "SELECT role FROM sendcampaign.run WHERE job_id = $job"), 'app', 'with the owner\'s rights');

$node->safe_psql('postgres', "CREATE ROLE shop LOGIN; $rights");
start_queued();
$node->safe_psql('postgres', 'DROP OWNED BY shop; DROP ROLE shop');
wake();
fails_with(qr/role "shop" does not exist/, 'dropped while queued');
is($node->safe_psql('postgres', "SELECT send_campaign($campaign, $job)"), $job, 'a superuser calls again');
sent_once($node, $twilio, $campaign, $job, 'dropped while queued', total => 30);

$node->stop;
is(worker_errors($node), '', 'no worker met an error');
done_testing();
