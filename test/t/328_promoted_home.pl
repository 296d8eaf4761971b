# Citus: the home of a schema is lost while its campaign is sent, and its standby,
# promoted, takes its place by citus_update_node(): each recipient has the message
# once, also where the standby had not received the last commits.
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
my $citus = Citus->new('promoted', $twilio);
my $users = 300;

for my $number (1, 2)
{
	my $name = $number == 1 ? 'all was received' : 'commits were lost';
	my $tenant = $citus->add_tenant("tenant$number", users => $users, on => $number);
	my $home = $citus->node($number);
	my $standby = $citus->add_standby($home);
	$citus->call_slowly($home, $tenant);
	if ($number == 2)
	{
		# what is sent from now on the standby does not learn
		$home->wait_for_catchup($standby);
		stop_streaming($standby);
		$citus->wait_for_accepted($tenant, 60);
	}
	$citus->kill_node($home);
	cmp_ok($citus->accepted($tenant), '<', $users, "$name: the home is lost in mid-run");
	$citus->promote($number, $standby);
	is($citus->home($tenant)->port, $standby->port, "$name: the standby is the home");
	$citus->sent_once($tenant, $name);
	my $next = $citus->add_campaign($tenant);
	$citus->call($standby, $next);
	$citus->sent_once($next, "$name: the next campaign", times => 2);
}

# The standby streams no more.
sub stop_streaming
{
	my $standby = shift;
	$standby->append_conf('postgresql.conf', "primary_conninfo = ''");
	$standby->reload;
	wait_until($standby, 'SELECT count(*) = 0 FROM pg_stat_wal_receiver');
	return;
}
$citus->stop;
done_testing();
