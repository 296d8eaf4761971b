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

sub any { return $_[ rand @_ ]; }
sub chance { return rand() < $_[0]; }
sub quoted { my $s = shift; $s =~ s/'/''/g; return "'$s'"; }

my @tables = qw(groups ac_lists ac_campaigns ac_list_users ac_background_jobs);
my @written = qw(ac_list_users ac_background_jobs);
my %columns = (
	groups => [qw(name configuration)],
	ac_lists => [qw(data user_id group_id)],
	ac_campaigns => [qw(data user_id ac_list_id)],
	ac_list_users => [qw(data user_id ac_list_id)],
	ac_background_jobs => [qw(progress error data)]);

# What a role tries in order to become somebody else.
my @escapes = (
	'RESET ROLE', 'SET LOCAL ROLE boss', 'SET ROLE app', 'RESET SESSION AUTHORIZATION',
	'SET SESSION AUTHORIZATION boss', 'SET LOCAL SESSION AUTHORIZATION app', 'GRANT boss TO CURRENT_USER',
	'ALTER ROLE CURRENT_USER SUPERUSER', 'RESET ALL', 'SET session_replication_role = replica',
	'CREATE TABLE canary.mine ()', 'UPDATE sendcampaign.run SET state = state',
	'DELETE FROM sendcampaign.claim', 'INSERT INTO canary.seen VALUES (1)',
	q{SET sendcampaign.api_url = 'http://127.0.0.1:1'}, q{COPY canary.seen TO PROGRAM 'true'},
	'GRANT INSERT ON canary.seen TO PUBLIC', 'ALTER FUNCTION sendcampaign.wake() OWNER TO CURRENT_USER');

# Functions of the schema: probe(), and one for each place that takes a function.
sub probe_sql
{
	my $s = shift;
	my $escape = quoted(any(@escapes));
	return qq{
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
CREATE FUNCTION $s.maybe(share double precision) RETURNS boolean LANGUAGE plpgsql AS
	'BEGIN RETURN $s.probe(''maybe'') AND pg_catalog.random() OPERATOR(pg_catalog.<) share; END';
CREATE FUNCTION $s.same(bigint) RETURNS bigint LANGUAGE plpgsql IMMUTABLE AS
	'BEGIN PERFORM $s.probe(''index''); RETURN \$1; END';
CREATE FUNCTION $s.boom(code text) RETURNS integer LANGUAGE plpgsql AS
	'BEGIN PERFORM $s.probe(''boom''); RAISE EXCEPTION ''boom'' USING ERRCODE = code; END';
CREATE FUNCTION $s.deep(n bigint) RETURNS bigint LANGUAGE plpgsql AS 'BEGIN RETURN $s.deep(n + 1); END';
CREATE FUNCTION $s.fire() RETURNS trigger LANGUAGE plpgsql AS \$\$
BEGIN
	PERFORM $s.probe(TG_TABLE_NAME || ' ' || TG_NAME);
	CASE TG_ARGV[0]
		WHEN 'null' THEN RETURN NULL;
		WHEN 'old' THEN RETURN OLD;
		WHEN 'id' THEN NEW.id := NEW.id + 1;
		WHEN 'list' THEN NEW.ac_list_id := 0;
		WHEN 'empty' THEN NEW.data := NULL;
		WHEN 'raise' THEN RAISE EXCEPTION 'raised by a trigger' USING ERRCODE = TG_ARGV[1];
		WHEN 'sql' THEN EXECUTE TG_ARGV[1];
		WHEN 'now and then' THEN IF pg_catalog.random() < 0.2 THEN EXECUTE TG_ARGV[1]; END IF;
		ELSE NULL;
	END CASE;
	RETURN NEW;
END \$\$;
};
}

# Statements that a trigger runs in the middle of the worker's or a caller's
# own.
sub statements
{
	my $s = shift;
	return (
		'SELECT pg_advisory_unlock_all()', 'SELECT pg_advisory_lock(1)', "SET search_path = $s", 'SET search_path = \'\'',
		"SET search_path = $s, pg_catalog", 'SET statement_timeout = 20', 'SET lock_timeout = 1', 'SET work_mem = 64',
		'SET default_transaction_read_only = on', 'SET transaction_read_only = on', 'SET default_transaction_isolation = serializable',
		'SET row_security = off', q{SET "TimeZone" = 'Pacific/Kiritimati'}, q{SET "DateStyle" = 'SQL, DMY'}, 'SET IntervalStyle = iso_8601',
		'SET client_encoding = latin1', 'SET synchronous_commit = off', q{SET sendcampaign.schema = 'nowhere'}, 'SET exit_on_error = on',
		'SET client_min_messages = debug1', 'SET enable_indexscan = off', 'SET plan_cache_mode = force_custom_plan',
		'SET bytea_output = escape', 'SET standard_conforming_strings = off', 'SET array_nulls = off', 'SET extra_float_digits = -15',
		'SET sendcampaign.max_concurrency = 1', 'SET sendcampaign.request_timeout = 1', 'SET sendcampaign.failure_threshold = 0', 'SET sendcampaign.failure_scale_factor = 0',
		'SET idle_in_transaction_session_timeout = 1', 'SET constraints all deferred', 'RESET ALL', 'CLOSE ALL', 'DEALLOCATE ALL',
		"DROP TABLE $s.ac_lists", "DROP TABLE $s.ac_background_jobs CASCADE", "ALTER TABLE $s.groups RENAME TO gone", "DROP TABLE $s.ac_list_users CASCADE",
		"ALTER TABLE $s.ac_campaigns DROP data", "ALTER TABLE $s.ac_background_jobs ADD x integer", "DELETE FROM $s.ac_campaigns",
		"DELETE FROM $s.ac_list_users WHERE random() < 0.1", "DELETE FROM $s.ac_background_jobs", "UPDATE $s.groups SET configuration = NULL",
		"UPDATE $s.ac_list_users SET ac_list_id = 0 WHERE random() < 0.1", "UPDATE $s.ac_list_users SET id = -id WHERE random() < 0.05",
		"TRUNCATE $s.groups", "INSERT INTO $s.ac_list_users SELECT * FROM $s.ac_list_users LIMIT 1", "LOCK TABLE $s.ac_background_jobs IN ACCESS EXCLUSIVE MODE",
		"LOCK TABLE $s.ac_list_users", q{SELECT pg_notify('sendcampaign', repeat('x', 7000)) FROM generate_series(1, 200)},
		q{SELECT pg_notify('other', i::text) FROM generate_series(1, 1000) i}, 'LISTEN sendcampaign', 'SELECT pg_sleep(0.02)', 'SELECT pg_sleep(2)',
		"SELECT send_campaign(id) FROM $s.ac_campaigns", 'SELECT sendcampaign.wake()', 'SELECT sendcampaign.cancel(job_id) FROM sendcampaign.run',
		'SELECT sendcampaign.pause(job_id) FROM sendcampaign.run', 'SELECT sendcampaign.forget(now())', 'CREATE TEMP TABLE run (job_id bigint)',
		'CREATE TEMP TABLE IF NOT EXISTS ac_list_users (id bigint)', 'SELECT lo_create(0)', 'SELECT 1/0', q{SELECT 'x'::integer},
		"SELECT $s.deep(1)", q{SELECT length(repeat('x', 200000000))}, 'DECLARE c CURSOR WITH HOLD FOR SELECT 1', 'SELECT setseed(0.5)',
		'SELECT pg_cancel_backend(pg_backend_pid())', 'COMMIT', 'PREPARE TRANSACTION \'x\'', 'DISCARD TEMP', 'UNLISTEN *');
}
my @suicides = ('SELECT pg_terminate_backend(pg_backend_pid())',
	q{SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = current_user AND backend_type LIKE 'sendcampaign%'});
my @codes = qw(P0001 22012 23505 23514 40001 40P01 55P03 57014 57P01 53100 53200 53300 53400 42501 42P01 25006 0A000 08006 58030 72000 XX000 XX001 2D000);

# Now and then one that ends the process itself
sub statement
{
	my ($case) = @_;
	return chance(0.93) ? any(statements($case->{schema})) : any(@suicides);
}

sub trigger_argument
{
	my $case = shift;
	my $kind = any('null', 'old', 'id', 'list', 'empty', 'raise', 'sql', 'sql', 'sql', 'now and then', 'now and then');
	$case->{wild} = 1 if $kind =~ /sql|then|id|list/;
	return quoted('raise') . ', ' . quoted(any(@codes)) if $kind eq 'raise';
	return quoted($kind) . ', ' . quoted(statement($case)) if $kind =~ /sql|then/;
	return quoted($kind);
}

sub rename_sql { my ($s, $t) = @_; return "ALTER TABLE $s.$t RENAME TO base_$t;"; }

# Each gives SQL; the table is one of the five.
my %change;
$change{trigger} = sub {
	my ($case, $s) = @_;
	my $t = chance(0.9) ? any(@written) : any(@tables);
	my $n = ++$case->{names};
	my $when = any('BEFORE UPDATE', 'AFTER UPDATE', 'BEFORE INSERT OR UPDATE', 'AFTER INSERT OR UPDATE');
	my $each = any('ROW', 'ROW', 'STATEMENT');
	return "CREATE TRIGGER t$n $when ON $s.$t FOR EACH $each EXECUTE FUNCTION $s.fire(" . trigger_argument($case) . ');';
};
$change{deferred_trigger} = sub {
	my ($case, $s) = @_;
	my $t = any(@written);
	my $n = ++$case->{names};
	return "CREATE CONSTRAINT TRIGGER t$n AFTER INSERT OR UPDATE ON $s.$t DEFERRABLE INITIALLY DEFERRED FOR EACH ROW"
	  . " EXECUTE FUNCTION $s.fire(" . trigger_argument($case) . ');';
};
$change{view} = sub {
	my ($case, $s) = @_;
	my $t = any(@tables, 'ac_list_users', 'ac_list_users');
	my $rest = $t eq 'groups' ? 't.configuration' : join ', ', map { "t.$_" } @{ $columns{$t} };
	my $from = "$s.base_$t t";
	my %view = (
		plain => "SELECT t.* FROM $from",
		probing => "SELECT t.* FROM $from WHERE $s.probe('view')",
		some => "SELECT t.* FROM $from WHERE $s.maybe(0.9)",
		twice => "SELECT t.* FROM $from, generate_series(1, 2)",
		'all twice' => "SELECT * FROM $from UNION ALL SELECT * FROM $from",
		'random ids' => "SELECT (random() * 100)::bigint AS id, $rest FROM $from",
		'one id' => "SELECT 7::bigint AS id, $rest FROM $from",
		'null ids' => "SELECT nullif(t.id, t.id % 3 + 1) AS id, $rest FROM $from",
		many => "SELECT (t.id - t.id % 1000 + i)::bigint AS id, $rest FROM $from, generate_series(1, 700) i",
		shuffled => "SELECT t.* FROM $from ORDER BY random()",
		few => "SELECT t.* FROM $from ORDER BY random() LIMIT 3",
		failing => "SELECT t.* FROM $from WHERE 1 / (t.id % 5) >= 0",
		'failing at times' => "SELECT t.* FROM $from WHERE random() < 0.97 OR $s.boom('40001') = 1",
		empty => "SELECT t.* FROM $from WHERE false");
	my $kind = any(sort keys %view);
	my $options = any('', '', ' WITH (security_barrier)', ' WITH (security_invoker)');
	my $n = ++$case->{names};
	$case->{wild} = 1;
	push @{ $case->{what} }, "$t: $kind";
	my $instead = '';
	$instead = "CREATE TRIGGER t$n INSTEAD OF UPDATE ON $s.$t FOR EACH ROW EXECUTE FUNCTION $s.fire(" . trigger_argument($case) . ');'
	  if chance(0.5);
	return rename_sql($s, $t) . "CREATE VIEW $s.$t$options AS $view{$kind}; $instead";
};
$change{child} = sub {
	my ($case, $s) = @_;
	my $t = any(@tables, 'ac_list_users', 'ac_list_users');
	$case->{wild} = 1;
	return "CREATE TABLE $s.child_$t () INHERITS ($s.$t); INSERT INTO $s.child_$t SELECT * FROM ONLY $s.$t"
	  . any('', ' LIMIT 1', ' WHERE id % 2 = 0') . ';';
};
$change{partitions} = sub {
	my ($case, $s) = @_;
	$case->{wild} = 1;
	return rename_sql($s, 'ac_list_users') . qq{
		CREATE TABLE $s.ac_list_users (LIKE $s.base_ac_list_users INCLUDING DEFAULTS, PRIMARY KEY (ac_list_id, id)) PARTITION BY LIST (ac_list_id);
		CREATE TABLE $s.part1 PARTITION OF $s.ac_list_users DEFAULT;
		CREATE TABLE $s.part2 PARTITION OF $s.ac_list_users FOR VALUES IN (0);
		INSERT INTO $s.ac_list_users SELECT * FROM $s.base_ac_list_users;
		INSERT INTO $s.ac_list_users (id, data, ac_list_id) SELECT id, data, 0 FROM $s.base_ac_list_users;};
};
$change{doubled_rows} = sub {
	my ($case, $s) = @_;
	my $t = any(@tables, 'ac_list_users', 'ac_list_users');
	$case->{wild} = 1;
	return "ALTER TABLE $s.$t DROP CONSTRAINT ${t}_pkey CASCADE; INSERT INTO $s.$t SELECT * FROM $s.$t" . any('', ' LIMIT 2') . ';';
};
$change{policy} = sub {
	my ($case, $s) = @_;
	my $t = any(@tables);
	my $using = any("$s.maybe(0.8)", 'random() < 0.7', "current_setting('app.tenant')::integer = id", "$s.probe('policy')", 'false',
		"$s.boom('42501') = 1", 'id % 2 = 0', "current_setting('app.tenant', true) IS NULL");
	my $for = any('ALL', 'SELECT', 'UPDATE', 'INSERT');
	$case->{wild} = 1;
	return "ALTER TABLE $s.$t ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;"
	  . ($for eq 'ALL' || chance(0.3) ? '' : "CREATE POLICY q ON $s.$t USING (true);")
	  . "CREATE POLICY p ON $s.$t " . any('', 'AS RESTRICTIVE ') . "FOR $for "
	  . ($for eq 'INSERT' ? 'WITH CHECK' : 'USING') . " ($using);";
};
$change{rule} = sub {
	my ($case, $s) = @_;
	my $t = any(@written);
	$case->{wild} = 1;
	return any(
		"CREATE RULE r AS ON UPDATE TO $s.$t DO INSTEAD NOTHING;",
		"CREATE RULE r AS ON UPDATE TO $s.$t DO ALSO NOTIFY rule;",
		"CREATE RULE r AS ON UPDATE TO $s.$t DO ALSO SELECT $s.probe('rule');",
		"CREATE RULE r AS ON UPDATE TO $s.$t DO INSTEAD UPDATE $s.$t SET id = NEW.id WHERE false;",
		"CREATE RULE r AS ON UPDATE TO $s.$t DO ALSO DELETE FROM $s.ac_lists;",
		"CREATE RULE r AS ON INSERT TO $s.$t DO INSTEAD NOTHING;",
		"CREATE RULE r AS ON INSERT TO $s.$t DO INSTEAD SELECT 1::bigint;");
};
$change{id_type} = sub {
	my ($case, $s) = @_;
	my $t = any(@tables);
	my $type = any('numeric', 'text', 'smallint', 'double precision', 'name', 'varchar(3)', "$s.small", 'bigint', "$s.probed", 'char(12)');
	return "CREATE DOMAIN $s.small AS integer CHECK (VALUE < 100000); CREATE DOMAIN $s.probed AS bigint CHECK ($s.probe('domain'));"
	  . "ALTER TABLE $s.$t ALTER id DROP DEFAULT, ALTER id TYPE $type USING id::$type;";
};
$change{column_type} = sub {
	my ($case, $s) = @_;
	my $t = any(@tables);
	my $column = any(@{ $columns{$t} });
	my $type = any('text', 'json', 'jsonb', 'varchar(20)', 'char(5)', 'name', 'bytea', 'text[]', 'xml', 'numeric', 'boolean', "$s.mood",
		"$s.pair", "$s.short", "$s.checked", 'date', 'integer[]', 'tsvector', 'money');
	return "CREATE TYPE $s.mood AS ENUM ('sad'); CREATE TYPE $s.pair AS (a integer, b text); CREATE DOMAIN $s.short AS varchar(12);"
	  . "CREATE DOMAIN $s.checked AS jsonb CHECK ($s.probe('domain') AND VALUE IS DISTINCT FROM '{}');"
	  . "ALTER TABLE $s.$t ALTER $column DROP DEFAULT, ALTER $column TYPE $type USING "
	  . any("$column\::$type", "$column\::text::$type", "NULL") . ';';
};
$change{own_column} = sub {
	my ($case, $s) = @_;
	my ($t, $column) = @{ any([ 'ac_list_users', 'sms' ], [ 'ac_list_users', '"sentCount"' ], [ 'ac_list_users', 'sent_count' ],
		[ 'ac_list_users', '"timeZone"' ], [ 'ac_list_users', 'name' ], [ 'ac_campaigns', 'message' ], [ 'ac_campaigns', '"baseUrl"' ],
		[ 'ac_campaigns', 'send_until' ], [ 'groups', 'private_access_configuration' ], [ 'groups', 'deleted' ], [ 'ac_background_jobs', 'updated_at' ]) };
	my $type = any('text', 'integer', 'jsonb', 'json', 'smallint DEFAULT 32767', 'boolean', 'text[]', 'bigint DEFAULT 9223372036854775807',
		'integer GENERATED ALWAYS AS (1) STORED', "text GENERATED ALWAYS AS ('x') STORED", "integer CHECK ($s.probe('check'))", 'xml', 'point',
		"numeric DEFAULT 'NaN'", "text DEFAULT repeat('+', 100000)", "timestamptz DEFAULT 'infinity'", 'integer GENERATED ALWAYS AS IDENTITY',
		"text DEFAULT '+16000000001'", "jsonb DEFAULT '[1, {\"a\": null}]'");
	return "ALTER TABLE $s.$t DROP IF EXISTS $column; ALTER TABLE $s.$t ADD $column $type;";
};
$change{data} = sub {
	my ($case, $s) = @_;
	my $data = any(q{'null'}, q{'[]'}, q{'"x"'}, q{'1'}, 'NULL', q{'{}'}, q{data || '{"sentCount": "x"}'}, q{data || '{"sentCount": {"a": 1}}'},
		q{data || '{"sentCount": 1e400}'}, q{data || '{"sentCount": -0.5}'}, q{data || '{"sms": 16000000001}'}, q{data || '{"sms": ["+16000000001"]}'},
		q{data || '{"sms": "+16000000001"}'}, q{data || '{"sms": ""}'}, q{data || jsonb_build_object('sms', repeat('+1', 500000))},
		q{data || jsonb_build_object('sms', chr(8206) || (data->>'sms'))}, q{data || '{"timeZone": "../../etc/passwd"}'}, q{data || '{"timeZone": "Europe/Oslo"}'},
		q{data || '{"name": "{{link}} {{name}}"}'}, q{jsonb_build_object('data', data)}, q{data || '{"sms": "+\u0661\u0666"}'});
	return "UPDATE $s.ac_list_users SET data = $data" . any('', ' WHERE id % 2 = 0', ' WHERE random() < 0.3') . ';';
};
$change{ids} = sub {
	my ($case, $s) = @_;
	my $id = any('-id', 'id - id % 1000', 'id + 9007199254740992', '9223372036854775807 - id % 1000', '-9223372036854775808 + id % 1000', 'NULL', '0');
	my $t = any(@tables, 'ac_list_users', 'ac_list_users');
	my $key = $id =~ /NULL|^0|id - id/ ? "ALTER TABLE $s.$t DROP CONSTRAINT ${t}_pkey CASCADE; ALTER TABLE $s.$t ALTER id DROP NOT NULL;" : '';
	$case->{wild} = 1;
	return "$key ALTER TABLE $s.$t ALTER id TYPE bigint; UPDATE $s.$t SET id = $id" . any('', ' WHERE id % 2 = 0') . ';';
};
$change{configuration} = sub {
	my ($case, $s) = @_;
	my $value = any(
		(map { my $k = $_; map { qq{configuration || '{"$k": $_}'} } 'null', '""', '[]', '{}', '0', 'true', '" "', '"\u00e9\u2028"' }
			  qw(twilioAccountSid twilioAuthToken twilioFromSmsNumber twilioMessagingServiceSid twilioSegmentsPerSecond quietHours timeZone)),
		(map { qq{configuration || '$_'} } '{"twilioFromSmsNumber": [null, {}, [], 1, "", "+15005550006", "+15005550006"]}', '{"twilioSegmentsPerSecond": 1e300}',
			'{"twilioSegmentsPerSecond": "50"}', '{"quietHours": {"from": "00:00", "to": "23:59:59"}}',
			'{"quietHours": {"from": [], "to": {}}}', '{"quietHours": {"from": "21:00"}}', '{"timeZone": "UTC+99"}', '{"timeZone": "posixrules"}',
			'{"twilioAccountSid": "../../x?y#z"}', '{"twilioAccountSid": "AC00000000000000000000000000000001\r\nX: y"}', '{"twilioSegmentsPerSecond": -1}'),
		q{'null'}, q{'[]'}, q{'[{"twilioAccountSid": "x"}]'}, q{'"x"'}, '1', 'NULL', q{configuration || jsonb_build_object('twilioAuthToken', repeat('x', 300000))},
		q{configuration || jsonb_build_object('twilioFromSmsNumber', (SELECT jsonb_agg('+1500555' || i) FROM generate_series(1000, 3000) i))});
	return "UPDATE $s.groups SET configuration = $value;";
};
$change{campaign} = sub {
	my ($case, $s) = @_;
	my $value = any(
		(map { qq{data || '$_'} } '{"message": ""}', '{"message": null}', '{"message": []}', '{"message": 5}', '{"message": "{{name}"}', '{"message": "{{sms}} {{link}}1"}',
			'{"message": "{{data}}{{a|}}{{link|}}"}', '{"message": "\u0001\ud83d\ude1c\u202e"}', '{"baseUrl": ""}', '{"baseUrl": "x#y?z"}', '{"baseUrl": "\n"}',
			'{"baseUrl": {}}', '{"sendUntil": "infinity"}', '{"sendUntil": "-infinity"}', '{"sendUntil": "now"}', '{"sendUntil": "tomorrow"}', '{"sendUntil": "x"}',
			'{"sendUntil": "294276-12-31 23:59:59 UTC"}', '{"sendUntil": "4713-01-01 BC"}', '{"sendUntil": 5}'),
		q{data || jsonb_build_object('message', repeat('{{a}}', 3000))}, q{data || jsonb_build_object('message', repeat('x', 3000000))}, 'NULL', q{'[]'}, q{'"x"'},
		q{data || jsonb_build_object('baseUrl', repeat('y', 70000))}, q{data || jsonb_build_object('message', (SELECT string_agg('{{k' || i || '|d}}', '') FROM generate_series(1, 500) i))});
	return "UPDATE $s.ac_campaigns SET data = $value;";
};
$change{constraint} = sub {
	my ($case, $s) = @_;
	my ($t, $check) = @{ any([ 'ac_background_jobs', 'progress < 100' ], [ 'ac_background_jobs', 'progress <= 50' ], [ 'ac_background_jobs', 'error IS NULL' ],
		[ 'ac_background_jobs', q{NOT data ? 'sent'} ], [ 'ac_list_users', q{NOT coalesce(data ? 'sentCount', false)} ], [ 'ac_list_users', q{NOT coalesce(data ? 'sentCount' AND id % 3 = 0, false)} ],
		map { [ $_, "$s.probe('check')" ] } @written) };
	return "ALTER TABLE $s.$t ADD CHECK ($check);";
};
$change{index} = sub {
	my ($case, $s) = @_;
	my $t = any(@written);
	my $key = $t eq 'ac_list_users' ? any("(data->>'sentCount')", 'updated_at') : any('progress', 'error', 'updated_at');
	return any("CREATE INDEX ON $s.$t ($s.same(id));", "CREATE UNIQUE INDEX ON $s.$t ($key);",
		"CREATE INDEX ON $s.$t (id) WHERE $s.same(id) > 0;", "CREATE INDEX ON $s.$t (($s.same(id) / (id % 7 - 3)));");
};
$change{default} = sub {
	my ($case, $s) = @_;
	my $column = any('progress', 'error', 'data', 'id', 'created_at');
	return any("ALTER TABLE $s.ac_background_jobs ALTER id SET DEFAULT $s.boom(" . quoted(any(@codes)) . ');',
		"ALTER TABLE $s.ac_background_jobs ALTER $column DROP DEFAULT;", "ALTER TABLE $s.ac_background_jobs ALTER $column SET NOT NULL;",
		"ALTER TABLE $s.ac_background_jobs ADD x integer; ALTER TABLE $s.ac_background_jobs ALTER x SET DEFAULT $s.boom('P0001');",
		"ALTER TABLE $s.ac_background_jobs ADD x text NOT NULL DEFAULT 'y'; ALTER TABLE $s.ac_background_jobs ALTER x DROP DEFAULT;",
		"ALTER TABLE $s.ac_background_jobs ALTER id SET DEFAULT 5;", "ALTER SEQUENCE $s.ac_background_jobs_id_seq RESTART -3 MINVALUE -100;");
};
$change{dropped} = sub {
	my ($case, $s) = @_;
	my $t = any(@tables);
	my $column = any('id', 'created_at', 'updated_at', @{ $columns{$t} });
	return any("ALTER TABLE $s.$t DROP $column CASCADE;", "ALTER TABLE $s.$t DROP $column CASCADE;", "DROP TABLE $s.$t CASCADE;",
		"ALTER TABLE $s.$t RENAME $column TO other;");
};
$change{rights} = sub {
	my ($case, $s, $role) = @_;
	my $t = any(@tables);
	my $column = any('id', @{ $columns{$t} });
	my $right = any('SELECT', 'UPDATE', 'INSERT');
	return any("REVOKE $right ON $s.$t FROM $role;", "REVOKE $right ON $s.$t FROM $role; GRANT $right ($column) ON $s.$t TO $role;",
		"REVOKE ALL ON $s.$t FROM $role;", "REVOKE USAGE ON SEQUENCE $s.${t}_id_seq FROM $role;", "REVOKE EXECUTE ON FUNCTION $s.probe(text) FROM PUBLIC, $role;");
};
$change{foreign_keys} = sub {
	my ($case, $s) = @_;
	return "ALTER TABLE $s.ac_list_users ADD FOREIGN KEY (ac_list_id) REFERENCES $s.ac_lists ON UPDATE CASCADE ON DELETE CASCADE DEFERRABLE INITIALLY DEFERRED;"
	  . "ALTER TABLE $s.ac_campaigns ADD FOREIGN KEY (ac_list_id) REFERENCES $s.ac_lists ON DELETE SET NULL DEFERRABLE;"
	  . "ALTER TABLE $s.ac_lists ADD FOREIGN KEY (group_id) REFERENCES $s.groups ON DELETE CASCADE;";
};
# In a schema where everybody may create; dropped with the case.
$change{operator} = sub {
	my ($case, $s) = @_;
	my ($name, $left, $right, $result) = @{ any([ '+', 'numeric', 'integer', 'numeric' ], [ '->>', 'jsonb', 'jsonb', 'text' ], [ '->>', 'jsonb', 'varchar', 'text' ],
		[ '=', 'bigint', 'numeric', 'boolean' ], [ '=', 'integer', 'numeric', 'boolean' ], [ '=', 'varchar', 'text', 'boolean' ], [ '||', 'jsonb', 'json', 'jsonb' ],
		[ '->', 'jsonb', 'varchar', 'jsonb' ], [ '~', 'varchar', 'text', 'boolean' ], [ '<', 'integer', 'numeric', 'boolean' ], [ '=', 'integer', 'bigint[]', 'boolean' ]) };
	my $role = $case->{role};
	my $where = any($s, 'public', 'public');
	my $path = $where eq $s ? "ALTER ROLE $role SET search_path = $s, pg_catalog;" : '';
	$case->{drop} .= "DROP OPERATOR IF EXISTS public.$name ($left, $right); ALTER ROLE $role RESET search_path;";
	return "$path GRANT USAGE ON SCHEMA $s TO PUBLIC; CREATE FUNCTION $s.op($left, $right) RETURNS $result LANGUAGE plpgsql AS"
	  . " 'BEGIN PERFORM $s.probe(''operator''); RETURN NULL; END';"
	  . "CREATE OPERATOR $where.$name (LEFTARG = $left, RIGHTARG = $right, FUNCTION = $s.op);";
};
$change{function} = sub {
	my ($case, $s) = @_;
	my ($name, $arguments, $result) = @{ any([ 'coalesce_', 'text' , 'text' ], [ 'jsonb_typeof', 'json', 'text' ], [ 'unnest', 'bigint[]', 'bigint' ], [ 'now', '', 'timestamptz' ],
		[ 'int8', 'text', 'bigint' ], [ 'jsonb_build_object', 'text, integer', 'jsonb' ], [ 'text', 'integer', 'text' ], [ 'bar', 'double precision, integer', 'text' ]) };
	$case->{drop} .= "DROP FUNCTION IF EXISTS public.$name($arguments);";
	return "GRANT USAGE ON SCHEMA $s TO PUBLIC; CREATE FUNCTION public.$name($arguments) RETURNS $result LANGUAGE plpgsql AS"
	  . " 'BEGIN PERFORM $s.probe(''function''); RETURN NULL; END';";
};

# What a run's role, and in part a superuser, does while it runs.
sub calls
{
	my ($campaign, $jobs) = @_;
	return map { "SELECT count(*) FROM (SELECT $_) t;" } (
		"sendcampaign.preview($campaign)", "sendcampaign.preview($campaign, 1000)", "sendcampaign.estimate($campaign, 0.01)",
		"sendcampaign.send_test($campaign, '+19990000001')",
		(map { "sendcampaign.$_(job_id) $jobs" } qw(pause resume cancel retry_failed)),
		"send_campaign(campaign_id, job_id) $jobs", "sendcampaign.wake()",
		"sendcampaign.settle(job_id, list_user_id, random() < 0.5) FROM sendcampaign.message WHERE status = 'in_doubt'",
		"sendcampaign.opt_out('+16000000001')", "sendcampaign.opt_in('+16000000001')");
}

# A case: its changes, and the SQL of its steps.  "wild" is one that may name
# other recipients or phones at each look, so that a phone twice proves nothing.
sub hostile_case
{
	my ($number, $role) = @_;
	my $s = "h$number";
	my $first = $number * 1000;
	my $campaign = 1_000_000 + $number;
	my %case = (number => $number, role => $role, schema => $s, campaign => $campaign, what => [], drop => '', names => 0,
		wild => 0, digits => sprintf('%06d', $number));
	my $users = any(1, 3, 20, 20, 60, 300);
	my $job = any(1, $first);

	$case{set} = "SET sendcampaign.schema = '$s';";
	$case{make} = "CREATE SCHEMA $s; SET client_min_messages = error; SELECT sendcampaign.create_tables('$s');" . probe_sql($s) . qq{
		ALTER SEQUENCE $s.ac_background_jobs_id_seq RESTART $job;
		INSERT INTO $s.groups (id, configuration) VALUES ($first, jsonb_build_object('twilioAccountSid', '$LocalTwilio::ACCOUNT',
			'twilioAuthToken', '$LocalTwilio::TOKEN', 'twilioFromSmsNumber', '$LocalTwilio::SENDER'));
		INSERT INTO $s.ac_lists (id, group_id) VALUES ($first, $first);
		INSERT INTO $s.ac_campaigns (id, ac_list_id, data) VALUES ($campaign, $first, '{"message": "Hello {{name|friend}}", "baseUrl": "https://example.org/s"}');
		INSERT INTO $s.ac_list_users (id, ac_list_id, data) SELECT $first + i, $first,
			jsonb_build_object('sms', '+16$case{digits}' || lpad(i::text, 3, '0')) FROM generate_series(1, $users) i;\n};
	for (1 .. any(1, 1, 2, 2, 3, 4))
	{
		my $name = any(sort keys %change);
		push @{ $case{what} }, $name;
		$case{make} .= $change{$name}->(\%case, $s, $role) . "\n";
	}
	my $jobs = "FROM sendcampaign.run WHERE campaign_id = $campaign";
	my @calls = calls($campaign, $jobs);
	$case{before} = chance(0.3) ? any(@calls[ 0 .. 3 ]) : '';
	$case{send} = any("SELECT send_campaign(${campaign}::bigint);", "BEGIN; SELECT send_campaign(${campaign}::bigint); COMMIT;");
	$case{during} = chance(0.5) ? join '', map { any(@calls) } 1 .. any(1, 2, 4) : '';
	$case{boss} = chance(0.3) ? join '', map { any(@calls) } 1, 2 : '';
	$case{text} = join ' ', map { s/\s+/ /gr } $case{make} =~ /generate_series\(1, \d+\) i;\n(.*)/s;
	return \%case;
}

1;
