# Tables, views, triggers, policies, types and data such as a role can make
# that means no good, at random: a case is some changes to tables that were as
# the extension expects them, and calls of its functions.
#
# Code of such a role calls probe() where it can, which tells the server's log
# of a "canary" when it runs with the rights of somebody else.
package Hostile;

use strict;
use warnings;

use Exporter 'import';
use LocalTwilio;

our @EXPORT = qw(hostile_case probe_sql);

# One of the arguments, at random.
sub any
{
	return $_[ rand @_ ];
}

# True with this probability.
sub chance
{
	my $share = shift;
	return rand() < $share;
}

sub quoted
{
	my $text = shift;
	$text =~ s/'/''/g;
	return "'$text'";
}

# A table of SQL, one alternative per line, as a list.
sub lines_of
{
	my $text = shift;
	return split /\n/, $text;
}

my @tables = qw(groups ac_lists ac_campaigns ac_list_users ac_background_jobs);
my @often_users = (@tables, 'ac_list_users', 'ac_list_users');
my @written = qw(ac_list_users ac_background_jobs);
my %columns = (
	groups => [qw(name configuration)],
	ac_lists => [qw(data user_id group_id)],
	ac_campaigns => [qw(data user_id ac_list_id)],
	ac_list_users => [qw(data user_id ac_list_id)],
	ac_background_jobs => [qw(progress error data)]);

# What a role tries in order to become somebody else.
my @escapes = lines_of(<<~'SQL');
	RESET ROLE
	SET LOCAL ROLE boss
	SET ROLE app
	RESET SESSION AUTHORIZATION
	SET SESSION AUTHORIZATION boss
	SET LOCAL SESSION AUTHORIZATION app
	GRANT boss TO CURRENT_USER
	ALTER ROLE CURRENT_USER SUPERUSER
	RESET ALL
	SET session_replication_role = replica
	CREATE TABLE canary.mine ()
	UPDATE sendcampaign.run SET state = state
	DELETE FROM sendcampaign.claim
	INSERT INTO canary.seen VALUES (1)
	SET sendcampaign.api_url = 'http://127.0.0.1:1'
	COPY canary.seen TO PROGRAM 'true'
	GRANT INSERT ON canary.seen TO PUBLIC
	ALTER FUNCTION sendcampaign.wake() OWNER TO CURRENT_USER
	SQL

# Functions of the schema: probe(), and one for each place that takes a function.
sub probe_sql
{
	my $s = shift;
	my $escape = quoted(any(@escapes));
	return <<~"SQL";
		CREATE FUNCTION $s.probe(place text) RETURNS boolean LANGUAGE plpgsql AS \$\$
		BEGIN
			IF pg_catalog.has_table_privilege(current_user, 'canary.seen', 'INSERT') THEN
				RAISE LOG 'canary: % runs as %, session of %', place, current_user, session_user;
			END IF;
			BEGIN
				EXECUTE $escape;
				IF pg_catalog.has_table_privilege(current_user, 'canary.seen', 'INSERT') THEN
					RAISE LOG 'canary: % gets to be % by %', place, current_user, $escape;
				END IF;
				RAISE EXCEPTION 'back';
			EXCEPTION WHEN OTHERS THEN
			END;
			RETURN true;
		END \$\$;

		CREATE FUNCTION $s.maybe(share double precision) RETURNS boolean LANGUAGE plpgsql AS \$\$
		BEGIN
			RETURN $s.probe('maybe') AND pg_catalog.random() OPERATOR(pg_catalog.<) share;
		END \$\$;

		CREATE FUNCTION $s.same(bigint) RETURNS bigint LANGUAGE plpgsql IMMUTABLE AS \$\$
		BEGIN
			PERFORM $s.probe('index');
			RETURN \$1;
		END \$\$;

		CREATE FUNCTION $s.boom(code text) RETURNS integer LANGUAGE plpgsql AS \$\$
		BEGIN
			PERFORM $s.probe('boom');
			RAISE EXCEPTION 'boom' USING ERRCODE = code;
		END \$\$;

		CREATE FUNCTION $s.deep(n bigint) RETURNS bigint LANGUAGE plpgsql AS \$\$
		BEGIN
			RETURN $s.deep(n + 1);
		END \$\$;

		CREATE FUNCTION $s.fire() RETURNS trigger LANGUAGE plpgsql AS \$\$
		BEGIN
			PERFORM $s.probe(TG_TABLE_NAME || ' ' || TG_NAME);
			CASE TG_ARGV[0]
				WHEN 'null' THEN RETURN NULL;
				WHEN 'old' THEN RETURN OLD;
				WHEN 'id' THEN NEW.id := NEW.id + 1;
				WHEN 'list' THEN NEW.ac_list_id := 0;
				WHEN 'empty' THEN NEW.data := NULL;
				WHEN 'raise' THEN
					RAISE EXCEPTION 'raised by a trigger' USING ERRCODE = TG_ARGV[1];
				WHEN 'sql' THEN EXECUTE TG_ARGV[1];
				WHEN 'now and then' THEN
					IF pg_catalog.random() < 0.2 THEN
						EXECUTE TG_ARGV[1];
					END IF;
				ELSE NULL;
			END CASE;
			RETURN NEW;
		END \$\$;
		SQL
}

