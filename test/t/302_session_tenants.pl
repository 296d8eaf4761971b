# A policy or a trigger that leaves the worker's statements without effect: what
# docs/own-tables.md says of these cases.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../perl";
use Campaign;
use LocalTwilio;
use Test::More;

my $twilio = LocalTwilio->start;
my $node = new_cluster('session_tenants', $twilio);
my $campaign = create_campaign($node, users => 3, message => 'Tenants');
sql($node, <<~'SQL');
	CREATE ROLE pool LOGIN;
	GRANT SELECT, UPDATE ON ALL TABLES IN SCHEMA public TO pool;
	GRANT INSERT ON ac_background_jobs TO pool;
	GRANT USAGE ON SEQUENCE ac_background_jobs_id_seq TO pool;
	ALTER TABLE ac_campaigns ADD tenant text DEFAULT 'north';
	ALTER TABLE ac_campaigns ENABLE ROW LEVEL SECURITY;
	CREATE POLICY own ON ac_campaigns USING (tenant = current_setting('app.tenant', true));
	SQL

# A tenant that is a setting of the session is not one of the worker.
my $job = sql($node, "SET app.tenant = 'north'; SELECT send_campaign($campaign)", user => 'pool');
my $run = wait_for_run($node, $job);
like(
	"$run->{state}: $run->{error}",
	qr/^failed: campaign $campaign no longer exists/,
	'a tenant of the session: the run fails');
is(sent_with($twilio, 'Tenants'), 0, '... and nothing is sent');

# A setting of the role is.
sql($node, "ALTER ROLE pool SET app.tenant = 'north'");
wait_for_no_worker($node);
is(sql($node, "SELECT send_campaign($campaign, $job)", user => 'pool'),
	$job, 'a tenant of the role: called again');
sent_once($node, $twilio, $campaign, $job, 'a tenant of the role', total => 3);

# A trigger that returns no row suppresses the count, which the run says.
sql($node, <<~'SQL', role => 'app');
	CREATE FUNCTION suppress() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
	ALTER TABLE ac_list_users RENAME TO users;
	CREATE VIEW ac_list_users AS SELECT * FROM users;
	CREATE TRIGGER suppress INSTEAD OF UPDATE ON ac_list_users
	    FOR EACH ROW EXECUTE FUNCTION suppress();
	SQL
$campaign = create_campaign($node, users => 2, message => 'Suppressed');
$run = run_campaign($node, $campaign);
is("$run->{state} $run->{sent}", 'completed 2', 'a trigger that returns no row: it is sent');
like($run->{error}, qr/sentCount of 2 list users could not be increased/, '... and not counted');

wait_for_no_worker($node);
$node->stop;
done_testing();
