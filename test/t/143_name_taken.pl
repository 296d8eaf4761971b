# A role has called send_campaign() and dropped its schema, and another role has
# taken the schema's name before the run ends: code of the new tables does not run
# with the first role's rights, whatever is done with the run.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../perl";
use Campaign;
use LocalTwilio;
use Test::More;

my $twilio = LocalTwilio->start;
$twilio->set('sent-after' => 0, 'deliver-after' => -1);
my $node = new_cluster('name', $twilio, conf => "sendcampaign.enabled = off\n");
sql($node, <<~'SQL');
	CREATE ROLE mallory LOGIN;
	GRANT USAGE ON SCHEMA sendcampaign TO mallory;
	GRANT CREATE ON DATABASE postgres TO mallory;
	SQL

# A role with a schema of its own, whose run is in this state.
sub send_of
{
	my ($role, $state) = @_;
	make_tenant($node, $role);
	my @as = (role => $role);
	sql($node, "GRANT EXECUTE ON ALL ROUTINES IN SCHEMA sendcampaign TO $role");
	sql($node, <<~"SQL", @as) if $state =~ /begun|running/;
		INSERT INTO $role.ac_list_users (ac_list_id, data)
		SELECT 1, jsonb_build_object('sms', '+1555666' || i) FROM generate_series(1000, 1999) i;
		UPDATE $role.groups SET configuration = configuration || '{"twilioSegmentsPerSecond": "1"}'
		SQL
	set_and_reload($node, 'sendcampaign.enabled', $state eq 'queued' ? 'off' : 'on');
	sql($node, "SET sendcampaign.schema = $role; SELECT send_campaign(1)", @as);
	wait_until($node, "SELECT sent > 0 FROM sendcampaign.run WHERE schema = '$role'")
	  if $state ne 'queued';
	return if $state eq 'running';
	set_and_reload($node, 'sendcampaign.enabled', 'off');
	wait_for_no_worker($node);
}

# Another role takes the schema's name, with triggers on all tables.
sub take_name
{
	my $schema = shift;
	sql($node, "DROP SCHEMA $schema CASCADE");
	sql($node, <<~"SQL", role => 'mallory');
		CREATE SCHEMA $schema;
		SELECT sendcampaign.create_tables('$schema');
		GRANT USAGE ON SCHEMA $schema TO PUBLIC;
		GRANT ALL ON ALL TABLES IN SCHEMA $schema TO PUBLIC;
		CREATE FUNCTION $schema.fire() RETURNS trigger LANGUAGE plpgsql AS \$\$
		BEGIN
			RAISE LOG 'written as %', current_user;
			RETURN NEW;
		END
		\$\$;
		CREATE TRIGGER fire BEFORE UPDATE ON $schema.ac_background_jobs
			FOR EACH ROW EXECUTE FUNCTION $schema.fire();
		CREATE TRIGGER fire BEFORE UPDATE ON $schema.ac_list_users
			FOR EACH ROW EXECUTE FUNCTION $schema.fire();
		INSERT INTO $schema.groups (configuration)
		VALUES (jsonb_build_object(
			'twilioAccountSid', '$LocalTwilio::ACCOUNT',
			'twilioAuthToken', '$LocalTwilio::TOKEN',
			'twilioFromSmsNumber', '$LocalTwilio::SENDER'));
		INSERT INTO $schema.ac_lists (group_id) VALUES (1);
		INSERT INTO $schema.ac_list_users (ac_list_id, data)
		VALUES (1, '{"sms": "+15559999999"}');
		INSERT INTO $schema.ac_campaigns (ac_list_id, data)
		VALUES (1, '{"message": "From mallory", "baseUrl": "https://example.org"}');
		INSERT INTO $schema.ac_background_jobs (progress) VALUES (5)
		SQL
}

# Whose rights the triggers have had.
sub seen
{
	my %seen = map { $_ => 1 } log_of($node) =~ /LOG:  written as (\w+)$/gm;
	return join ', ', sort keys %seen;
}

my %call = (
	wake => 'SELECT sendcampaign.wake()',
	pause => 'SELECT sendcampaign.pause(1)',
	cancel => 'SELECT sendcampaign.cancel(1)',
	settle => 'SELECT sendcampaign.settle(1, 1, true)',
	retry => 'SELECT sendcampaign.retry_failed(1)',
	resume => 'SELECT sendcampaign.resume(1)');