# Statements that a trigger runs in the middle of the worker's or a caller's
# own.
sub statements
{
	my $s = shift;
	return lines_of(<<~"SQL");
		SELECT pg_advisory_unlock_all()
		SELECT pg_advisory_lock(1)
		SET search_path = $s
		SET search_path = ''
		SET search_path = $s, pg_catalog
		SET statement_timeout = 20
		SET lock_timeout = 1
		SET work_mem = 64
		SET default_transaction_read_only = on
		SET transaction_read_only = on
		SET default_transaction_isolation = serializable
		SET row_security = off
		SET "TimeZone" = 'Pacific/Kiritimati'
		SET "DateStyle" = 'SQL, DMY'
		SET IntervalStyle = iso_8601
		SET client_encoding = latin1
		SET synchronous_commit = off
		SET sendcampaign.schema = 'nowhere'
		SET exit_on_error = on
		SET client_min_messages = debug1
		SET enable_indexscan = off
		SET plan_cache_mode = force_custom_plan
		SET bytea_output = escape
		SET standard_conforming_strings = off
		SET array_nulls = off
		SET extra_float_digits = -15
		SET sendcampaign.max_concurrency = 1
		SET sendcampaign.request_timeout = 1
		SET sendcampaign.failure_threshold = 0
		SET sendcampaign.failure_scale_factor = 0
		SET idle_in_transaction_session_timeout = 1
		SET constraints all deferred
		RESET ALL
		CLOSE ALL
		DEALLOCATE ALL
		DROP TABLE $s.ac_lists
		DROP TABLE $s.ac_background_jobs CASCADE
		ALTER TABLE $s.groups RENAME TO gone
		DROP TABLE $s.ac_list_users CASCADE
		ALTER TABLE $s.ac_campaigns DROP data
		ALTER TABLE $s.ac_background_jobs ADD x integer
		DELETE FROM $s.ac_campaigns
		DELETE FROM $s.ac_list_users WHERE random() < 0.1
		DELETE FROM $s.ac_background_jobs
		UPDATE $s.groups SET configuration = NULL
		UPDATE $s.ac_list_users SET ac_list_id = 0 WHERE random() < 0.1
		UPDATE $s.ac_list_users SET id = -id WHERE random() < 0.05
		TRUNCATE $s.groups
		INSERT INTO $s.ac_list_users SELECT * FROM $s.ac_list_users LIMIT 1
		LOCK TABLE $s.ac_background_jobs IN ACCESS EXCLUSIVE MODE
		LOCK TABLE $s.ac_list_users
		SELECT pg_notify('sendcampaign', repeat('x', 7000)) FROM generate_series(1, 200)
		SELECT pg_notify('other', i::text) FROM generate_series(1, 1000) i
		LISTEN sendcampaign
		SELECT pg_sleep(0.02)
		SELECT pg_sleep(2)
		SELECT send_campaign(id) FROM $s.ac_campaigns
		SELECT sendcampaign.wake()
		SELECT sendcampaign.cancel(job_id) FROM sendcampaign.run
		SELECT sendcampaign.pause(job_id) FROM sendcampaign.run
		SELECT sendcampaign.forget(now())
		CREATE TEMP TABLE run (job_id bigint)
		CREATE TEMP TABLE IF NOT EXISTS ac_list_users (id bigint)
		SELECT lo_create(0)
		SELECT 1/0
		SELECT 'x'::integer
		SELECT $s.deep(1)
		SELECT length(repeat('x', 200000000))
		DECLARE c CURSOR WITH HOLD FOR SELECT 1
		SELECT setseed(0.5)
		SELECT pg_cancel_backend(pg_backend_pid())
		COMMIT
		PREPARE TRANSACTION 'x'
		DISCARD TEMP
		UNLISTEN *
		SQL
}

my @suicides = (
	'SELECT pg_terminate_backend(pg_backend_pid())',
	q{SELECT pg_terminate_backend(pid) FROM pg_stat_activity}
	  . q{ WHERE usename = current_user AND backend_type LIKE 'sendcampaign%'});
my @codes = qw(P0001 22012 23505 23514 40001 40P01 55P03 57014 57P01 53100 53200 53300 53400
  42501 42P01 25006 0A000 08006 58030 72000 XX000 XX001 2D000);

