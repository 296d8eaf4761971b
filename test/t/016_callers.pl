# Whose rights a campaign is sent with, whoever calls, and from wherever.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../perl";
use Campaign;
use LocalTwilio;
use Test::More;

my $twilio = LocalTwilio->start;
my $node = new_cluster('callers', $twilio, conf => "max_worker_processes = 20\n");

# Updates of ac_list_users tell who makes them.
sql($node, <<~'SQL');
	CREATE ROLE sender LOGIN;
	CREATE ROLE nobody LOGIN;
	SET ROLE app;
	GRANT SELECT ON groups, ac_lists, ac_campaigns TO sender;
	GRANT SELECT, UPDATE ON ac_list_users, ac_background_jobs TO sender;
	GRANT INSERT ON ac_background_jobs TO sender;
	GRANT USAGE ON SEQUENCE ac_background_jobs_id_seq TO sender;

	CREATE TABLE updates (list_id integer, who name, session name);
	GRANT INSERT ON updates TO PUBLIC;

	CREATE FUNCTION see() RETURNS trigger LANGUAGE plpgsql AS $$
	BEGIN
		INSERT INTO updates VALUES (NEW.ac_list_id, current_user, session_user);
		RETURN NEW;
	END $$;

	CREATE TRIGGER see AFTER UPDATE ON ac_list_users
		FOR EACH ROW EXECUTE FUNCTION see();
	SQL

# The run of this job sends with the rights of this role and nobody else's.
sub sent_as
{
	my ($job, $role, $name) = @_;
	my %complete = (
		state => 'completed',
		total => 2,
		sent => 2,
		failed => 0,
		skipped => 0,
		in_doubt => 0,
		error => '');
	is_deeply(wait_for_run($node, $job), \%complete, "$name: it is sent");
	is(sql($node, "SELECT role FROM sendcampaign.run WHERE job_id = $job"),
		$role, "$name: the run has the role");
	is(sql($node, <<~"SQL"), "$role|$role", "$name: the role updates the list users");
		SELECT DISTINCT who, session FROM updates
		WHERE list_id = (SELECT list_id FROM sendcampaign.run WHERE job_id = $job)
		SQL
}

sub new_campaign
{
	my $text = shift;
	return create_campaign($node, users => 2, message => $text);
}

# The job of a campaign whose call returns nothing to the test.
sub job_of
{
	my $campaign = shift;
	return sql($node, "SELECT job_id FROM sendcampaign.run WHERE campaign_id = $campaign");
}

sent_as(start_campaign($node, new_campaign('owner')), 'app', 'the owner of the tables');
sent_as(start_campaign($node, new_campaign('sender'), role => 'sender'),
	'sender', 'a role with rights');

# A superuser's campaign is sent as the owner of the list users.
$twilio->set(hold => 1);
my $campaign = new_campaign('superuser');
my $job = sql($node, "SELECT send_campaign($campaign)");
wait_for_flight($twilio, 2);
my $owner = 'app|postgres|sendcampaign worker';
ok(wait_until($node, <<~'SQL', expected => $owner), 'pg_stat_activity has the owner');
	SELECT usename, datname, backend_type FROM pg_stat_activity
	WHERE backend_type ~ '^sendcampaign'
	SQL
$twilio->set(hold => 0);
sent_as($job, 'app', 'a superuser');

$campaign = new_campaign('other owner');
sql($node, 'ALTER TABLE ac_list_users OWNER TO sender');
sent_as(sql($node, "SELECT send_campaign($campaign)"), 'sender', 'a superuser, other owner');
sql($node, <<~'SQL');
	ALTER TABLE ac_list_users OWNER TO app;
	GRANT SELECT, UPDATE ON ac_list_users TO sender;
	SQL

# SECURITY DEFINER: the rights are the definer's.
sql($node, <<~'SQL', role => 'app');
	CREATE FUNCTION send_as_app(campaign bigint) RETURNS bigint
		LANGUAGE sql SECURITY DEFINER SET search_path = public, pg_temp
		AS 'SELECT send_campaign(campaign)'
	SQL
is(sql_error($node, 'SELECT send_campaign(1)', role => 'nobody')->{sqlstate},
	'42501', 'a role without rights is refused');
$campaign = new_campaign('definer');
$job = sql($node, "SELECT send_as_app($campaign)", role => 'nobody');
sent_as($job, 'app', 'SECURITY DEFINER');

# a DO block, in a session that connected as the role
$campaign = new_campaign('do');
sql($node, "DO \$\$ BEGIN PERFORM send_campaign($campaign); END \$\$", user => 'sender');
sent_as(job_of($campaign), 'sender', 'a DO block');

# Triggers: each new campaign that says "now" is sent, in the same transaction
# or, deferred, at its end.
sql($node, <<~'SQL', role => 'app');
	CREATE FUNCTION send_now() RETURNS trigger LANGUAGE plpgsql AS $$
	BEGIN
		PERFORM send_campaign(NEW.id);
		RETURN NEW;
	END $$;

	CREATE TRIGGER send_now AFTER INSERT ON ac_campaigns
		FOR EACH ROW WHEN (NEW.data->>'message' = 'now') EXECUTE FUNCTION send_now();

	CREATE CONSTRAINT TRIGGER send_at_end AFTER INSERT ON ac_campaigns
		DEFERRABLE INITIALLY DEFERRED
		FOR EACH ROW WHEN (NEW.data->>'message' = 'at the end') EXECUTE FUNCTION send_now();
	SQL
for my $text ('now', 'at the end')
{
	$campaign = new_campaign($text);
	wait_until($node, <<~"SQL");
		SELECT count(*) = 1 FROM sendcampaign.run WHERE campaign_id = $campaign
		SQL
	sent_as(job_of($campaign), 'app', "a trigger, $text");
}

# created and sent in one statement
my $list = list_of($campaign);
$job = sql($node, <<~"SQL", role => 'app');
	INSERT INTO ac_campaigns (ac_list_id, data)
	VALUES ($list, '{"message": "in one"}')
	RETURNING send_campaign(id)
	SQL
sent_as($job, 'app', 'INSERT ... RETURNING');

wait_for_no_worker($node);
my @texts =
  ('owner', 'sender', 'superuser', 'other owner', 'definer', 'do', 'now', 'at the end', 'in one');
is(sent_with($twilio, $_), 2, "'$_' is sent once to each recipient") for @texts;
$node->stop;
done_testing();
