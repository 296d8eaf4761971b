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
my $node = new_cluster('pg_cron', $twilio, conf => <<~'CONF');
	shared_preload_libraries = 'pg_cron'
	cron.database_name = 'postgres'
	cron.use_background_workers = on
	sendcampaign.request_timeout = '1s'
	sendcampaign.lookup_delay = '200ms'
	CONF
sql($node, 'CREATE EXTENSION pg_cron; GRANT USAGE ON SCHEMA cron TO app');

# pg_cron's clock ticks once a minute; @reboot runs at once after a restart.
my $campaign = create_campaign($node, users => 100);
my $job = create_job($node);
sql($node, <<~"SQL", role => 'app');
	SELECT cron.schedule('campaign', '\@reboot', 'SELECT send_campaign($campaign, $job)')
	SQL
is(sql($node, 'SELECT count(*) FROM sendcampaign.run'), 0, 'nothing is sent before its time');
$node->restart;
ok(wait_until($node, 'SELECT count(*) = 1 FROM sendcampaign.run'),
	'pg_cron calls send_campaign()');
sent_once($node, $twilio, $campaign, $job, 'scheduled', total => 100);
ok(wait_until($node, <<~'SQL'), 'pg_cron has the success');
	SELECT count(*) = 1 FROM cron.job_run_details
	WHERE status = 'succeeded' AND username = 'app'
	SQL
is(sql($node, "SELECT role FROM sendcampaign.run WHERE job_id = $job"),
	'app', 'it is sent under the role of the schedule');

# Called again by each restart, the same job sends nothing again.
$node->restart;
ok(wait_until($node, <<~'SQL'), 'pg_cron calls it again');
	SELECT count(*) = 2 FROM cron.job_run_details WHERE status = 'succeeded'
	SQL
ok(worker_is_gone($node, 20), 'no worker is left');
my @ledger = $twilio->ledger;
is(scalar @ledger, 100, 'it is sent once');

# Without preload, wake() from pg_cron has a run go on.
sql($node, <<~'SQL');
	SELECT cron.unschedule(jobid) FROM cron.job;
	SELECT cron.schedule('wake', '@reboot', 'SELECT sendcampaign.wake()');
	SQL
$campaign = create_campaign($node, users => 40);
$twilio->set(hold => 1);
$job = start_campaign($node, $campaign);
wait_for_flight($twilio, 20);
$node->stop('immediate');
$twilio->set(hold => 0);
$node->start;
sent_once($node, $twilio, $campaign, $job, 'woken', total => 40);

# Beside the launcher
ok(worker_is_gone($node, 20), 'the worker ends');
$node->append_conf('postgresql.conf', "shared_preload_libraries = 'pg_cron,sendcampaign'");
$campaign = create_campaign($node, users => 20);
sql($node, <<~"SQL");
	SELECT cron.schedule('superuser', '\@reboot', 'SELECT send_campaign($campaign)')
	SQL
$node->restart;
my $of_campaign = "FROM sendcampaign.run WHERE campaign_id = $campaign";
wait_until($node, "SELECT count(*) = 1 $of_campaign");
$job = sql($node, "SELECT job_id $of_campaign");
sent_once($node, $twilio, $campaign, $job, 'scheduled by a superuser', total => 20);
is(sql($node, "SELECT role $of_campaign"), 'app', 'it is sent as the owner of the list');

$node->stop;
done_testing();
