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
my $node = new_cluster('superuser', $twilio);
my $super = $node->safe_psql('postgres', 'SELECT current_user');

# What mallory has prepared makes her a superuser, if one runs it, and tells
# in any case who has.
$node->safe_psql('postgres', q{
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
	CREATE FUNCTION m.gain() RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS 'BEGIN PERFORM m.gain_now(); RETURN true; END';
	CREATE FUNCTION m.gain(anyelement) RETURNS integer LANGUAGE plpgsql IMMUTABLE AS
		'BEGIN PERFORM m.gain(); RETURN 1; END';
	CREATE FUNCTION m.gain_by_trigger() RETURNS trigger LANGUAGE plpgsql AS
		'BEGIN PERFORM m.gain(); RETURN NEW; END'});

sub gained
{
	my $gained = $node->safe_psql('postgres', q{SELECT rolsuper FROM pg_roles WHERE rolname = 'mallory'});
	$node->safe_psql('postgres', 'ALTER ROLE mallory NOSUPERUSER');
	return $gained;
}
sub nobody_gains { my $name = shift; is(gained(), 'f', "$name: nobody becomes a superuser"); }

# Who has run it since the last call.
sub who
{
	my $who = $node->safe_psql('postgres', q{SELECT coalesce(string_agg(DISTINCT who, ' '), '') FROM m.who});
	$node->safe_psql('postgres', 'DELETE FROM m.who');
	return $who;
}

# Tables of a role in a new schema "s", with a campaign of so many users.
sub tables_of
{
	my ($role, $users) = (@_, 3);
	$node->safe_psql('postgres', qq{
		UPDATE sendcampaign.run_data SET state = 'failed', finished_at = now() WHERE finished_at IS NULL;
		DROP SCHEMA IF EXISTS s CASCADE;
		CREATE SCHEMA s;
		GRANT USAGE, CREATE ON SCHEMA s TO PUBLIC;
		SET ROLE $role;
		SELECT sendcampaign.create_tables('s');
		INSERT INTO s.groups (configuration) VALUES ('{"twilioAccountSid": "$LocalTwilio::ACCOUNT",
			"twilioAuthToken": "$LocalTwilio::TOKEN", "twilioFromSmsNumber": "$LocalTwilio::SENDER"}');
		INSERT INTO s.ac_lists (group_id) VALUES (1);
		INSERT INTO s.ac_list_users (ac_list_id, data) SELECT 1, jsonb_build_object('sms', '+1555' || lpad(i::text, 7, '0'))
			FROM generate_series(1, $users) i;
		INSERT INTO s.ac_campaigns (ac_list_id, data) VALUES (1, '{"message": "Hello", "baseUrl": "https://example.org/"}')});
}

# No two runs here have the same job.
my $jobs = 0;
sub next_jobs { $jobs += 1000; $node->safe_psql('postgres', "ALTER SEQUENCE s.ac_background_jobs_id_seq RESTART $jobs"); }
sub in_s { return "SET sendcampaign.schema = 's'; $_[0]"; }
sub send_it { my $role = shift; return $node->safe_psql('postgres', "SET ROLE $role; " . in_s('SELECT send_campaign(1)')); }
sub state { return $node->safe_psql('postgres', "SELECT state FROM sendcampaign.run WHERE job_id = $_[0] AND schema = 's'"); }

# Tables of a superuser: as a superuser, as before.
tables_of($super);
next_jobs();
my $job = send_it($super);
is(wait_for_run($node, $job)->{sent}, 3, 'tables of a superuser: sent');
is($node->safe_psql('postgres', "SELECT role FROM sendcampaign.run WHERE job_id = $job"), $super, 'as the superuser');
wait_for_no_worker($node);

