# The owner of the database may load rows into the table of runs.  A query that
# comes with them does not run, whatever is done with the run.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../perl";
use Campaign;
use LocalTwilio;
use PostgreSQL::Test::Utils;
use Test::More;

my $twilio = LocalTwilio->start;
my $node = new_cluster('loaded_query', $twilio, no_extension => 1, conf => <<~'CONF');
	sendcampaign.receipts = off
	max_worker_processes = 16
	CONF
sql($node, 'CREATE ROLE owner LOGIN; CREATE DATABASE one OWNER owner');
install_extension($node, 'one');
my $log =
	"CREATE TABLE public.ran (t text);"
  . " CREATE FUNCTION public.evil() RETURNS bigint LANGUAGE plpgsql AS"
  . " 'BEGIN RAISE LOG ''evil code has run''; RETURN 1; END'";
sql($node, $log, db => 'one');
sql($node, 'GRANT USAGE ON SCHEMA sendcampaign TO owner', db => 'one');
my $campaign = create_campaign($node, db => 'one', users => 3, message => 'loaded');

sub text_of { return join '|', @{ shift() }{qw(sqlstate message detail hint)} }

# A queued run of app's, loaded by the owner of the database with this state
sub load
{
	my ($state, $job) = @_;
	my $from = $state eq 'paused' ? q('queued') : 'NULL';
	return sql($node, <<~"SQL", db => 'one', user => 'owner');
		INSERT INTO sendcampaign.run_data (id, schema, job_id, campaign_id, role, role_oid, state,
			database, recipients, timeline, written_in, paused_from, system_identifier)
		SELECT nextval('sendcampaign.run_id'), 'public', $job, $campaign, 'app', 'app'::regrole,
			'$state', d.oid, 'SELECT public.evil()', '', '3', $from, c.system_identifier
		FROM pg_database d, pg_control_system() c WHERE d.datname = current_database()
		RETURNING id
		SQL
}

sub evil { return log_of($node) =~ /LOG:  evil code has run/ ? 1 : 0 }

my $job = create_job($node, db => 'one');
my $id = load('queued', $job);
wake($node, db => 'one');
ok( wait_until(
		$node,
		"SELECT state <> 'queued' FROM sendcampaign.run_data WHERE id = $id",
		db => 'one'),
	'a loaded run is noticed');
is(sql($node, "SELECT state FROM sendcampaign.run_data WHERE id = $id", db => 'one'),
	'paused', 'and paused');
my $error =
	"42501|the query that selects the recipients of job $job was loaded, as from a dump|It would"
  . ' run with the rights of role "app".|Look at "recipients" in sendcampaign.run. If the query is yours,'
  . ' call send_campaign() with it and another job.';
is(text_of(call_error($node, "resume($job)", db => 'one')), $error, 'its role cannot resume it');
is(text_of(call_error($node, "resume($job)", db => 'one', role => undef)),
	$error, 'nor a superuser');
sql($node, "SELECT sendcampaign.cancel($job)", db => 'one');
is(sql($node, "SELECT state FROM sendcampaign.run_data WHERE id = $id", db => 'one'),
	'cancelled', 'it can be cancelled');

# In place: what was dumped by a superuser, and loaded again
$twilio->set(hold => 1);
set_and_reload($node, 'sendcampaign.enabled', 'off');
$job = start_campaign(
	$node, $campaign,
	db => 'one',
	recipients => 'SELECT id FROM public.ac_list_users');
sql($node, <<~"SQL", db => 'one');
	CREATE TABLE kept AS SELECT * FROM sendcampaign.run_data WHERE job_id = $job;
	DELETE FROM sendcampaign.run_data WHERE job_id = $job;
	INSERT INTO sendcampaign.run_data SELECT * FROM kept;
	SQL
set_and_reload($node, 'sendcampaign.enabled', 'on');
wake($node, db => 'one');
is( wait_for_run($node, $job, db => 'one', alone => 1)->{error},
	"the query that selects the recipients of job $job was loaded, as from a dump. It would run with the"
	  . ' rights of role "app". Look at "recipients" in sendcampaign.run. If the query is yours, call'
	  . ' send_campaign() with it and another job.',
	'a run that was loaded in place fails');
is(evil(), 0, 'no loaded query has run');
is(scalar $twilio->ledger, 0, 'nothing was sent');
$node->stop;
done_testing();
