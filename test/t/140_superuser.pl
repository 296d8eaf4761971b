# A superuser runs no code of others: whatever they have prepared in the
# application's tables, and whichever function is called.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../perl";
use Campaign;
use LocalTwilio;
use Test::More;

my $twilio = LocalTwilio->start;
my $node = new_cluster('superuser', $twilio, conf => "log_min_messages = debug1\n");
my $super = sql($node, 'SELECT current_user');

# What mallory has prepared makes her a superuser, if one runs it, and tells
# in any case who has.
sql($node, <<~'SQL');
	CREATE ROLE mallory LOGIN;
	GRANT USAGE ON SCHEMA sendcampaign TO mallory;
	GRANT EXECUTE ON ALL ROUTINES IN SCHEMA sendcampaign TO mallory;
	GRANT EXECUTE ON FUNCTION send_campaign TO mallory;
	CREATE SCHEMA m AUTHORIZATION mallory;
	SET ROLE mallory;
	GRANT USAGE ON SCHEMA m TO PUBLIC;
	CREATE TABLE m.who (who name);
	GRANT INSERT ON m.who TO PUBLIC;
	CREATE FUNCTION m.gain_now() RETURNS void LANGUAGE plpgsql AS $$
	BEGIN
	    INSERT INTO m.who VALUES (current_user);
	    ALTER ROLE mallory SUPERUSER;
	EXCEPTION WHEN OTHERS THEN
	    INSERT INTO m.who VALUES (current_user);
	END $$;
	CREATE FUNCTION m.gain() RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS $$
	BEGIN
	    PERFORM m.gain_now();
	    RETURN true;
	END $$;
	CREATE FUNCTION m.gain(anyelement) RETURNS integer LANGUAGE plpgsql IMMUTABLE AS $$
	BEGIN
	    PERFORM m.gain();
	    RETURN 1;
	END $$;
	CREATE FUNCTION m.gain_by_trigger() RETURNS trigger LANGUAGE plpgsql AS $$
	BEGIN
	    PERFORM m.gain();
	    RETURN NEW;
	END $$;
	SQL

# Whether mallory has become a superuser; she is none from then on.
sub gained
{
	my $gained = sql($node, q{SELECT rolsuper FROM pg_roles WHERE rolname = 'mallory'});
	sql($node, 'ALTER ROLE mallory NOSUPERUSER');
	return $gained;
}

sub nobody_gains
{
	my $name = shift;
	is(gained(), 'f', "$name: nobody becomes a superuser");
}

# Who has run her code since the last call.
sub who
{
	my $who = sql($node, q{SELECT coalesce(string_agg(DISTINCT who, ' '), '') FROM m.who});
	sql($node, 'DELETE FROM m.who');
	return $who;
}

# An empty schema "s", in which everybody may create tables.
sub new_schema
{
	sql($node, <<~SQL);
		DROP SCHEMA IF EXISTS s CASCADE;
		CREATE SCHEMA s;
		GRANT USAGE, CREATE ON SCHEMA s TO PUBLIC;
		SQL
}

# Tables of a role in a new schema "s", with a campaign to so many users.  No two
# runs here have the same job.
my $jobs = 0;

sub tables_of
{
	my ($role, $users) = @_;
	$users //= 3;
	$jobs += 1000;
	sql($node, <<~SQL);
		UPDATE sendcampaign.run_data
		SET state = 'failed', finished_at = now()
		WHERE finished_at IS NULL
		SQL
	new_schema();
	sql($node, <<~SQL, role => $role);
		SELECT sendcampaign.create_tables('s');
		ALTER SEQUENCE s.ac_background_jobs_id_seq RESTART $jobs;
		INSERT INTO s.groups (configuration) VALUES ('{
		    "twilioAccountSid": "$LocalTwilio::ACCOUNT",
		    "twilioAuthToken": "$LocalTwilio::TOKEN",
		    "twilioFromSmsNumber": "$LocalTwilio::SENDER"}');
		INSERT INTO s.ac_lists (group_id) VALUES (1);
		INSERT INTO s.ac_list_users (ac_list_id, data)
		    SELECT 1, jsonb_build_object('sms', '+1555' || lpad(i::text, 7, '0'))
		    FROM generate_series(1, $users) i;
		INSERT INTO s.ac_campaigns (ac_list_id, data)
		    VALUES (1, '{"message": "Hello", "baseUrl": "https://example.org/"}');
		SQL
}

