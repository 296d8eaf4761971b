# Citus: citus_promote_clone_and_rebalance() while campaigns are sent.  The clone has
# the runs and the identity of its primary, and some of its schemas: each recipient
# has the message once.
#
# Citus does not hold up what a worker node writes itself in its own schemas between
# the clone's last WAL and the new places of the schemas, so what is counted then in
# a schema that goes to the clone is lost, as the application's writes are.  Where
# sending is switched off meanwhile, as docs/citus.md says, sentCount is exact as well.
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
my $citus = Citus->new('clone', $twilio);
my $users = 1000;

for my $number (1, 2)
{
	my $switched_off = $number == 2;
	my $name = $switched_off ? 'switched off' : 'sending';
	my $primary = $citus->node($number);
	my @tenants =
	  map { $citus->add_tenant("tenant${number}_$_", users => $users, on => $number) } 0, 1;
	my $ended = $citus->add_tenant("ended$number", users => 20, on => $number);
	my $queued = $citus->add_tenant("queued$number", users => 20, on => $number);

	$citus->call($primary, $ended);
	$citus->sent_once($ended, "$name: ended before");
	$citus->call_slowly($primary, @tenants);
	my $clone = $citus->add_clone($number);
	$citus->call($primary, $queued);
	set_and_reload($primary, 'sendcampaign.enabled', 'off') if $switched_off;
	wait_for_no_worker($primary) if $switched_off;
	$citus->promote_clone($clone);
	set_and_reload($primary, 'sendcampaign.enabled', 'on') if $switched_off;

	my %moved = map { $_->{schema} => $citus->home($_)->port == $clone->port } @tenants, $ended,
	  $queued;
	my $moved = grep { $_ } values %moved;
	cmp_ok($moved, '>', 0, "$name: some schemas are on the clone now");
	cmp_ok($moved, '<', 4, "$name: some are not");
	cmp_ok(scalar(grep { $citus->accepted($_) < $users } @tenants), '>', 0, "$name: in mid-run");

	# Whoever asks again, wherever: it is not sent twice
	for my $tenant (@tenants, $queued, $ended)
	{
		$citus->call_error($_, $tenant) for $citus->nodes;
	}
	for my $tenant (@tenants, $queued)
	{
		my $goes = $moved{ $tenant->{schema} };
		$citus->sent_once(
			$tenant,
			"$name: $tenant->{schema} " . ($goes ? 'goes to the clone' : 'stays'),
			sent_count => $switched_off || !$goes);
	}
	is($citus->accepted($ended), 20, "$name: what had ended is not sent again");
	my $next = $citus->add_campaign($ended);
	$citus->call($citus->home($ended), $next);
	$citus->sent_once($next, "$name: the next campaign", times => 2);
}
$citus->stop;
done_testing();
