# Triggers on the application's tables, put there by another role, run with
# the rights of the run's role: never with those of the extension's owner, nor
# with a superuser's.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../perl";
use Campaign;
use LocalTwilio;
use PostgreSQL::Test::Utils;
use Test::More;

my $twilio = LocalTwilio->start;
my $node = new_cluster('triggers', $twilio,
	conf => "sendcampaign.request_timeout = 500ms\nsendcampaign.lookup_delay = 0\n");

# Each firing notes who it is, and what it succeeds in of what it must not.
$node->safe_psql('postgres', q{
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
		INSERT INTO mallory.seen VALUES (TG_TABLE_NAME || ' ' || TG_NAME, current_user, session_user, gained);
		RETURN NEW;
	END $$;
	CREATE TRIGGER before BEFORE UPDATE ON ac_list_users FOR EACH ROW EXECUTE FUNCTION mallory.spy();
	CREATE CONSTRAINT TRIGGER deferred AFTER UPDATE ON ac_list_users DEFERRABLE INITIALLY DEFERRED
		FOR EACH ROW EXECUTE FUNCTION mallory.spy();
	CREATE TRIGGER before BEFORE INSERT OR UPDATE ON ac_background_jobs FOR EACH ROW EXECUTE FUNCTION mallory.spy()});

sub deferred_on_jobs
{
	$node->safe_psql('postgres', q{
		SET ROLE mallory;
		CREATE CONSTRAINT TRIGGER deferred AFTER INSERT OR UPDATE ON ac_background_jobs
			DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION mallory.spy()});
}

# What the triggers have noted since the last time.
sub firings
{
	return $node->safe_psql('postgres', q{
		WITH new AS (DELETE FROM mallory.seen RETURNING *)
		SELECT DISTINCT fired, who, gained FROM new ORDER BY 1, 2, 3});
}

sub fired { return join "\n", map { "$_|app|" } @_; }
my @all = ('ac_background_jobs before', 'ac_list_users before', 'ac_list_users deferred');

sub as_app { return $node->safe_psql('postgres', $_[0], extra_params => [ '-U', 'app' ]); }
sub create_job { return $node->safe_psql('postgres', q{SET session_replication_role = replica; INSERT INTO ac_background_jobs DEFAULT VALUES RETURNING id}); }

my $campaign = create_campaign($node, users => 3);
is(wait_for_run($node, as_app("SELECT send_campaign($campaign)"))->{sent}, 3, 'a role: sent');
is(firings(), fired(@all), 'a role: the triggers gain nothing');

# With a superuser, the worker is the owner of the tables, and the call itself
# must not run mallory's code as the superuser either.
is(wait_for_run($node, $node->safe_psql('postgres', "SELECT send_campaign($campaign, @{[create_job()]})"))->{sent}, 3,
	'a superuser, with a job: sent');
is(firings(), fired(@all), 'a superuser, with a job: the triggers gain nothing');
is(wait_for_run($node, $node->safe_psql('postgres', "SELECT send_campaign($campaign)"))->{sent}, 3,
	'a superuser, no job: sent');
is(firings(), fired(@all), 'a superuser, no job: the triggers gain nothing');

# a run that had failed and goes on
$node->safe_psql('postgres', q{UPDATE groups SET configuration = configuration - 'twilioAuthToken'});
my $job = as_app("SELECT send_campaign($campaign)");
is(wait_for_run($node, $job)->{state}, 'failed', 'no token: failed');
$node->safe_psql('postgres', qq{UPDATE groups SET configuration = configuration || '{"twilioAuthToken": "$LocalTwilio::TOKEN"}'});
firings();
$node->safe_psql('postgres', "SELECT send_campaign($campaign, $job)");
is(wait_for_run($node, $job)->{sent}, 3, 'a superuser, goes on: sent');
is(firings(), fired(@all), 'a superuser, goes on: the triggers gain nothing');

# a message in doubt that a superuser settles
$twilio->set('fault:drop-after' => 100, 'fault:list-403' => 100);
$job = as_app('SELECT send_campaign(' . create_campaign($node, users => 1) . ')');
is(wait_for_run($node, $job)->{in_doubt}, 1, 'a message in doubt');
firings();
my $settle = "SELECT sendcampaign.settle(job_id, list_user_id, true) FROM sendcampaign.message WHERE job_id = $job";
like(sql_error($node, $settle)->{message}, qr/^cannot fire deferred trigger/, 'a superuser settles: refused for the deferred trigger');
is(firings(), '', 'a superuser settles: nothing is done');
$node->safe_psql('postgres', 'ALTER TABLE ac_list_users DISABLE TRIGGER deferred');
$node->safe_psql('postgres', $settle);
is(firings(), fired(@all[ 0, 1 ]), 'a superuser settles, no deferred trigger: the triggers gain nothing');
$node->safe_psql('postgres', 'ALTER TABLE ac_list_users ENABLE TRIGGER deferred');
$twilio->set('fault:drop-after' => 0, 'fault:list-403' => 0);

# Deferred triggers on the jobs, too.  They would fire at the end of the
# transaction, as the superuser, so a superuser's call is refused.
deferred_on_jobs();
is(wait_for_run($node, as_app("SELECT send_campaign($campaign)"))->{sent}, 3, 'a role, deferred: sent');
is(firings(), fired('ac_background_jobs before', 'ac_background_jobs deferred', @all[ 1, 2 ]), 'a role, deferred: the triggers gain nothing');
like(sql_error($node, "SELECT send_campaign($campaign)")->{message}, qr/^cannot fire deferred trigger/, 'a superuser, deferred: refused');
is(firings(), '', 'a superuser, deferred: nothing is done');
wait_for_no_worker($node);
is($node->safe_psql('postgres', q{SELECT rolsuper FROM pg_roles WHERE rolname = 'mallory'}), 'f', 'and mallory is what she was');

$node->stop;
done_testing();
