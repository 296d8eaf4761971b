# The tables that a run began with get another name in mid-run, and others get
# theirs: the run does not go on with these, whose list users are other people,
# before somebody has decided so.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../perl";
use Campaign;
use LocalTwilio;
use Test::More;

my $users = 1000;
my $twilio = LocalTwilio->start;
my $node = new_cluster('other_tables', $twilio, conf => "sendcampaign.request_timeout = '2s'\nsendcampaign.lookup_delay = '200ms'\nsendcampaign.lookup_timeout = '2s'\n");
sub sql { return $node->safe_psql('postgres', $_[0]); }
sql('GRANT CREATE ON DATABASE postgres TO app');

# Tables in a schema, with one campaign, to phones that begin so.
sub make_tables
{
	my ($schema, $prefix) = @_;
	return qq{CREATE SCHEMA $schema;
		SELECT sendcampaign.create_tables('$schema');
		INSERT INTO $schema.groups (configuration) VALUES (jsonb_build_object('twilioAccountSid', '$LocalTwilio::ACCOUNT',
			'twilioAuthToken', '$LocalTwilio::TOKEN', 'twilioFromSmsNumber', '$LocalTwilio::SENDER'));
		INSERT INTO $schema.ac_lists (group_id) VALUES (1);
		INSERT INTO $schema.ac_list_users (ac_list_id, data)
			SELECT 1, jsonb_build_object('sms', '$prefix' || lpad(i::text, 7, '0')) FROM generate_series(1, $users) i;
		INSERT INTO $schema.ac_campaigns (ac_list_id, data) VALUES (1, '{"message": "Hello $schema", "baseUrl": "https://example.org/$schema"}');
		INSERT INTO $schema.ac_background_jobs DEFAULT VALUES;};
}

sub count_to { my $prefix = shift; return scalar grep { index($_->{to}, $prefix) == 0 } $twilio->ledger; }
sub state_in { return sql("SELECT state FROM sendcampaign.run WHERE schema = '$_[0]'"); }
sub ends { my ($schema, $state) = @_; return poll(sub { state_in($schema) eq $state }, 60); }
sub end_worker { my ($pid) = worker_pids($node); sql("SELECT pg_terminate_backend($pid)"); poll(sub { !grep { $_ == $pid } worker_pids($node) }); }

my %swap = (
	'a schema' => sub { my ($s) = @_; return "ALTER SCHEMA $s RENAME TO old_$s;" . make_tables($s, '+1777'); },
	'the list users' => sub { my ($s) = @_; return "ALTER TABLE $s.ac_list_users RENAME TO old_list_users;
		CREATE TABLE $s.ac_list_users (LIKE $s.old_list_users INCLUDING ALL);
		INSERT INTO $s.ac_list_users SELECT (jsonb_populate_record(u, jsonb_build_object('data',
			jsonb_build_object('sms', replace(u.data->>'sms', '+1555', '+1777'))))).* FROM $s.old_list_users u;"; });
my $number = 0;
for my $what (sort keys %swap)
{
	for my $when ('while a worker has it', 'while none has it')
	{
		my $schema = 's' . ++$number;
		my $name = "$what, $when";
		sql("SET log_statement = 'none'; SET ROLE app; BEGIN; " . make_tables($schema, '+1555') . 'COMMIT');
		$twilio->set(reset => 1, hold => 1);
		sql("SET ROLE app; SET sendcampaign.schema = '$schema'; SELECT send_campaign(1, 1)");
		wait_for_flight($twilio, 10);
		end_worker() if $when =~ /none/;
		sql("SET log_statement = 'none'; SET ROLE app; BEGIN; " . $swap{$what}->($schema) . 'COMMIT');
		$twilio->set(hold => 0);
		sql('SELECT sendcampaign.wake()');
		ok(ends($schema, 'failed'), "$name: the run fails");
		like(sql("SELECT error FROM sendcampaign.run WHERE schema = '$schema'"), qr/ac_list_users.*another table/, "$name: with a reason");
		is(count_to('+1777'), 0, "$name: others get nothing");
		cmp_ok(count_to('+1555'), '<', $users, "$name: it had begun");

		# called again: so it is to be
		wait_for_no_worker($node);
		sql("SET ROLE app; SET sendcampaign.schema = '$schema'; SELECT send_campaign(1, 1)");
		ok(poll(sub { state_in($schema) ne 'running' && state_in($schema) ne 'queued' }, 60), "$name: called again, it goes on");
		cmp_ok(count_to('+1777'), '>', 0, "$name: with the new ones");
		my %yu;
		$yu{$_}++ for map { $_->{body} =~ /yu=(\d+)/ } $twilio->ledger;
		is(scalar(grep { $_ > 1 } values %yu), 0, "$name: nobody is sent to twice");
		wait_for_no_worker($node);
	}
}
$node->stop;
done_testing();
