# A hostile role has its own version of each operator, function and type that
# statements on the application's tables could use, first on the search path
# of everybody: none of them is ever run.  And each of the statements, as the
# server has executed it, names PostgreSQL's own.
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
my $node = new_cluster('operators', $twilio, conf => <<~CONF);
	shared_preload_libraries = 'auto_explain'
	auto_explain.log_min_duration = 0
	auto_explain.log_nested_statements = on
	CONF

# Each operator and function with these operands raises an error, and before
# says so in the log: what is run is seen even where the error is handled.
my $evil = <<~'SQL';
	CREATE TEMP SEQUENCE numbers;
	CREATE SCHEMA evil;
	GRANT USAGE ON SCHEMA evil TO PUBLIC;
	CREATE FUNCTION evil.run(what text) RETURNS void LANGUAGE plpgsql AS $$
	BEGIN
	    RAISE LOG 'evil: % by %', what, current_user;
	    RAISE EXCEPTION 'evil: %', what;
	END $$;
	DO $do$
	DECLARE
	    types text[] := ARRAY[
	        'text', 'json', 'jsonb', 'smallint', 'integer', 'bigint', 'numeric',
	        'double precision', 'boolean', 'text[]', 'bigint[]', 'timestamptz',
	        'timestamp', 'name', 'character varying'];
	    operators jsonb := '{
	        "=": "boolean", "<>": "boolean", "<": "boolean", ">": "boolean",
	        "<=": "boolean", ">=": "boolean", "~": "boolean", "~~": "boolean",
	        "?": "boolean", "?|": "boolean", "&&": "boolean", "@>": "boolean",
	        "||": "pg_catalog.jsonb",
	        "->": "pg_catalog.jsonb", "->>": "pg_catalog.text",
	        "#>": "pg_catalog.jsonb", "#>>": "pg_catalog.text",
	        "+": "pg_catalog.numeric", "-": "pg_catalog.numeric",
	        "*": "pg_catalog.numeric", "/": "pg_catalog.numeric"}';
	    functions jsonb := '{
	        "jsonb_typeof": "text", "now": "timestamptz", "coalesce": "text",
	        "unnest": "setof bigint", "btrim": "text", "translate": "text",
	        "regexp_replace": "text", "jsonb_each": "setof record",
	        "jsonb_array_elements_text": "setof text",
	        "jsonb_extract_path": "jsonb", "jsonb_extract_path_text": "text",
	        "jsonb_object_agg": "jsonb", "jsonb_build_object": "jsonb",
	        "row_number": "bigint", "count": "bigint", "max": "bigint",
	        "min": "bigint", "array_agg": "bigint[]", "nextval": "bigint",
	        "to_jsonb": "jsonb", "numeric": "numeric", "text": "text",
	        "jsonb": "jsonb", "int8": "bigint"}';
	    l text;
	    r text;
	    op text;
	    f text;
	BEGIN
	    FOREACH l IN ARRAY types LOOP
	        FOREACH r IN ARRAY types LOOP
	            FOR op IN SELECT jsonb_object_keys(operators) LOOP
	                f := format('op%s', nextval('pg_temp.numbers'));
	                EXECUTE format(
	                    'CREATE FUNCTION evil.%I(l %s, r %s) RETURNS %s LANGUAGE plpgsql AS %L',
	                    f, l, r, operators->>op,
	                    format('BEGIN PERFORM evil.run(%L); END', format('%s %s %s', l, op, r)));
	                EXECUTE format(
	                    'CREATE OPERATOR evil.%s (
	                        FUNCTION = evil.%I, LEFTARG = %s, RIGHTARG = %s)',
	                    op, f, l, r);
	            END LOOP;
	        END LOOP;
	        FOR f IN SELECT jsonb_object_keys(functions) LOOP
	            EXECUTE format(
	                'CREATE FUNCTION evil.%I(a %s) RETURNS %s LANGUAGE plpgsql AS %L',
	                f, l, functions->>f, format('BEGIN PERFORM evil.run(%L); END', f));
	        END LOOP;
	    END LOOP;
	END $do$;
	CREATE FUNCTION evil.now() RETURNS timestamptz LANGUAGE plpgsql AS $$
	BEGIN
	    PERFORM evil.run('now()');
	END $$;
	CREATE DOMAIN evil.text AS pg_catalog.int4;
	CREATE DOMAIN evil.jsonb AS pg_catalog.int4;
	CREATE DOMAIN evil.json AS pg_catalog.int4;
	CREATE DOMAIN evil.int8 AS pg_catalog.bool;
	CREATE DOMAIN evil.numeric AS pg_catalog.bool;
	CREATE DOMAIN evil.timestamptz AS pg_catalog.bool;
	CREATE DOMAIN evil.name AS pg_catalog.bool;
	CREATE DOMAIN evil.oid AS pg_catalog.bool;
	SQL