# Now and then one that ends the process itself
sub statement
{
	my $case = shift;
	return chance(0.93) ? any(statements($case->{schema})) : any(@suicides);
}

# The arguments of a trigger that calls fire().
sub trigger_arguments
{
	my $case = shift;
	my $kind =
	  any('null', 'old', 'id', 'list', 'empty', 'raise', ('sql') x 3, ('now and then') x 2);
	my $runs_sql = $kind =~ /sql|then/;
	my $arguments = quoted($kind);

	$case->{wild} = 1 if $runs_sql || $kind =~ /id|list/;
	$arguments .= ', ' . quoted(any(@codes)) if $kind eq 'raise';
	$arguments .= ', ' . quoted(statement($case)) if $runs_sql;
	return $arguments;
}

# A name for a trigger that no other has.
sub new_name
{
	my $case = shift;
	$case->{names}++;
	return "t$case->{names}";
}

# Puts another object in the place of a table, which is base_... from then on.
sub rename_sql
{
	my ($s, $t) = @_;
	return "ALTER TABLE $s.$t RENAME TO base_$t;\n";
}

# Each gives SQL; s is the schema, t one of the five tables.
my %change;

$change{trigger} = sub {
	my ($case, $s) = @_;
	my $t = chance(0.9) ? any(@written) : any(@tables);
	my $name = new_name($case);
	my $when =
	  any('BEFORE UPDATE', 'AFTER UPDATE', 'BEFORE INSERT OR UPDATE', 'AFTER INSERT OR UPDATE');
	my $each = any('ROW', 'ROW', 'STATEMENT');
	my $arguments = trigger_arguments($case);
	return <<~"SQL";
		CREATE TRIGGER $name $when ON $s.$t
			FOR EACH $each EXECUTE FUNCTION $s.fire($arguments);
		SQL
};

$change{deferred_trigger} = sub {
	my ($case, $s) = @_;
	my $t = any(@written);
	my $name = new_name($case);
	my $arguments = trigger_arguments($case);
	return <<~"SQL";
		CREATE CONSTRAINT TRIGGER $name AFTER INSERT OR UPDATE ON $s.$t
			DEFERRABLE INITIALLY DEFERRED
			FOR EACH ROW EXECUTE FUNCTION $s.fire($arguments);
		SQL
};

$change{view} = sub {
	my ($case, $s) = @_;
	my $t = any(@often_users);
	my $rest = $t eq 'groups' ? 't.configuration' : join ', ', map { "t.$_" } @{ $columns{$t} };
	my $from = "FROM $s.base_$t t";
	my %view = (
		plain => "SELECT t.* $from",
		probing => "SELECT t.* $from WHERE $s.probe('view')",
		some => "SELECT t.* $from WHERE $s.maybe(0.9)",
		twice => "SELECT t.* $from, generate_series(1, 2)",
		'all twice' => "SELECT * $from UNION ALL SELECT * $from",
		'random ids' => "SELECT (random() * 100)::bigint AS id, $rest $from",
		'one id' => "SELECT 7::bigint AS id, $rest $from",
		'null ids' => "SELECT nullif(t.id, t.id % 3 + 1) AS id, $rest $from",
		many => "SELECT (t.id - t.id % 1000 + i)::bigint AS id, $rest $from,"
		  . ' generate_series(1, 700) i',
		shuffled => "SELECT t.* $from ORDER BY random()",
		few => "SELECT t.* $from ORDER BY random() LIMIT 3",
		failing => "SELECT t.* $from WHERE 1 / (t.id % 5) >= 0",
		'failing at times' => "SELECT t.* $from WHERE random() < 0.97 OR $s.boom('40001') = 1",
		empty => "SELECT t.* $from WHERE false");
	my $kind = any(sort keys %view);
	my $options = any('', '', ' WITH (security_barrier)', ' WITH (security_invoker)');
	my $name = new_name($case);
	my $sql = rename_sql($s, $t) . "CREATE VIEW $s.$t$options AS $view{$kind};\n";

	$case->{wild} = 1;
	push @{ $case->{what} }, "$t: $kind";
	if (chance(0.5))
	{
		my $arguments = trigger_arguments($case);
		$sql .= <<~"SQL";
			CREATE TRIGGER $name INSTEAD OF UPDATE ON $s.$t
				FOR EACH ROW EXECUTE FUNCTION $s.fire($arguments);
			SQL
	}
	return $sql;
};

$change{child} = sub {
	my ($case, $s) = @_;
	my $t = any(@often_users);
	my $which = any('', 'LIMIT 1', 'WHERE id % 2 = 0');
	$case->{wild} = 1;
	return <<~"SQL";
		CREATE TABLE $s.child_$t () INHERITS ($s.$t);
		INSERT INTO $s.child_$t SELECT * FROM ONLY $s.$t $which;
		SQL
};

