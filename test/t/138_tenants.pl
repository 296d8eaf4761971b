# Jobs are numbered per schema: the jobs of one tenant are not those of another,
# nor of a role with tables of its own.
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
my %prefix = (north => '+1255', south => '+1355');

# A tenant's tables, with one campaign to 40 phones of its own.
for my $tenant (@tenants)
{
	make_tenant($node, $tenant, message => $tenant);
	sql($node, <<~SQL, role => $tenant);
		SET search_path = $tenant, public;
		DELETE FROM ac_list_users;
		INSERT INTO ac_list_users (ac_list_id, data)
		    SELECT 1, jsonb_build_object('sms', '$prefix{$tenant}' || lpad(i::text, 7, '0'))
		    FROM generate_series(1, 40) i;
		SQL
}

# Runs SQL as a tenant, with the tenant's tables.
sub as_tenant
{
	my ($tenant, $sql) = @_;
	return sql($node, "SET sendcampaign.schema = $tenant;\n$sql", role => $tenant);
}

$twilio->set(hold => 1);
is(as_tenant($_, 'SELECT send_campaign(1)'), 1, "$_ has a job 1") for @tenants;
wait_for_flight($twilio, 20);
is(sql($node, 'SELECT count(*), count(DISTINCT id) FROM sendcampaign.run WHERE job_id = 1'),
	'2|2', 'there are two runs');
wait_until($node, "SELECT bool_and(state = 'running') FROM sendcampaign.run");
as_tenant('north', 'SELECT sendcampaign.pause(1)');
my $states = sql($node, <<~SQL);
	SELECT string_agg(schema || ' ' || state, ', ' ORDER BY schema) FROM sendcampaign.run
	SQL
is($states, 'north paused, south running', 'one is paused, the other is not');
my $error = sql_error($node, <<~SQL, role => 'north');
	SET sendcampaign.schema = south;
	SELECT sendcampaign.pause(1);
	SQL
like(
	$error->{message},
	qr/there is no run of background job 1/,
	q{a tenant cannot pause another tenant's run});
$twilio->set(hold => 0);
wait_until($node, q{SELECT state = 'completed' FROM sendcampaign.run WHERE schema = 'south'});
as_tenant('north', 'SELECT sendcampaign.resume(1)');
wait_until($node, q{SELECT bool_and(state = 'completed' AND sent = 40) FROM sendcampaign.run});

for my $tenant (@tenants)
{
	my $counts = as_tenant($tenant, <<~SQL);
		SELECT count(*), count(DISTINCT phone) FROM sendcampaign.message WHERE job_id = 1
		SQL
	is($counts, '40|40', "$tenant sees its own messages");
}
for my $tenant (@tenants)
{
	is(as_tenant($tenant, "SELECT progress FROM $tenant.ac_background_jobs"),
		100, "$tenant: the progress of its job");
}
is($twilio->stats->{accepted}, 80, 'all messages were sent');
my $phones = $twilio->count_by_phone;
is(scalar(grep { $_ > 1 } values %$phones), 0, '... once');

# Whoever has tables takes numbers there, and nowhere else.
my $campaign = create_campaign($node, users => 2);
my $job = start_campaign($node, $campaign);
is($job, 1, 'job 1 once more, of the schema "public"');
is(wait_for_run($node, "$job AND schema = 'public'")->{sent}, 2, 'it is sent');

# Numbers that come back are not taken for what was sent.
sql($node, <<~SQL);
	DELETE FROM ac_background_jobs;
	SELECT setval('ac_background_jobs_id_seq', 1, false);
	SQL
$error = sql_error($node, "SELECT send_campaign($campaign)", role => 'app');
is($error->{sqlstate}, '42710', 'a new job whose number had a run is refused');
like($error->{hint}, qr/sequence/, '... with a hint that says what to do');
$node->stop;
done_testing();