# SQL that uses the tables in the schema "s".
sub in_s
{
	my $sql = shift;
	return "SET sendcampaign.schema = 's';\n$sql";
}

# Sends the campaign in the schema "s"; returns the job.
sub send_as
{
	my $role = shift;
	return sql($node, in_s('SELECT send_campaign(1)'), role => $role);
}

sub state_of
{
	my $job = shift;
	return sql($node, "SELECT state FROM sendcampaign.run WHERE job_id = $job AND schema = 's'");
}

# Tables of a superuser: as a superuser, as before
tables_of($super);
my $job = send_as($super);
is(wait_for_run($node, $job)->{sent}, 3, 'tables of a superuser: all messages are sent');
is(sql($node, "SELECT role FROM sendcampaign.run WHERE job_id = $job"),
	$super, '... as the superuser');
wait_for_no_worker($node);

# What mallory has prepared, by name: one thing of hers among the tables is enough.
my $by_trigger = 'FOR EACH ROW EXECUTE FUNCTION m.gain_by_trigger()';
my %prepared = (
	'a view of hers' => <<~SQL,
		ALTER TABLE s.ac_campaigns RENAME TO base;
		GRANT SELECT ON s.base TO mallory;
		SET ROLE mallory;
		CREATE VIEW s.ac_campaigns AS SELECT * FROM s.base WHERE m.gain();
		SQL
	'a view with her function' => <<~SQL,
		ALTER TABLE s.ac_campaigns RENAME TO base;
		CREATE VIEW s.ac_campaigns AS SELECT * FROM s.base WHERE m.gain();
		SQL
	'a view of a table of hers' => <<~SQL,
		ALTER TABLE s.ac_background_jobs RENAME TO base;
		ALTER TABLE s.base OWNER TO mallory;
		CREATE VIEW s.ac_background_jobs AS SELECT * FROM s.base;
		SET ROLE mallory;
		CREATE TRIGGER gain BEFORE INSERT OR UPDATE ON s.base $by_trigger;
		SQL
	'a view of her view' => <<~SQL,
		ALTER TABLE s.ac_campaigns RENAME TO base;
		GRANT SELECT ON s.base TO mallory;
		SET ROLE mallory;
		CREATE VIEW m.campaigns AS SELECT * FROM s.base WHERE m.gain();
		RESET ROLE;
		CREATE VIEW s.ac_campaigns AS TABLE m.campaigns;
		SQL
	'the right to create a trigger' => <<~SQL,
		GRANT TRIGGER ON s.ac_background_jobs TO mallory;
		SET ROLE mallory;
		CREATE TRIGGER gain BEFORE INSERT ON s.ac_background_jobs $by_trigger;
		SQL
	'the condition of a trigger' => <<~SQL,
		CREATE TRIGGER gain BEFORE INSERT ON s.ac_background_jobs
		    FOR EACH ROW WHEN (m.gain())
		    EXECUTE FUNCTION suppress_redundant_updates_trigger();
		SQL
	'a rule' => <<~SQL,
		CREATE RULE gain AS ON UPDATE TO s.ac_list_users DO ALSO SELECT m.gain();
		SQL
	'a rule that writes her table' => <<~SQL,
		CREATE TABLE m.log (x integer);
		ALTER TABLE m.log OWNER TO mallory;
		CREATE RULE gain AS ON INSERT TO s.ac_background_jobs
		    DO ALSO INSERT INTO m.log VALUES (1);
		SET ROLE mallory;
		CREATE TRIGGER gain BEFORE INSERT ON m.log $by_trigger;
		SQL
	'a default' => <<~SQL,
		ALTER TABLE s.ac_background_jobs ADD x integer;
		ALTER TABLE s.ac_background_jobs ALTER x SET DEFAULT m.gain(1);
		SQL
	'a generated column' => <<~SQL,
		ALTER TABLE s.ac_background_jobs
		    ADD x integer GENERATED ALWAYS AS (m.gain(id)) STORED;
		SQL
	'a check' => <<~SQL,
		ALTER TABLE s.ac_background_jobs ADD CHECK (m.gain(id) > 0);
		SQL
	'an index' => <<~SQL,
		CREATE INDEX ON s.ac_background_jobs (m.gain(id));
		SQL
	'a partial index' => <<~SQL,
		CREATE INDEX ON s.ac_background_jobs (id) WHERE m.gain(id) > 0;
		SQL
	'an exclusion' => <<~SQL,
		ALTER TABLE s.ac_background_jobs ADD EXCLUDE ((m.gain(id) + id) WITH =);
		SQL
	'a policy' => <<~SQL,
		ALTER TABLE s.groups ENABLE ROW LEVEL SECURITY;
		CREATE POLICY gain ON s.groups USING (m.gain());
		SQL
	'a domain' => <<~SQL,
		CREATE DOMAIN m.number integer DEFAULT 1 CHECK (m.gain(VALUE) > 0);
		ALTER DOMAIN m.number OWNER TO mallory;
		ALTER TABLE s.ac_background_jobs ADD x m.number;
		SQL
	'the check of a domain' => <<~SQL,
		CREATE DOMAIN s.number integer DEFAULT 1 CHECK (m.gain(VALUE) > 0);
		ALTER TABLE s.ac_background_jobs ADD x s.number;
		SQL
	'an operator' => <<~'SQL',
		CREATE FUNCTION m.plus(integer, integer) RETURNS integer LANGUAGE plpgsql IMMUTABLE AS $$
		BEGIN
		    RETURN m.gain(1);
		END $$;
		ALTER FUNCTION m.plus OWNER TO mallory;
		CREATE OPERATOR m.+ (FUNCTION = m.plus, LEFTARG = integer, RIGHTARG = integer);
		ALTER TABLE s.ac_background_jobs ADD CHECK (id OPERATOR(m.+) 1 > 0);
		SQL
	'a cast' => <<~'SQL',
		CREATE TYPE m.kind AS ENUM ('x');
		CREATE FUNCTION m.text(m.kind) RETURNS text LANGUAGE plpgsql AS $$
		BEGIN
		    PERFORM m.gain();
		    RETURN '+15550000001';
		END $$;
		CREATE CAST (m.kind AS text) WITH FUNCTION m.text(m.kind);
		ALTER TYPE m.kind OWNER TO mallory;
		ALTER FUNCTION m.text(m.kind) OWNER TO mallory;
		ALTER TABLE s.ac_list_users ADD sms m.kind DEFAULT 'x';
		SQL
	'a function of a function' => <<~SQL,
		CREATE FUNCTION s.mine(integer) RETURNS boolean LANGUAGE sql
		    BEGIN ATOMIC SELECT m.gain(); END;
		ALTER TABLE s.ac_background_jobs ADD CHECK (s.mine(id));
		SQL
	'a child' => <<~SQL);
		CREATE TABLE s.child (LIKE s.ac_list_users INCLUDING ALL) INHERITS (s.ac_list_users);
		WITH d AS (DELETE FROM ONLY s.ac_list_users RETURNING *)
		    INSERT INTO s.child SELECT * FROM d;
		ALTER TABLE s.child OWNER TO mallory;
		SET ROLE mallory;
		CREATE TRIGGER gain BEFORE UPDATE ON s.child $by_trigger;
		SQL
