# Citus: a node is added while a campaign is sent, and gets schemas: the extension works
# there at once, what was sent elsewhere before is not sent again, and a node that gives
# its schemas away can be removed.
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
my $citus = Citus->new('added', $twilio, workers => 1);
my $users = 300;
my $tenant = $citus->add_tenant('tenant', users => $users, on => 1);
my $ended = $citus->add_tenant('ended', users => 100, on => 1);

$citus->call($citus->node(1), $ended);
$citus->sent_once($ended, 'before there was the new node');
$citus->call_slowly($citus->node(1), $tenant);
my $number = $citus->add_node;
my $added = $citus->node($number);
is( sql($added, "SELECT extversion FROM pg_extension WHERE extname = 'sendcampaign'"),
	sql($citus->node(0), "SELECT extversion FROM pg_extension WHERE extname = 'sendcampaign'"),
	'the new node has the extension');
$citus->call_error($_, $tenant) for $citus->nodes;
$citus->sent_once($tenant, 'a node is added in mid-run');

$citus->move($_, $number) for $tenant, $ended;
$citus->call_error($_, $tenant) for $citus->nodes;
is($citus->accepted($tenant), $users, 'what was sent elsewhere is not sent again');
my $next = $citus->add_campaign($ended);
$citus->call($added, $next);
$citus->sent_once($next, 'sent on the new node', times => 2);

# The node that it has replaced
my $port = $citus->node(1)->port;
sql($citus->node(0), "SELECT citus_remove_node('127.0.0.1', $port)");
$next = $citus->add_campaign($tenant);
$citus->call($added, $next);
$citus->sent_once($next, 'the old node is removed', times => 2);
$citus->stop;
done_testing();
