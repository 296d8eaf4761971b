# Citus: the node that has the tables sends.  What is called elsewhere is refused, with
# the node's name; so is a job that another node has marked as its own.
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
my $citus = Citus->new('tables', $twilio, workers => 1);
my ($coordinator, $worker) = $citus->nodes;

# The error of a call by the role of a tenant
sub refused
{
	my ($node, $schema, $call) = @_;
	return sql_error($node, <<~"SQL");
		SET ROLE app;
		SET sendcampaign.schema = '$schema';
		SELECT $call;
		SQL
}

# Is it this error?
sub says
{
	my ($error, $name, $sqlstate, $message, $detail, $hint) = @_;
	is_deeply($error,
		{ sqlstate => $sqlstate, message => $message, detail => $detail, hint => $hint }, $name);
	return;
}

my $tenant = $citus->add_tenant('tenant', users => 20, on => 1);
my ($campaign, $job) = @$tenant{qw(campaign job)};
my $at = '127.0.0.1:' . $worker->port;
for my $call (
	"send_campaign($campaign, $job)", "sendcampaign.preview($campaign)",
	"sendcampaign.estimate($campaign)", "sendcampaign.send_test($campaign, '+15005550009')")
{
	says(
		refused($coordinator, 'tenant', $call),
		"elsewhere: $call",
		'55000',
		qq{the tables in schema "tenant" are on another node, $at},
		'A campaign is sent by the node that has its tables.',
		'Connect to that node, and call the function there.');
}
$citus->call($worker, $tenant);
$citus->sent_once($tenant, 'at home');
my $mark = $citus->sql($coordinator, $tenant,
	"SELECT data->>'sentBy' FROM ac_background_jobs WHERE id = $job");
my $own = sql($worker, "SELECT system_identifier FROM pg_control_system()");
like($mark, qr{^$own/\d+/\d+$}, 'the job says who has sent it');
is( $citus->ask(
		$worker,
		'SELECT count(*) FROM sendcampaign.run WHERE system_identifier = '
		  . "$own + 0.0000000001 * (SELECT groupid FROM pg_dist_local_group)"),
	1,
	'so does the run');

# The tables move to another node
$citus->move($tenant, 0);
says(
	refused($coordinator, 'tenant', "send_campaign($campaign, $job)"),
	'moved: the job has been sent by that node',
	'55006',
	"background job $job is sent by another node, $at",
	'Its tables were on that node when the campaign was sent.',
	'See sendcampaign.run on that node. To send the campaign once more, use another background'
	  . ' job.');
is(refused($worker, 'tenant', "send_campaign($campaign, $job)")->{sqlstate},
	'55000', 'moved: the node that had the tables is not asked again');
my $next = $citus->add_campaign($tenant);
$citus->sql($coordinator, $next,
	"UPDATE ac_background_jobs SET data = '{\"sentBy\": \"1/5/99\"}' WHERE id = $next->{job}");
says(
	refused($coordinator, 'tenant', "send_campaign($next->{campaign}, $next->{job})"),
	'a node that is gone',
	'55006',
	"background job $next->{job} was sent by a node that is not in this cluster",
	q{The mark of that node, sentBy in the job's data, is 1/5/99.},
	'If sendcampaign.run has the run of the job, call sendcampaign.resume() to continue it here.'
	  . ' To send the campaign once more, use another background job.');
$citus->sql($coordinator, $next,
	"UPDATE ac_background_jobs SET data = NULL WHERE id = $next->{job}");
$citus->call($coordinator, $next);
$citus->sent_once($next, 'the next one, where the tables are', times => 2);

# A run that has failed goes on from its node, wherever its tables are now
my $failed = $citus->add_tenant('failed', users => 5, on => 1);
$citus->sql($worker, $failed,
	"UPDATE groups SET configuration = configuration - 'twilioAuthToken'");
$citus->call($worker, $failed);
ok(wait_until($worker, "SELECT state = 'failed' FROM sendcampaign.run WHERE schema = 'failed'"),
	'a run has failed');
$citus->move($failed, 0);
$citus->sql($coordinator, $failed, <<~"SQL");
	UPDATE groups SET configuration = configuration || '{"twilioAuthToken": "$LocalTwilio::TOKEN"}'
	SQL
is( refused($coordinator, 'failed', "send_campaign($failed->{campaign}, $failed->{job})")
	  ->{sqlstate},
	'55006',
	'... it is not sent by the node that has the tables now');
$citus->call($worker, $failed);
$citus->sent_once($failed, '... but by its own');

# Other layouts
my $local = $citus->add_tenant('local', users => 20, layout => 'local');
sql($coordinator, q{SELECT create_reference_table('local.groups')});
$citus->call($coordinator, $local);
$citus->sent_once($local, 'groups on all nodes');
my $by_column = $citus->add_tenant('by_column', layout => 'local');
sql($coordinator, <<~'SQL');
	SET citus.shard_count = 2;
	ALTER TABLE by_column.ac_list_users DROP CONSTRAINT ac_list_users_pkey;
	SELECT create_distributed_table('by_column.ac_list_users', 'id');
	SQL
says(
	refused($coordinator, 'by_column', "send_campaign($by_column->{campaign})"),
	'by a column',
	'55000',
	'table "by_column.ac_list_users" is distributed by a column',
	'A campaign is sent by the node that has all of its tables.',
	'Give each tenant a schema with the five tables, and distribute it with'
	  . ' citus_schema_distribute(), or leave the tables undistributed on the coordinator.');
sql($coordinator, <<~'SQL');
	CREATE SCHEMA views AUTHORIZATION app;
	SET ROLE app;
	CREATE VIEW views.ac_list_users AS SELECT * FROM by_column.ac_list_users;
	SELECT sendcampaign.create_tables('views');
	INSERT INTO views.ac_campaigns (data) VALUES ('{}');
	SQL
is( refused($coordinator, 'views', 'send_campaign(1)')->{message},
	'table "by_column.ac_list_users" is distributed by a column',
	'a view of such a table');

my $mixed = $citus->add_tenant('mixed', layout => 'local');
sql($coordinator, q{SELECT create_reference_table('mixed.ac_background_jobs')});
says(
	refused($coordinator, 'mixed', "send_campaign($mixed->{campaign})"),
	'a table that is written is on all nodes',
	'55000',
	'table "mixed.ac_background_jobs" is not on one node with the others',
	'A campaign is sent by the node that has all of its tables.',
	'Keep the five tables in one schema, and distribute that with citus_schema_distribute(), or'
	  . ' leave all of them undistributed on the coordinator.');

# A trigger keeps the job from being marked
my $kept = $citus->add_tenant('kept', layout => 'local');
sql($coordinator, <<~'SQL', role => 'app');
	CREATE FUNCTION kept.keep() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
	CREATE TRIGGER keep BEFORE UPDATE ON kept.ac_background_jobs
		FOR EACH ROW EXECUTE FUNCTION kept.keep();
	SQL
says(
	refused($coordinator, 'kept', "send_campaign($kept->{campaign}, $kept->{job})"),
	'a job that cannot be marked',
	'55000',
	"could not mark background job $kept->{job} as sent by this node",
	'Its data cannot be read, or a trigger, rule or policy suppressed the UPDATE.',
	'Let the UPDATE of "kept.ac_background_jobs" pass, or use another background job.');
is($citus->accepted($kept), 0, 'nothing has left');
$citus->stop;
done_testing();