for my $case (
	'queued wake',
	'queued pause',
	'queued cancel',
	'begun wake',
	'begun pause',
	'begun cancel',
	'done settle',
	'done retry',
	'queued resume',
	'running wake',
	'running cancel')
{
	my ($state, $call) = split / /, $case;
	my $name = "${state}_$call";
	send_of($name, $state);
	my $run = "(SELECT id FROM sendcampaign.run WHERE schema = '$name')";
	sql($node, <<~"SQL") if $call eq 'settle';
		UPDATE sendcampaign.message_data SET status = 'in_doubt' WHERE run_id = $run;
		UPDATE sendcampaign.run_data SET sent = 0, in_doubt = 1 WHERE id = $run
		SQL
	sql($node, <<~"SQL") if $call eq 'retry';
		UPDATE sendcampaign.message_data SET status = 'failed', error_code = 30001 WHERE run_id = $run;
		UPDATE sendcampaign.run_data SET sent = 0, failed = 1 WHERE id = $run
		SQL
	sql($node, "SET sendcampaign.schema = $name; SELECT sendcampaign.pause(1)")
	  if $call eq 'resume';
	take_name($name);
	# a run that is under way may have failed before
	$node->psql('postgres', "SET sendcampaign.schema = $name; $call{$call}");
	is(seen(), '', "$case: the new tables' code does not run with the rights of others");
	next if $call eq 'settle' || $call eq 'pause';

	set_and_reload($node, 'sendcampaign.enabled', 'on');
	sql($node, 'SELECT sendcampaign.wake()');
	wait_until($node, <<~"SQL");
		SELECT finished_at IS NOT NULL FROM sendcampaign.run WHERE schema = '$name'
		SQL
	wait_for_no_worker($node);
	is(seen(), '', "$case: nor when the run ends");
	my %expected = (
		cancel => qr/^cancelled\|/,
		running => qr/^(failed|cancelled)\|/,
		other =>
		  qr/^failed\|the tables in schema "$name" are not those with which the run started\. /);
	like(
		sql($node, "SELECT state, error FROM sendcampaign.run WHERE schema = '$name'"),
		$expected{$state} // $expected{$call} // $expected{other},
		"$case: why");
}

# The owner of the tables replaces one of them: whoever has chosen its tables before
# has chosen this one, too, and its code.
sql($node, <<~'SQL');
	CREATE ROLE sender LOGIN;
	GRANT USAGE ON SCHEMA sendcampaign TO sender;
	GRANT EXECUTE ON ALL ROUTINES IN SCHEMA sendcampaign TO sender
	SQL
make_tenant($node, 'owner');
set_and_reload($node, 'sendcampaign.enabled', 'off');
sql($node, <<~'SQL', role => 'owner');
	CREATE FUNCTION owner.fire() RETURNS trigger LANGUAGE plpgsql AS $$
	BEGIN
		RAISE LOG 'code of the owner as %', current_user;
		RETURN NEW;
	END
	$$;
	GRANT USAGE ON SCHEMA owner TO sender;
	GRANT ALL ON ALL TABLES IN SCHEMA owner TO sender;
	GRANT ALL ON ALL SEQUENCES IN SCHEMA owner TO sender
	SQL
sql($node, 'SET sendcampaign.schema = owner; SELECT send_campaign(1)', role => 'sender');

sub replace_list_users
{
	my $old = shift;
	sql($node, <<~"SQL", role => 'owner');
		ALTER TABLE owner.ac_list_users RENAME TO $old;
		CREATE TABLE owner.ac_list_users (LIKE owner.$old INCLUDING ALL);
		INSERT INTO owner.ac_list_users SELECT * FROM owner.$old;
		GRANT ALL ON owner.ac_list_users TO sender;
		CREATE TRIGGER fire BEFORE UPDATE ON owner.ac_list_users
			FOR EACH ROW EXECUTE FUNCTION owner.fire()
		SQL
}
replace_list_users('first_table');
set_and_reload($node, 'sendcampaign.enabled', 'on');
sql($node, 'SELECT sendcampaign.wake()');
wait_until($node, "SELECT state = 'completed' FROM sendcampaign.run WHERE schema = 'owner'");
like(log_of($node), qr/LOG:  code of the owner as sender/, 'a table that its owner has replaced');
is(sql($node, 'SELECT progress FROM owner.ac_background_jobs'), 100, 'the job is told');
wait_for_no_worker($node);
replace_list_users('second_table');
sql($node, <<~'SQL');
	UPDATE sendcampaign.run_data SET sweep_at = now() WHERE schema = 'owner';
	SELECT sendcampaign.wake()
	SQL
wait_until($node, "SELECT sweep_at > now() FROM sendcampaign.run_data WHERE schema = 'owner'");
is( sql($node, "SELECT sid IS NOT NULL, delivery FROM sendcampaign.message WHERE schema = 'owner'"
	),
	't|sent',
	'and what became of the message is asked after that');

is(scalar(grep { $_->{to} eq '+15559999999' } $twilio->ledger), 0, 'nobody else has a message');
$node->stop;
done_testing();
