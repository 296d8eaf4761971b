# The tables that a run began with get another name while it is being sent, and
# others get theirs: the run does not go on with these, whose list users are
# other people, before somebody has decided so.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../perl";
use Campaign;
use LocalTwilio;
use Test::More;

my $users = 1000;
my $twilio = LocalTwilio->start;
my $node = new_cluster('other_tables', $twilio, conf => <<~'CONF');
	sendcampaign.request_timeout = '2s'
	sendcampaign.lookup_delay = '200ms'
	sendcampaign.lookup_timeout = '2s'
	CONF
sql($node, 'GRANT CREATE ON DATABASE postgres TO app');

# SQL for the tables in a schema, with one campaign, to phones that begin so
sub make_tables
{
	my ($schema, $prefix) = @_;
	return <<~SQL;
		CREATE SCHEMA $schema;
		SELECT sendcampaign.create_tables('$schema');
		INSERT INTO $schema.groups (configuration) VALUES (jsonb_build_object(
		    'twilioAccountSid', '$LocalTwilio::ACCOUNT',
		    'twilioAuthToken', '$LocalTwilio::TOKEN',
		    'twilioFromSmsNumber', '$LocalTwilio::SENDER'));
		INSERT INTO $schema.ac_lists (group_id) VALUES (1);
		INSERT INTO $schema.ac_list_users (ac_list_id, data)
		SELECT 1, jsonb_build_object('sms', '$prefix' || lpad(i::text, 7, '0'))
		FROM generate_series(1, $users) i;
		INSERT INTO $schema.ac_campaigns (ac_list_id, data)
		VALUES (1, '{"message": "Hello $schema", "baseUrl": "https://example.org/$schema"}');
		INSERT INTO $schema.ac_background_jobs DEFAULT VALUES;
		SQL
}

# SQL that has others take the place of these tables, to phones that begin with
# +1777
sub replace_schema
{
	my $schema = shift;
	return "ALTER SCHEMA $schema RENAME TO old_$schema;\n" . make_tables($schema, '+1777');
}

sub replace_list_users
{
	my $schema = shift;
	return <<~SQL;
		ALTER TABLE $schema.ac_list_users RENAME TO old_list_users;
		CREATE TABLE $schema.ac_list_users (LIKE $schema.old_list_users INCLUDING ALL);
		INSERT INTO $schema.ac_list_users
		SELECT (jsonb_populate_record(u, jsonb_build_object(
		    'data', jsonb_build_object('sms', replace(u.data->>'sms', '+1555', '+1777'))))).*
		FROM $schema.old_list_users u;
		SQL
}

# Changes the application's tables in one transaction.
sub change_tables
{
	my $statements = shift;
	sql($node, <<~SQL);
		SET log_statement = 'none';
		SET ROLE app;
		BEGIN;
		$statements
		COMMIT;
		SQL
}

sub send_in
{
	my $schema = shift;
	sql($node, "SET sendcampaign.schema = '$schema'; SELECT send_campaign(1, 1)", role => 'app');
}

# How many messages have gone to phones that begin so
sub count_to
{
	my $prefix = shift;
	return scalar grep { index($_->{to}, $prefix) == 0 } $twilio->ledger;
}

sub state_in
{
	my $schema = shift;
	return sql($node, "SELECT state FROM sendcampaign.run WHERE schema = '$schema'");
}

sub end_worker
{
	my ($pid) = worker_pids($node);
	sql($node, "SELECT pg_terminate_backend($pid)");
	poll(sub {
		return !grep { $_ == $pid } worker_pids($node);
	});
}

my %replace = ('a schema' => \&replace_schema, 'the list users' => \&replace_list_users);
my $is_another =
	'is not the table with which the run started\.'
  . ' Its list users may be different people\.'
  . ' To continue the run with this table,'
  . ' call send_campaign\(\) with the same campaign and job\.';
my $number = 0;
for my $what (sort keys %replace)
{
	for my $when ('while a worker has it', 'while none has it')
	{
		my $schema = 's' . ++$number;
		my $name = "$what, $when";
		change_tables(make_tables($schema, '+1555'));
		$twilio->set(reset => 1, hold => 1);
		send_in($schema);
		wait_for_flight($twilio, 10);
		end_worker() if $when =~ /none/;
		change_tables($replace{$what}->($schema));
		$twilio->set(hold => 0);
		sql($node, 'SELECT sendcampaign.wake()');
		ok(poll(sub { state_in($schema) eq 'failed' }), "$name: the run fails");
		like(
			sql($node, "SELECT error FROM sendcampaign.run WHERE schema = '$schema'"),
			qr/"$schema\.ac_list_users" $is_another/,
			"$name: with a reason");
		is(count_to('+1777'), 0, "$name: others get nothing");
		cmp_ok(count_to('+1555'), '<', $users, "$name: it had begun");

		# it is called again: so somebody has decided
		wait_for_no_worker($node);
		send_in($schema);
		ok(poll(sub { state_in($schema) !~ /running|queued/ }), "$name: called again, it goes on");
		cmp_ok(count_to('+1777'), '>', 0, "$name: with the new ones");
		my %count;
		$count{$_}++ for map { $_->{body} =~ /yu=(\d+)/ } $twilio->ledger;
		is(scalar(grep { $_ > 1 } values %count), 0, "$name: nobody is sent to twice");
		wait_for_no_worker($node);
	}
}
$node->stop;
done_testing();
