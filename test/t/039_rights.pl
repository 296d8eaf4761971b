# The role of a run loses a right, in mid-run or while it is queued.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../perl";
use Campaign;
use Shop;
use Test::More;

set_up_shop('rights');

# Rights on the tables
my %right = (
	'UPDATE ON ac_list_users' => qr/permission denied for table ac_list_users/,
	'SELECT ON ac_list_users' => qr/permission denied for table ac_list_users/,
	'SELECT ON groups' => qr/permission denied for table groups/,
	'SELECT, UPDATE ON ac_background_jobs' => qr/permission denied for table ac_background_jobs/);
for my $right (sort keys %right)
{
	start_held();
	$node->safe_psql('postgres', "REVOKE $right FROM shop");
	fails_with($right{$right}, "no $right in mid-run");
	like(($node->psql('postgres', "SET ROLE shop; SELECT send_campaign($campaign, $job)"))[2],
		qr/ERROR:  permission denied.*GRANT/s, 'called again, it is refused with a hint');
	$node->safe_psql('postgres', "GRANT $right TO shop");
	goes_on("$right granted again");
}
start_queued();
$node->safe_psql('postgres', 'REVOKE UPDATE ON ac_list_users FROM shop');
is(wake(), 1, 'a worker starts');
wait_for_run($node, $job);
is(scalar(() = $twilio->ledger), 0, 'no UPDATE right while queued: nothing is sent that could not be counted');
fails_with(qr/permission denied for table ac_list_users/, 'no UPDATE right while queued');
$node->safe_psql('postgres', 'GRANT UPDATE ON ac_list_users TO shop');
goes_on('granted again');

# LOGIN, which is needed before PostgreSQL 17, and CONNECT
sub without_login
{
	my $name = shift;
	if ($node->pg_version < 17)
	{
		fails_with(qr/role "shop" is not permitted to log in/, $name);
		$node->safe_psql('postgres', 'ALTER ROLE shop LOGIN');
		goes_on("$name, LOGIN again");
	}
	else
	{
		$twilio->set(hold => 0);
		sent_once($node, $twilio, $campaign, $job, $name);
		ok(worker_is_gone($node, 20), 'the worker ends');
		$node->safe_psql('postgres', 'ALTER ROLE shop LOGIN');
	}
}
start_queued();
$node->safe_psql('postgres', 'ALTER ROLE shop NOLOGIN');
is(wake(), $node->pg_version < 17 ? 0 : 1, 'a worker for a role that may not log in, since PostgreSQL 17');
without_login('NOLOGIN while queued');

start_queued();
$node->safe_psql('postgres', 'REVOKE CONNECT ON DATABASE postgres FROM PUBLIC');
is(wake(), 0, 'no worker for a role that may not connect');
fails_with(qr/role "shop" has no CONNECT privilege/, 'no CONNECT while queued');
$node->safe_psql('postgres', 'GRANT CONNECT ON DATABASE postgres TO PUBLIC');
goes_on('CONNECT again');

start_held();
$node->safe_psql('postgres', 'ALTER ROLE shop NOLOGIN');
$node->safe_psql('postgres', q{SELECT pg_terminate_backend(pid) FROM pg_stat_activity
	WHERE backend_type = 'sendcampaign worker'});
ok(worker_is_gone($node, 20), 'NOLOGIN in mid-run, worker terminated');
wake();
without_login('NOLOGIN in mid-run');

$node->stop;
is(worker_errors($node), '', 'no worker met an error');
done_testing();
