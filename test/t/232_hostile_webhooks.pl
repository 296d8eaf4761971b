# What one role does to another's webhooks: it names the other's account, floods it
# with groups, has groups that cannot be read, or whose reading takes long, or runs
# code.  Each role's token proves something for its own groups only.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../perl";
use Campaign;
use LocalTwilio;
use Session;
use Test::More;
use Webhook;

my $twilio = LocalTwilio->start;
my $node = new_cluster('hostile', $twilio);
create_webhook_role($node);
my $campaign = create_campaign($node, users => 20);
configure($node, $campaign, qq(configuration || '{"twilioStatusCallback": "$URL"}'));
my $job = run_campaign($node, $campaign)->{job};
my ($sid, $phone) = split /\|/,
  sql($node, "SELECT sid, phone FROM sendcampaign.message WHERE job_id = $job LIMIT 1");

# The hostile role: its group names the other's account; it knows no token but its own.
make_tenant($node, 'mallory', base_url => undef);
sql($node, <<~SQL);
	GRANT EXECUTE ON ALL ROUTINES IN SCHEMA sendcampaign TO mallory;
	UPDATE mallory.groups SET configuration = configuration
		|| '{"twilioAuthToken": "mallorys", "twilioStatusCallback": "$URL"}';
	SQL
my $mallorys =
  sql($node, 'SET sendcampaign.schema = mallory; SELECT send_campaign(1)', role => 'mallory');
$node->poll_query_until('postgres',
	q(SELECT state = 'failed' FROM sendcampaign.run WHERE schema = 'mallory'));
is(sql($node, "SELECT account FROM sendcampaign.run_data WHERE schema = 'mallory'"),
	$LocalTwilio::ACCOUNT, 'a role names an account of which it knows no token');

sub status_form
{
	my ($of, $status, %arg) = @_;
	return signed_form(
		{
			MessageSid => $of,
			MessageStatus => $status,
			AccountSid => $LocalTwilio::ACCOUNT,
			From => $LocalTwilio::SENDER,
			To => $phone
		},
		%arg);
}

my $state = <<~'SQL';
	SELECT (SELECT count(*) FROM sendcampaign.receipt_data),
		(SELECT count(*) FROM sendcampaign.reply_data),
		(SELECT count(*) FROM sendcampaign.early_receipt),
		(SELECT count(*) FROM sendcampaign.opt_out_data)
	SQL
is(receive_error($node, status_form($sid, 'undelivered', token => 'mallorys'))->{sqlstate},
	'28000', 'its token proves nothing about a message of another role');
is(receive($node, inbound_form('SM1', $phone, 'STOP', {}, token => 'mallorys')),
	'reply', 'what it says is a reply');
is(sql($node, "SELECT schema, role, run_id FROM sendcampaign.reply_data WHERE sid = 'SM1'"),
	'mallory|mallory|', 'is one to itself');
is(sql($node, 'SELECT DISTINCT schema, role FROM sendcampaign.opt_out_data'),
	'mallory|mallory', 'and opts out of its own messages');
is(receive($node, inbound_form('SM1', $phone, 'Hello')),
	'reply', 'a SID that it has used is not taken');
is( sql($node,
		"SELECT schema, body FROM sendcampaign.reply_data WHERE sid = 'SM1' ORDER BY schema"),
	"mallory|STOP\npublic|Hello",
	'both are there');
is(receive($node, status_form('SM2', 'delivered', token => 'mallorys')),
	'ignored', 'an early receipt');
is(sql($node, $state), '0|2|0|1', 'nothing else has changed');

# It floods the account.
sql($node, <<~SQL);
	INSERT INTO sendcampaign.run_data (schema, job_id, campaign_id, role, role_oid, database,
		state,
		account, group_id, finished_at)
	SELECT 'mallory', 1000 + i, i, 'mallory', 'mallory'::regrole, d.oid, 'completed',
		'$LocalTwilio::ACCOUNT', i, now()
	FROM generate_series(1, 5000) i, pg_database d WHERE d.datname = current_database();
	INSERT INTO mallory.groups (configuration)
	SELECT configuration FROM mallory.groups, generate_series(2, 5000) WHERE id = 1;
	SQL
