# Row-level security and rights on columns hold for what the worker does.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../perl";
use Campaign;
use LocalTwilio;
use Session;
use Test::More;

my $twilio = LocalTwilio->start;
my $node = new_cluster('row_security', $twilio);

# What SQL prints for a role that connects.
sub as
{
	my ($role, $sql) = @_;
	return sql($node, $sql, user => $role);
}

#
# Rights on columns alone
#
sql($node, <<~'SQL');
	CREATE ROLE narrow LOGIN;
	GRANT SELECT (id, configuration) ON groups TO narrow;
	GRANT SELECT (id, group_id) ON ac_lists TO narrow;
	GRANT SELECT (id, data, ac_list_id) ON ac_campaigns TO narrow;
	GRANT SELECT (id, data, ac_list_id), UPDATE (data) ON ac_list_users TO narrow;
	GRANT SELECT (id, progress, data), UPDATE (progress, error, data),
		INSERT (progress, data, created_at, updated_at) ON ac_background_jobs TO narrow;
	GRANT USAGE ON SEQUENCE ac_background_jobs_id_seq TO narrow;
	SQL
my $campaign = create_campaign($node, users => 3, message => 'columns');
my $job = sql($node, 'INSERT INTO ac_background_jobs DEFAULT VALUES RETURNING id');
my $run = wait_for_run($node, as('narrow', "SELECT send_campaign($campaign, $job)"), alone => 1);
is_deeply(
	$run,
	{
		state => 'completed',
		total => 3,
		sent => 3,
		failed => 0,
		skipped => 0,
		in_doubt => 0,
		error => ''
	},
	'rights on the columns that matter: it is sent');
is(sql($node, q{SELECT string_agg(data->>'sentCount', ' ') FROM ac_list_users}),
	'1 1 1', 'and counted');
is(job_row($node, $job, 'progress'), 100, 'the job is complete');
$run = wait_for_run($node, as('narrow', "SELECT send_campaign($campaign)"));
like($run->{sent}, qr/^3$/, 'a job can be created');

# with one of them missing, the run fails with that reason, and goes on later
my $denied = 'permission denied for table groups';
sql($node, 'REVOKE SELECT (configuration) ON groups FROM narrow');
my $error = sql_error($node, "SELECT send_campaign($campaign)", user => 'narrow');
is("$error->{sqlstate}: $error->{message}", "42501: $denied", 'a column that may not be read');
sql($node, 'GRANT SELECT (configuration) ON groups TO narrow');
($job) = split /\n/, sql($node, <<~"SQL");
	BEGIN;
	SET LOCAL ROLE narrow;
	SELECT send_campaign($campaign);
	RESET ROLE;
	REVOKE SELECT (configuration) ON groups FROM narrow;
	COMMIT;
	SQL
$run = wait_for_run($node, $job);
like(
	"$run->{state}: $run->{error}",
	qr/^failed: $denied\. Role "narrow" needs the SELECT privilege on column "configuration"/,
	'... or not any more: the run fails');
is(job_row($node, $job, 'error'), $run->{error}, 'the job says so');
sql($node, 'GRANT SELECT (configuration) ON groups TO narrow');
as('narrow', "SELECT send_campaign($campaign, $job)");
is(wait_for_run($node, $job)->{sent}, 3, 'it is sent once it may be read');

#
# Policies: a team sees its own list users, and may change some of them.
#
sql($node, <<~'SQL');
	CREATE ROLE team LOGIN;
	GRANT SELECT ON groups, ac_lists, ac_campaigns TO team;
	GRANT SELECT, UPDATE ON ac_list_users TO team;
	GRANT SELECT, UPDATE, INSERT ON ac_background_jobs TO team;
	GRANT USAGE ON SEQUENCE ac_background_jobs_id_seq TO team;
	ALTER TABLE ac_list_users ADD team name, ADD frozen boolean NOT NULL DEFAULT false;
	ALTER TABLE ac_list_users ENABLE ROW LEVEL SECURITY;
	CREATE POLICY read ON ac_list_users FOR SELECT TO team
		USING (team = current_user);
	CREATE POLICY change ON ac_list_users FOR UPDATE TO team
		USING (team = current_user AND NOT frozen);
	SQL
$campaign = create_campaign($node, users => 10, message => 'policies');
my $list = list_of($campaign);
my $first = sql($node, "SELECT min(id) FROM ac_list_users WHERE ac_list_id = $list");
sql($node, <<~"SQL");
	UPDATE ac_list_users SET team = 'team' WHERE ac_list_id = $list AND id < $first + 6;
	UPDATE ac_list_users SET frozen = true WHERE id = $first;
	SQL
$run = wait_for_run($node, as('team', "SELECT send_campaign($campaign)"));
is( "$run->{state} $run->{total} $run->{sent}",
	'completed 6 6',
	'policies: those are sent to whom the role sees');
is(sent_with($twilio, 'policies'), 6, 'and only those');
is(sql($node, <<~"SQL"), '1 2 3 4 5', 'those are counted whom the role may change');
	SELECT string_agg((id - $first)::text, ' ' ORDER BY id) FROM ac_list_users
	WHERE ac_list_id = $list AND data ? 'sentCount'
	SQL

# the same while one of them is locked for a while
my $locker = Session->open($node);
$locker->query("BEGIN; SELECT FROM ac_list_users WHERE id = $first + 1 FOR UPDATE");
$job = as('team', "SELECT send_campaign($campaign)");
wait_until($node, "SELECT sent + in_doubt > 0 FROM sendcampaign.run WHERE job_id = $job");
$locker->query('COMMIT');
$locker->close;
ok(poll(sub { run_row($node, $job)->{state} eq 'completed' }),
	'policies and a lock: the run ends');
is(run_row($node, $job)->{sent}, 6, 'all are sent');

# a campaign, or a job, that a policy hides does not exist
sql($node, <<~'SQL');
	ALTER TABLE ac_campaigns ENABLE ROW LEVEL SECURITY;
	ALTER TABLE ac_background_jobs ENABLE ROW LEVEL SECURITY;
	CREATE POLICY own ON ac_background_jobs TO team USING (true) WITH CHECK (false);
	SQL
$error = sql_error($node, "SELECT send_campaign($campaign)", role => 'team');
is( "$error->{sqlstate}: $error->{message}",
	"P0002: campaign $campaign does not exist",
	'a campaign that a policy hides does not exist');
sql($node, 'ALTER TABLE ac_campaigns DISABLE ROW LEVEL SECURITY');
$error = sql_error($node, "SELECT send_campaign($campaign)", role => 'team');
my $violated = 'new row violates row-level security policy for table "ac_background_jobs"';
is($error->{message}, $violated, 'a job that a policy forbids is refused');

wait_for_no_worker($node) if run_row($node, $job)->{state} eq 'completed';
$node->stop;
done_testing();
