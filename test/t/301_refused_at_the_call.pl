# What cannot work with views, rules, policies and rights is refused by the call
# and not by the run; what works is not refused.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../perl";
use Campaign;
use LocalTwilio;
use Test::More;

my $twilio = LocalTwilio->start;
my $node = new_cluster('refused_at_the_call', $twilio);

# Tables of a shop, of its own role, and views of them for the role "app".
sql($node, <<~"SQL");
	CREATE ROLE shop LOGIN;
	GRANT USAGE ON SCHEMA sendcampaign TO shop;
	GRANT CREATE ON DATABASE postgres TO shop, app;
	SET ROLE shop;
	CREATE SCHEMA shop;
	CREATE TABLE shop.customers (
	    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
	    list integer NOT NULL,
	    name text,
	    phone text,
	    messages integer NOT NULL DEFAULT 0,
	    changed timestamptz);
	INSERT INTO shop.customers (list, name, phone)
	SELECT 1, 'Customer ' || i, '+1555000' || lpad(i::text, 4, '0') FROM generate_series(1, 3) i;
	CREATE TABLE shop.orders (customer bigint, total numeric);
	CREATE TABLE shop.jobs (
	    id integer GENERATED ALWAYS AS IDENTITY,
	    progress integer,
	    error text);
	CREATE VIEW shop.everybody AS SELECT * FROM shop.customers;
	CREATE SCHEMA sms;
	CREATE VIEW sms.groups AS SELECT 1 AS id, jsonb_build_object(
	    'twilioAccountSid', '$LocalTwilio::ACCOUNT',
	    'twilioAuthToken', '$LocalTwilio::TOKEN',
	    'twilioFromSmsNumber', '$LocalTwilio::SENDER') AS configuration;
	CREATE VIEW sms.ac_lists AS SELECT 1 AS id, 1 AS group_id;
	CREATE VIEW sms.ac_campaigns AS
	SELECT 1 AS id, 1 AS ac_list_id, 'Hello {{name}}' AS message, 'https://example.org' AS base_url;
	CREATE VIEW sms.ac_list_users AS
	SELECT id, list AS ac_list_id, name, phone AS sms, messages AS sent_count,
	    now() AS updated_at
	FROM shop.customers;
	CREATE VIEW sms.ac_background_jobs AS
	SELECT id, progress, error, now() AS created_at, now() AS updated_at FROM shop.jobs;
	GRANT USAGE ON SCHEMA sms TO app;
	GRANT SELECT ON ALL TABLES IN SCHEMA sms TO app;
	GRANT UPDATE ON sms.ac_list_users TO app;
	GRANT INSERT, UPDATE ON sms.ac_background_jobs TO app;
	SQL

my $here = "SET sendcampaign.schema = 'sms'";
my %call = (
	send_campaign => 'send_campaign(1)',
	preview => 'count(*) FROM sendcampaign.preview(1)',
	estimate => 'sendcampaign.estimate(1)');

# A view of list users with this query, and the rights on it
sub list_users
{
	my ($query, $options) = @_;
	$options //= '';
	return <<~SQL;
		DROP VIEW sms.ac_list_users;
		CREATE VIEW sms.ac_list_users $options AS $query;
		GRANT SELECT, UPDATE ON sms.ac_list_users TO app;
		SQL
}

my $columns = 'c.id, c.list AS ac_list_id, c.phone AS sms, c.messages AS sent_count, c.name';

# An INSTEAD OF trigger that counts
my $trigger = <<~'SQL';
	CREATE FUNCTION shop.count() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
	BEGIN
	    UPDATE shop.customers SET messages = NEW.sent_count WHERE id = OLD.id;
	    RETURN NEW;
	END $$;
	CREATE TRIGGER count INSTEAD OF UPDATE ON sms.ac_list_users
	    FOR EACH ROW EXECUTE FUNCTION shop.count();
	SQL