$change{partitions} = sub {
	my ($case, $s) = @_;
	$case->{wild} = 1;
	return rename_sql($s, 'ac_list_users') . <<~"SQL";
		CREATE TABLE $s.ac_list_users (
			LIKE $s.base_ac_list_users INCLUDING DEFAULTS,
			PRIMARY KEY (ac_list_id, id)
		) PARTITION BY LIST (ac_list_id);
		CREATE TABLE $s.part1 PARTITION OF $s.ac_list_users DEFAULT;
		CREATE TABLE $s.part2 PARTITION OF $s.ac_list_users FOR VALUES IN (0);
		INSERT INTO $s.ac_list_users SELECT * FROM $s.base_ac_list_users;
		INSERT INTO $s.ac_list_users (id, data, ac_list_id)
		SELECT id, data, 0 FROM $s.base_ac_list_users;
		SQL
};

$change{doubled_rows} = sub {
	my ($case, $s) = @_;
	my $t = any(@often_users);
	my $which = any('', 'LIMIT 2');
	$case->{wild} = 1;
	return <<~"SQL";
		ALTER TABLE $s.$t DROP CONSTRAINT ${t}_pkey CASCADE;
		INSERT INTO $s.$t SELECT * FROM $s.$t $which;
		SQL
};

$change{policy} = sub {
	my ($case, $s) = @_;
	my $t = any(@tables);
	my $using = any(lines_of(<<~"SQL"));
		$s.maybe(0.8)
		random() < 0.7
		current_setting('app.tenant')::integer = id
		$s.probe('policy')
		false
		$s.boom('42501') = 1
		id % 2 = 0
		current_setting('app.tenant', true) IS NULL
		SQL
	my $for = any('ALL', 'SELECT', 'UPDATE', 'INSERT');
	my $other = $for eq 'ALL' || chance(0.3) ? '' : "CREATE POLICY q ON $s.$t USING (true);";
	my $restrictive = any('', 'AS RESTRICTIVE ');
	my $clause = $for eq 'INSERT' ? 'WITH CHECK' : 'USING';
	$case->{wild} = 1;
	return <<~"SQL";
		ALTER TABLE $s.$t ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
		$other
		CREATE POLICY p ON $s.$t ${restrictive}FOR $for $clause ($using);
		SQL
};

$change{rule} = sub {
	my ($case, $s) = @_;
	my $t = any(@written);
	$case->{wild} = 1;
	return any(lines_of(<<~"SQL"));
		CREATE RULE r AS ON UPDATE TO $s.$t DO INSTEAD NOTHING;
		CREATE RULE r AS ON UPDATE TO $s.$t DO ALSO NOTIFY rule;
		CREATE RULE r AS ON UPDATE TO $s.$t DO ALSO SELECT $s.probe('rule');
		CREATE RULE r AS ON UPDATE TO $s.$t DO INSTEAD UPDATE $s.$t SET id = NEW.id WHERE false;
		CREATE RULE r AS ON UPDATE TO $s.$t DO ALSO DELETE FROM $s.ac_lists;
		CREATE RULE r AS ON INSERT TO $s.$t DO INSTEAD NOTHING;
		CREATE RULE r AS ON INSERT TO $s.$t DO INSTEAD SELECT 1::bigint;
		SQL
};

$change{id_type} = sub {
	my ($case, $s) = @_;
	my $t = any(@tables);
	my $type = any(
		'numeric', 'text', 'smallint', 'double precision',
		'name', 'varchar(3)', "$s.small", 'bigint',
		"$s.probed", 'char(12)');
	return <<~"SQL";
		CREATE DOMAIN $s.small AS integer CHECK (VALUE < 100000);
		CREATE DOMAIN $s.probed AS bigint CHECK ($s.probe('domain'));
		ALTER TABLE $s.$t ALTER id DROP DEFAULT, ALTER id TYPE $type USING id::$type;
		SQL
};

$change{column_type} = sub {
	my ($case, $s) = @_;
	my $t = any(@tables);
	my $column = any(@{ $columns{$t} });
	my $type = any(
		'text', 'json', 'jsonb', 'varchar(20)', 'char(5)', 'name',
		'bytea', 'text[]', 'xml', 'numeric', 'boolean', "$s.mood",
		"$s.pair", "$s.short", "$s.checked", 'date', 'integer[]', 'tsvector',
		'money');
	my $value = any("$column\::$type", "$column\::text::$type", 'NULL');
	return <<~"SQL";
		CREATE TYPE $s.mood AS ENUM ('sad');
		CREATE TYPE $s.pair AS (a integer, b text);
		CREATE DOMAIN $s.short AS varchar(12);
		CREATE DOMAIN $s.checked AS jsonb
			CHECK ($s.probe('domain') AND VALUE IS DISTINCT FROM '{}');
		ALTER TABLE $s.$t ALTER $column DROP DEFAULT, ALTER $column TYPE $type USING $value;
		SQL
};