# Tables in which every branch of the statements is used: with values in "data" in
# the schema "public", in columns in the schema "columns"
my $campaign = create_campaign($node, users => 40, message => 'Hi {{name|you}}, {{age|?}}');
sql($node, <<~SQL);
	ALTER TABLE groups ADD private_access_configuration jsonb, ADD deleted boolean;
	ALTER TABLE ac_campaigns ADD deleted boolean;
	ALTER TABLE ac_list_users ADD deleted boolean, ADD "deletedAt" timestamptz;
	ALTER TABLE ac_lists ADD deleted boolean;
	UPDATE groups
	SET private_access_configuration = '{
	    "twilioFromSmsNumber": ["$LocalTwilio::SENDER"],
	    "quietHours": null,
	    "timeZone": "UTC"}';
	UPDATE ac_list_users
	SET data = data || '{"name": "Ana", "age": 3, "timeZone": "UTC"}'
	WHERE id % 2 = 0;
	UPDATE ac_list_users SET data = data || '{"sentCount": "7"}' WHERE id % 3 = 0;
	UPDATE ac_list_users SET data = data || '{"sms": "+15550000002"}' WHERE id = 4;
	UPDATE ac_list_users SET data = data || '{"sms": "no phone"}' WHERE id = 5;
	CREATE SCHEMA columns;
	GRANT USAGE, CREATE ON SCHEMA columns TO app;
	SQL
sql($node, <<~SQL, role => 'app');
	SELECT sendcampaign.create_tables('columns');
	ALTER TABLE columns.ac_list_users
	    ALTER data TYPE json,
	    ADD sms varchar,
	    ADD "sentCount" numeric,
	    ADD name json,
	    ADD "updatedAt" timestamp;
	ALTER TABLE columns.ac_campaigns ALTER data TYPE json, ADD message varchar;
	ALTER TABLE columns.ac_background_jobs ALTER data TYPE json;
	ALTER TABLE columns.groups ALTER configuration TYPE json;
	INSERT INTO columns.groups (configuration)
	    SELECT configuration || '{"quietHours": {"from": "00:00", "to": "00:00"}}'
	    FROM public.groups;
	INSERT INTO columns.ac_lists (group_id) VALUES (1);
	INSERT INTO columns.ac_list_users (ac_list_id, sms, name, "sentCount")
	    SELECT 1, '+15551' || lpad(i::text, 6, '0'), '"Bob"', nullif(i, 3)
	    FROM generate_series(1, 20) i;
	INSERT INTO columns.ac_campaigns (ac_list_id, message, data)
	    VALUES (1, 'Hello {{name}}', '{"baseUrl": "https://columns/"}');
	ALTER SEQUENCE columns.ac_background_jobs_id_seq RESTART 1000;
	SQL
wait_for_no_worker($node);
sql($node, $evil);
sql($node, 'ALTER DATABASE postgres SET search_path = evil, public, pg_catalog');
like(
	sql_error($node, 'SELECT 1::pg_catalog.numeric + 1')->{message},
	qr/^evil: numeric \+ integer$/,
	'the hostile operators work');
like(
	sql_error($node, q{SELECT '{}'::pg_catalog.jsonb ->> 'a'::pg_catalog.text})->{message},
	qr/^evil: jsonb ->> text$/,
	'... for JSON, too');
my $tried = -s $node->logfile;

# Runs SQL as role app, with the tables of a schema.
sub in_schema
{
	my ($schema, $sql) = @_;
	return sql($node, "SET sendcampaign.schema = $schema;\n$sql", role => 'app');
}

