# Jobs have their numbers in a schema: tenants' jobs, and those of a role with
# tables of its own, are not each other's.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../perl";
use Campaign;
use LocalTwilio;
use Test::More;

my $twilio = LocalTwilio->start;
my $node = new_cluster('tenants', $twilio);
my @tenants = qw(north south);

# A tenant's tables with one campaign, to phones that begin with +1<digit>55.
sub make_tenant
{
	my ($tenant, $digit) = @_;
	$node->safe_psql('postgres', qq{
		CREATE ROLE $tenant LOGIN;
		GRANT USAGE ON SCHEMA sendcampaign TO $tenant;
		CREATE SCHEMA $tenant AUTHORIZATION $tenant;
		SET ROLE $tenant;
		SELECT sendcampaign.create_tables('$tenant');
		SET search_path = $tenant, public;
		INSERT INTO groups (configuration) VALUES (jsonb_build_object('twilioAccountSid', '$LocalTwilio::ACCOUNT',
			'twilioAuthToken', '$LocalTwilio::TOKEN', 'twilioFromSmsNumber', '$LocalTwilio::SENDER'));
		INSERT INTO ac_lists (group_id) VALUES (1);
		INSERT INTO ac_list_users (ac_list_id, data)
			SELECT 1, jsonb_build_object('sms', '+1${digit}55' || lpad(i::text, 7, '0')) FROM generate_series(1, 40) i;
		INSERT INTO ac_campaigns (ac_list_id, data) VALUES (1, '{"message": "$tenant", "baseUrl": "https://example.org"}');
	});
}

sub as
{
	my ($tenant, $sql) = @_;
	return $node->safe_psql('postgres', "SET ROLE $tenant; SET sendcampaign.schema = $tenant; $sql");
}

make_tenant($tenants[$_], $_ + 2) for 0 .. 1;
$twilio->set(hold => 1);
is(as($_, 'SELECT send_campaign(1)'), 1, "$_ has a job 1") for @tenants;
wait_for_flight($twilio, 20);
is($node->safe_psql('postgres', 'SELECT count(*), count(DISTINCT id) FROM sendcampaign.run WHERE job_id = 1'), '2|2', 'two runs');
as('north', 'SELECT sendcampaign.pause(1)');
is($node->safe_psql('postgres', "SELECT string_agg(schema || ' ' || state, ', ' ORDER BY schema) FROM sendcampaign.run"),
	'north paused, south running', 'one is paused, the other is not');
like(sql_error($node, 'SET ROLE north; SET sendcampaign.schema = south; SELECT sendcampaign.pause(1)')->{message},
	qr/there is no run of background job 1/, "another tenant's is nobody's");
$twilio->set(hold => 0);
$node->poll_query_until('postgres', "SELECT state = 'completed' FROM sendcampaign.run WHERE schema = 'south'");
as('north', 'SELECT sendcampaign.resume(1)');
as('north', 'SELECT 1');
$node->poll_query_until('postgres', "SELECT bool_and(state = 'completed' AND sent = 40) FROM sendcampaign.run");
is(as($_, 'SELECT count(*), count(DISTINCT phone) FROM sendcampaign.message WHERE job_id = 1'), '40|40', "$_ sees its own messages") for @tenants;
is(as($_, "SELECT progress FROM $_.ac_background_jobs"), 100, "$_: its job") for @tenants;
is($twilio->stats->{accepted}, 80, 'all were sent');
my $phones = $twilio->count_by_phone;
is(scalar(grep { $_ > 1 } values %$phones), 0, 'once');

# whoever has tables takes numbers there, and nowhere else
my $campaign = create_campaign($node, users => 2);
my $job = start_campaign($node, $campaign);
is($job, 1, 'job 1 once more, of the schema "public"');
is(wait_for_run($node, "$job AND schema = 'public'")->{sent}, 2, 'it is sent');

# numbers that come back are not taken for what was sent
$node->safe_psql('postgres', "DELETE FROM ac_background_jobs; SELECT setval('ac_background_jobs_id_seq', 1, false)");
my $error = sql_error($node, "SET ROLE app; SELECT send_campaign($campaign)");
is($error->{sqlstate}, '42710', 'a new job whose number had a run: an error');
like($error->{hint}, qr/sequence/, '... that says what to do');
$node->stop;
done_testing();
