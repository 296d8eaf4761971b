# The owner of the database may load a run that names another role.  What a
# superuser does with it runs no code of the owner's with that role's rights.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../perl";
use Campaign;
use LocalTwilio;
use Test::More;

my $twilio = LocalTwilio->start;
my $node = new_cluster('loaded', $twilio, no_extension => 1);
sql($node, 'CREATE ROLE owner LOGIN; CREATE DATABASE one OWNER owner');
install_extension($node, 'one');

# The owner's tables, with code that tells who runs it
sql($node, <<~'SQL', db => 'one');
	GRANT USAGE ON SCHEMA sendcampaign TO owner;
	CREATE SCHEMA evil AUTHORIZATION owner;
	SET ROLE owner;
	GRANT USAGE ON SCHEMA evil TO PUBLIC;
	CREATE TABLE evil.who (who name);
	GRANT INSERT ON evil.who TO PUBLIC;
	SELECT sendcampaign.create_tables('evil');
	GRANT ALL ON ALL TABLES IN SCHEMA evil TO PUBLIC;
	INSERT INTO evil.groups (configuration) VALUES ('{
	    "twilioAccountSid": "ACffffffffffffffffffffffffffffffff",
	    "twilioAuthToken": "x",
	    "twilioFromSmsNumber": "+15005550006"}');
	INSERT INTO evil.ac_lists (group_id) VALUES (1);
	INSERT INTO evil.ac_list_users (ac_list_id, data) VALUES (1, '{"sms": "+15550000001"}');
	INSERT INTO evil.ac_campaigns (id, ac_list_id, data)
	SELECT 1000 + i, 1, '{"message": "Hello"}' FROM generate_series(1, 10) i;
	INSERT INTO evil.ac_background_jobs (id) SELECT generate_series(1, 10);
	CREATE FUNCTION evil.tell() RETURNS trigger LANGUAGE plpgsql AS $$
	BEGIN
	    INSERT INTO evil.who VALUES (current_user);
	    RETURN NEW;
	END $$;
	CREATE TRIGGER tell BEFORE INSERT OR UPDATE ON evil.ac_background_jobs
	    FOR EACH ROW EXECUTE FUNCTION evil.tell();
	CREATE TRIGGER tell BEFORE UPDATE ON evil.ac_list_users
	    FOR EACH ROW EXECUTE FUNCTION evil.tell();
	SQL

# Loads a run of app's with a message that has this status, as the owner; returns
# its job.
my $job = 0;

sub load
{
	my ($status, %column) = @_;
	$job++;
	my %row = (
		schema => q{'evil'},
		job_id => $job,
		campaign_id => 1000 + $job,
		role => q{'app'},
		role_oid => q{'app'::regrole},
		database => q{(SELECT oid FROM pg_database WHERE datname = 'one')},
		timeline => q{'0/0'},
		total => 1,
		list_id => 1,
		message => q{'Hello'},
		started_at => 'now()',
		in_doubt => 1,
		%column);
	my @names = sort keys %row;
	my $names = join ', ', @names;
	my $values = join ', ', @row{@names};
	sql($node, <<~SQL, db => 'one', role => 'owner');
		WITH r AS (
		    INSERT INTO sendcampaign.run_data ($names) VALUES ($values) RETURNING id)
		INSERT INTO sendcampaign.message_data (run_id, list_user_id, status)
		SELECT id, 1, '$status' FROM r
		SQL
	return $job;
}

# A call, the status of the message, and the columns of the run
my @cases = (
	[ 'settle(%d, 1, true)', 'in_doubt', state => q{'paused'} ],
	[ 'pause(%d)', 'in_doubt', state => q{'running'} ],
	[ 'cancel(%d)', 'in_doubt', state => q{'paused'}, total => 'NULL', in_doubt => 0 ],
	[
		'retry_failed(%d)', 'failed',
		state => q{'completed'},
		finished_at => 'now()',
		failed => 1,
		in_doubt => 0
	]);
for my $case (@cases)
{
	my ($call, $status, %column) = @$case;
	$call = sprintf $call, load($status, %column);
	sql($node, "SET sendcampaign.schema = 'evil'; SELECT sendcampaign.$call", db => 'one');
	is(sql($node, 'SELECT DISTINCT who FROM evil.who', db => 'one'),
		'owner', "$call by a superuser: the owner's code runs as the owner");
	sql($node, 'DELETE FROM evil.who', db => 'one');
}
is(scalar(() = $twilio->ledger), 0, 'nothing is sent');
$node->stop;
done_testing();
