# What a role can do to another one that shares a Twilio account with it: take the
# name of a schema that the other has left, hold what the other waits for, raise
# errors that look like the server's own, and take its time.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../perl";
use Campaign;
use LocalTwilio;
use Session;
use Sweeps;
use Test::More;
use Webhook;

my $mallorys_account = 'AC00000000000000000000000000000002';
my $twilio = LocalTwilio->start(options => [ '--account', "$mallorys_account:mallorys" ]);
my $node = new_cluster('rights', $twilio);
create_webhook_role($node);
my $campaign = create_campaign($node, users => 5);
configure($node, $campaign, qq(configuration || '{"twilioStatusCallback": "$URL"}'));
my $job = run_campaign($node, $campaign)->{job};
my ($sid, $phone) = split /\|/,
  sql($node, "SELECT sid, phone FROM sendcampaign.message WHERE job_id = $job LIMIT 1");

# Whose rights code of the tables in the schema "boss" has had.
sub seen
{
	my %seen = map { $_ => 1 } log_of($node) =~ /(?:LOG|NOTICE):  (\w+ as \w+)$/gm;
	return join ', ', sort keys %seen;
}

# A tenant's only campaign, sent until its run is in this state.
sub send_of_tenant
{
	my ($role, $state) = @_;
	sql($node, "SET sendcampaign.schema = $role; SELECT send_campaign(1)", role => $role);
	wait_until($node, <<~"SQL");
		SELECT state = '$state' FROM sendcampaign.run WHERE schema = '$role'
		ORDER BY id DESC LIMIT 1
		SQL
}

# The role "boss" has sent something, and has dropped its schema.
make_tenant($node, 'boss');
make_tenant($node, 'mallory', base_url => undef);
sql($node, <<~"SQL");
	GRANT EXECUTE ON ALL ROUTINES IN SCHEMA sendcampaign TO mallory, boss;
	UPDATE boss.groups SET configuration = configuration || '{"twilioStatusCallback": "$URL"}';
	SQL
send_of_tenant('boss', 'completed');
wait_for_no_worker($node);
sql($node, <<~'SQL');
	DROP SCHEMA boss CASCADE;
	GRANT CREATE ON DATABASE postgres TO mallory;
	SQL

