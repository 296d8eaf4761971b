# The query that selects recipients runs with the rights of the role that sends
# and only reads, in a worker as in preview(), whatever the functions do that it
# calls.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../perl";
use Campaign;
use LocalTwilio;
use PostgreSQL::Test::Utils;
use Test::More;

my $twilio = LocalTwilio->start;
my $node = new_cluster('only_read', $twilio, conf => <<~'CONF');
	sendcampaign.receipts = off
	max_worker_processes = 16
	CONF
sql($node, <<~'SQL');
	CREATE ROLE other LOGIN;
	GRANT USAGE ON SCHEMA sendcampaign TO other;
	GRANT EXECUTE ON ALL ROUTINES IN SCHEMA sendcampaign TO other;
	GRANT EXECUTE ON FUNCTION send_campaign TO other;
	CREATE TABLE secret (id int);
	INSERT INTO secret VALUES (1);
	CREATE SCHEMA app AUTHORIZATION app;
	SET ROLE app;
	CREATE TABLE app.log (t text);
	CREATE SEQUENCE app.seq;
	CREATE FUNCTION app.run(sql text, result bigint) RETURNS bigint LANGUAGE plpgsql VOLATILE AS $$
	BEGIN
		EXECUTE sql;
		RETURN result;
	END $$;
	CREATE FUNCTION app.try(sql text, result bigint) RETURNS bigint LANGUAGE plpgsql VOLATILE AS $$
	BEGIN
		BEGIN
			EXECUTE sql;
		EXCEPTION WHEN others THEN
		END;
		INSERT INTO app.log VALUES ('written after ' || sql);
		RETURN result;
	END $$;
	SQL
my $campaign = create_campaign($node, users => 5);
my $user = sql($node, "SELECT min(id) FROM ac_list_users");

