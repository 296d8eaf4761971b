# On a standby nothing is sent; what was queued before a promotion, after it.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../perl";
use Campaign;
use LocalTwilio;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
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
	my $error = sql_error($standby, "SET ROLE app; SELECT $call");
	is($error->{sqlstate}, '25006', "$call: SQLSTATE");
	my $name = $call =~ s/\d+//r;
	is($error->{message}, "cannot execute $name during recovery", "$call: message");
	like($error->{hint}, qr/primary/, "$call: hint");
}
is($standby->safe_psql('postgres', "SELECT count(*) FROM pg_stat_activity WHERE backend_type ~ '^sendcampaign'"),
	0, 'no worker there');

# what the standby shows of a run is what the primary has recorded
my $job = start_campaign($primary, $campaign);
wait_for_run($primary, $job);
$primary->wait_for_catchup($standby);
is($standby->safe_psql('postgres', "SET ROLE app; SELECT state, sent FROM sendcampaign.progress WHERE job_id = $job"),
	'completed|2', 'progress can be read');

$primary->stop;
$standby->promote;
is(wait_for_run($standby, start_campaign($standby, $campaign))->{sent}, 2, 'after the promotion it sends');
is(scalar($twilio->ledger), 4, 'each once');

wait_for_no_worker($standby);
$standby->stop;
done_testing();
