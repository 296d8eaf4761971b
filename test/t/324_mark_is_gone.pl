# Citus: a run waits on a node, its tables move, and the application removes the mark
# from the job.  The campaign is sent from the new home, and not by the run that waits.
# And marks of a cluster that this one was before pg_upgrade.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../perl";
use Campaign;
use Session;
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
my $of_tenant = q{FROM sendcampaign.run WHERE schema = 'tenant'};
wait_until($worker, "SELECT state = 'paused' $of_tenant");
is( sql($worker, "SELECT sent, error $of_tenant"),
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
sql($coordinator, 'ALTER TABLE tenant.ac_background_jobs ADD internal_data text');
is_deeply(
	$citus->call_error($coordinator, $tenant),
	{
		sqlstate => '55000',
		message =>
		  'table "tenant.ac_background_jobs" has no column "data" of type jsonb that can be'
		  . ' updated',
		detail => 'In a schema that Citus distributes, the job says there which node sends it.',
		hint => 'Add the column "data" of type jsonb.'
	},
	'a column of another type');
sql($coordinator, <<~'SQL');
	ALTER TABLE tenant.ac_background_jobs ALTER internal_data TYPE jsonb USING NULL, OWNER TO postgres;
	GRANT SELECT, INSERT ON tenant.ac_background_jobs TO app;
	GRANT UPDATE (progress, error, updated_at) ON tenant.ac_background_jobs TO app;
	GRANT USAGE ON ALL SEQUENCES IN SCHEMA tenant TO app;
	SQL
is_deeply(
	$citus->call_error($coordinator, $citus->add_campaign($tenant)),
	{
		sqlstate => '55000',
		message =>
		  'the column "data" of table "tenant.ac_background_jobs" may not be read and updated',
		detail => 'In a schema that Citus distributes, the job says there which node sends it.',
		hint => 'Grant SELECT and UPDATE on the column to the role that sends.'
	},
	'a column that the role may not write');

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

# Those that have ended, well and not
my ($done, $again, $failed) =
  map { $citus->add_tenant($_, users => 5, on => 1) } 'done', 'again', 'failed';
$citus->sql($worker, $failed,
	"UPDATE groups SET configuration = configuration - 'twilioAuthToken'");
$citus->call($worker, $_) for $done, $again, $failed;
$citus->sent_once($done, 'before pg_upgrade');
wait_until(
	$worker,
	"SELECT state FROM sendcampaign.run WHERE schema = '$_->[0]'",
	expected => $_->[1]) for [ 'again', 'completed' ], [ 'failed', 'failed' ];
make_former($worker, $_) for $done, $again, $failed;
is($citus->call_error($worker, $failed)->{sqlstate},
	'55006', 'pg_upgrade: first, a run that has failed does not continue');

my ($one, $two) = map { $citus->add_tenant($_, users => 20, on => 1) } 'one', 'two';
my $local = $citus->add_tenant('local', users => 20, layout => 'local');
set_and_reload($_, 'sendcampaign.enabled', 'off') for $worker, $coordinator;
$citus->call($worker, $_) for $one, $two;
$citus->call($coordinator, $local);
make_former($worker, $one);
make_former($coordinator, $local);
# no lock of a tenant's is waited for
my $lock = Session->open($worker);
$lock->query("BEGIN; SELECT FROM one.ac_background_jobs WHERE id = $one->{job} FOR UPDATE");
is(sql($worker, 'SELECT sendcampaign.after_pg_upgrade()'), 4, 'pg_upgrade: runs are taken over');
$lock->query('ROLLBACK');
$lock->close;
is(sql($coordinator, 'SELECT sendcampaign.after_pg_upgrade()'), 1, '... on each node');
is(sql($_, 'SELECT sendcampaign.after_pg_upgrade()'), 0, 'once') for $worker, $coordinator;
set_and_reload($_, 'sendcampaign.enabled', 'on') for $worker, $coordinator;
wake($_) for $worker, $coordinator;
$citus->sent_once($_, "pg_upgrade: $_->{schema}") for $one, $two, $local;

# Those that had ended
my ($rc, $out, $notices) = $worker->psql('postgres', Citus::call_sql($done));
like(
	$notices,
	qr/NOTICE:  campaign $done->{campaign} is already in state "completed"/,
	'pg_upgrade: a run that had completed, called again');
is($citus->accepted($done), 5, '... sends nothing');
$citus->sql($worker, $failed, <<~"SQL");
	UPDATE groups SET configuration = configuration || '{"twilioAuthToken": "$LocalTwilio::TOKEN"}'
	SQL
$citus->call($worker, $failed);
$citus->sent_once($failed, 'pg_upgrade: a run that had failed continues');
sql($worker, <<~"SQL");    # as retry_failed() does
	UPDATE sendcampaign.run_data SET state = 'running', finished_at = NULL WHERE schema = 'again';
	SELECT sendcampaign.wake();
	SQL
$citus->sent_once($again, 'pg_upgrade: a run that had completed is opened again');

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
