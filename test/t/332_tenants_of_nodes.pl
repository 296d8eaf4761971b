# Citus: tenants whose campaigns, jobs and phones have the same numbers, on one node, on
# several, and after one has moved to the other's node; and calls away from home.
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
my $citus = Citus->new('tenants', $twilio);
my $one = $citus->add_tenant('one', users => 200, on => 1);
my @others =
  map { $citus->add_tenant($_->[0], users => 200, on => $_->[1], like => $one) }[ two => 1 ],
  [ three => 2 ], [ four => 0 ];
my @tenants = ($one, @others);

is_deeply(
	[ map { "$_->{campaign} $_->{job} $_->{prefix}" } @others ],
	[ ("$one->{campaign} $one->{job} $one->{prefix}") x 3 ],
	'all have the same numbers');
$citus->call($citus->home($_), $_) for @tenants;
$citus->sent_once($_, "$_->{schema}, beside others with the same numbers") for @tenants;

# One moves to where another one has had a run of the same job
$citus->move($others[1], 1);
$citus->call_error($_, $others[1]) for $citus->nodes;
is($citus->accepted($others[1]), 200, 'moved: it is not sent again');
my @next = map { $citus->add_campaign($_) } @tenants;
$citus->call($citus->home($_), $_) for @next;
$citus->sent_once($_, "$_->{schema}, the next campaign", times => 2) for @next;

# Calls away from home do nothing
my $held = $citus->add_campaign($one);
# answers take long, but less than request_timeout
$twilio->set(latency => 3000);
$citus->call($citus->node(1), $held);
wait_for_flight($twilio, 10);
for my $node (@{ [ $citus->nodes ] }[ 0, 2 ])
{
	for my $function (qw(pause cancel resume retry_failed forget))
	{
		my $error = sql_error($node, <<~"SQL");
			SET ROLE app;
			SET sendcampaign.schema = 'one';
			SELECT sendcampaign.$function($held->{job});
			SQL
		isnt($error->{sqlstate}, '', "$function() away from home is refused: $error->{message}");
	}
}
like(join('', $citus->runs($held)), qr/ running /, 'the run has not noticed');
$citus->sent_once($held, 'after calls away from home', times => 3);
$citus->stop;
done_testing();
