# A table of list users that another one has replaced, rows that are locked and
# rows that cannot be read, together with what people do to the runs meanwhile.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../perl";
use Campaign;
use LocalTwilio;
use Test::More;

my $twilio = LocalTwilio->start;
my $node = new_cluster('pairs_of_tables', $twilio, conf => <<~'CONF');
	sendcampaign.request_timeout = '2s'
	sendcampaign.lookup_delay = '200ms'
	sendcampaign.lookup_timeout = '3s'
	CONF

# Runs statements as the tenant with this schema.
sub as_tenant
{
	my ($schema, $statements) = @_;
	return sql($node, <<~SQL, role => $schema);
		SET sendcampaign.schema = $schema;
		SET search_path = $schema, public;
		$statements
		SQL
}

# Does the tenant's run end in this state?
sub ends
{
	my ($schema, $state) = @_;
	my $ended =
	  "SELECT state FROM sendcampaign.run WHERE schema = '$schema' AND finished_at IS NOT NULL";
	return poll(sub { sql($node, $ended) eq $state });
}

# The error of the tenant's run
sub error_of
{
	my $schema = shift;
	return sql($node, "SELECT error FROM sendcampaign.run WHERE schema = '$schema'");
}

# A tenant with a campaign to so many users
sub make
{
	my ($schema, $users) = @_;
	make_tenant($node, $schema);
	as_tenant($schema, <<~SQL);
		INSERT INTO ac_list_users (ac_list_id, data)
		SELECT 1, jsonb_build_object('sms', '+1555777' || lpad(i::text, 4, '0'))
		FROM generate_series(2, $users) i
		SQL
}

# Another table takes the place of the list users', with other people's phones.
sub replace_list
{
	my $schema = shift;
	as_tenant($schema, <<~'SQL');
		BEGIN;
		ALTER TABLE ac_list_users RENAME TO old_list_users;
		CREATE TABLE ac_list_users (LIKE old_list_users INCLUDING ALL);
		INSERT INTO ac_list_users
		SELECT id, jsonb_build_object('sms', '+1999000' || lpad(id::text, 4, '0')),
		    user_id, ac_list_id, created_at, updated_at
		FROM old_list_users;
		COMMIT;
		SQL
}

# How many list users have a count
sub counted
{
	my $schema = shift;
	return as_tenant($schema,
		"SELECT count(*) FROM ac_list_users WHERE (data->>'sentCount')::int > 0");
}

# What is in doubt when the run is cancelled is not other people's.
for my $case (['cancel'], [ 'pause', 'cancel' ])
{
	my $schema = join '_', 'other', @$case;
	make($schema, 3);
	# nothing is looked up before the worker has ended
	set_and_reload($node, 'sendcampaign.request_timeout', '60s');
	$twilio->set(reset => 1, 'fault:drop-after' => 100);
	my $job = as_tenant($schema, 'SELECT send_campaign(1)');
	poll(sub { $twilio->stats->{accepted} == 3 });
	sql($node, <<~'SQL');
		SELECT pg_terminate_backend(pid)
		FROM pg_stat_activity
		WHERE backend_type = 'sendcampaign worker'
		SQL
	wait_for_no_worker($node);
	set_and_reload($node, 'sendcampaign.request_timeout', '2s');
	replace_list($schema);
	as_tenant($schema, "SELECT sendcampaign.$_($job)") for @$case;
	ok(ends($schema, 'cancelled'), "@$case: the run ends");
	is(counted($schema), 0, "@$case: nobody else is counted");
	is(sql($node, <<~SQL), $twilio->stats->{accepted}, "@$case: what was sent is recorded");
		SELECT count(*)
		FROM sendcampaign.message
		WHERE schema = '$schema' AND status IN ('sent', 'in_doubt')
		SQL
	like(
		error_of($schema),
		qr/"$schema\.ac_list_users" is not the table with which the run started/,
		"@$case: ... and why it is not counted");
	is(sql($node, <<~SQL), 't', "@$case: all have an outcome");
		SELECT total = sent + skipped + failed + in_doubt
		FROM sendcampaign.run
		WHERE schema = '$schema'
		SQL
}