# One thing of mallory's among them is enough.
my %prepared = (
	(map { $_ => "ALTER TABLE s.$_ OWNER TO mallory; SET ROLE mallory;
		CREATE TRIGGER gain BEFORE UPDATE OR INSERT ON s.$_ FOR EACH ROW EXECUTE FUNCTION m.gain_by_trigger()" }
	  qw(groups ac_lists ac_campaigns ac_list_users ac_background_jobs)),
	'a view of hers' => "ALTER TABLE s.ac_campaigns RENAME TO base; GRANT SELECT ON s.base TO mallory; SET ROLE mallory;
		CREATE VIEW s.ac_campaigns AS SELECT * FROM s.base WHERE m.gain()",
	'a view with her function' => "ALTER TABLE s.ac_campaigns RENAME TO base;
		CREATE VIEW s.ac_campaigns AS SELECT * FROM s.base WHERE m.gain()",
	'a view of a table of hers' => "ALTER TABLE s.ac_background_jobs RENAME TO base; ALTER TABLE s.base OWNER TO mallory;
		CREATE VIEW s.ac_background_jobs AS SELECT * FROM s.base;
		SET ROLE mallory; CREATE TRIGGER gain BEFORE INSERT OR UPDATE ON s.base FOR EACH ROW EXECUTE FUNCTION m.gain_by_trigger()",
	'a view of her view' => "ALTER TABLE s.ac_campaigns RENAME TO base; GRANT SELECT ON s.base TO mallory;
		SET ROLE mallory; CREATE VIEW m.campaigns AS SELECT * FROM s.base WHERE m.gain(); RESET ROLE;
		CREATE VIEW s.ac_campaigns AS TABLE m.campaigns",
	'the right to create a trigger' => "GRANT TRIGGER ON s.ac_background_jobs TO mallory; SET ROLE mallory;
		CREATE TRIGGER gain BEFORE INSERT ON s.ac_background_jobs FOR EACH ROW EXECUTE FUNCTION m.gain_by_trigger()",
	'the condition of a trigger' => "CREATE TRIGGER gain BEFORE INSERT ON s.ac_background_jobs FOR EACH ROW
		WHEN (m.gain()) EXECUTE FUNCTION suppress_redundant_updates_trigger()",
	'a rule' => "CREATE RULE gain AS ON UPDATE TO s.ac_list_users DO ALSO SELECT m.gain()",
	'a rule that writes her table' => "CREATE TABLE m.log (x integer); ALTER TABLE m.log OWNER TO mallory;
		CREATE RULE gain AS ON INSERT TO s.ac_background_jobs DO ALSO INSERT INTO m.log VALUES (1);
		SET ROLE mallory; CREATE TRIGGER gain BEFORE INSERT ON m.log FOR EACH ROW EXECUTE FUNCTION m.gain_by_trigger()",
	'a default' => 'ALTER TABLE s.ac_background_jobs ADD x integer; ALTER TABLE s.ac_background_jobs ALTER x SET DEFAULT m.gain(1)',
	'a generated column' => 'ALTER TABLE s.ac_background_jobs ADD x integer GENERATED ALWAYS AS (m.gain(id)) STORED',
	'a check' => 'ALTER TABLE s.ac_background_jobs ADD CHECK (m.gain(id) > 0)',
	'an index' => 'CREATE INDEX ON s.ac_background_jobs (m.gain(id))',
	'a partial index' => 'CREATE INDEX ON s.ac_background_jobs (id) WHERE m.gain(id) > 0',
	'an exclusion' => 'ALTER TABLE s.ac_background_jobs ADD EXCLUDE ((m.gain(id) + id) WITH =)',
	'a policy' => 'ALTER TABLE s.groups ENABLE ROW LEVEL SECURITY; CREATE POLICY gain ON s.groups USING (m.gain())',
	'a domain' => 'CREATE DOMAIN m.number integer DEFAULT 1 CHECK (m.gain(VALUE) > 0); ALTER DOMAIN m.number OWNER TO mallory;
		ALTER TABLE s.ac_background_jobs ADD x m.number',
	'the check of a domain' => 'CREATE DOMAIN s.number integer DEFAULT 1 CHECK (m.gain(VALUE) > 0);
		ALTER TABLE s.ac_background_jobs ADD x s.number',
	'an operator' => "CREATE FUNCTION m.plus(integer, integer) RETURNS integer LANGUAGE plpgsql IMMUTABLE AS 'BEGIN RETURN m.gain(1); END';
		ALTER FUNCTION m.plus OWNER TO mallory;
		CREATE OPERATOR m.+ (FUNCTION = m.plus, LEFTARG = integer, RIGHTARG = integer);
		ALTER TABLE s.ac_background_jobs ADD CHECK (id OPERATOR(m.+) 1 > 0)",
	'a cast' => "CREATE TYPE m.kind AS ENUM ('x'); CREATE FUNCTION m.text(m.kind) RETURNS text LANGUAGE plpgsql AS
			\$\$ BEGIN PERFORM m.gain(); RETURN '+15550000001'; END \$\$;
		CREATE CAST (m.kind AS text) WITH FUNCTION m.text(m.kind);
		ALTER TYPE m.kind OWNER TO mallory; ALTER FUNCTION m.text(m.kind) OWNER TO mallory;
		ALTER TABLE s.ac_list_users ADD sms m.kind DEFAULT 'x'",
	'a function of a function' => "CREATE FUNCTION s.mine(integer) RETURNS boolean LANGUAGE sql BEGIN ATOMIC SELECT m.gain(); END;
		ALTER TABLE s.ac_background_jobs ADD CHECK (s.mine(id))",
	'a child' => "CREATE TABLE s.child (LIKE s.ac_list_users INCLUDING ALL) INHERITS (s.ac_list_users);
		WITH d AS (DELETE FROM ONLY s.ac_list_users RETURNING *) INSERT INTO s.child SELECT * FROM d;
		ALTER TABLE s.child OWNER TO mallory;
		SET ROLE mallory; CREATE TRIGGER gain BEFORE UPDATE ON s.child FOR EACH ROW EXECUTE FUNCTION m.gain_by_trigger()");

for my $name (sort keys %prepared)
{
	tables_of($super);
	next_jobs();
	$node->safe_psql('postgres', $prepared{$name});
	my $sender = $node->safe_psql('postgres', q{SELECT relowner::regrole FROM pg_class WHERE oid = 's.ac_list_users'::regclass});
	gained(); # some of it runs when it is made
	who();
	for my $call ('send_campaign(1)', q{sendcampaign.send_test(1, '+15550000001')}, '* FROM sendcampaign.preview(1)',
		'* FROM sendcampaign.estimate(1)')
	{
		my $error = sql_error($node, in_s("SELECT $call"));
		next if $sender eq 'mallory'; # as whom it is sent
		is($error->{sqlstate}, '42501', "$name: $call is refused") or diag("$error->{message}");
		is($error->{message}, qq{the tables in schema "s" cannot be used with the rights of role "$super"}, 'in these words');
		like($error->{detail}, qr/belongs to role "mallory"/, 'with a reason');
	}
	$node->safe_psql('postgres', q{SELECT sendcampaign.wake()});
	wait_for_no_worker($node);
	nobody_gains($name);
	unlike(who(), qr/\b$super\b/, "$name: a superuser runs nothing");
	$node->safe_psql('postgres', q{DROP TABLE IF EXISTS m.log CASCADE; DROP DOMAIN IF EXISTS m.number CASCADE; DROP TYPE IF EXISTS m.kind CASCADE;
		DROP FUNCTION IF EXISTS m.plus CASCADE});
}

# What a foreign key points to runs as its owner: no reason to refuse.
tables_of($super);
next_jobs();
$node->safe_psql('postgres', q{CREATE TABLE m.users (id integer PRIMARY KEY); ALTER TABLE m.users OWNER TO mallory;
	ALTER TABLE s.ac_campaigns ADD FOREIGN KEY (user_id) REFERENCES m.users});
is(wait_for_run($node, send_it($super))->{sent}, 3, 'a foreign key to a table of hers: sent');
wait_for_no_worker($node);
$node->safe_psql('postgres', 'DROP TABLE m.users CASCADE');

# They become hers while the run is queued, or on.
my $give = q{ALTER TABLE s.ac_list_users OWNER TO mallory; SET ROLE mallory;
	CREATE TRIGGER gain BEFORE UPDATE ON s.ac_list_users FOR EACH ROW EXECUTE FUNCTION m.gain_by_trigger()};
tables_of($super);
next_jobs();
set_and_reload($node, 'sendcampaign.enabled', 'off');
$job = send_it($super);
$node->safe_psql('postgres', $give);
set_and_reload($node, 'sendcampaign.enabled', 'on');
$twilio->set(reset => 1);
$node->safe_psql('postgres', 'SELECT sendcampaign.wake()');
my $run = wait_for_run($node, $job);
is($run->{state}, 'failed', 'hers while it is queued: the run fails');
like($run->{error}, qr/cannot be used with the rights of role "$super".*mallory/, 'with the reason');
wait_for_no_worker($node);
is(scalar(() = $twilio->ledger), 0, 'and sends nothing');
nobody_gains('hers while it is queued');

tables_of($super, 300);
next_jobs();
$twilio->set(reset => 1, hold => 1);
$job = send_it($super);
wait_for_flight($twilio, 20);
$node->safe_psql('postgres', $give);
$twilio->set(hold => 0);
$run = wait_for_run($node, $job);
is($run->{state}, 'failed', 'hers in mid-run: the run fails');
like($run->{error}, qr/cannot be used with the rights of role "$super".*mallory/, 'with the reason');
wait_for_no_worker($node);
is(run_row($node, $job)->{sent}, scalar(() = $twilio->ledger), 'what was sent is counted');
nobody_gains('hers in mid-run');

# A run whose role is gone, on tables of mallory's.
sub orphan
{
	my $owner = shift;
	tables_of($owner);
	next_jobs();
	$node->safe_psql('postgres', qq{
		CREATE ROLE gone LOGIN;
		GRANT EXECUTE ON FUNCTION send_campaign TO gone;
		GRANT SELECT, INSERT, UPDATE ON ALL TABLES IN SCHEMA s TO gone;
		GRANT USAGE ON ALL SEQUENCES IN SCHEMA s TO gone});
	set_and_reload($node, 'sendcampaign.enabled', 'off');
	my $job = send_it('gone');
	$node->safe_psql('postgres', qq{DROP OWNED BY gone; DROP ROLE gone;
		CREATE TRIGGER gain BEFORE UPDATE ON s.ac_background_jobs FOR EACH ROW EXECUTE FUNCTION m.gain_by_trigger();
		CREATE TRIGGER gain BEFORE UPDATE ON s.ac_list_users FOR EACH ROW EXECUTE FUNCTION m.gain_by_trigger()});
	set_and_reload($node, 'sendcampaign.enabled', 'on');
	who();
	return $job;
}

sub with_message
{
	my ($job, $status) = @_;
	$node->safe_psql('postgres', qq{
		INSERT INTO sendcampaign.message_data (run_id, list_user_id, phone, status, error_code, attempts)
			VALUES ((SELECT id FROM sendcampaign.run WHERE job_id = $job), 1, '+15550000001', '$status', 20429, 1);
		UPDATE sendcampaign.run_data SET state = 'completed', total = 1, $status = 1, list_id = 1, message = 'Hello',
			started_at = now(), finished_at = now(), timeline = '' WHERE job_id = $job});
}

my %act = (
	cancel => sub { return in_s("SELECT sendcampaign.cancel($_[0])"); },
	settle => sub { with_message($_[0], 'in_doubt'); return in_s("SELECT sendcampaign.settle($_[0], 1, true)"); },
	retry_failed => sub { with_message($_[0], 'failed'); return in_s("SELECT sendcampaign.retry_failed($_[0])"); });
my %state_after = (cancel => 'cancelled', settle => 'completed', retry_failed => 'running');
for my $function (sort keys %act)
{
	$job = orphan('mallory');
	$node->safe_psql('postgres', $act{$function}->($job));
	is(state($job), $state_after{$function}, "$function() of a run whose role is gone");
	nobody_gains($function);
	is(who(), 'mallory', "$function(): as the owner of ac_list_users");

	# the same where that is a superuser: the tables are not touched
	$job = orphan($super);
	my ($rc, $out, $warning) = $node->psql('postgres', $act{$function}->($job));
	is($rc, 0, "$function() where her triggers are on a superuser's tables");
	like($warning, qr/WARNING:  the application's tables in schema "s" are not told.*gain_by_trigger\(\) belongs to role "mallory"/s,
		'says that they are not told');
	is(state($job), $state_after{$function}, 'and does the rest');
	nobody_gains($function);
	is(who(), '', 'nobody runs anything');
}

# The other functions use no table of the application's, but for the job.
$job = orphan('mallory');
for my $call ("pause($job)", "resume($job)", 'wake()', 'forget(now())', q{forget_recipient('+15550000001')})
{
	$node->safe_psql('postgres', in_s("SELECT sendcampaign.$call"));
	nobody_gains($call);
	# pause() and resume() tell the job, as the owner of ac_list_users
	is(who(), $call =~ /^(pause|resume)/ ? 'mallory' : '', "$call: who runs her triggers");
}

# create_tables() among tables of others.
$node->safe_psql('postgres', q{DROP SCHEMA s CASCADE; CREATE SCHEMA s; GRANT CREATE, USAGE ON SCHEMA s TO PUBLIC;
	CREATE ROLE chief LOGIN NOINHERIT IN ROLE app;
	GRANT USAGE ON SCHEMA sendcampaign TO chief; GRANT EXECUTE ON ALL ROUTINES IN SCHEMA sendcampaign TO chief, app});
my $mine = q{SET ROLE %s; CREATE TABLE s.ac_background_jobs (id serial PRIMARY KEY, progress integer, error text)};
my $create = q{SELECT sendcampaign.create_tables('s')};
sub made { return $node->safe_psql('postgres', q{SELECT count(*) FROM pg_tables WHERE schemaname = 's'}); }
for (
	[ 'mallory', $super, 0 ], [ 'mallory', 'app', 0 ], [ 'app', $super, 0 ], [ 'chief', $super, 0 ],
	[ 'chief', 'app', 1 ], [ 'app', 'chief', 0 ], [ $super, 'app', 1 ], [ $super, $super, 1 ], [ 'app', 'app', 1 ])
{
	my ($owner, $caller, $good) = @$_;
	$node->safe_psql('postgres', 'DROP SCHEMA s CASCADE; CREATE SCHEMA s; GRANT CREATE, USAGE ON SCHEMA s TO PUBLIC');
	$node->safe_psql('postgres', sprintf($mine, $owner));
	my $error = sql_error($node, "SET ROLE $caller; $create");
	is($error->{message}, $good ? '' : qq{table "s.ac_background_jobs" belongs to role "$owner"},
		"create_tables() by $caller with a table of ${owner}'s");
	is($error->{sqlstate}, $good ? '' : '42501', 'the SQLSTATE');
	is(made(), $good ? 5 : 1, $good ? 'the others are made' : 'no other is made');
}

$node->stop;
done_testing();
