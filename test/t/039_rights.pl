# The role of a run loses a right, in mid-run or while it is queued.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../perl";
use Campaign;
use Shop;
use Test::More;

my $shop = Shop->new('rights');
my $node = $shop->node;
my $twilio = $shop->twilio;

# Rights on the tables
my %right = (
	'UPDATE ON ac_list_users' => qr/permission denied for table ac_list_users/,
	'SELECT ON ac_list_users' => qr/permission denied for table ac_list_users/,
	'SELECT ON groups' => qr/permission denied for table groups/,
	'SELECT, UPDATE ON ac_background_jobs' => qr/permission denied for table ac_background_jobs/);
for my $right (sort keys %right)
{
	my ($campaign, $job) = $shop->start_held;
	sql($node, "REVOKE $right FROM shop");
	$shop->fails_with($right{$right}, "no $right in mid-run");
	my (undef, $error) =
	  sql_output($node, "SELECT send_campaign($campaign, $job)", role => 'shop');
	like($error, qr/ERROR:  permission denied.*GRANT/s, 'the next call is refused with a hint');
	sql($node, "GRANT $right TO shop");
	$shop->goes_on("$right granted again");
}

my (undef, $job) = $shop->start_queued;
sql($node, 'REVOKE UPDATE ON ac_list_users FROM shop');
is($shop->switch_on, 1, 'a worker starts');
wait_for_run($node, $job);
my @ledger = $twilio->ledger;
is(scalar @ledger, 0, 'no UPDATE right while queued: nothing is sent that could not be counted');
$shop->fails_with(qr/permission denied for table ac_list_users/, 'no UPDATE right while queued');
sql($node, 'GRANT UPDATE ON ac_list_users TO shop');
$shop->goes_on('granted again');

# LOGIN, which is needed before PostgreSQL 17, and CONNECT
my $needs_login = $node->pg_version->major < 17;

# The outcome of a run whose role may not log in.
sub without_login
{
	my ($campaign, $job, $name) = @_;
	if ($needs_login)
	{
		$shop->fails_with(qr/role "shop" is not permitted to log in/, $name);
		sql($node, 'ALTER ROLE shop LOGIN');
		$shop->goes_on("$name, LOGIN again");
	}
	else
	{
		$twilio->set(hold => 0);
		sent_once($node, $twilio, $campaign, $job, $name);
		ok(worker_is_gone($node, 20), 'the worker ends');
		sql($node, 'ALTER ROLE shop LOGIN');
	}
}

my @run = $shop->start_queued;
sql($node, 'ALTER ROLE shop NOLOGIN');
is( $shop->switch_on,
	$needs_login ? 0 : 1,
	'a worker starts for a role that may not log in, since PostgreSQL 17');
without_login(@run, 'NOLOGIN while queued');

$shop->start_queued;
sql($node, 'REVOKE CONNECT ON DATABASE postgres FROM PUBLIC');
is($shop->switch_on, 0, 'no worker starts for a role that may not connect');
$shop->fails_with(qr/role "shop" has no CONNECT privilege/, 'no CONNECT while queued');
sql($node, 'GRANT CONNECT ON DATABASE postgres TO PUBLIC');
$shop->goes_on('CONNECT again');

@run = $shop->start_held;
sql($node, 'ALTER ROLE shop NOLOGIN');
terminate_workers($node);
ok(worker_is_gone($node, 20), 'NOLOGIN in mid-run: a worker that is terminated ends');
$shop->switch_on;
without_login(@run, 'NOLOGIN in mid-run');

$node->stop;
is(worker_errors($node), '', 'no worker met an error');
done_testing();