# A column that takes the place of a value in data, or of one of the table's own.
$change{own_column} = sub {
	my ($case, $s) = @_;
	my ($t, $column) = split / /, any(lines_of(<<~'SQL'));
		ac_list_users sms
		ac_list_users "sentCount"
		ac_list_users sent_count
		ac_list_users "timeZone"
		ac_list_users name
		ac_campaigns message
		ac_campaigns "baseUrl"
		ac_campaigns send_until
		groups private_access_configuration
		groups deleted
		ac_background_jobs updated_at
		SQL
	my $type = any(lines_of(<<~"SQL"));
		text
		integer
		jsonb
		json
		smallint DEFAULT 32767
		boolean
		text[]
		bigint DEFAULT 9223372036854775807
		integer GENERATED ALWAYS AS (1) STORED
		text GENERATED ALWAYS AS ('x') STORED
		integer CHECK ($s.probe('check'))
		xml
		point
		numeric DEFAULT 'NaN'
		text DEFAULT repeat('+', 100000)
		timestamptz DEFAULT 'infinity'
		integer GENERATED ALWAYS AS IDENTITY
		text DEFAULT '+16000000001'
		jsonb DEFAULT '[1, {"a": null}]'
		SQL
	return <<~"SQL";
		ALTER TABLE $s.$t DROP IF EXISTS $column;
		ALTER TABLE $s.$t ADD $column $type;
		SQL
};

$change{data} = sub {
	my ($case, $s) = @_;
	my $data = any(lines_of(<<~'SQL'));
		'null'
		'[]'
		'"x"'
		'1'
		NULL
		'{}'
		data || '{"sentCount": "x"}'
		data || '{"sentCount": {"a": 1}}'
		data || '{"sentCount": 1e400}'
		data || '{"sentCount": -0.5}'
		data || '{"sms": 16000000001}'
		data || '{"sms": ["+16000000001"]}'
		data || '{"sms": "+16000000001"}'
		data || '{"sms": ""}'
		data || jsonb_build_object('sms', repeat('+1', 500000))
		data || jsonb_build_object('sms', chr(8206) || (data->>'sms'))
		data || '{"timeZone": "../../etc/passwd"}'
		data || '{"timeZone": "Europe/Oslo"}'
		data || '{"name": "{{link}} {{name}}"}'
		jsonb_build_object('data', data)
		data || '{"sms": "+\u0661\u0666"}'
		SQL
	my $which = any('', 'WHERE id % 2 = 0', 'WHERE random() < 0.3');
	return "UPDATE $s.ac_list_users SET data = $data $which;\n";
};

$change{ids} = sub {
	my ($case, $s) = @_;
	my $id = any(lines_of(<<~'SQL'));
		-id
		id - id % 1000
		id + 9007199254740992
		9223372036854775807 - id % 1000
		-9223372036854775808 + id % 1000
		NULL
		0
		SQL
	my $t = any(@often_users);
	my $which = any('', 'WHERE id % 2 = 0');
	my $without_key = '';
	$without_key = <<~"SQL" if $id =~ /NULL|^0|id - id/;
		ALTER TABLE $s.$t DROP CONSTRAINT ${t}_pkey CASCADE;
		ALTER TABLE $s.$t ALTER id DROP NOT NULL;
		SQL
	$case->{wild} = 1;
	return $without_key . <<~"SQL";
		ALTER TABLE $s.$t ALTER id TYPE bigint;
		UPDATE $s.$t SET id = $id $which;
		SQL
};

