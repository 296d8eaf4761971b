# Citus: the same job called on three nodes, at once and later, by delegation, in a
# transaction block and with parameters: it is sent once, by the home of the schema.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../perl";
use Campaign;
use Citus;
use IPC::Run ();
use LocalTwilio;
use Test::More;

need_citus();
my $twilio = LocalTwilio->start;
my $citus = Citus->new('double', $twilio);

# Calls it on all nodes at the same time; returns what psql says.
sub call_everywhere
{
	my $tenant = shift;
	my @calls = map { { node => $_, out => '', err => '' } } $citus->nodes;
	$_->{run} = IPC::Run::start(
		[ 'psql', '-XAtq', '-d', $_->{node}->connstr('postgres') ],
		'<', \Citus::call_sql($tenant),
		'>', \$_->{out}, '2>', \$_->{err}) for @calls;
	$_->{run}->finish for @calls;
	return @calls;
}

for my $number (0, 1, 2)
{
	my $tenant = $citus->add_tenant("tenant$number", users => 200, on => $number);
	my $home = $citus->home($tenant);
	my @calls = call_everywhere($tenant);
	for my $call (@calls)
	{
		my $where = $call->{node}->name;
		my $port = $home->port;
		if ($call->{node} == $home)
		{
			is($call->{out}, "$tenant->{job}\n", "tenant$number: accepted at home, $where")
			  or diag $call->{err};
		}
		else
		{
			like($call->{err}, qr/127\.0\.0\.1:$port/, "tenant$number: $where names the home");
		}
	}
	$citus->sent_once($tenant, "called at once, home $number");
	$citus->call_error($_, $tenant) for $citus->nodes;
	is($citus->accepted($tenant), 200, "called once more, home $number: nothing is sent");
}

# Calls that the coordinator hands on to the node that has the campaign's number:
# plain ones it does, in a transaction block and with parameters it does not.
sql($citus->node(0), <<~'SQL');
	CREATE TABLE delegation (id bigint PRIMARY KEY);
	SELECT create_distributed_table('delegation', 'id');
	SELECT create_distributed_function('send_campaign(bigint, bigint, text)', 'campaign_id',
		colocate_with => 'delegation');
	SQL
my %form = (
	plain => 'SELECT send_campaign(%s, %s);',
	'in a block' => 'BEGIN; SELECT send_campaign(%s, %s); COMMIT;',
	prepared => 'PREPARE p AS SELECT send_campaign($1, $2); EXECUTE p(%s, %s);',
	'from PL/pgSQL' => <<~'SQL');
	DO $$
	DECLARE
		campaign bigint := %s;
		job bigint := %s;
	BEGIN
		PERFORM send_campaign(campaign, job);
	END $$;
	SQL
for my $number (0, 1, 2)
{
	my $tenant = $citus->add_tenant("delegated$number", users => 50, on => $number);
	my $called = 0;
	# a node to which a call is handed on does not know the caller's SET
	sql($citus->node(0), "ALTER ROLE app SET sendcampaign.schema = 'delegated$number'");
	for my $form (sort keys %form)
	{
		for my $node ($citus->nodes)
		{
			my $call = sprintf $form{$form}, @$tenant{qw(campaign job)};
			my $error = sql_error($node, $call, user => 'app');
			$called++ if $error->{sqlstate} eq '';
			note("$form on " . $node->name . ": $error->{message}");
		}
	}
	cmp_ok($called, '>', 0, "home $number: some of the calls are accepted");
	$citus->sent_once($tenant, "delegated, home $number");
}
$citus->stop;
done_testing();
