# Citus: a run waits on a node, its tables move, and the application removes the mark
# from the job.  The campaign is sent from the new home, and not by the run that waits.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../perl";
use Campaign;
use Test::More;

plan skip_all => 'CITUS is not set' if !$ENV{CITUS};
require Citus;
require LocalTwilio;
my $twilio = LocalTwilio->start;
my $citus = Citus->new('gone', $twilio, workers => 1);
my ($coordinator, $worker) = $citus->nodes;

my $tenant = $citus->add_tenant('tenant', users => 20, on => 1);
my $job = $tenant->{job};
set_and_reload($worker, 'sendcampaign.enabled', 'off');
$citus->call($worker, $tenant);
$citus->sql($coordinator, $tenant, "UPDATE ac_background_jobs SET data = '{}' WHERE id = $job");
$citus->move($tenant, 0);
is($citus->call_error($coordinator, $tenant)->{sqlstate},
	'55006', 'the mark in internal_data counts alone');
$citus->sql($coordinator, $tenant,
	"UPDATE ac_background_jobs SET internal_data = NULL WHERE id = $job");
$citus->call($coordinator, $tenant);
$citus->sent_once($tenant, 'the new home');

set_and_reload($worker, 'sendcampaign.enabled', 'on');
wake($worker);
$worker->poll_query_until('postgres', q{SELECT state = 'paused' FROM sendcampaign.run});
is( sql($worker, 'SELECT sent, error FROM sendcampaign.run'),
	'0|the background job has been sent by another node, 127.0.0.1:'
	  . $coordinator->port
	  . '. Its tables have moved to another node since. See sendcampaign.run on that node.',
	'the run that waited is paused');
is($citus->accepted($tenant), 20, 'nothing is sent twice');
is($citus->sql($coordinator, $tenant, "SELECT error FROM ac_background_jobs WHERE id = $job"),
	'', 'the job is told nothing');
is(sql_error($worker, <<~"SQL")->{sqlstate}, '55006', 'nor can it be resumed');
	SET ROLE app;
	SET sendcampaign.schema = 'tenant';
	SELECT sendcampaign.resume($job);
	SQL

# Without a column for the mark
sql($coordinator, 'ALTER TABLE tenant.ac_background_jobs DROP data, DROP internal_data');
is_deeply(
	$citus->call_error($coordinator, $tenant),
	{
		sqlstate => '55000',
		message => 'table "tenant.ac_background_jobs" has no column "data"',
		detail => 'In a schema that Citus distributes, the job says there which node sends it.',
		hint => 'Add the column "data" of type jsonb.'
	},
	'no column for the mark');
$citus->stop;
done_testing();