# As run_row(), of which hostile operators are no part.
sub row_of
{
	my $job = shift;
	my %run;
	@run{qw(state sent error)} = split /\|/, sql($node, <<~SQL), 3;
		SET search_path = pg_catalog;
		SELECT state, sent, error FROM sendcampaign.run WHERE job_id = $job;
		SQL
	return \%run;
}

# Everything that reads or writes the application's tables; some list users
# are locked, so that outcomes are recorded with care
my $locker = Session->open($node);
my %size = (
	public => { users => 40, skipped => 2 },
	columns => { users => 20, skipped => 0 });
for my $schema (qw(public columns))
{
	my $users = $size{$schema}{users};
	my $messages = $users - $size{$schema}{skipped};
	$twilio->set(hold => 1, reset => 1);
	my @shown = split /\n/,
	  in_schema($schema, 'SELECT list_user_id FROM sendcampaign.preview(1, 100)');
	is(scalar @shown, $users, "$schema: preview()");
	is(in_schema($schema, 'SELECT messages FROM sendcampaign.estimate(1)'),
		$messages, "$schema: estimate()");
	$locker->query('BEGIN');
	$locker->query(
		"SELECT FROM $schema.ac_list_users WHERE id OPERATOR(pg_catalog.=) 1 FOR UPDATE");
	my $job = in_schema($schema, 'SELECT send_campaign(1)');
	wait_for_flight($twilio, 10);
	in_schema($schema, "SELECT sendcampaign.pause($job); SELECT sendcampaign.resume($job)");
	$twilio->set(hold => 0);
	poll(sub { row_of($job)->{sent} == $messages - 1 });    # all but the one who is locked
	$locker->query('COMMIT');
	poll(sub { row_of($job)->{state} =~ /completed|failed/ });
	my $run = row_of($job);
	is($run->{state}, 'completed', "$schema: the run is completed") or diag($run->{error});
	is($run->{sent}, $messages, "$schema: all are sent to");
	my $list = in_schema($schema,
		q{SELECT sendcampaign.create_list(1, 'Made', 1, '{"post_id": 2, "data": {"a": 1}}')});
	in_schema($schema, "SELECT sendcampaign.create_campaign($list, 'Hi', 'https://made/', 1)");
	is(in_schema($schema, "SELECT * FROM sendcampaign.add_list_users($list, ARRAY['+15552'])"),
		'', "$schema: add_list_users()");
	is( in_schema(
			$schema,
			"SELECT * FROM sendcampaign.add_list_users($list,"
			  . q{ users => '[{"sms": "+15553", "name": "Ann", "age": 4}]', user_id => 1)}),
		'',
		"$schema: add_list_users() with objects");
}
$locker->close;

my $log = slurp_file($node->logfile, $tried);
is(join("\n", $log =~ /LOG:  (evil: .*)/g),
	'', 'none of the hostile operators, functions and types was used');