is(receive($node, status_form($sid, 'sent')), 'receipt', 'beside 5000 groups, receipts are taken');
is(receive($node, inbound_form('SM3', $phone, 'Hello')), 'reply', 'replies are');
is(receive($node, inbound_form('SM4', '+15559999999', 'Hello')),
	'reply', "and a stranger's message");

# Its groups cannot be read, or should not be.
my %hostile = (
	'a view with a function that fails' => 'SELECT id, name, (1 / (id - id))::text::jsonb'
	  . ' AS configuration FROM mallory.real_groups',
	'a view that has other types' =>
	  'SELECT id::text, now() AS configuration FROM mallory.real_groups',
	'a view that returns a row twice' =>
	  'SELECT r.id, r.configuration FROM mallory.real_groups r, generate_series(1, 2)',
	'a view that changes things' => 'SELECT id, mallory.act(configuration) AS configuration'
	  . ' FROM mallory.real_groups',
	'a view that calls receive()' => 'SELECT id, mallory.again(configuration) AS configuration'
	  . ' FROM mallory.real_groups',
	'a view with long values' =>
	  "SELECT id, configuration || jsonb_build_object('twilioAuthToken',"
	  . " repeat('x', 1000000)) AS configuration FROM mallory.real_groups");
sql($node, <<~'SQL', role => 'mallory');
	ALTER TABLE mallory.groups RENAME TO real_groups;
	CREATE TABLE mallory.log (who name, session name);
	CREATE FUNCTION mallory.act(configuration jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
	BEGIN
		INSERT INTO mallory.log VALUES (current_user, session_user);
		PERFORM set_config('search_path', 'mallory', false);
		BEGIN
			DELETE FROM sendcampaign.run_data;
		EXCEPTION WHEN insufficient_privilege THEN
			RETURN configuration;
		END;
		RAISE EXCEPTION 'mallory has deleted runs';
	END
	$$;
	CREATE FUNCTION mallory.again(configuration jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
	BEGIN
		PERFORM sendcampaign.receive(NULL, 'x',
			'AccountSid=' || (configuration->>'twilioAccountSid'));
		RETURN configuration;
	END
	$$;
	SQL
for my $name (sort keys %hostile)
{
	sql($node,
		"DROP VIEW IF EXISTS mallory.groups; CREATE VIEW mallory.groups AS $hostile{$name}",
		role => 'mallory');
	my $number = 'SM5' . unpack('H*', $name);
	is(receive($node, inbound_form(substr($number, 0, 40), '+15559999998', 'Hello')),
		'reply', "$name: the others' messages are taken");
	is( receive_error($node, inbound_form('SM6', '+15559999998', 'Hello', {}, token => 'none'))
		  ->{sqlstate},
		'28000',
		"$name: and nobody else's");
}
is(sql($node, 'SELECT DISTINCT who FROM mallory.log'), 'mallory', 'its code has run as itself');
like(
	log_of($node),
	qr/sendcampaign: could not read group \d+ in schema "mallory" for a webhook: division by zero/,
	'the log says why a group is not considered');

like(
	log_of($node),
	qr/: sendcampaign.receive\(\) was called by code that reads a group. Remove the call from/,
	'and that it must not call receive() again');
like(log_of($node), qr/Remove the call from the views, policies and functions of the table\./,
	'with a hint');

# A slow view: it is the web server's time that it takes, and only where the message
# is nobody's who is known.
sql($node, <<~'SQL', role => 'mallory');
	DROP VIEW mallory.groups;
	CREATE VIEW mallory.groups AS
	SELECT id, CASE WHEN pg_sleep(1000) IS NOT NULL THEN configuration END AS configuration
	FROM mallory.real_groups;
	SQL
is(receive($node, status_form($sid, 'delivered')),
	'receipt', 'a slow view does not delay receipts');
is(receive($node, inbound_form('SM7', $phone, 'Hello')), 'reply', 'nor replies of recipients');
my $call = Webhook::call_of(inbound_form('SM8', '+15559999997', 'Hello'));
my $error = sql_error($node, "SET statement_timeout = '1s'; $call", role => 'webhook');
is($error->{sqlstate}, '57014', "a stranger's message takes no longer than statement_timeout");
sql($node,
	'DROP VIEW mallory.groups; ALTER TABLE mallory.real_groups RENAME TO groups',
	role => 'mallory');
is(receive($node, inbound_form('SM8', '+15559999997', 'Hello')), 'reply', 'and is taken later');

# It locks its table.
my $session = Session->open($node);
$session->query('SET ROLE mallory; BEGIN; LOCK TABLE mallory.groups');
is(receive($node, inbound_form('SM9', '+15559999996', 'Hello')),
	'reply', 'a lock keeps the others from nothing');
$session->query('COMMIT');

# Rows that its policies hide
sql($node,
	'ALTER TABLE mallory.groups ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY',
	role => 'mallory');
is( receive_error($node, inbound_form('SM10', '+15559999996', 'Hello', {}, token => 'mallorys'))
	  ->{sqlstate},
	'28000',
	'a group that its role may not see proves nothing');
sql($node, 'CREATE POLICY all_rows ON mallory.groups USING (true)', role => 'mallory');
is(receive($node, inbound_form('SM10', '+15559999996', 'Hello', {}, token => 'mallorys')),
	'reply', 'one that it may see does');

# The caller's search path leads a role's functions nowhere.
sql($node, <<~'SQL');
	CREATE SCHEMA w AUTHORIZATION webhook;
	CREATE TABLE w.log (who name, what text);
	GRANT ALL ON w.log TO PUBLIC;
	GRANT USAGE ON SCHEMA w TO PUBLIC;
	SET ROLE webhook;
	CREATE FUNCTION w.helper(configuration jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
	BEGIN
		INSERT INTO w.log VALUES (current_user, configuration->>'twilioAuthToken');
		RETURN configuration;
	END
	$$;
	SQL
sql($node, <<~'SQL', role => 'app');
	CREATE FUNCTION helper(configuration jsonb) RETURNS jsonb LANGUAGE sql
		AS 'SELECT configuration';
	CREATE TABLE settings (name text);
	CREATE FUNCTION through(configuration jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
	BEGIN
		IF EXISTS (SELECT FROM settings) THEN
			RETURN NULL;
		END IF;
		RETURN helper(configuration);
	END
	$$;
	ALTER TABLE groups RENAME TO real_groups;
	CREATE VIEW groups AS SELECT id, through(configuration) AS configuration FROM real_groups;
	SQL
$call = Webhook::call_of(status_form($sid, 'delivered'));
is( sql($node, <<~SQL, role => 'webhook'),
	CREATE TEMP TABLE settings AS SELECT 'x' AS name;
	GRANT SELECT ON settings TO PUBLIC;
	SET search_path = w, pg_temp, public;
	SET row_security = off;
	$call
	SQL
	'known', 'whatever search path the caller has');
is(sql($node, 'SELECT count(*) FROM w.log'), 0, 'none of its functions has run as the role');
sql($node, 'DROP VIEW groups; ALTER TABLE real_groups RENAME TO groups', role => 'app');

# Rights, and roles that go
sql($node, 'ALTER TABLE mallory.groups OWNER TO postgres');
is( receive_error($node, inbound_form('SM11', '+15559999996', 'Hello', {}, token => 'mallorys'))
	  ->{sqlstate},
	'28000',
	'nor does one that it may not read any longer');
sql($node, 'GRANT SELECT ON mallory.groups TO mallory');
is(receive($node, inbound_form('SM11', '+15559999996', 'Hello', {}, token => 'mallorys')),
	'reply', 'as soon as it may again, it does');
sql($node, <<~'SQL');
	DROP OWNED BY mallory CASCADE;
	DROP ROLE mallory;
	SQL
is(receive($node, inbound_form('SM12', '+15559999995', 'Hello')),
	'reply', 'a role that is gone is no trouble');
is(receive($node, status_form($sid, 'read')), 'receipt', 'for receipts, either');
sql($node, 'ALTER SCHEMA public RENAME TO elsewhere');
is(receive_error($node, status_form($sid, 'read'))->{sqlstate}, '28000', 'a schema that is gone');
sql($node, 'ALTER SCHEMA elsewhere RENAME TO public');
is(receive($node, status_form($sid, 'read')), 'known', 'and there again');

# A loaded run names another role's group.
sql($node, <<~SQL);
	SET session_replication_role = replica;
	UPDATE sendcampaign.run_data SET written_in = '0' WHERE schema = 'public';
	SQL
is(receive_error($node, status_form($sid, 'delivered'))->{sqlstate},
	'28000', 'what was loaded is nobody\'s');
is(worker_errors($node), '', 'nothing else has happened');
$node->stop;
done_testing();