for my $table (qw(groups ac_lists ac_campaigns ac_list_users ac_background_jobs))
{
	$prepared{$table} = <<~SQL;
		ALTER TABLE s.$table OWNER TO mallory;
		SET ROLE mallory;
		CREATE TRIGGER gain BEFORE INSERT OR UPDATE ON s.$table $by_trigger;
		SQL
}

my @calls = (
	'send_campaign(1)',
	q{sendcampaign.send_test(1, '+15550000001')},
	'* FROM sendcampaign.preview(1)',
	'* FROM sendcampaign.estimate(1)');
for my $name (sort keys %prepared)
{
	tables_of($super);
	sql($node, $prepared{$name});
	my $sender = sql($node, <<~SQL);
		SELECT relowner::regrole FROM pg_class WHERE oid = 's.ac_list_users'::regclass
		SQL
	gained();    # some of it runs when it is made
	who();
	for my $call (@calls)
	{
		my $error = sql_error($node, in_s("SELECT $call"));
		next if $sender eq 'mallory';    # as whom it is sent
		is($error->{sqlstate}, '42501', "$name: $call is refused") or diag($error->{message});
		is( $error->{message},
			qq{the tables in schema "s" cannot be used with the rights of role "$super"},
			'... in these words');
		like(
			$error->{detail},
			qr/ belongs to role "mallory", whose code would run with /,
			'... with a reason');
	}
	sql($node, 'SELECT sendcampaign.wake()');
	wait_for_no_worker($node);
	nobody_gains($name);
	unlike(who(), qr/\b$super\b/, "$name: a superuser runs nothing");
	sql($node, <<~SQL);
		DROP TABLE IF EXISTS m.log CASCADE;
		DROP DOMAIN IF EXISTS m.number CASCADE;
		DROP TYPE IF EXISTS m.kind CASCADE;
		DROP FUNCTION IF EXISTS m.plus CASCADE;
		SQL
}

