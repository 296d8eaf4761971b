# Citus: the coordinator and the home of a schema crash while the schema's campaign is
# sent, killed and stopped immediately: the run goes on by itself, and each recipient
# has the message once.  The crash of another node does not concern it.
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
my $citus = Citus->new('crashes', $twilio);
my $users = 300;

# How a node ends; it is started again.
my %crash = (
	killed => sub { $citus->kill_node(shift) },
	'stopped immediately' => sub { shift->stop('immediate') });
# Whose node that is: the number of the home, and of the node that crashes.
my %case = (
	home => [ 1, 1 ],
	coordinator => [ 1, 0 ],
	'another node' => [ 1, 2 ],
	'coordinator, which is the home' => [ 0, 0 ]);
my $number = 0;

for my $who (sort keys %case)
{
	my ($home, $victim) = @{ $case{$who} };
	for my $how (sort keys %crash)
	{
		my $tenant = $citus->add_tenant('tenant' . $number++, users => $users, on => $home);
		my $node = $citus->node($victim);
		$citus->call_slowly($citus->node($home), $tenant);
		$crash{$how}->($node);
		cmp_ok($citus->accepted($tenant), '<', $users, "$who $how in mid-run");
		$node->start;
		$citus->sent_once($tenant, "$who $how");
	}
}
$citus->stop;
done_testing();
