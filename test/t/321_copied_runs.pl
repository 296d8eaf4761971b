# Citus: a clone of a node has copies of its runs.  They stay with the node: the clone
# sends nothing for them, neither before nor after it is a node of its own.
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
my $citus = Citus->new('copies', $twilio, workers => 0);
my $node = $citus->node(0);

# Queues the campaign of a tenant, but does not send it yet
sub queue
{
	my $tenant = shift;
	set_and_reload($node, 'sendcampaign.enabled', 'off');
	$citus->call($node, $tenant);
	return;
}

# The error of a function on the job of a tenant
sub refused
{
	my ($tenant, $call) = @_;
	return sql_error($node, <<~"SQL");
		SET ROLE app;
		SET sendcampaign.schema = '$tenant->{schema}';
		SELECT sendcampaign.$call;
		SQL
}

sub change_run
{
	my ($tenant, $change) = @_;
	return sql($node, <<~"SQL");
		UPDATE sendcampaign.run_data SET $change
		WHERE schema = '$tenant->{schema}' AND job_id = $tenant->{job};
		SQL
}

# Promoted, and not yet registered: it is its primary by all that it knows
my $early = $citus->add_tenant('early', users => 20, layout => 'local');
queue($early);
sql($node, <<~'SQL');
	INSERT INTO pg_dist_node (nodename, nodeport, groupid, noderole, nodeisclone, nodeprimarynodeid)
	SELECT 'localhost', 1, groupid, 'unavailable', true, nodeid FROM pg_dist_node;
	SQL
change_run($early, "timeline = 'before'");
set_and_reload($node, 'sendcampaign.enabled', 'on');
wake($node);
my $reason =
	"this server may be a clone of the node that sends job $early->{job}."
  . ' It has been promoted, and the catalogs of Citus have a clone of this node.'
  . ' Promote the clone with citus_promote_clone_and_rebalance(), or remove it with'
  . ' citus_remove_clone_node().';
ok(poll(sub { index(log_of($node), $reason) >= 0 }), 'a clone that is not registered says why');
is($citus->accepted($early), 0, 'a clone that is not registered waits');
sql($node, 'DELETE FROM pg_dist_node WHERE nodeisclone');
$citus->sent_once($early, 'once there is no clone');

# Registered: it has another group
my $copy = $citus->add_tenant('copy', users => 20, layout => 'local');
my ($schema, $job) = @$copy{qw(schema job)};
queue($copy);
change_run($copy, 'system_identifier = trunc(system_identifier) + 0.0000000007');
for my $call ("pause($job)", "settle($job, 1, true)", "retry_failed($job)")
{
	is_deeply(
		refused($copy, $call),
		{
			sqlstate => '55000',
			message =>
			  "the run of background job $job belongs to another node of the Citus cluster",
			detail => 'This server is a copy of that node, so it has a copy of the run.',
			hint => 'Call the function on that node. If that node is gone for good, remove it'
			  . ' from the cluster and call sendcampaign.resume() here first; to end the copy,'
			  . ' call sendcampaign.cancel().'
		},
		"a copy: $call");
}
my $told = $citus->sql($node, $copy,
	"SELECT data, error, progress FROM ac_background_jobs WHERE id = $job");
set_and_reload($node, 'sendcampaign.enabled', 'on');
wake($node);
$node->poll_query_until('postgres',
	"SELECT state = 'paused' FROM sendcampaign.run WHERE schema = '$schema'");
is( sql($node, "SELECT error FROM sendcampaign.run WHERE schema = '$schema'"),
	'the run was queued on another node of the Citus cluster. That node goes on with it.'
	  . ' If that node is gone for good, remove it from the cluster and call'
	  . ' sendcampaign.resume() to continue it here.',
	'a copy is paused');
is( $citus->sql(
		$node, $copy, "SELECT data, error, progress FROM ac_background_jobs WHERE id = $job"),
	$told,
	'... and its job is told nothing');
$citus->sql($node, $copy,
	"UPDATE ac_background_jobs SET data = '{\"sentBy\": \"1/5/9\"}' WHERE id = $job");
sql($node, <<~'SQL');
	INSERT INTO pg_dist_node (nodename, nodeport, groupid, isactive, shouldhaveshards)
	VALUES ('localhost', 1, 9, false, false);
	SQL
is( refused($copy, "resume($job)")->{message},
	"background job $job is sent by another node, localhost:1",
	'... nor resumed while its node is there');
sql($node, 'DELETE FROM pg_dist_node WHERE groupid = 9');
is($citus->accepted($copy), 0, 'nothing has left');
$citus->sql($node, $copy,
	"UPDATE ac_background_jobs SET data = '{\"sentBy\": \"1/5/7\"}' WHERE id = $job");

# Another copy is faster
my $other = Session->open($node);
my $caller = Session->open($node);
$other->query(<<~"SQL");
	BEGIN;
	UPDATE $schema.ac_background_jobs SET data = '{"sentBy": "1/5/8"}' WHERE id = $job
	SQL
$caller->query("SET ROLE app; SET sendcampaign.schema = '$schema'");
$caller->start_query("SELECT sendcampaign.resume($job)");
ok(waits_for_lock($node, '%sendcampaign.resume%'), 'two copies are resumed: one waits');
$other->query('COMMIT');
$caller->finish_query;
like($caller->errors, qr{sent by a node that is not .* is 1/5/8\.$}ms, '... and is refused');
$_->close for $other, $caller;
$citus->sql($node, $copy,
	"UPDATE ac_background_jobs SET data = '{\"sentBy\": \"1/5/7\"}' WHERE id = $job");

is(refused($copy, "resume($job)")->{sqlstate}, '', 'it is resumed when that is gone');
$citus->sent_once($copy, 'resumed');
unlike($citus->sql($node, $copy, "SELECT data->>'sentBy' FROM ac_background_jobs WHERE id = $job"),
	qr{^1/5/7$}, 'the job says so');

# A copy that nobody needs is ended, so that the campaign can be sent by another job
my $useless = $citus->add_tenant('useless', users => 20, layout => 'local');
queue($useless);
change_run($useless, 'system_identifier = trunc(system_identifier) + 0.0000000007');
$told = $citus->sql($node, $useless,
	"SELECT data, error, progress FROM ac_background_jobs WHERE id = $useless->{job}");
is(refused($useless, "cancel($useless->{job})")->{sqlstate}, '', 'a copy is cancelled');
is( sql($node,
		"SELECT state, finished_at IS NOT NULL FROM sendcampaign.run"
		  . " WHERE schema = 'useless'"),
	'cancelled|t',
	'... and has ended');
is( $citus->sql(
		$node, $useless,
		"SELECT data, error, progress FROM ac_background_jobs WHERE id = $useless->{job}"),
	$told,
	'... and its job is told nothing');
set_and_reload($node, 'sendcampaign.enabled', 'on');
$citus->stop;
done_testing();