# Nor is what a person settles.
{
	my $schema = 'settled';
	make($schema, 2);
	$twilio->set(reset => 1, 'fault:drop-after' => 100, 'list-lag' => 600000);
	my $job = as_tenant($schema, 'SELECT send_campaign(1)');
	ok(ends($schema, 'completed'), 'two are left in doubt');
	wait_for_no_worker($node);
	as_tenant($schema, "SELECT sendcampaign.settle($job, 1, true)");
	is(counted($schema), 1, 'what is settled is counted');
	replace_list($schema);
	my $error = sql_error($node, <<~SQL, role => $schema);
		SET client_min_messages = notice;
		SET sendcampaign.schema = $schema;
		SELECT sendcampaign.settle($job, 2, true);
		SELECT 1/0;
		SQL
	like($error->{message}, qr/division/, 'settled with another table');
	is(counted($schema), 0, '... nobody else is counted');
	is(sql($node, <<~SQL), 'sent true, sent false', '... as the message says');
		SELECT string_agg(status || ' ' || counted, ', ' ORDER BY list_user_id)
		FROM sendcampaign.message
		WHERE schema = '$schema'
		SQL
	like(error_of($schema), qr/sentCount of 1 list user could not be increased/,
		'... and the run');
}

# A row that cannot be read any more when its outcome is recorded, beside one
# that is locked, in one batch; and another run of the same role beside it
{
	my $schema = 'mixed';
	make($schema, 12);
	as_tenant($schema, <<~'SQL');
		ALTER TABLE ac_list_users ALTER data TYPE json USING data::json;
		INSERT INTO ac_lists (group_id) VALUES (1);
		INSERT INTO ac_campaigns (ac_list_id, data) VALUES (2, '{"message": "Other"}');
		INSERT INTO ac_list_users (ac_list_id, data)
		SELECT 2, json_build_object('sms', '+1555888' || lpad(i::text, 4, '0'))
		FROM generate_series(1, 12) i;
		SQL
	# the requests are held for as long as the statements that follow take
	set_and_reload($node, 'sendcampaign.request_timeout', '60s');
	$twilio->set(reset => 1, hold => 1, 'fault:drop-after' => 0, 'list-lag' => 0);
	as_tenant($schema, "SELECT send_campaign($_)") for 1, 2;
	wait_for_flight($twilio, 15);
	as_tenant($schema, <<~'SQL');
		UPDATE ac_list_users
		SET data = replace(data::text, '}', ', "bad": "\u0000"}')::json
		WHERE id IN (3, 15)
		SQL
	my $session = $node->background_psql('postgres');
	$session->query_safe(<<~SQL);
		BEGIN;
		SELECT FROM $schema.ac_list_users WHERE id IN (5, 17) FOR UPDATE;
		SQL
	$twilio->set(hold => 0);
	poll(sub { $twilio->stats->{accepted} >= 20 });
	# outcomes that cannot be recorded are looked up once their requests must be over
	set_and_reload($node, 'sendcampaign.request_timeout', '2s');
	my $recorded = "SELECT count(*) FROM sendcampaign.message WHERE schema = '$schema'";
	poll(sub { sql($node, $recorded) >= 20 }, 10)
	  or diag('recorded only: ' . sql($node, $recorded));
	$session->quit;
	as_tenant($schema, <<~'SQL');
		UPDATE ac_list_users
		SET data = replace(data::text, ', "bad": "\u0000"', '')::json
		WHERE id IN (3, 15)
		SQL
	my $completed =
	  "SELECT count(*) FROM sendcampaign.run WHERE schema = '$schema' AND state = 'completed'";
	poll(sub {
		$node->psql('postgres', <<~SQL);
				SET ROLE $schema;
				SET sendcampaign.schema = $schema;
				SELECT send_campaign(campaign_id, job_id)
				FROM sendcampaign.run
				WHERE schema = '$schema' AND state = 'failed';
				SQL
		return sql($node, $completed) eq '2';
	});
	my $runs = sql($node, <<~SQL);
		SELECT string_agg(state || ' ' || sent || ' ' || in_doubt, ', ')
		FROM sendcampaign.run
		WHERE schema = '$schema'
		SQL
	is($runs, 'completed 12 0, completed 12 0', 'unreadable and locked rows: all are recorded');
	is($twilio->stats->{accepted}, 24, '... all were sent once');
	is(as_tenant($schema, "SELECT count(*) FROM ac_list_users WHERE data->>'sentCount' = '1'"),
		24, '... and counted once');
}
$node->stop;
done_testing();