$change{configuration} = sub {
	my ($case, $s) = @_;
	my @values = lines_of(<<~'SQL');
		configuration || '{"twilioSegmentsPerSecond": 1e300}'
		configuration || '{"twilioSegmentsPerSecond": "50"}'
		configuration || '{"quietHours": {"from": "00:00", "to": "23:59:59"}}'
		configuration || '{"quietHours": {"from": [], "to": {}}}'
		configuration || '{"quietHours": {"from": "21:00"}}'
		configuration || '{"timeZone": "UTC+99"}'
		configuration || '{"timeZone": "posixrules"}'
		configuration || '{"twilioAccountSid": "../../x?y#z"}'
		configuration || '{"twilioAccountSid": "AC00000000000000000000000000000001\r\nX: y"}'
		configuration || '{"twilioSegmentsPerSecond": -1}'
		'null'
		'[]'
		'[{"twilioAccountSid": "x"}]'
		'"x"'
		1
		NULL
		configuration || jsonb_build_object('twilioAuthToken', repeat('x', 300000))
		SQL
	push @values, <<~'SQL';
		configuration
			|| '{"twilioFromSmsNumber": [null, {}, [], 1, "", "+15005550006", "+15005550006"]}'
		SQL
	push @values, <<~'SQL';
		configuration || jsonb_build_object('twilioFromSmsNumber',
			(SELECT jsonb_agg('+1500555' || i) FROM generate_series(1000, 3000) i))
		SQL
	for my $key (
		qw(twilioAccountSid twilioAuthToken twilioFromSmsNumber twilioMessagingServiceSid
		twilioSegmentsPerSecond quietHours timeZone))
	{
		for my $value ('null', '""', '[]', '{}', '0', 'true', '" "', '"\u00e9\u2028"')
		{
			push @values, qq{configuration || '{"$key": $value}'};
		}
	}
	my $value = any(@values);
	return "UPDATE $s.groups SET configuration = $value;\n";
};

$change{campaign} = sub {
	my ($case, $s) = @_;
	my @values = lines_of(<<~'SQL');
		data || '{"message": ""}'
		data || '{"message": null}'
		data || '{"message": []}'
		data || '{"message": 5}'
		data || '{"message": "{{name}"}'
		data || '{"message": "{{sms}} {{link}}1"}'
		data || '{"message": "{{data}}{{a|}}{{link|}}"}'
		data || '{"message": "\u0001\ud83d\ude1c\u202e"}'
		data || '{"baseUrl": ""}'
		data || '{"baseUrl": "x#y?z"}'
		data || '{"baseUrl": "\n"}'
		data || '{"baseUrl": {}}'
		data || '{"sendUntil": "infinity"}'
		data || '{"sendUntil": "-infinity"}'
		data || '{"sendUntil": "now"}'
		data || '{"sendUntil": "tomorrow"}'
		data || '{"sendUntil": "x"}'
		data || '{"sendUntil": "294276-12-31 23:59:59 UTC"}'
		data || '{"sendUntil": "4713-01-01 BC"}'
		data || '{"sendUntil": 5}'
		data || jsonb_build_object('message', repeat('{{a}}', 3000))
		data || jsonb_build_object('message', repeat('x', 3000000))
		NULL
		'[]'
		'"x"'
		data || jsonb_build_object('baseUrl', repeat('y', 70000))
		SQL
	push @values, <<~'SQL';
		data || jsonb_build_object('message',
			(SELECT string_agg('{{k' || i || '|d}}', '') FROM generate_series(1, 500) i))
		SQL
	my $value = any(@values);
	return "UPDATE $s.ac_campaigns SET data = $value;\n";
};

$change{constraint} = sub {
	my ($case, $s) = @_;
	my ($t, $check) = split /: /, any(lines_of(<<~"SQL"));
		ac_background_jobs: progress < 100
		ac_background_jobs: progress <= 50
		ac_background_jobs: error IS NULL
		ac_background_jobs: NOT data ? 'sent'
		ac_list_users: NOT coalesce(data ? 'sentCount', false)
		ac_list_users: NOT coalesce(data ? 'sentCount' AND id % 3 = 0, false)
		ac_list_users: $s.probe('check')
		ac_background_jobs: $s.probe('check')
		SQL
	return "ALTER TABLE $s.$t ADD CHECK ($check);\n";
};

$change{index} = sub {
	my ($case, $s) = @_;
	my $t = any(@written);
	my @keys =
	  $t eq 'ac_list_users'
	  ? ("(data->>'sentCount')", 'updated_at')
	  : ('progress', 'error', 'updated_at');
	my $key = any(@keys);
	return any(lines_of(<<~"SQL"));
		CREATE INDEX ON $s.$t ($s.same(id));
		CREATE UNIQUE INDEX ON $s.$t ($key);
		CREATE INDEX ON $s.$t (id) WHERE $s.same(id) > 0;
		CREATE INDEX ON $s.$t (($s.same(id) / (id % 7 - 3)));
		SQL
};

$change{default} = sub {
	my ($case, $s) = @_;
	my $t = "$s.ac_background_jobs";
	my $column = any('progress', 'error', 'data', 'id', 'created_at');
	my $code = any(@codes);
	return any(lines_of(<<~"SQL"));
		ALTER TABLE $t ALTER id SET DEFAULT $s.boom('$code');
		ALTER TABLE $t ALTER $column DROP DEFAULT;
		ALTER TABLE $t ALTER $column SET NOT NULL;
		ALTER TABLE $t ADD x integer; ALTER TABLE $t ALTER x SET DEFAULT $s.boom('P0001');
		ALTER TABLE $t ADD x text NOT NULL DEFAULT 'y'; ALTER TABLE $t ALTER x DROP DEFAULT;
		ALTER TABLE $t ALTER id SET DEFAULT 5;
		ALTER SEQUENCE ${t}_id_seq RESTART -3 MINVALUE -100;
		SQL
};