# What is wrong, in SQL of the role "shop", and the error: SQLSTATE, message,
# detail and hint; with "rights" if only sending needs what is missing.
my $unusable = qr/^"sms\.ac_list_users" cannot be used to send a campaign$/;
my $lockable = qr/^Rows are locked and updated: a view must be without DISTINCT/;
my $grant = qr/^A view uses its tables with the rights of its owner/;
my @faults = (
	[
		'DISTINCT and a trigger',
		list_users("SELECT DISTINCT $columns FROM shop.customers c") . $trigger,
		'0A000',
		$unusable,
		qr/^Reason: FOR NO KEY UPDATE is not allowed with DISTINCT clause\.$/,
		$lockable
	],
	[
		'GROUP BY and a trigger',
		list_users(
				"SELECT $columns FROM shop.customers c LEFT JOIN shop.orders o"
			  . ' ON o.customer = c.id GROUP BY c.id')
		  . $trigger,
		'0A000',
		$unusable,
		qr/^Reason: FOR NO KEY UPDATE is not allowed with GROUP BY clause\.$/,
		$lockable
	],
	[
		'an outer join and a trigger',
		list_users(
				"SELECT $columns FROM shop.customers c LEFT JOIN shop.orders o"
			  . ' ON o.customer = c.id')
		  . $trigger,
		'0A000',
		$unusable,
		qr/^Reason: FOR NO KEY UPDATE cannot be applied to the nullable side/,
		$lockable
	],
	[
		'a rule without RETURNING',
		'CREATE RULE r AS ON UPDATE TO sms.ac_list_users DO INSTEAD'
		  . ' UPDATE shop.customers SET messages = NEW.sent_count WHERE id = OLD.id',
		'0A000',
		$unusable,
		qr/^Reason: cannot perform UPDATE RETURNING on relation "ac_list_users"\.$/,
		qr/RETURNING/
	],
	[
		'a generated column below the view',
		'ALTER TABLE shop.customers ADD doubled integer GENERATED ALWAYS AS (messages * 2) STORED;'
		  . list_users(
				'SELECT c.id, c.list AS ac_list_id, c.phone AS sms, c.doubled AS sent_count'
			  . ' FROM shop.customers c'),
		'428C9',
		$unusable,
		qr/^Reason: column "doubled" can only be updated to DEFAULT\./,
		qr/must not be a generated column\.$/
	],
	[
		'a join without a trigger',
		list_users(
			"SELECT $columns FROM shop.customers c JOIN shop.orders o ON o.customer = c.id"),
		'55000',
		qr/^column "sent_count" of "sms\.ac_list_users" cannot be updated$/,
		qr/not updatable/,
		qr/INSTEAD OF UPDATE trigger/
	],
	[
		'LIMIT without a trigger',
		list_users("SELECT $columns FROM shop.customers c LIMIT 10"),
		'55000',
		qr/^column "sent_count" of "sms\.ac_list_users" cannot be updated$/,
		qr/not updatable/,
		qr/INSTEAD OF UPDATE trigger/
	],
	[
		'a trigger for INSERT alone',
		list_users("SELECT $columns FROM shop.customers c LIMIT 10")
		  . ($trigger =~ s/INSTEAD OF UPDATE/INSTEAD OF INSERT/r),
		'55000',
		qr/^column "sent_count" of "sms\.ac_list_users" cannot be updated$/,
		qr/not updatable/,
		qr/INSTEAD OF UPDATE trigger/
	],
	[
		'a job that is an expression',
		'DROP VIEW sms.ac_background_jobs; CREATE VIEW sms.ac_background_jobs AS'
		  . ' SELECT id, progress + 0 AS progress, error FROM shop.jobs;'
		  . ' GRANT ALL ON sms.ac_background_jobs TO app',
		'55000',
		qr/^column "progress" of "sms\.ac_background_jobs" cannot be updated$/,
		qr/expression of a view/,
		qr/INSTEAD OF UPDATE trigger/
	],
	[
		'a uuid',
		list_users(
				q{SELECT gen_random_uuid() AS id, list AS ac_list_id, phone AS sms,}
			  . ' messages AS sent_count FROM shop.customers'),
		'42804',
		qr/^column "id" of "sms\.ac_list_users" is of type uuid$/,
		qr/^Rows are identified by integers/,
		qr/bigint GENERATED ALWAYS AS IDENTITY beside it/
	],
	[
		'the view\'s owner may not update',
		'REVOKE UPDATE ON shop.customers FROM shop',
		'42501', $unusable, qr/^Reason: permission denied for table customers\.$/,
		$grant, rights => 1
	],
	[
		'security_invoker, and the role may not update',
		list_users("SELECT $columns FROM shop.customers c", 'WITH (security_invoker)')
		  . 'GRANT USAGE ON SCHEMA shop TO app; GRANT SELECT ON shop.customers TO app',
		'42501',
		$unusable,
		qr/^Reason: permission denied for table customers\.$/,
		$grant,
		rights => 1
	],
	[
		'security_invoker, and a policy for SELECT alone',
		list_users("SELECT $columns FROM shop.customers c", 'WITH (security_invoker)')
		  . 'GRANT USAGE ON SCHEMA shop TO app; GRANT SELECT, UPDATE ON shop.customers TO app;'
		  . 'ALTER TABLE shop.customers ENABLE ROW LEVEL SECURITY;'
		  . 'CREATE POLICY s ON shop.customers FOR SELECT USING (true)',
		'42501',
		qr/^role "app" cannot update any row of "sms\.ac_list_users"$/,
		qr/^No policy for UPDATE/,
		qr/^Create a policy for UPDATE/,
		rights => 1
	],
	[
		'a policy that forbids every UPDATE of jobs',
		'DROP VIEW sms.ac_background_jobs; CREATE TABLE sms.ac_background_jobs'
		  . ' (id serial, progress integer, error text);'
		  . ' GRANT ALL ON sms.ac_background_jobs TO app;'
		  . ' GRANT USAGE ON SEQUENCE sms.ac_background_jobs_id_seq TO app;'
		  . ' ALTER TABLE sms.ac_background_jobs ENABLE ROW LEVEL SECURITY;'
		  . ' CREATE POLICY s ON sms.ac_background_jobs FOR SELECT USING (true);'
		  . ' CREATE POLICY i ON sms.ac_background_jobs FOR INSERT WITH CHECK (true);'
		  . ' CREATE POLICY u ON sms.ac_background_jobs FOR UPDATE USING (false)',
		'42501',
		qr/^role "app" cannot update any row of "sms\.ac_background_jobs"$/,
		qr/^No policy for UPDATE/,
		qr/^Create a policy for UPDATE/,
		rights => 1
	],
	[
		'a column that may not be read',
		'REVOKE SELECT ON sms.ac_list_users FROM app;'
		  . 'GRANT SELECT (id, ac_list_id, sms) ON sms.ac_list_users TO app',
		'42501',
		qr/^permission denied for table ac_list_users$/,
		qr/needs the SELECT privilege on column "sent_count"/,
		qr/^Use GRANT SELECT \(sent_count\) ON sms\.ac_list_users TO app\.$/,
		rights => 1
	]);