# What a statement uses that is looked up on the search path; undef if nothing.
my $operator = qr{[-+*/<>=~!@#%^&|`?]+};
my @special_syntax =
  (qw(IN BETWEEN LIKE ILIKE SIMILAR DISTINCT NULLIF USING COLLATE CAST), 'CASE (?!WHEN)\w+');
my $special_syntax = join '|', @special_syntax;
my @no_functions = (
	# key words that stand before a parenthesis
	qw(INSERT SELECT coalesce ANY ALL ARRAY EXISTS OVER AS BY FROM AND OR NOT THEN),
	qw(WHERE VALUES JOIN WHEN ON MATERIALIZED LATERAL),
	# names of tables and expressions with a list of columns
	qw(r e v jobs p o ac_\w+));
my $no_functions = join '|', @no_functions;

sub unqualified
{
	my $sql = shift;
	$sql =~ s/^INSERT INTO [\w.]+ AS j \(/INSERT (/;
	$sql =~ s/E?'(?:[^']|'')*'/'x'/g;
	$sql =~ s/"(?:[^"]|"")*"/x/g;
	$sql =~ s/OPERATOR\(pg_catalog\.$operator\)/,/g;
	$sql =~ s/::pg_catalog\.\w+(\[\])?//g;
	$sql =~ s/COLLATE pg_catalog\.x//g;
	$sql =~ s/(SET|,) (\w+) = /$1 $2 , /g;
	return "operator $1" if $sql =~ /($operator)/;
	return "type $1" if $sql =~ /(::\s*\w+)/;
	return $1 if $sql =~ /\b($special_syntax)\b/i;

	while ($sql =~ /((?:\w+\.)?\w+)\s*\(/g)
	{
		my $name = $1;
		next if $name =~ /^pg_catalog\./;
		return "function $name" if $name !~ /^(?:$no_functions)$/i;
	}
	return;
}

# The statements themselves
my %statements;
$statements{$1}++ while $log =~ /\tQuery Text: (.*(?:\n\t.*)*?)\n\t[A-Z]\w/g;
my @app = grep { /(public|columns)\.(groups|ac_\w+)/ } keys %statements;
@app = grep { !/generate_series|FOR UPDATE;|SET ROLE/ } @app;
my @seen = (
	qr/^INSERT INTO \S+ac_background_jobs/,
	qr/^INSERT INTO \S+ac_lists/,
	qr/^INSERT INTO \S+ac_campaigns/,
	qr/^INSERT INTO \S+ac_list_users .*jsonb_array_elements/,
	qr/^SELECT r\.n/,
	qr/^SELECT u\.id/,
	qr/^SELECT r\.n, c\.id IS NOT NULL, v\.message/,
	qr/^SELECT r\.n, c\.id IS NOT NULL, \(false/,
	qr/^SELECT u\.ac_list_id/,
	qr/^UPDATE \S+ac_list_users u SET data =/,
	qr/^UPDATE \S+ac_list_users u SET "sentCount" =/,
	qr/^UPDATE \S+ac_background_jobs j SET progress = r\.progress/,
	qr/^UPDATE \S+ac_background_jobs j SET progress = CASE/,
	qr/FOR NO KEY UPDATE SKIP LOCKED/);
for my $what (@seen)
{
	ok((grep { $_ =~ $what } @app) > 0, "statements on the application's tables were seen: $what");
}
my @bad;
for my $sql (@app)
{
	my $what = unqualified($sql);
	push @bad, "$what in: $sql" if $what;
}
is_deeply(\@bad, [], '... and all that they use is qualified');

my @accepted = (
	q{SELECT a.x OPERATOR(pg_catalog.->>) 'a = b'::pg_catalog.text FROM s.t a},
	q{UPDATE s.t SET a = $1, "b" = pg_catalog.now()});
my @found = (
	q{SELECT a->'b' FROM t},
	q{SELECT a::text FROM t},
	q{SELECT now()},
	q{SELECT FROM t WHERE a IN (1)},
	q{UPDATE t SET a = a + 1},
	q{SELECT FROM t WHERE a = 1},
	q{SELECT CASE a WHEN 1 THEN 2 END},
	q{SELECT nullif(a, b)},
	q{SELECT FROM a JOIN b USING (id)},
	q{SELECT a IS DISTINCT FROM b},
	q{SELECT a BETWEEN 1 AND 2},
	q{SELECT a LIKE 'b'},
	q{SELECT a COLLATE "C"},
	q{SELECT cast(a AS text)});
is(unqualified($_), undef, "the check accepts: $_") for @accepted;
isnt(unqualified($_), undef, "the check finds: $_") for @found;

# The same check of the SQL in the sources, as far as its pieces show it
my $operators = qr/->|#>|\|\||<>|[<>]=|~/;
my $looked_up = qr/$operators|::(?!pg_catalog\.)|\b(?:IN \(|BETWEEN|NULLIF|DISTINCT|USING)/;
for my $name (qw(app_tables columns new_rows))
{
	my $file = "$FindBin::RealBin/../../src/database/$name.c";
	my $sql = join ' ', slurp_file($file) =~ /"((?:[^"\\]|\\.)*)"/g;
	$sql =~ s/OPERATOR\(pg_catalog\.[^)]+\)//g;
	$sql =~ s/%s::%s//g if $name eq 'new_rows';    # a type with its schema
	my @bare = $sql =~ /(.{0,30}(?:$looked_up).{0,30})/g;
	is_deeply(\@bare, [], "$name.c: nothing is looked up on the search path");
}

# Somebody else's send_campaign() is not called in place of ours.
sql($node, <<~SQL);
	ALTER DATABASE postgres RESET search_path;
	CREATE ROLE mallory LOGIN;
	GRANT CREATE ON SCHEMA public TO mallory;
	CREATE SCHEMA other AUTHORIZATION mallory;
	SQL