# Another role takes the schema's name; its tables have code.
sql($node, <<~'SQL', role => 'mallory');
	CREATE SCHEMA boss;
	SELECT sendcampaign.create_tables('boss');
	CREATE FUNCTION boss.act(configuration jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
	BEGIN
		RAISE LOG 'read as %', current_user;
		RETURN configuration;
	END
	$$;
	CREATE FUNCTION boss.fire() RETURNS trigger LANGUAGE plpgsql AS $$
	BEGIN
		RAISE LOG 'written as %', current_user;
		RETURN NEW;
	END
	$$;
	INSERT INTO boss.groups (configuration) SELECT configuration FROM mallory.groups;
	INSERT INTO boss.ac_lists (group_id) VALUES (1);
	INSERT INTO boss.ac_campaigns (ac_list_id, data) VALUES (1, '{"message": "Hello"}');
	INSERT INTO boss.ac_background_jobs (progress) VALUES (5);
	CREATE TRIGGER fire BEFORE UPDATE ON boss.ac_background_jobs
		FOR EACH ROW EXECUTE FUNCTION boss.fire();
	ALTER TABLE boss.groups RENAME TO real_groups;
	CREATE VIEW boss.groups AS
		SELECT id, boss.act(configuration) AS configuration FROM boss.real_groups;
	GRANT USAGE ON SCHEMA boss TO PUBLIC;
	GRANT ALL ON ALL TABLES IN SCHEMA boss TO PUBLIC;
	SQL
is(receive($node, inbound_form('SM1', '+15559999997', 'Hello')),
	'reply', 'a schema that has another owner: others get their messages');

sub sweep_boss
{
	sql($node, <<~'SQL');
		UPDATE sendcampaign.run_data SET sweep_at = now() WHERE schema = 'boss';
		SELECT sendcampaign.wake()
		SQL
	wait_until($node, <<~'SQL');
		SELECT coalesce(sweep_at > now(), true) FROM sendcampaign.run_data WHERE schema = 'boss'
		SQL
}
sweep_boss();
is(seen(), '', 'its code has not run with the rights of the role that had the name before');
like(
	log_of($node),
	qr/webhook: the tables in schema "boss" are not those with which the run started\. /,
	'not for a webhook');
like(
	log_of($node),
	qr/ boss\.\w+ belongs to role "mallory", whose code would run with the rights of role "boss"/,
	'the log says why');
like(
	log_of($node),
	qr/ask Twilio what became of its messages: the tables in schema "boss" are not those/,
	'nor in a sweep');
like(log_of($node), qr/Make one role the owner of all tables and of the functions that they use\./,
	'with a hint');

# Tables that the role has created again are as good as the first ones.
sql($node, <<~'SQL');
	DROP SCHEMA boss CASCADE;
	CREATE SCHEMA boss AUTHORIZATION boss;
	SQL
sql($node, <<~"SQL", role => 'boss');
	SELECT sendcampaign.create_tables('boss');
	INSERT INTO boss.groups (configuration)
	SELECT jsonb_build_object('twilioAccountSid', '$LocalTwilio::ACCOUNT',
		'twilioAuthToken', 'boss',
		'twilioFromSmsNumber', '$LocalTwilio::SENDER', 'twilioStatusCallback', '$URL');
	SQL
is(receive($node, inbound_form('SM2', '+15559999997', 'Hello', {}, token => 'boss')),
	'reply', 'a schema that its owner has created again');

# It sends to another role's recipient, with its own account, and names the other's then.
sql($node, <<~"SQL");
	UPDATE mallory.groups SET configuration = configuration || jsonb_build_object(
		'twilioAuthToken', 'mallorys', 'twilioAccountSid', '$mallorys_account',
		'twilioStatusCallback', '$URL', 'twilioSegmentsPerSecond', '1');
	UPDATE mallory.ac_list_users SET data = jsonb_build_object('sms', '$phone');
	INSERT INTO mallory.ac_list_users (ac_list_id, data)
	SELECT 1, jsonb_build_object('sms', '+1555777' || i) FROM generate_series(1000, 1500) i;
	SQL
sql($node, 'SET sendcampaign.schema = mallory; SELECT send_campaign(1)', role => 'mallory');
wait_until($node, "SELECT sent > 0 FROM sendcampaign.run WHERE schema = 'mallory'");
sql($node, <<~"SQL", role => 'mallory');
	UPDATE mallory.groups SET configuration = configuration
		|| '{"twilioAccountSid": "$LocalTwilio::ACCOUNT"}'
	SQL
wait_until($node, "SELECT state = 'failed' FROM sendcampaign.run WHERE schema = 'mallory'");
is(sql($node, <<~"SQL"), "$LocalTwilio::ACCOUNT|t", 'a role has sent to the phone of another one');
	SELECT r.account, m.phone = '$phone' FROM sendcampaign.run r
	JOIN sendcampaign.message_data m ON m.run_id = r.id AND m.status = 'sent'
	WHERE r.schema = 'mallory' ORDER BY m.list_user_id LIMIT 1
	SQL

# A stop word of that recipient, in a transaction that stays open.
my $session = Session->open($node);
my $stop = inbound_form('SM3', $phone, 'STOP', {}, token => 'mallorys');
$session->query('SET ROLE mallory; BEGIN; ' . Webhook::call_of($stop));
my $call = Webhook::call_of(inbound_form('SM4', $phone, 'STOP'));
is(sql($node, "SET lock_timeout = '100 ms'; $call", role => 'webhook'),
	'reply', 'a STOP that one role has not committed does not hold up those of others');
$session->query('COMMIT');
is(sql($node, "SELECT count(*) FROM sendcampaign.opt_out_data WHERE phone = '$phone'"),
	2, 'both are recorded');

# Its groups raise errors that mean that the transaction is to be tried again, or is cancelled.
sql($node, <<~'SQL', role => 'mallory');
	ALTER TABLE mallory.groups RENAME TO real_groups;
	CREATE FUNCTION mallory.fail(code text) RETURNS jsonb LANGUAGE plpgsql AS $$
	BEGIN
		RAISE EXCEPTION 'made up' USING ERRCODE = code;
	END
	$$;
	CREATE FUNCTION mallory.stay(configuration jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
	BEGIN
		FOR i IN 1 .. 3 LOOP
			BEGIN
				PERFORM pg_sleep(1000);
			EXCEPTION WHEN query_canceled THEN
			END;
		END LOOP;
		RETURN configuration;
	END
	$$;
	SQL

sub set_view
{
	my $configuration = shift;
	sql($node, <<~"SQL", role => 'mallory');
		DROP VIEW IF EXISTS mallory.groups;
		CREATE VIEW mallory.groups AS SELECT id, $configuration AS configuration
		FROM mallory.real_groups
		SQL
}
my $n = 10;
for my $code (qw(57014 40001 40P01 53200))
{
	set_view("mallory.fail('$code')");
	is(receive($node, inbound_form('SM' . $n++, $phone, 'Hello')), 'reply', "error $code");
	is(receive($node, inbound_form('SM' . $n++, '+15559999990', 'Hello')),
		'reply', "error $code: a stranger's message");
}

# They take long, and do not let themselves be cancelled.
for my $configuration ('CASE WHEN pg_sleep(1000) IS NOT NULL THEN configuration END',
	'mallory.stay(configuration)')
{
	set_view($configuration);
	is(receive($node, inbound_form('SM' . $n++, $phone, 'Hello')), 'reply', $configuration);
	is(receive($node, inbound_form('SM' . $n++, '+15559999990', 'Hello')),
		'reply', "$configuration: a stranger's message");
}

# One that never ends costs the connection, in the end.
sql($node, <<~'SQL', role => 'mallory');
	CREATE FUNCTION mallory.forever(configuration jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
	BEGIN
		LOOP
			BEGIN
				PERFORM pg_sleep(1000);
			EXCEPTION WHEN query_canceled THEN
			END;
		END LOOP;
	END
	$$;
	SQL
set_view('mallory.forever(configuration)');
my $error = receive_error($node, inbound_form('SM' . $n++, $phone, 'Hello'));
is($error->{sqlstate}, '57P01', 'code that never ends');

# The caller may still cancel.
set_view('CASE WHEN pg_sleep(1000) IS NOT NULL THEN configuration END');
$call = Webhook::call_of(inbound_form('SM' . $n++, $phone, 'Hello'));
is(sql_error($node, "SET statement_timeout = '500 ms'; $call", role => 'webhook')->{sqlstate},
	'57014', 'statement_timeout is what it was');

# The caller learns nothing of groups.
set_view("mallory.fail('22012')");
$call = Webhook::call_of(inbound_form('SM' . $n++, $phone, 'Hello', {}, token => 'none'));
my (undef, $messages) =
  sql_output($node, "SET client_min_messages = log; $call", role => 'webhook');
unlike($messages, qr/mallory/, 'the caller is not told whose groups cannot be read');
like(log_of($node), qr/could not read group 1 in schema "mallory" for a webhook: made up/,
	'the log is');

$node->stop;
done_testing();
