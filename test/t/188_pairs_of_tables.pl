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
my $node = new_cluster('pairs_of_tables', $twilio, conf => "sendcampaign.request_timeout = '2s'\nsendcampaign.lookup_delay = '200ms'\nsendcampaign.lookup_timeout = '3s'\n");
sub sql { return $node->safe_psql('postgres', $_[0]); }
my $number = 0;
sub as_tenant { my ($schema, $sql) = @_; return sql("SET ROLE $schema; SET sendcampaign.schema = $schema; SET search_path = $schema, public; $sql"); }
sub state_in { return sql("SELECT state FROM sendcampaign.run WHERE schema = '$_[0]'"); }
sub ends { my ($schema, $state) = @_; return poll(sub { sql("SELECT state FROM sendcampaign.run WHERE schema = '$schema' AND finished_at IS NOT NULL") eq $state }, 60); }
sub make { my ($schema, $users) = @_; make_tenant($node, $schema, message => "From $schema"); as_tenant($schema, "INSERT INTO ac_list_users (ac_list_id, data)
	SELECT 1, jsonb_build_object('sms', '+1555777' || lpad(i::text, 4, '0')) FROM generate_series(2, $users) i"); }
sub replace_list { my ($schema) = @_; as_tenant($schema, q{BEGIN; ALTER TABLE ac_list_users RENAME TO old_list_users; CREATE TABLE ac_list_users (LIKE old_list_users INCLUDING ALL);
	INSERT INTO ac_list_users SELECT id, jsonb_build_object('sms', '+1999000' || lpad(id::text, 4, '0')), user_id, ac_list_id, created_at, updated_at FROM old_list_users; COMMIT}); }
sub counted { my ($schema) = @_; return as_tenant($schema, "SELECT count(*) FROM ac_list_users WHERE (data->>'sentCount')::int > 0"); }

# What is in doubt when the run is cancelled is no other people's.
for my $case ([ 'cancel' ], [ 'pause', 'cancel' ])
{
	my $schema = join '_', 'other', @$case;
	make($schema, 3);
	$twilio->set(reset => 1, 'fault:drop-after' => 100);
	my $job = as_tenant($schema, 'SELECT send_campaign(1)');
	poll(sub { $twilio->stats->{accepted} == 3 });
	sql(q{SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = 'sendcampaign worker'});
	wait_for_no_worker($node);
	replace_list($schema);
	as_tenant($schema, "SELECT sendcampaign.$_($job)") for @$case;
	ok(ends($schema, 'cancelled'), "@$case: it ends");
	is(counted($schema), 0, "@$case: nobody else is counted");
	my $accepted = $twilio->stats->{accepted};
	is(sql("SELECT count(*) FROM sendcampaign.message WHERE schema = '$schema' AND status IN ('sent', 'in_doubt')"), $accepted, "@$case: what was sent is recorded");
	like(sql("SELECT error FROM sendcampaign.run WHERE schema = '$schema'"), qr/another table/, "@$case: ... and why it is not counted");
	is(sql("SELECT total = sent + skipped + failed + in_doubt FROM sendcampaign.run WHERE schema = '$schema'"), 't', "@$case: all have an outcome");
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
	is(counted($schema), 1, 'settled: it is counted');
	replace_list($schema);
	like(sql_error($node, "SET client_min_messages = notice; SET ROLE $schema; SET sendcampaign.schema = $schema; SELECT sendcampaign.settle($job, 2, true); SELECT 1/0")->{message}, qr/division/, 'settled with another table');
	is(counted($schema), 0, '... nobody else is counted');
	is(sql("SELECT string_agg(status || ' ' || counted, ', ' ORDER BY list_user_id) FROM sendcampaign.message WHERE schema = '$schema'"), 'sent true, sent false', '... as the message says');
	like(sql("SELECT error FROM sendcampaign.run WHERE schema = '$schema'"), qr/sentCount of 1 could not be added/, '... and the run');
}

# A row that cannot be read any more when its outcome is recorded, beside one
# that is locked, in one batch; and another run of the same role beside it.
{
	my $schema = 'mixed';
	make($schema, 12);
	as_tenant($schema, q{ALTER TABLE ac_list_users ALTER data TYPE json USING data::json;
		INSERT INTO ac_lists (group_id) VALUES (1); INSERT INTO ac_campaigns (ac_list_id, data) VALUES (2, '{"message": "Other"}');
		INSERT INTO ac_list_users (ac_list_id, data) SELECT 2, json_build_object('sms', '+1555888' || lpad(i::text, 4, '0')) FROM generate_series(1, 12) i});
	$twilio->set(reset => 1, hold => 1, 'fault:drop-after' => 0, 'list-lag' => 0);
	my @jobs = map { as_tenant($schema, "SELECT send_campaign($_)") } 1, 2;
	wait_for_flight($twilio, 15);
	as_tenant($schema, q[UPDATE ac_list_users SET data = replace(data::text, '}', ', "bad": "\u0000"}')::json WHERE id IN (3, 15)]);
	my $session = $node->background_psql('postgres');
	$session->query_safe("BEGIN; SELECT FROM $schema.ac_list_users WHERE id IN (5, 17) FOR UPDATE");
	$twilio->set(hold => 0);
	poll(sub { $twilio->stats->{accepted} >= 20 });
	poll(sub { sql("SELECT count(*) FROM sendcampaign.message WHERE schema = '$schema'") >= 20 }, 10) or diag('not recorded: ' . sql("SELECT count(*) FROM sendcampaign.message WHERE schema = '$schema'"));
	$session->quit;
	as_tenant($schema, q{UPDATE ac_list_users SET data = replace(data::text, ', "bad": "\u0000"', '')::json WHERE id IN (3, 15)});
	poll(sub {
		$node->psql('postgres', "SET ROLE $schema; SET sendcampaign.schema = $schema; SELECT send_campaign(campaign_id, job_id) FROM sendcampaign.run WHERE schema = '$schema' AND state = 'failed'");
		return sql("SELECT count(*) FROM sendcampaign.run WHERE schema = '$schema' AND state = 'completed'") eq '2';
	}, 60);
	is(sql("SELECT string_agg(state || ' ' || sent || ' ' || in_doubt, ', ') FROM sendcampaign.run WHERE schema = '$schema'"), 'completed 12 0, completed 12 0', 'unreadable and locked rows: all are recorded');
	is($twilio->stats->{accepted}, 24, '... all were sent once');
	is(as_tenant($schema, "SELECT count(*) FROM ac_list_users WHERE data->>'sentCount' = '1'"), 24, '... and counted once');
}
$node->stop;
done_testing();