# What a foreign key points to runs as its owner: no reason to refuse
tables_of($super);
sql($node, <<~SQL);
	CREATE TABLE m.users (id integer PRIMARY KEY);
	ALTER TABLE m.users OWNER TO mallory;
	ALTER TABLE s.ac_campaigns ADD FOREIGN KEY (user_id) REFERENCES m.users;
	SQL
is(wait_for_run($node, send_as($super))->{sent},
	3, 'a foreign key to a table of hers: all messages are sent');
wait_for_no_worker($node);
sql($node, 'DROP TABLE m.users CASCADE');

# They become hers while the run is queued, or under way.
my $give = <<~SQL;
	ALTER TABLE s.ac_list_users OWNER TO mallory;
	SET ROLE mallory;
	CREATE TRIGGER gain BEFORE UPDATE ON s.ac_list_users $by_trigger;
	SQL
my $refused = qr/cannot be used with the rights of role "$super".*mallory/;
tables_of($super);
set_and_reload($node, 'sendcampaign.enabled', 'off');
$job = send_as($super);
sql($node, $give);
set_and_reload($node, 'sendcampaign.enabled', 'on');
$twilio->set(reset => 1);
sql($node, 'SELECT sendcampaign.wake()');
my $run = wait_for_run($node, $job);
is($run->{state}, 'failed', 'hers while it is queued: the run fails');
like($run->{error}, $refused, '... with the reason');
wait_for_no_worker($node);
is(scalar(() = $twilio->ledger), 0, '... and sends nothing');
nobody_gains('hers while it is queued');

tables_of($super, 300);
$twilio->set(reset => 1, hold => 1);
$job = send_as($super);
wait_for_flight($twilio, 20);
sql($node, $give);
$twilio->set(hold => 0);
$run = wait_for_run($node, $job);
is($run->{state}, 'failed', 'hers in mid-run: the run fails');
like($run->{error}, $refused, '... with the reason');
wait_for_no_worker($node);
is(run_row($node, $job)->{sent}, scalar(() = $twilio->ledger), '... and what was sent is counted');
nobody_gains('hers in mid-run');

# A run whose role is gone, on tables of this owner with triggers of mallory's;
# returns its job.
sub orphan_run
{
	my $owner = shift;
	tables_of($owner);
	sql($node, <<~SQL);
		CREATE ROLE gone LOGIN;
		GRANT EXECUTE ON FUNCTION send_campaign TO gone;
		GRANT SELECT, INSERT, UPDATE ON ALL TABLES IN SCHEMA s TO gone;
		GRANT USAGE ON ALL SEQUENCES IN SCHEMA s TO gone;
		SQL
	set_and_reload($node, 'sendcampaign.enabled', 'off');
	my $job = send_as('gone');
	no_worker_is_to_come($node);
	sql($node, <<~SQL);
		DROP OWNED BY gone;
		DROP ROLE gone;
		CREATE TRIGGER gain BEFORE UPDATE ON s.ac_background_jobs $by_trigger;
		CREATE TRIGGER gain BEFORE UPDATE ON s.ac_list_users $by_trigger;
		SQL
	set_and_reload($node, 'sendcampaign.enabled', 'on');
	who();
	return $job;
}