for my $fault (@faults)
{
	my ($name, $changes, $sqlstate, $message, $detail, $hint, %more) = @$fault;
	for my $function ($more{rights} ? 'send_campaign' : sort keys %call)
	{
		my $error = sql_error($node, <<~SQL);
			SET ROLE shop;
			BEGIN;
			$changes;
			SET ROLE app;
			$here;
			SELECT $call{$function};
			SQL
		is($error->{sqlstate}, $sqlstate, "$name: $function()");
		like($error->{message}, $message, '... names the table');
		like($error->{detail}, $detail, '... says what is wrong');
		like($error->{hint}, $hint, '... and what to do');
	}
}
is(scalar(() = $twilio->ledger), 0, 'nothing was sent');
is(sql($node, 'SELECT count(*) FROM sendcampaign.run'), 0, 'no run was queued');

# What works, in SQL of the role "shop": each customer has the message once
# more, and is counted.
my @works = (
	[ 'a view with expressions that are not written', '' ],
	[
		'security_barrier',
		list_users(
			"SELECT $columns FROM shop.customers c WHERE c.list = 1",
			'WITH (security_barrier)')
	],
	[ 'a view of a view', list_users("SELECT $columns FROM shop.everybody c") ],
	[
		'a join and a trigger',
		'INSERT INTO shop.orders SELECT id FROM shop.customers;'
		  . list_users(
			"SELECT $columns FROM shop.customers c JOIN shop.orders o" . ' ON o.customer = c.id')
		  . $trigger
	],
	[
		'UNION and a trigger',
		list_users(
				"SELECT $columns FROM shop.customers c WHERE id < 3 UNION"
			  . " SELECT $columns FROM shop.customers c WHERE id >= 3")
		  . ($trigger =~ s/CREATE FUNCTION.*?\$\$;\n//sr)
	],
	[
		'a rule with RETURNING',
		list_users("SELECT $columns FROM shop.customers c")
		  . 'CREATE RULE r AS ON UPDATE TO sms.ac_list_users DO INSTEAD UPDATE shop.customers'
		  . ' SET messages = NEW.sent_count WHERE id = OLD.id'
		  . ' RETURNING id, list, phone, messages, name'
	],
	[
		'security_invoker, and policies',
		list_users("SELECT $columns FROM shop.customers c", 'WITH (security_invoker)')
		  . 'GRANT USAGE ON SCHEMA shop TO app; GRANT SELECT, UPDATE ON shop.customers TO app;'
		  . 'ALTER TABLE shop.customers ENABLE ROW LEVEL SECURITY;'
		  . 'CREATE POLICY s ON shop.customers USING (list = 1)'
	]);
my $sent = 0;
for my $works (@works)
{
	my ($name, $changes) = @$works;
	sql($node, $changes, role => 'shop');
	my $job = sql($node, "$here; SELECT $call{send_campaign}", role => 'app');
	my $run = wait_for_run($node, $job, alone => 1);
	is("$run->{state} $run->{sent} of $run->{total}", 'completed 3 of 3', "$name: it is sent");
	is($run->{error}, '', '... with no error');
	$sent++;
	my $messages = 'SELECT string_agg(messages::text, \' \' ORDER BY id) FROM shop.customers';
	is(sql($node, $messages), "$sent $sent $sent", '... and counted');
	is(scalar(() = $twilio->ledger), 3 * $sent, '... once each');
	is(sql($node, "SELECT progress, error FROM shop.jobs WHERE id = $job"),
		'100|', '... the job knows');
	# the same for a caller whose session does not apply policies
	my $off =
	  sql_error($node, "$here; SET row_security = off; SELECT $call{estimate}", role => 'app');
	is( $off->{message},
		$name =~ /policies/
		? 'query would be affected by row-level security policy for table "customers"'
		: '',
		'... row_security');
}

# A session that has called before notices what has changed since.
my @changes = (
	[ 'a rule', 'CREATE RULE r AS ON UPDATE TO sms.ac_list_users DO INSTEAD NOTHING' ],
	[ 'a right', 'REVOKE UPDATE ON shop.customers FROM app' ],
	[
		'a policy',
		'DROP POLICY s ON shop.customers;'
		  . 'CREATE POLICY s ON shop.customers FOR SELECT USING (true)'
	],
	[ 'a group', 'RESET ROLE; REVOKE readers FROM app' ]);
sql($node,
	list_users("SELECT $columns FROM shop.customers c", 'WITH (security_invoker)'),
	role => 'shop');
for my $change (@changes)
{
	my ($name, $changes) = @$change;
	my ($stdout, $stderr) = sql_output($node, <<~"SQL");
		CREATE ROLE readers;
		GRANT readers TO app;
		BEGIN;
		SET ROLE shop;
		REVOKE SELECT ON shop.customers FROM app;
		GRANT SELECT ON shop.customers TO readers;
		SET ROLE app;
		$here;
		SELECT 'before' FROM send_campaign(1);
		SELECT 'again' FROM sendcampaign.estimate(1);
		SET ROLE shop;
		$changes;
		SET ROLE app;
		SELECT 'afterwards' FROM send_campaign(1);
		SQL
	is($stdout, "before\nagain", "$name that changes between two calls: the first two work");
	like($stderr, qr/ERROR:  .*"sms\.ac_list_users"/, '... and the next one is refused');
	sql($node, 'DROP OWNED BY readers; DROP ROLE readers');
}

# No lock is left by a call that only looks.
is(sql($node, <<~"SQL"), '0', 'preview() and estimate() leave no lock for writing');
	SET ROLE app;
	$here;
	BEGIN;
	CREATE TEMP TABLE seen AS SELECT $call{preview};
	DO 'BEGIN PERFORM $call{estimate}; END';
	SELECT count(*) FROM pg_locks
	WHERE pid = pg_backend_pid() AND locktype = 'relation' AND mode LIKE 'Row%'
	    AND relation = 'shop.customers'::regclass;
	SQL
wait_for_no_worker($node);

$node->stop;
done_testing();
