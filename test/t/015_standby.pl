# On a standby nothing is sent; once it is promoted, it sends.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../perl";
use Campaign;
use LocalTwilio;
use PostgreSQL::Test::Cluster;
use Test::More;

my $twilio = LocalTwilio->start;
my $primary = new_cluster('primary', $twilio, init => { allows_streaming => 1 });
$primary->backup('base');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($primary, 'base', has_streaming => 1);
$standby->start;

my $campaign = create_campaign($primary, users => 2);
$primary->wait_for_catchup($standby);

for my $call ("send_campaign($campaign)", 'sendcampaign.wake()')
{
	my $error = sql_error($standby, "SELECT $call", role => 'app');
	is($error->{sqlstate}, '25006', "$call: SQLSTATE");
	my $name = $call =~ s/\d+//r;
	is($error->{message}, "cannot execute $name during recovery", "$call: message");
	like($error->{hint}, qr/^Call it on the primary server\.$/, "$call: hint");
}
is(sql($standby, <<~'SQL'), 0, 'there is no worker on the standby');
	SELECT count(*) FROM pg_stat_activity WHERE backend_type ~ '^sendcampaign'
	SQL

# what the standby shows of a run is what the primary has recorded
my $job = run_campaign($primary, $campaign)->{job};
$primary->wait_for_catchup($standby);
my $progress = "SELECT state, sent FROM sendcampaign.progress WHERE job_id = $job";
is(sql($standby, $progress, role => 'app'),
	'completed|2', 'the progress can be read on the standby');

# so it is with all that only reads, which is the same on both
my $users = 'SELECT u.id FROM public.ac_list_users u';
for my $reading (
	"regexp_replace(sendcampaign.report($job), 'As of .*', '')",
	"(sendcampaign.summary($job))::text",
	"r::text FROM sendcampaign.result r WHERE r.job_id = $job",
	"p::text FROM sendcampaign.preview($campaign, 10, '$users') p",
	"sendcampaign.estimate($campaign, 0.01, '$users')::text")
{
	my ($here, $there) = map { sql($_, "SELECT $reading", role => 'app') } $standby, $primary;
	is($here, $there, "$reading is the same on the standby");
	isnt($here, '', '... and is something');
}
for my $call (
	"track(1, $campaign, 'open')",
	'create_list(1)',
	"send_message(1, 'Hi', ARRAY['+15550000001'])")
{
	is(call_error($standby, $call)->{sqlstate}, '25006', "$call: only on the primary");
}

$primary->stop;
$standby->promote;
is(run_campaign($standby, $campaign)->{sent}, 2, 'after the promotion it sends');
is(scalar($twilio->ledger), 4, 'each recipient has both messages once');

wait_for_no_worker($standby);
$standby->stop;
done_testing();
