# Triggers on the application's tables, put there by another role, run with
# the rights of the run's role: never with those of the extension's owner, nor
# with a superuser's.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../perl";
use Campaign;
use LocalTwilio;
use Test::More;

my $twilio = LocalTwilio->start;
my $node = new_cluster('triggers', $twilio, conf => <<~'CONF');
	sendcampaign.request_timeout = 500ms
	sendcampaign.lookup_delay = 0
	CONF

# Each firing notes who it is, and in what it succeeds that it must not.
sql($node, <<~'SQL');
	CREATE ROLE boss SUPERUSER;
	CREATE ROLE mallory LOGIN;
	CREATE SCHEMA mallory AUTHORIZATION mallory;
	GRANT TRIGGER ON ac_list_users, ac_background_jobs TO mallory;
	SET ROLE mallory;
	GRANT USAGE ON SCHEMA mallory TO PUBLIC;
	CREATE TABLE mallory.seen (fired text, who name, session name, gained text);
	GRANT INSERT ON mallory.seen TO PUBLIC;

	CREATE FUNCTION mallory.spy() RETURNS trigger LANGUAGE plpgsql AS $$
	DECLARE
		attempt text;
		gained text := '';
	BEGIN
		FOREACH attempt IN ARRAY ARRAY[
			'SET LOCAL ROLE boss',
			'RESET ROLE; ALTER ROLE mallory SUPERUSER',
			'SET LOCAL SESSION AUTHORIZATION boss',
			'RESET SESSION AUTHORIZATION; ALTER ROLE mallory SUPERUSER',
			'GRANT boss TO mallory',
			'SELECT FROM sendcampaign.claim',
			'UPDATE sendcampaign.run SET role = ''boss''',
			'DELETE FROM sendcampaign.message',
			'SET LOCAL sendcampaign.api_url = ''https://example.org''',
			'SET LOCAL sendcampaign.ca_file = ''/tmp/mallory''',
			'SET LOCAL session_replication_role = replica']
		LOOP
			BEGIN
				EXECUTE attempt;
				gained := concat_ws('; ', nullif(gained, ''), attempt);
			EXCEPTION WHEN OTHERS THEN
			END;
		END LOOP;
		INSERT INTO mallory.seen
		VALUES (TG_TABLE_NAME || ' ' || TG_NAME, current_user, session_user, gained);
		RETURN NEW;
	END $$;

	CREATE TRIGGER before BEFORE UPDATE ON ac_list_users
		FOR EACH ROW EXECUTE FUNCTION mallory.spy();
	CREATE CONSTRAINT TRIGGER deferred AFTER UPDATE ON ac_list_users
		DEFERRABLE INITIALLY DEFERRED
		FOR EACH ROW EXECUTE FUNCTION mallory.spy();
	CREATE TRIGGER before BEFORE INSERT OR UPDATE ON ac_background_jobs
		FOR EACH ROW EXECUTE FUNCTION mallory.spy();
	SQL

sub create_deferred_trigger_on_jobs
{
	sql($node, <<~'SQL', role => 'mallory');
		CREATE CONSTRAINT TRIGGER deferred AFTER INSERT OR UPDATE ON ac_background_jobs
			DEFERRABLE INITIALLY DEFERRED
			FOR EACH ROW EXECUTE FUNCTION mallory.spy();
		SQL
}

# What the triggers have noted since the last time.
sub firings
{
	return sql($node, <<~'SQL');
		WITH new AS (DELETE FROM mallory.seen RETURNING *)
		SELECT DISTINCT fired, who, gained FROM new
		ORDER BY 1, 2, 3
		SQL
}

# What they note if they fire as "app" and gain nothing.
sub fired
{
	my @triggers = @_;
	return join "\n", map { "$_|app|" } @triggers;
}
my @all = ('ac_background_jobs before', 'ac_list_users before', 'ac_list_users deferred');

# The job of a call by the role "app", which connects.
sub send_as_app
{
	my $campaign = shift;
	return sql($node, "SELECT send_campaign($campaign)", user => 'app');
}

# a role
my $campaign = create_campaign($node, users => 3);
is(wait_for_run($node, send_as_app($campaign))->{sent}, 3, 'a role: it is sent');
is(firings(), fired(@all), 'a role: the triggers gain nothing');

# With a superuser, the worker is the owner of the tables, and the call itself
# must not run mallory's code as the superuser either.
my $job = sql($node, <<~'SQL');
	SET session_replication_role = replica;
	INSERT INTO ac_background_jobs DEFAULT VALUES RETURNING id;
	SQL
sql($node, "SELECT send_campaign($campaign, $job)");
is(wait_for_run($node, $job)->{sent}, 3, 'a superuser, with a job: it is sent');
is(firings(), fired(@all), 'a superuser, with a job: the triggers gain nothing');
$job = sql($node, "SELECT send_campaign($campaign)");
is(wait_for_run($node, $job)->{sent}, 3, 'a superuser, no job: it is sent');
is(firings(), fired(@all), 'a superuser, no job: the triggers gain nothing');

# a run that has failed and goes on
configure($node, $campaign, q{configuration - 'twilioAuthToken'});
$job = send_as_app($campaign);
is(wait_for_run($node, $job)->{state}, 'failed', 'no token: the run fails');
configure($node, $campaign, qq{configuration || '{"twilioAuthToken": "$LocalTwilio::TOKEN"}'});
firings();
sql($node, "SELECT send_campaign($campaign, $job)");
is(wait_for_run($node, $job)->{sent}, 3, 'a superuser calls again: it is sent');
is(firings(), fired(@all), 'a superuser calls again: the triggers gain nothing');

# a message in doubt that a superuser settles
$twilio->set('fault:drop-after' => 100, 'fault:list-403' => 100);
$job = send_as_app(create_campaign($node, users => 1));
is(wait_for_run($node, $job, alone => 1)->{in_doubt}, 1, 'a message is in doubt');
firings();
my $settle = <<~"SQL";
	SELECT sendcampaign.settle(job_id, list_user_id, true) FROM sendcampaign.message
	WHERE job_id = $job
	SQL
my $deferred = qr/^cannot fire deferred trigger/;
like(sql_error($node, $settle)->{message},
	$deferred, 'a superuser settles: refused because of the deferred trigger');
is(firings(), '', 'a superuser settles: nothing is done');
sql($node, 'ALTER TABLE ac_list_users DISABLE TRIGGER deferred');
sql($node, $settle);
is( firings(),
	fired(@all[ 0, 1 ]),
	'a superuser settles, no deferred trigger: the triggers gain nothing');
sql($node, 'ALTER TABLE ac_list_users ENABLE TRIGGER deferred');
$twilio->set('fault:drop-after' => 0, 'fault:list-403' => 0);

# Deferred triggers on the jobs, too.  They would fire at the end of the
# transaction, as the superuser, so a superuser's call is refused.
create_deferred_trigger_on_jobs();
is(wait_for_run($node, send_as_app($campaign), alone => 1)->{sent},
	3, 'a role, deferred: it is sent');
is( firings(),
	fired('ac_background_jobs before', 'ac_background_jobs deferred', @all[ 1, 2 ]),
	'a role, deferred: the triggers gain nothing');
like(sql_error($node, "SELECT send_campaign($campaign)")->{message},
	$deferred, 'a superuser, deferred: refused');
is(firings(), '', 'a superuser, deferred: nothing is done');
wait_for_no_worker($node);
is(sql($node, q{SELECT rolsuper FROM pg_roles WHERE rolname = 'mallory'}),
	'f', 'mallory is no superuser');

$node->stop;
done_testing();
