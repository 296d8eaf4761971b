# Row-level security and rights on columns hold for what the worker does.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../perl";
use Campaign;
use LocalTwilio;
use PostgreSQL::Test::Utils;
use Session;
use Test::More;

my $twilio = LocalTwilio->start;
my $node = new_cluster('row_security', $twilio);

sub as { my ($role, $sql) = @_; return $node->safe_psql('postgres', $sql, extra_params => [ '-U', $role ]); }

# Rights on columns alone.
$node->safe_psql('postgres', q{
	CREATE ROLE narrow LOGIN;
	GRANT SELECT (id, configuration) ON groups TO narrow;
	GRANT SELECT (id, group_id) ON ac_lists TO narrow;
	GRANT SELECT (id, data, ac_list_id) ON ac_campaigns TO narrow;
	GRANT SELECT (id, data, ac_list_id), UPDATE (data) ON ac_list_users TO narrow;
	GRANT SELECT (id, progress, data), UPDATE (progress, error, data), INSERT (progress, data, created_at, updated_at) ON ac_background_jobs TO narrow;
	GRANT USAGE ON SEQUENCE ac_background_jobs_id_seq TO narrow});
my $campaign = create_campaign($node, users => 3, message => 'columns');
my $job = $node->safe_psql('postgres', 'INSERT INTO ac_background_jobs DEFAULT VALUES RETURNING id');
my $run = wait_for_run($node, as('narrow', "SELECT send_campaign($campaign, $job)"));
is_deeply($run, { state => 'completed', total => 3, sent => 3, failed => 0, skipped => 0, in_doubt => 0, error => '' },
	'rights on the columns that matter: sent');
is($node->safe_psql('postgres', q{SELECT string_agg(data->>'sentCount', ' ') FROM ac_list_users}), '1 1 1', 'and counted');
is($node->safe_psql('postgres', "SELECT progress FROM ac_background_jobs WHERE id = $job"), 100, 'the job is through');
like(wait_for_run($node, as('narrow', "SELECT send_campaign($campaign)"))->{sent}, qr/^3$/, 'and a job is created');

# with one of them missing, the run fails with that reason, and goes on later
$node->safe_psql('postgres', 'REVOKE SELECT (configuration) ON groups FROM narrow');
$job = as('narrow', "SELECT send_campaign($campaign)");
$run = wait_for_run($node, $job);
is("$run->{state}: $run->{error}", 'failed: permission denied for table groups', 'a column that may not be read: failed');
is($node->safe_psql('postgres', "SELECT error FROM ac_background_jobs WHERE id = $job"), 'permission denied for table groups', 'as the job says');
$node->safe_psql('postgres', 'GRANT SELECT (configuration) ON groups TO narrow');
as('narrow', "SELECT send_campaign($campaign, $job)");
is(wait_for_run($node, $job)->{sent}, 3, 'once it may: sent');

# Policies: a team sees its own list users, of those it may change some.
$node->safe_psql('postgres', q{
	CREATE ROLE team LOGIN;
	GRANT SELECT ON groups, ac_lists, ac_campaigns TO team;
	GRANT SELECT, UPDATE ON ac_list_users TO team;
	GRANT SELECT, UPDATE, INSERT ON ac_background_jobs TO team;
	GRANT USAGE ON SEQUENCE ac_background_jobs_id_seq TO team;
	ALTER TABLE ac_list_users ADD team name, ADD frozen boolean NOT NULL DEFAULT false;
	ALTER TABLE ac_list_users ENABLE ROW LEVEL SECURITY;
	CREATE POLICY read ON ac_list_users FOR SELECT TO team USING (team = current_user);
	CREATE POLICY change ON ac_list_users FOR UPDATE TO team USING (team = current_user AND NOT frozen)});
$campaign = create_campaign($node, users => 10, message => 'policies');
my $list = $node->safe_psql('postgres', "SELECT ac_list_id FROM ac_campaigns WHERE id = $campaign");
my ($first) = $node->safe_psql('postgres', "SELECT min(id) FROM ac_list_users WHERE ac_list_id = $list");
$node->safe_psql('postgres', qq{
	UPDATE ac_list_users SET team = 'team' WHERE ac_list_id = $list AND id < $first + 6;
	UPDATE ac_list_users SET frozen = true WHERE id = $first});
$run = wait_for_run($node, as('team', "SELECT send_campaign($campaign)"));
is("$run->{state} $run->{total} $run->{sent}", 'completed 6 6', 'policies: those that the role sees');
is(sent_with($twilio, 'policies'), 6, 'and only those');
is($node->safe_psql('postgres', qq{SELECT string_agg((id - $first)::text, ' ' ORDER BY id) FROM ac_list_users
	WHERE ac_list_id = $list AND data ? 'sentCount'}), '1 2 3 4 5', 'counted where the role may change it');

# the same while one of them is locked for a while
my $locker = Session->open($node);
$locker->query("BEGIN; SELECT FROM ac_list_users WHERE id = $first + 1 FOR UPDATE");
$job = as('team', "SELECT send_campaign($campaign)");
$node->poll_query_until('postgres', "SELECT sent + in_doubt > 0 FROM sendcampaign.run WHERE job_id = $job");
$locker->query('COMMIT');
$locker->close;
ok(poll(sub { run_row($node, $job)->{state} eq 'completed' }, 20), 'policies and a lock: the run ends');
is(run_row($node, $job)->{sent}, 6, 'sent');

# a campaign, or a job, that a policy hides does not exist
$node->safe_psql('postgres', q{
	ALTER TABLE ac_campaigns ENABLE ROW LEVEL SECURITY;
	ALTER TABLE ac_background_jobs ENABLE ROW LEVEL SECURITY;
	CREATE POLICY own ON ac_background_jobs TO team USING (true) WITH CHECK (false)});
my $error = sql_error($node, "SET ROLE team; SELECT send_campaign($campaign)");
is("$error->{sqlstate}: $error->{message}", "P0002: campaign $campaign does not exist", 'a campaign that a policy hides');
$node->safe_psql('postgres', 'ALTER TABLE ac_campaigns DISABLE ROW LEVEL SECURITY');
$error = sql_error($node, "SET ROLE team; SELECT send_campaign($campaign)");
is($error->{message}, 'new row violates row-level security policy for table "ac_background_jobs"', 'a job that a policy forbids');

wait_for_no_worker($node) if run_row($node, $job)->{state} eq 'completed';
$node->stop;
done_testing();