$change{dropped} = sub {
	my ($case, $s) = @_;
	my $t = any(@tables);
	my $column = any('id', 'created_at', 'updated_at', @{ $columns{$t} });
	my $drop_column = "ALTER TABLE $s.$t DROP $column CASCADE;\n";
	return any(
		$drop_column, $drop_column,
		"DROP TABLE $s.$t CASCADE;\n",
		"ALTER TABLE $s.$t RENAME $column TO other;\n");
};

$change{rights} = sub {
	my ($case, $s, $role) = @_;
	my $t = any(@tables);
	my $column = any('id', @{ $columns{$t} });
	my $right = any('SELECT', 'UPDATE', 'INSERT');
	my $revoke = "REVOKE $right ON $s.$t FROM $role;";
	return any(lines_of(<<~"SQL"));
		$revoke
		$revoke GRANT $right ($column) ON $s.$t TO $role;
		REVOKE ALL ON $s.$t FROM $role;
		REVOKE USAGE ON SEQUENCE $s.${t}_id_seq FROM $role;
		REVOKE EXECUTE ON FUNCTION $s.probe(text) FROM PUBLIC, $role;
		SQL
};

$change{foreign_keys} = sub {
	my ($case, $s) = @_;
	return <<~"SQL";
		ALTER TABLE $s.ac_list_users ADD FOREIGN KEY (ac_list_id) REFERENCES $s.ac_lists
			ON UPDATE CASCADE ON DELETE CASCADE DEFERRABLE INITIALLY DEFERRED;
		ALTER TABLE $s.ac_campaigns ADD FOREIGN KEY (ac_list_id) REFERENCES $s.ac_lists
			ON DELETE SET NULL DEFERRABLE;
		ALTER TABLE $s.ac_lists ADD FOREIGN KEY (group_id) REFERENCES $s.groups
			ON DELETE CASCADE;
		SQL
};

# In a schema where everybody may create; dropped with the case.
$change{operator} = sub {
	my ($case, $s) = @_;
	my ($name, $left, $right, $result) = split / /, any(lines_of(<<~'SQL'));
		+ numeric integer numeric
		->> jsonb jsonb text
		->> jsonb varchar text
		= bigint numeric boolean
		= integer numeric boolean
		= varchar text boolean
		|| jsonb json jsonb
		-> jsonb varchar jsonb
		~ varchar text boolean
		< integer numeric boolean
		= integer bigint[] boolean
		SQL
	my $role = $case->{role};
	my $where = any($s, 'public', 'public');
	my $path = $where eq $s ? "ALTER ROLE $role SET search_path = $s, pg_catalog;" : '';
	$case->{drop} .= <<~"SQL";
		DROP OPERATOR IF EXISTS public.$name ($left, $right);
		ALTER ROLE $role RESET search_path;
		SQL
	return <<~"SQL";
		$path
		GRANT USAGE ON SCHEMA $s TO PUBLIC;
		CREATE FUNCTION $s.op($left, $right) RETURNS $result LANGUAGE plpgsql AS \$\$
		BEGIN
			PERFORM $s.probe('operator');
			RETURN NULL;
		END \$\$;
		CREATE OPERATOR $where.$name (LEFTARG = $left, RIGHTARG = $right, FUNCTION = $s.op);
		SQL
};

$change{function} = sub {
	my ($case, $s) = @_;
	my ($function, $result) = split / returns /, any(lines_of(<<~'SQL'));
		coalesce_(text) returns text
		jsonb_typeof(json) returns text
		unnest(bigint[]) returns bigint
		now() returns timestamptz
		int8(text) returns bigint
		jsonb_build_object(text, integer) returns jsonb
		text(integer) returns text
		bar(double precision, integer) returns text
		SQL
	$case->{drop} .= "DROP FUNCTION IF EXISTS public.$function;\n";
	return <<~"SQL";
		GRANT USAGE ON SCHEMA $s TO PUBLIC;
		CREATE FUNCTION public.$function RETURNS $result LANGUAGE plpgsql AS \$\$
		BEGIN
			PERFORM $s.probe('function');
			RETURN NULL;
		END \$\$;
		SQL
};

