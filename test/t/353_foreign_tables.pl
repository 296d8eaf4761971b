# Tables of another server through postgres_fdw, as docs/install.md speaks of them: a run
# works, each phone has one message, and each list user is counted once, as long as neither
# server fails between their two commits.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../perl";
use Campaign;
use LocalTwilio;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Session;
use Test::More;

plan skip_all => 'postgres_fdw is not installed'
  if !-e PostgreSQL::Test::Cluster->new('probe')->config_data('--pkglibdir') . '/postgres_fdw.so';

my $twilio = LocalTwilio->start;
my $application = new_cluster('application', $twilio);
my $sender = new_cluster(
	'sender', $twilio,
	no_extension => 1,
	conf => <<~'CONF');
	shared_preload_libraries = 'sendcampaign'
	sendcampaign.launcher_interval = '1s'
	sendcampaign.request_timeout = '1s'
	sendcampaign.lookup_delay = '200ms'
	CONF
my ($host, $port) = ($application->host, $application->port);
install_as_shown($sender, 'postgres');
sql($sender, <<~SQL);
	CREATE EXTENSION postgres_fdw;
	CREATE SERVER application FOREIGN DATA WRAPPER postgres_fdw
	    OPTIONS (host '$host', port '$port', dbname 'postgres');
	CREATE USER MAPPING FOR PUBLIC SERVER application
	    OPTIONS (user 'app', password_required 'false');
	GRANT USAGE ON FOREIGN SERVER application TO app;
	SET ROLE app;
	IMPORT FOREIGN SCHEMA public
	    LIMIT TO (groups, ac_lists, ac_campaigns, ac_list_users, ac_background_jobs)
	    FROM SERVER application INTO public;
	SQL

# A campaign of so many; a job, as it can be created only there
sub start
{
	my $users = shift;
	my $campaign = create_campaign($application, users => $users);
	my $job = create_job($application);
	sql($sender, "SELECT send_campaign($campaign, $job)", role => 'app');
	return ($campaign, $job);
}

# How many list users of a campaign have been counted how often: "1: 9, 2: 1"
sub counts
{
	my $campaign = shift;
	return sql($application, <<~SQL);
		SELECT string_agg(count || ': ' || users, ', ' ORDER BY count)
		FROM (SELECT coalesce(data ->> 'sentCount', '0') AS count, count(*) AS users
		    FROM ac_list_users WHERE ac_list_id = ${\ list_of($campaign)} GROUP BY 1) c
		SQL
}

like(
	sql_error($sender, "SELECT send_campaign(${\ create_campaign($application)})", role => 'app')
	  ->{message},
	qr/null value in column "id" of relation "ac_background_jobs"/,
	'a job has to be created on the other server');

my ($campaign, $job) = start(50);
# no campaign can be made through these tables, so there are no companions
wait_for_run($sender, $job, alone => 1);
sent_once($sender, $twilio, $campaign, $job, 'foreign tables', total => 50);
is(counts($campaign), '1: 50', 'each is counted once');

# A row that is locked there makes everybody wait, as SKIP LOCKED is not passed on
($campaign, $job) = start(50);
my $lock = Session->open($application);
$lock->query("BEGIN; SELECT FROM ac_list_users WHERE ac_list_id = ${\ list_of($campaign)}"
	  . ' ORDER BY id LIMIT 1 FOR UPDATE');
my $known =
  poll(sub { sql($sender, "SELECT sent >= 49 FROM sendcampaign.run WHERE job_id = $job") eq 't' },
	20);
diag 'a row is locked on the other server: '
  . ($known ? 'the others are' : 'nobody is')
  . ' recorded meanwhile';
$lock->close;
wait_for_run($sender, $job, alone => 1);
sent_once($sender, $twilio, $campaign, $job, 'a row was locked', total => 50);

$_->stop for $sender, $application;
done_testing();
