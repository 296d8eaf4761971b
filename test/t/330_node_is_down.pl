# Citus: a node that is down stops no campaign of another node, and what was to be sent
# there is sent when it is back.  Rows that the application has locked, on the home and
# through the coordinator, hold up nobody else, and nothing of them is lost.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../perl";
use Campaign;
use Citus;
use LocalTwilio;
use Session;
use Test::More;

need_citus();
my $twilio = LocalTwilio->start;
my $citus = Citus->new('down', $twilio);
my ($coordinator, $first, $second) = $citus->nodes;

# A worker node is down
my $here = $citus->add_tenant('here', users => 300, on => 1);
my $there = $citus->add_tenant('there', users => 300, on => 2);
$citus->call_slowly($first, $here);
$citus->call_slowly($second, $there);
$citus->kill_node($second);
$citus->sent_once($here, 'another node goes down');
my $next = $citus->add_campaign($here);
$citus->call($first, $next);
$citus->sent_once($next, 'another node is down', times => 2);
like(
	$citus->call_error($first, $there)->{message},
	qr/127\.0\.0\.1:${\ $second->port }/,
	'the home is named although it is down');
my $sent = $citus->accepted($there);
cmp_ok($sent, '<', 300, 'its own run is not over');
$second->start;
$citus->sent_once($there, 'the node is back');

# The coordinator is down: called at home before, and meanwhile
$next = $citus->add_campaign($there);
my $meanwhile = $citus->add_campaign($here);
$citus->call($second, $next);
$citus->kill_node($coordinator);
$citus->call($first, $meanwhile);
ok( poll(sub {
		grep { / completed / } $citus->runs($_);
	}),
	"$_->{schema}: completed without the coordinator") for $next, $meanwhile;
$coordinator->start;
$citus->sent_once($next, 'called before the coordinator went down', times => 2);
$citus->sent_once($meanwhile, 'called while it was down', times => 3);

# Locked rows
my $locked = $citus->add_tenant('locked', users => 300, on => 1);
my $job = $citus->add_tenant('locked_job', users => 50, on => 1);
for my $node ($first, $coordinator)
{
	my $name = $node == $first ? 'at home' : 'through the coordinator';
	my $times = $node == $first ? 1 : 2;
	my ($campaign, $other) =
	  $times == 1 ? ($locked, $job) : map { $citus->add_campaign($_) } $locked, $job;
	my $session = Session->open($node);
	$session->query('BEGIN');
	$session->query(q{UPDATE locked.ac_list_users SET data = data || '{"seen": 1}'});
	$citus->call($first, $campaign);
	$citus->call($first, $other);
	$citus->wait_for_accepted($campaign, 300);
	$citus->sent_once($other, "others, while rows are locked $name", times => $times);
	ok(!(grep { / completed / } $citus->runs($campaign)), "rows are locked $name: it waits");
	$session->query('COMMIT');
	$citus->sent_once($campaign, "rows were locked $name", times => $times);
	is( $citus->sql(
			$coordinator, $locked, q{SELECT count(*) FROM ac_list_users
			WHERE data ? 'seen'}),
		300,
		"the application's change is not lost: $name");
}
$citus->stop;
done_testing();