# What a run's role, and in part a superuser, does while it runs.
sub calls
{
	my $campaign = shift;
	my $runs = "FROM sendcampaign.run WHERE campaign_id = $campaign";
	my @calls = lines_of(<<~"SQL");
		sendcampaign.preview($campaign)
		sendcampaign.preview($campaign, 1000)
		sendcampaign.estimate($campaign, 0.01)
		sendcampaign.estimate($campaign, NULL, 'SELECT 1')
		sendcampaign.send_test($campaign, '+19990000001')
		sendcampaign.pause(job_id) $runs
		sendcampaign.resume(job_id) $runs
		sendcampaign.cancel(job_id) $runs
		sendcampaign.retry_failed(job_id) $runs
		send_campaign(campaign_id, job_id) $runs
		sendcampaign.wake()
		sendcampaign.opt_out('+16000000001')
		sendcampaign.opt_in('+16000000001')
		sendcampaign.create_list($campaign)
		sendcampaign.create_campaign($campaign, 'made')
		sendcampaign.add_list_users($campaign, ARRAY['+1601' || (1000000 + random() * 8999999)::integer])
		sendcampaign.send_message($campaign, 'made', ARRAY['+1602' || (1000000 + random() * 8999999)::integer])
		sendcampaign.track(list_user_id, $campaign, 'open') FROM sendcampaign.message
		sendcampaign.track(list_user_id, $campaign, 'complete', 'x') FROM sendcampaign.message
		SQL
	push @calls, <<~'SQL';
		sendcampaign.settle(job_id, list_user_id, random() < 0.5)
			FROM sendcampaign.message WHERE status = 'in_doubt'
		SQL
	push @calls,
	  map { "sendcampaign.receive(NULL, 'x', 'AccountSid=$LocalTwilio::ACCOUNT&$_')" }
	  'MessageSid=SM1&MessageStatus=delivered',
	  'MessageSid=SM1&From=%2B16000000001&To=1&Body=STOP';
	return map { "SELECT count(*) FROM (SELECT $_) t;\n" } @calls;
}

# SQL that makes the tables of a case, as the extension expects them.
sub tables_sql
{
	my ($case, $first, $users, $first_job) = @_;
	my $s = $case->{schema};
	my $probe = probe_sql($s);
	return <<~"SQL";
		CREATE SCHEMA $s;
		SET client_min_messages = error;
		SELECT sendcampaign.create_tables('$s');
		$probe
		ALTER SEQUENCE $s.ac_background_jobs_id_seq RESTART $first_job;
		INSERT INTO $s.groups (id, configuration)
		VALUES ($first, jsonb_build_object(
			'twilioAccountSid', '$LocalTwilio::ACCOUNT',
			'twilioAuthToken', '$LocalTwilio::TOKEN',
			'twilioFromSmsNumber', '$LocalTwilio::SENDER'));
		INSERT INTO $s.ac_lists (id, group_id) VALUES ($first, $first);
		INSERT INTO $s.ac_campaigns (id, ac_list_id, data)
		VALUES ($case->{campaign}, $first,
			'{"message": "Hello {{name|friend}}", "baseUrl": "https://example.org/s"}');
		INSERT INTO $s.ac_list_users (id, ac_list_id, data)
		SELECT $first + i, $first,
			jsonb_build_object('sms', '+16$case->{digits}' || lpad(i::text, 3, '0'))
		FROM generate_series(1, $users) i;
		SQL
}

# A case: its changes, and the SQL of its steps.  "wild" is one that may name
# other recipients or phones at each look, so that a phone twice proves nothing.
sub hostile_case
{
	my ($number, $role) = @_;
	my $schema = "h$number";
	my $first = $number * 1000;
	my $campaign = 1_000_000 + $number;
	my %case = (
		number => $number,
		role => $role,
		schema => $schema,
		campaign => $campaign,
		what => [],
		drop => '',
		names => 0,
		wild => 0,
		digits => sprintf('%06d', $number));
	my $users = any(1, 3, 20, 20, 60, 300);
	my $first_job = any(1, $first);
	my $changes = '';

	$case{set} = "SET sendcampaign.schema = '$schema';";
	$case{make} = tables_sql(\%case, $first, $users, $first_job);
	for (1 .. any(1, 1, 2, 2, 3, 4))
	{
		my $name = any(sort keys %change);
		push @{ $case{what} }, $name;
		$changes .= $change{$name}->(\%case, $schema, $role) . "\n";
	}
	$case{make} .= $changes;
	$case{text} = $changes =~ s/\s+/ /gr;

	my @calls = calls($campaign);
	my $send = "SELECT send_campaign(${campaign}::bigint);";
	$case{before} = chance(0.3) ? any(@calls[ 0 .. 3 ]) : '';
	$case{send} = any($send, "BEGIN; $send COMMIT;");
	$case{during} = chance(0.5) ? join '', map { any(@calls) } 1 .. any(1, 2, 4) : '';
	$case{boss} = chance(0.3) ? join '', map { any(@calls) } 1, 2 : '';
	return \%case;
}

1;
