# Citus: a run waits on a node, its tables move, and the application removes the mark
# from the job.  The campaign is sent from the new home, and not by the run that waits.
# And marks of a cluster that this one was before pg_upgrade.
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
my $citus = Citus->new('gone', $twilio, workers => 2);
my ($coordinator, $worker, $other) = $citus->nodes;

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

# Sent by a node that is removed later: what it has sent is read back
my $back = $citus->add_tenant('back', users => 20, on => 1);
set_and_reload($worker, 'sendcampaign.enabled', 'off');
$citus->call($worker, $back);
$citus->sql($coordinator, $back,
	"UPDATE ac_background_jobs SET data = '{}', internal_data = NULL WHERE id = $back->{job}");
$citus->move($back, 2);
$citus->call($other, $back);
$citus->sent_once($back, 'sent by the other node');
set_and_reload($worker, 'sendcampaign.enabled', 'on');
wake($worker);
wait_until($worker, q{SELECT state = 'paused' FROM sendcampaign.run WHERE schema = 'back'});
$citus->move($back, 1);
sql($coordinator, q{SELECT citus_remove_node('127.0.0.1', } . $other->port . ')');
sql($worker, <<~"SQL");
	SET ROLE app;
	SET sendcampaign.schema = 'back';
	SELECT sendcampaign.resume($back->{job});
	SQL
wait_until($worker, q{SELECT state = 'completed' FROM sendcampaign.run WHERE schema = 'back'});
is(sql($worker, q{SELECT sent FROM sendcampaign.run WHERE schema = 'back'}),
	20, 'resumed when that node is gone: all are read back');
is($citus->accepted($back), 20, 'nothing is sent twice then');

#
# pg_upgrade: the cluster has another system identifier, and marks have the former one
#

sub make_former
{
	my ($node, $tenant) = @_;
	my $id = sql($node, 'SELECT (pg_control_system()).system_identifier');
	sql($node, <<~"SQL");
		UPDATE sendcampaign.run_data SET system_identifier = system_identifier - 1
		WHERE schema = '$tenant->{schema}'
		SQL
	$citus->sql($coordinator, $tenant, <<~"SQL");
		UPDATE ac_background_jobs
		SET data = replace(data::text, '$id', ($id - 1)::text)::jsonb,
		    internal_data = replace(internal_data::text, '$id', ($id - 1)::text)::jsonb
		WHERE id = $tenant->{job}
		SQL
	return;
}

my ($one, $two) = map { $citus->add_tenant($_, users => 20, on => 1) } 'one', 'two';
my $local = $citus->add_tenant('local', users => 20, layout => 'local');
set_and_reload($_, 'sendcampaign.enabled', 'off') for $worker, $coordinator;
$citus->call($worker, $_) for $one, $two;
$citus->call($coordinator, $local);
make_former($worker, $one);
make_former($coordinator, $local);
is(sql($_, 'SELECT sendcampaign.after_pg_upgrade()'), 1, 'pg_upgrade: one run is taken over')
  for $worker, $coordinator;
is(sql($_, 'SELECT sendcampaign.after_pg_upgrade()'), 0, 'once') for $worker, $coordinator;
set_and_reload($_, 'sendcampaign.enabled', 'on') for $worker, $coordinator;
wake($_) for $worker, $coordinator;
$citus->sent_once($_, "pg_upgrade: $_->{schema}") for $one, $two, $local;

#
# A role that gets the name of another one sees nothing of that one's runs
#

my $count = 'SET ROLE app; SELECT count(*) FROM sendcampaign.run';
my $of_worker = sql($worker, $count);
sql($coordinator, 'ALTER ROLE app RENAME TO former; CREATE ROLE app LOGIN');
for my $node ($coordinator, $worker)
{
	sql($node, <<~'SQL');
		SET citus.enable_ddl_propagation = off;
		GRANT USAGE ON SCHEMA sendcampaign TO app;
		SQL
	is(sql($node, $count), 0, 'another role of the same name sees no run on ' . $node->name);
}
is(sql($worker, $count =~ s/app/former/r), $of_worker, 'the role that has sent them does');
$citus->stop;
done_testing();