my $body = q{RETURNS bigint LANGUAGE sql AS 'SELECT 666'};
my $aggregate = '(integer) (SFUNC = int4pl, STYPE = integer)';
my @parameters = (
	# one
	'integer', 'bigint', 'text', 'smallint', 'VARIADIC integer[]', 'anyelement',
	# more than one
	'integer, integer',
	'integer, bigint',
	'integer, integer, integer DEFAULT 1',
	'campaign_id integer, job_id integer DEFAULT NULL');
my @refused = (
	(map { "CREATE FUNCTION public.send_campaign($_) $body" } @parameters),
	"CREATE FUNCTION public.harmless(integer) $body;"
	  . ' ALTER FUNCTION public.harmless(integer) RENAME TO send_campaign',
	"CREATE FUNCTION other.send_campaign(integer) $body;"
	  . ' ALTER FUNCTION other.send_campaign(integer) SET SCHEMA public',
	"CREATE FUNCTION other.send_campaign(integer) $body;"
	  . ' ALTER ROUTINE other.send_campaign(integer) SET SCHEMA public',
	"CREATE AGGREGATE public.send_campaign$aggregate",
	"CREATE AGGREGATE public.harmless$aggregate;"
	  . ' ALTER AGGREGATE public.harmless(integer) RENAME TO send_campaign');
for my $sql (@refused)
{
	my $error = sql_error($node, "BEGIN; $sql", role => 'mallory');
	is( "$error->{sqlstate}: $error->{message}",
		'42939: the name "send_campaign" is reserved in schema "public"',
		"refused: $sql");
}
my $replace = "CREATE OR REPLACE FUNCTION public.send_campaign(bigint, bigint, text) $body";
like(sql_error($node, $replace, role => 'mallory')->{message}, qr/./, 'ours cannot be replaced');
sql($node, <<~SQL, role => 'mallory');
	CREATE FUNCTION other.send_campaign(integer) $body;
	CREATE FUNCTION public.sends(integer) $body;
	SQL
my $job = sql($node, 'INSERT INTO ac_background_jobs DEFAULT VALUES RETURNING id');
my @arguments = (
	# by position
	"1, $job",
	"'1', '$job'",
	"1::smallint, $job",
	# by name
	"campaign_id => 1, job_id => $job",
	"job_id => '$job', campaign_id => 1::bigint");
for my $arguments (@arguments)
{
	my $call = "send_campaign($arguments)";
	is(sql($node, "BEGIN; SELECT $call; ROLLBACK", role => 'app'), $job, "ours is called: $call");
}
my $prepared = sql($node, <<~SQL, role => 'app');
	BEGIN;
	PREPARE p AS SELECT send_campaign(\$1, \$2);
	EXECUTE p(1, $job);
	ROLLBACK;
	SQL
is($prepared, $job, '... and with parameters of no type');
# where such a schema is on the path, too, the schema says whose it is
my $by_schema = sql($node, <<~SQL, role => 'app');
	SET search_path = other, public;
	BEGIN;
	SELECT public.send_campaign(1, $job);
	ROLLBACK;
	SQL
is($by_schema, $job, '... and by its schema');

# One that is there before
sql($node, 'CREATE DATABASE before');
sql($node, <<~SQL, db => 'before');
	GRANT CREATE ON SCHEMA public TO mallory;
	SET ROLE mallory;
	CREATE FUNCTION public.send_campaign(integer) $body;
	SQL
is( sql_error($node, 'CREATE EXTENSION sendcampaign', db => 'before')->{message},
	'schema "public" has another function send_campaign()',
	'one that is there before the extension');
sql($node, <<~SQL, db => 'before');
	CREATE SCHEMA mine;
	CREATE EXTENSION sendcampaign SCHEMA mine;
	SET ROLE mallory;
	CREATE FUNCTION public.send_campaign(bigint) $body;
	SQL
my $schema = sql($node, <<~SQL, db => 'before');
	SELECT pronamespace::regnamespace
	FROM pg_proc
	WHERE proname = 'send_campaign' AND prolang <> 14
	SQL
is($schema, 'mine', '... does not matter where the extension is in another schema');
sql($node, 'DROP EXTENSION sendcampaign', db => 'before');

wait_for_no_worker($node);
$node->stop;
done_testing();
