# Citus: a schema that moves to another node while its campaign is sent, copied with
# its writers blocked and by logical replication, there and back: each recipient has
# the message once, and whoever asks is told who sends it.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../perl";
use Campaign;
use Citus;
use LocalTwilio;
use Test::More;

need_citus();
my $twilio = LocalTwilio->start;
my $citus = Citus->new('moved', $twilio);
my $users = 1500;

for my $mode ('block_writes', 'force_logical')
{
	my $tenant = $citus->add_tenant("tenant_$mode", users => $users, on => 1);
	$citus->call_slowly($citus->node(1), $tenant);
	$citus->move($tenant, 2, mode => $mode);
	cmp_ok($citus->accepted($tenant), '<', $users, "$mode: moved in mid-run");
	# perhaps refused, perhaps what goes on there: but it may not be sent twice
	$citus->call_error($_, $tenant) for $citus->nodes;
	$citus->sent_once($tenant, $mode);
	$citus->call_error($_, $tenant) for $citus->nodes;
	is($citus->accepted($tenant), $users, "$mode: called again at the end, nothing is sent");
}

# There and back again, without anything between
my $tenant = $citus->add_tenant('tenant_back', users => $users, on => 1);
$citus->call_slowly($citus->node(1), $tenant);
$citus->move($tenant, 2);
$citus->move($tenant, 1);
$citus->call_error($citus->node(1), $tenant);
$citus->sent_once($tenant, 'there and back');

# Another campaign at the new home
$tenant = $citus->add_tenant('tenant_next', users => 100, on => 1);
$citus->call($citus->node(1), $tenant);
$citus->sent_once($tenant, 'before the move');
$citus->move($tenant, 2);
my $next = $citus->add_campaign($tenant);
like(
	$citus->call_error($citus->node(1), $next)->{message}
	  . $citus->call_error($citus->node(1), $next)->{detail},
	qr/127\.0\.0\.1:${\ $citus->node(2)->port }/,
	'the old home names the new one');
$citus->call($citus->node(2), $next);
$citus->sent_once($next, 'after the move', times => 2);
$citus->stop;
done_testing();
