# Scheduled by pg_cron: a campaign, and wake().
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../perl";
use Campaign;
use LocalTwilio;
use PostgreSQL::Test::Cluster;
use Test::More;

plan skip_all => 'pg_cron is not installed'
  if !-e PostgreSQL::Test::Cluster->new('probe')->config_data('--pkglibdir') . '/pg_cron.so';

my $twilio = LocalTwilio->start;
my $node = new_cluster('pg_cron', $twilio, conf => q{
	shared_preload_libraries = 'pg_cron'
	cron.database_name = 'postgres'
	cron.use_background_workers = on
	sendcampaign.request_timeout = '1s'
	sendcampaign.lookup_delay = '200ms'
});
$node->safe_psql('postgres', 'CREATE EXTENSION pg_cron; GRANT USAGE ON SCHEMA cron TO app');

# pg_cron's clock ticks once a minute; @reboot runs at once after a restart.
my $campaign = create_campaign($node, users => 100);
my $job = $node->safe_psql('postgres', 'SET ROLE app; INSERT INTO ac_background_jobs (progress) VALUES (5) RETURNING id');
$node->safe_psql('postgres', qq{SET ROLE app;
	SELECT cron.schedule('campaign', '\@reboot', 'SELECT send_campaign($campaign, $job)')});
is($node->safe_psql('postgres', 'SELECT count(*) FROM sendcampaign.run'), 0, 'scheduled');
$node->restart;
ok($node->poll_query_until('postgres', 'SELECT count(*) = 1 FROM sendcampaign.run'), 'pg_cron called send_campaign');
sent_once($node, $twilio, $campaign, $job, 'scheduled', total => 100);
ok($node->poll_query_until('postgres', 'SELECT count(*) = 1 FROM cron.job_run_details'
	  . q{ WHERE status = 'succeeded' AND username = 'app'}), 'pg_cron is content');
is($node->safe_psql('postgres', 'SELECT role FROM sendcampaign.run'), 'app', 'under the role of the schedule');

# Called again by each restart, the same job sends nothing again.
$node->restart;
ok($node->poll_query_until('postgres', q{SELECT count(*) = 2 FROM cron.job_run_details
	WHERE status = 'succeeded'}), 'called again');
ok(worker_is_gone($node, 20), 'no worker is left');
is(scalar(() = $twilio->ledger), 100, 'sent once');

# Without preload, wake() from pg_cron has a run go on.
$node->safe_psql('postgres', q{SELECT cron.unschedule(jobid) FROM cron.job;
	SELECT cron.schedule('wake', '@reboot', 'SELECT sendcampaign.wake()')});
$campaign = create_campaign($node, users => 40);
$twilio->set(hold => 1);
$job = start_campaign($node, $campaign);
wait_for_flight($twilio, 20);
$node->stop('immediate');
$twilio->set(hold => 0);
$node->start;
sent_once($node, $twilio, $campaign, $job, 'woken', total => 40);

# Beside the launcher
ok(worker_is_gone($node, 20), 'idle');
$node->append_conf('postgresql.conf', "shared_preload_libraries = 'pg_cron,sendcampaign'");
$campaign = create_campaign($node, users => 20);
$node->safe_psql('postgres', qq{SELECT cron.schedule('superuser', '\@reboot', 'SELECT send_campaign($campaign)')});
$node->restart;
$node->poll_query_until('postgres', "SELECT count(*) = 1 FROM sendcampaign.run WHERE campaign_id = $campaign");
$job = $node->safe_psql('postgres', "SELECT job_id FROM sendcampaign.run WHERE campaign_id = $campaign");
sent_once($node, $twilio, $campaign, $job, 'scheduled by a superuser', total => 20);
is($node->safe_psql('postgres', "SELECT role FROM sendcampaign.run WHERE job_id = $job"), 'app', 'sent as the owner of the list');

$node->stop;
done_testing();