sub quoted { my $text = shift; $text =~ s/'/''/g; return "'$text'" }
sub text_of { return join '|', @{ shift() }{qw(sqlstate message detail hint)} }

sub error_of_call
{
	my ($query, %arg) = @_;
	return text_of(sql_error(
		$node, "SELECT send_campaign($campaign, NULL, " . quoted($query) . ')',
		role => 'app',
		%arg));
}

# What is wrong with the text of a query is found by the call, before anything
# is queued.
my $must_read =
	'22023|recipients must be one SELECT statement that only reads||Write a query whose'
  . ' first column has ids of list users, such as SELECT u.id'
  . ' FROM public.ac_list_users u WHERE ...';
my $must_be_integer = '42804|the first column of recipients is no integer|It must have ids of list'
  . ' users.|Select the ids first, and cast them to bigint if they have another type.';
my $schema = 'Names in the query need their schema, unless they are PostgreSQL\'s own, as in'
  . ' public.ac_list_users.';
my @refused = (
	[ '', $must_read ],
	[ '-- nothing', $must_read ],
	[ 'DELETE FROM app.log RETURNING 1', $must_read ],
	[ 'SELECT 1; SELECT 2', $must_read ],
	[ 'SELECT 1 INTO app.made', $must_read ],
	[ 'SELECT 1 AS id INTO app.made UNION SELECT 2', $must_read ],
	[ 'SELECT id FROM public.ac_list_users FOR UPDATE', $must_read ],
	[ 'WITH d AS (DELETE FROM app.log RETURNING 1 AS id) SELECT id FROM d', $must_read ],
	[ 'CALL sendcampaign.wait(1)', $must_read ],
	[ 'EXPLAIN ANALYZE SELECT 1', $must_read ],
	[ 'SHOW work_mem', $must_read ],
	[ 'COPY app.log TO STDOUT', $must_read ],
	[ 'SELECT', $must_be_integer ],
	[ q(SELECT 'a'), $must_be_integer ],
	[ 'SELECT 1.0', $must_be_integer ],
	[ 'SELECT NULL', $must_be_integer ],
	[ 'SELEC 1', '42601|could not select the recipients: syntax error at or near "SELEC"||' ],
	[ 'SELECT $1', '42P02|could not select the recipients: there is no parameter $1||' ],
	[
		'SELECT id FROM ac_list_users',
		qq(42P01|could not select the recipients: relation "ac_list_users" does not exist||$schema)
	],
	[ 'SELECT 1/0', '22012|could not select the recipients: division by zero||' ],
	[
		'SELECT id FROM public.secret',
		'42501|could not select the recipients: permission denied for table secret||'
	],
	[
		'SELECT ' . ('1 + ' x 40_000) . '1',
		'54000|the query in recipients has more than 100000'
		  . ' bytes||Put the query into a view, and select from that.'
	]);
for my $case (@refused)
{
	my ($query, $error) = @$case;
	my $name = length $query > 70 ? substr($query, 0, 70) : $query;
	is(error_of_call($query), $error, "refused: $name");
	is( text_of(call_error($node, "preview($campaign, 1, " . quoted($query) . ')')) =~ s/\|\z/|/r,
		$error,
		"refused by preview(): $name") if $query !~ /secret/;
}
is(sql($node, 'SELECT count(*) FROM sendcampaign.run'), 0, 'nothing was queued');
is(sql($node, q(SELECT to_regclass('app.made') IS NULL)), 't', 'nothing was made');

# What its functions do is found when it runs.
my $read_only = 'The query, and the functions that it calls, may only read.';
my %effects = (
	'writes' => [ q(INSERT INTO app.log VALUES ('a')), 'INSERT' ],
	'deletes' => [ 'DELETE FROM public.ac_list_users', 'DELETE' ],
	'creates' => [ 'CREATE TABLE app.made (i int)', 'CREATE TABLE' ],
	'locks rows' => [ 'SELECT FROM public.ac_list_users FOR UPDATE', 'SELECT FOR UPDATE' ],
	'draws numbers' => [ q(SELECT nextval('app.seq')), 'nextval()' ],
	'sets numbers' => [ q(SELECT setval('app.seq', 5)), 'setval()' ],
	'sends a campaign' => [ "SELECT public.send_campaign($campaign)", 'send_campaign()' ],
	'pauses' => [ 'SELECT sendcampaign.pause(1)', 'sendcampaign.pause()' ]);
for my $name (sort keys %effects)
{
	my ($statement, $what) = @{ $effects{$name} };
	my $cannot = "cannot execute $what in a read-only transaction";
	my $query = 'SELECT app.run(' . quoted($statement) . ", $user)";
	my $run = run_campaign($node, $campaign, recipients => $query);
	is($run->{state}, 'failed', "$name: the run fails");
	like(
		$run->{error},
		qr/^could not select the recipients: \Q$cannot\E\. \Q$read_only\E$/,
		"$name: because of that");
	like(
		text_of(call_error($node, "preview($campaign, 1, " . quoted($query) . ')')),
		qr/^22023\|could not select the recipients: \Q$cannot\E\|\|\Q$read_only\E$/,
		"$name: in preview(), too");
}
for my $way (
	'SET TRANSACTION READ WRITE',
	'SET transaction_read_only = off',
	q(SELECT set_config('transaction_read_only', 'off', false)),
	'SET SESSION CHARACTERISTICS AS TRANSACTION READ WRITE',
	'COMMIT',
	'RESET transaction_read_only')
{
	my $query = 'SELECT app.try(' . quoted($way) . ", $user)";
	like(
		run_campaign($node, $campaign, recipients => $query)->{error},
		qr/cannot execute INSERT in a read-only transaction/,
		"no way around: $way");
	like(
		call_error($node, "preview($campaign, 1, " . quoted($query) . ')')->{message},
		qr/cannot execute INSERT in a read-only transaction/,
		"in preview(): $way");
}
is(sql($node, 'SELECT count(*) FROM app.log'), 0, 'nothing was written');
is(sql($node, 'SELECT is_called FROM app.seq'), 'f', 'no number was drawn');
is(sql($node, 'SELECT count(*) FROM ac_list_users'), 5, 'nothing was deleted');
is(scalar $twilio->ledger, 0, 'nothing was sent');

# What it changes for the session ends with it, and the transaction goes on.
like(
	sql($node,
		<<~"SQL", role => 'app'), qr/^5\|t\noff\|5s\|"\$user", public\n1$/m, 'preview() leaves nothing behind');
	BEGIN;
	SET statement_timeout = '5s';
	SELECT sum(1), bool_and(phone IS NOT NULL)
	FROM sendcampaign.preview($campaign, 10,
		\$\$SELECT app.run('SET statement_timeout = 7', u.id::bigint)
		FROM public.ac_list_users u\$\$);
	SELECT current_setting('transaction_read_only'), current_setting('statement_timeout'),
		current_setting('search_path');
	INSERT INTO app.log VALUES ('goes on') RETURNING 1;
	COMMIT;
	SQL

# Neither it nor the path of the caller decides whose functions are called.
sql($node, <<~'SQL', role => 'app');
	CREATE FUNCTION app.abs(bigint) RETURNS bigint LANGUAGE plpgsql AS
		'BEGIN RAISE ''the wrong function''; END';
	SQL
is( sql($node,
		"SET search_path = app, pg_catalog, public; SELECT list_user_id FROM"
		  . " sendcampaign.preview($campaign, 1, 'SELECT abs(${user}::bigint)')",
		role => 'app'),
	$user,
	'functions are those of PostgreSQL');
ok(run_campaign($node, $campaign, recipients => "SELECT abs(${user}::bigint)")->{sent} == 1,
	'in a worker, too');

# A time-out
sql($node, q(ALTER ROLE app SET sendcampaign.query_timeout = '300ms'));
my $slow = "SELECT $user FROM pg_sleep(30)";
my $run = run_campaign($node, $campaign, recipients => $slow);
is( "$run->{state}: $run->{error}",
	'failed: the query that selects the recipients took longer than'
	  . ' 0.3 s. Make it faster, or raise "sendcampaign.query_timeout".',
	'a query that takes too long');
is( text_of(call_error($node, "estimate($campaign, NULL, '$slow')", user => 'app', role => undef)),
	'54000|the query that selects the recipients took longer than 0.3 s||Make it faster, or raise'
	  . ' "sendcampaign.query_timeout".',
	'estimate() says so');
like(
	run_campaign($node, $campaign, recipients =>
		  <<~"SQL")->{error}, qr/took longer than 0\.3 s/, 'code that catches the cancellation once');
	SELECT app.run(\$\$DO 'BEGIN PERFORM pg_sleep(30);
		EXCEPTION WHEN query_canceled THEN PERFORM pg_sleep(30); END'\$\$, $user)
	SQL
sql($node, 'ALTER ROLE app RESET sendcampaign.query_timeout');
like(
	text_of(sql_error(
		$node,
		"SET statement_timeout = '300ms'; SELECT sendcampaign.estimate($campaign, NULL,"
		  . " '$slow')",
		role => 'app')),
	qr/^57014\|canceling statement due to statement timeout/,
	'statement_timeout stays what it is');

# An error of a function, with what it says
like(
	run_campaign(
		$node, $campaign,
		recipients => qq(SELECT app.run(\$\$DO 'BEGIN RAISE ''no such year''
			USING DETAIL = ''1066'', HINT = ''Take another.''; END'\$\$, $user))
	)->{error},
	qr/^could not select the recipients: no such year\. 1066\. Take another\.$/,
	'an error of a function');

# Rows that the role may not see
sql($node, <<~"SQL");
	ALTER TABLE ac_list_users ENABLE ROW LEVEL SECURITY;
	ALTER TABLE ac_list_users FORCE ROW LEVEL SECURITY;
	CREATE POLICY most ON ac_list_users TO app USING (id <> $user + 1);
	SQL
$run = run_campaign($node, $campaign, recipients => 'SELECT id FROM public.ac_list_users');
is("$run->{state} $run->{sent}", 'completed 4', 'row-level security applies to the query');
$run = run_campaign($node, $campaign, recipients => "VALUES ($user), ($user + 1)");
like(
	$run->{error},
	qr/has returned 1 id that is not/,
	'an id that the role may not see is nobody\'s');
sql($node, 'ALTER TABLE ac_list_users DISABLE ROW LEVEL SECURITY');

# Another role does not read app's rows by it.
like(error_of_call('SELECT id FROM app.log', role => 'other'), qr/^42501/, 'others cannot send');

# A superuser's call has the rights of the tables' owner.
like(
	error_of_call('SELECT id FROM public.secret', role => undef),
	qr/^42501\|could not select the recipients: permission denied for table secret/,
	'a superuser\'s query has no more rights than the role that sends');
$run = run_campaign($node, $campaign,
	recipients =>
	  "SELECT $user FROM pg_roles WHERE rolname = current_user AND rolname = 'app' AND NOT rolsuper"
);
is($run->{sent}, 1, 'it runs as that role');
sql($node, <<~"SQL");
	SELECT send_campaign($campaign, NULL,
		'SELECT $user WHERE session_user = ''app'' AND current_user = ''app''')
	SQL
ok( wait_until(
		$node,
		'SELECT state = $$completed$$ AND sent = 1 FROM sendcampaign.run ORDER BY id DESC LIMIT 1'
	),
	'so it does for a superuser');
like(
	text_of(sql_error(
		$node,
		"SELECT send_campaign($campaign, NULL, 'SELECT app.run(''SET ROLE postgres'', $user)')")),
	qr/^\|/,
	'a call with a function');
like(sql($node, 'SELECT sendcampaign.wake(); SELECT pg_sleep(0)'), qr/./, 'woken');
ok( wait_until(
		$node,
		q(SELECT state = 'failed' AND error LIKE '%cannot set parameter "role" within%'
			FROM sendcampaign.run ORDER BY id DESC LIMIT 1)
	),
	'a function cannot become another role');

# SECURITY DEFINER: the query runs as the function's owner, who decides on it.
sql($node, <<~"SQL", role => 'app');
	SELECT sendcampaign.version();
	CREATE FUNCTION app.send() RETURNS bigint LANGUAGE sql SECURITY DEFINER
	SET sendcampaign.schema = 'public'
	RETURN public.send_campaign($campaign, NULL, 'SELECT $user WHERE current_user = ''app''');
	GRANT USAGE ON SCHEMA app TO other;
	SQL
my $job = sql($node, 'SELECT app.send()', role => 'other');
is(wait_for_run($node, $job)->{sent}, 1, 'a SECURITY DEFINER function');

is(worker_errors($node), '', 'there are no errors in the log');
$node->stop;
done_testing();
