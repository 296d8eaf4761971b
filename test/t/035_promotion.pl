# A standby sends nothing until it is promoted: then it finishes the run.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../perl";
use Campaign;
use LocalTwilio;
use PostgreSQL::Test::Cluster;
use Test::More;

my $twilio = LocalTwilio->start;
my $conf = <<~'CONF';
	shared_preload_libraries = 'sendcampaign'
	sendcampaign.launcher_interval = '1s'
	sendcampaign.request_timeout = '1s'
	sendcampaign.lookup_delay = '200ms'
	CONF
my $primary = new_cluster('primary', $twilio, init => { allows_streaming => 1 }, conf => $conf);
sql($primary, 'CREATE DATABASE second');
install_extension($primary, 'second');
sql($primary, 'ALTER SEQUENCE ac_campaigns_id_seq RESTART 1001', db => 'second');

$primary->backup('backup');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($primary, 'backup', has_streaming => 1);
$standby->start;

my @runs;
for my $db ('postgres', 'second')
{
	my $campaign = create_campaign($primary, db => $db, users => 60);
	$twilio->set('fault:never-after' => '#5', hold => 1);
	push @runs, [ $db, $campaign, start_campaign($primary, $campaign, db => $db) ];
}
wait_for_flight($twilio, 40);
$primary->wait_for_catchup($standby);

# Nothing on the standby while it is one
is(sql($standby, <<~'SQL'), 0, 'no process runs on a standby');
	SELECT count(*) FROM pg_stat_activity WHERE backend_type LIKE 'sendcampaign%'
	SQL
is(sql($standby, 'SELECT state FROM sendcampaign.run'), 'running', 'the run can be seen there');
my $campaign = $runs[0][1];
like(
	sql_error($standby, "SELECT send_campaign($campaign)")->{message},
	qr/^cannot execute send_campaign\(\)/,
	'send_campaign() is refused there');
like(
	sql_error($standby, 'SELECT sendcampaign.wake()')->{message},
	qr/^cannot execute sendcampaign.wake\(\) during recovery/,
	'and so is wake()');

$primary->stop('immediate');
poll(sub { $twilio->stats->{open_connections} == 0 }, 20);
$twilio->set(hold => 0);
my $requests = $twilio->stats->{requests};
$standby->restart;
is(sql($standby, 'SELECT pg_is_in_recovery()'), 't', 'after a restart it is still a standby');
is($twilio->stats->{requests}, $requests, 'which has sent nothing');

$standby->promote;
for my $run (@runs)
{
	my ($db, $campaign, $job) = @$run;
	sent_once($standby, $twilio, $campaign, $job, "promoted, in $db", db => $db, total => 60);
}
ok(worker_is_gone($standby, 10), 'the workers end');
$campaign = create_campaign($standby, users => 5);
my $job = start_campaign($standby, $campaign);
sent_once($standby, $twilio, $campaign, $job, 'a new campaign', total => 5);

$standby->stop;
done_testing();