# The run has ended with one message, of this status.
sub end_with_message
{
	my ($job, $status) = @_;
	sql($node, <<~SQL);
		INSERT INTO sendcampaign.message_data
		    (run_id, list_user_id, phone, status, error_code, attempts)
		SELECT id, 1, '+15550000001', '$status', 20429, 1
		FROM sendcampaign.run
		WHERE job_id = $job;
		UPDATE sendcampaign.run_data
		SET state = 'completed', total = 1, $status = 1, list_id = 1, message = 'Hello',
		    started_at = now(), finished_at = now(), timeline = ''
		WHERE job_id = $job;
		SQL
}

# Functions on such a run: name, further arguments, the status of its message if
# it is to have one, the state after the call
my @functions = (
	[ 'cancel', '', undef, 'cancelled' ],
	[ 'retry_failed', '', 'failed', 'running' ],
	[ 'settle', ', 1, true', 'in_doubt', 'completed' ]);
for my $function (@functions)
{
	my ($name, $arguments, $status, $state_after) = @$function;
	$job = orphan_run('mallory');
	end_with_message($job, $status) if $status;
	sql($node, in_s("SELECT sendcampaign.$name($job$arguments)"));
	is(state_of($job), $state_after, "$name() of a run whose role is gone");
	nobody_gains($name);
	is(who(), 'mallory', "$name(): as the owner of ac_list_users");

	# the same where that is a superuser: the tables are not touched
	$job = orphan_run($super);
	end_with_message($job, $status) if $status;
	my ($rc, $stdout, $warning) =
	  $node->psql('postgres', in_s("SELECT sendcampaign.$name($job$arguments)"));
	my $not_updated = qr/WARNING:  the application's tables in schema "s" are not updated/;
	my $owner = qr/gain_by_trigger\(\) belongs to role "mallory", whose code would run /;
	is($rc, 0, "$name() where her triggers are on a superuser's tables");
	like($warning, qr/$not_updated.*$owner/s, '... says that they are not updated');
	is(state_of($job), $state_after, '... and does the rest');
	nobody_gains($name);
	is(who(), '', '... and nobody runs anything');
}

# The other functions use no table of the application's, but for the job:
# pause() and resume() tell it, as the owner of ac_list_users.
$job = orphan_run('mallory');
my @other_calls = (
	[ "pause($job)", 'mallory' ],
	[ "resume($job)", 'mallory' ],
	[ 'wake()', '' ],
	[ 'forget(now())', '' ],
	[ q{forget_recipient('+15550000001')}, '' ]);
for my $case (@other_calls)
{
	my ($call, $who) = @$case;
	sql($node, in_s("SELECT sendcampaign.$call"));
	nobody_gains($call);
	is(who(), $who, "$call: who runs her triggers");
}

# create_tables() among tables of others
sql($node, <<~SQL);
	CREATE ROLE chief LOGIN NOINHERIT IN ROLE app;
	GRANT USAGE ON SCHEMA sendcampaign TO chief;
	GRANT EXECUTE ON ALL ROUTINES IN SCHEMA sendcampaign TO chief, app;
	SQL

# Whose table there is, who calls, and whether the call is all right
my @cases = (
	[ 'mallory', $super, 0 ],
	[ 'mallory', 'app', 0 ],
	[ 'app', $super, 0 ],
	[ 'chief', $super, 0 ],
	[ 'chief', 'app', 1 ],
	[ 'app', 'chief', 0 ],
	[ $super, 'app', 1 ],
	[ $super, $super, 1 ],
	[ 'app', 'app', 1 ]);
for my $case (@cases)
{
	my ($owner, $caller, $good) = @$case;
	new_schema();
	sql($node, <<~SQL, role => $owner);
		CREATE TABLE s.ac_background_jobs (id serial PRIMARY KEY, progress integer, error text)
		SQL
	my $error = call_error($node, q{create_tables('s')}, role => $caller);
	my $message = qq{table "s.ac_background_jobs" belongs to role "$owner"};
	is( $error->{message},
		$good ? '' : $message,
		"create_tables() by $caller with a table of ${owner}'s");
	is($error->{sqlstate}, $good ? '' : '42501', '... with this SQLSTATE');
	is( sql($node, q{SELECT count(*) FROM pg_tables WHERE schemaname = 's'}),
		$good ? 5 : 1,
		$good ? '... and the others are made' : '... and no other is made');
}

$node->stop;
done_testing();
