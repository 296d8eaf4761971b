# DROP, CREATE and ALTER EXTENSION while a run is on.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../perl";
use Campaign;
use LocalTwilio;
use Session;
use Test::More;

my $twilio = LocalTwilio->start;
my $node = new_cluster('extension', $twilio, conf => <<~'CONF');
	sendcampaign.request_timeout = '2s'
	sendcampaign.lookup_delay = '200ms'
	CONF

sub recreate
{
	sql($node, <<~'SQL');
		CREATE EXTENSION sendcampaign;
		GRANT USAGE ON SCHEMA sendcampaign TO app;
		GRANT EXECUTE ON FUNCTION send_campaign TO app;
		GRANT EXECUTE ON ALL ROUTINES IN SCHEMA sendcampaign TO app;
		SQL
}

# What leaves the run alone
my $campaign = create_campaign($node, users => 300);
$twilio->set(hold => 1);
my $job = start_campaign($node, $campaign);
wait_for_flight($twilio, 1);
sql($node, 'ALTER EXTENSION sendcampaign UPDATE');
is(sql($node, <<~'SQL'), 'running', 'the extension may change its owner in mid-run');
	CREATE ROLE boss SUPERUSER;
	UPDATE pg_extension SET extowner = 'boss'::regrole WHERE extname = 'sendcampaign';
	SELECT run.state FROM sendcampaign.run;
	SQL
$twilio->set(hold => 0, latency => 20);
sent_once($node, $twilio, $campaign, $job, 'updated', total => 300);
sql($node, <<~'SQL');
	UPDATE pg_extension SET extowner = 10 WHERE extname = 'sendcampaign';
	DROP ROLE boss;
	SQL
my $move = 'ALTER EXTENSION sendcampaign SET SCHEMA pg_catalog';
my $cannot_move = 'extension "sendcampaign" does not support SET SCHEMA';
is(sql_error($node, $move)->{message}, $cannot_move, 'it cannot be moved');

# Dropped with answers on their way
$campaign = create_campaign($node, users => 100);
$twilio->set(latency => 0, hold => 1);
start_campaign($node, $campaign);
wait_for_flight($twilio, 20);
sql($node, 'DROP EXTENSION sendcampaign');
ok(worker_is_gone($node, 10), 'when it is dropped, its worker ends');
$twilio->set(hold => 0);
$twilio->set(reset => 1);
is(sql($node, <<~'SQL'), 0, 'and leaves no lock behind');
	SELECT count(*) FROM pg_locks
	WHERE locktype = 'object' AND classid = 'pg_authid'::regclass
	SQL
like(
	log_of($node),
	qr/LOG:  sendcampaign: the extension was dropped while 1 campaign was being sent/,
	'with a message in the log');
my $was_dropped = 'the extension sendcampaign was dropped while the campaign was being sent';
is(sql($node, <<~'SQL'), $was_dropped, 'and in the job');
	SELECT error FROM ac_background_jobs ORDER BY id DESC LIMIT 1
	SQL

recreate();
$campaign = create_campaign($node, users => 20);
$job = start_campaign($node, $campaign);
sent_once($node, $twilio, $campaign, $job, 'created again', total => 20);

# Dropped and created again at once: the worker must not mix them up.
$campaign = create_campaign($node, users => 20000);
$twilio->set(latency => 100);
start_campaign($node, $campaign);
wait_for_flight($twilio, 1);
sql($node, 'DROP EXTENSION sendcampaign');
recreate();
my $next = create_campaign($node, users => 20);
$job = start_campaign($node, $next);
sent_once($node, $twilio, $next, $job, 'dropped and created', total => 20);
is(sql($node, <<~'SQL'), $next, 'nothing is left of the run before');
	SELECT string_agg(r.campaign_id::text, ' ')
	FROM sendcampaign.run r
	JOIN ac_campaigns c ON c.id = r.campaign_id
	WHERE c.data->>'message' <> 'Companion'
	SQL
ok(worker_is_gone($node, 20), 'no worker of it is left');
cmp_ok(sent_of($twilio, $campaign), '<', 20000, 'it was not sent to its end');

# A DROP EXTENSION that is rolled back changes nothing.
$campaign = create_campaign($node, users => 300);
my $session = Session->open($node);
$job = start_campaign($node, $campaign);
wait_for_flight($twilio, 1);
$session->query('BEGIN; DROP EXTENSION sendcampaign');
$session->query('ROLLBACK');
$session->close;
sent_once($node, $twilio, $campaign, $job, 'rolled back', total => 300);

# Dropped under a run that is queued in the same transaction
my $error = sql_error($node, <<~"SQL");
	BEGIN;
	SELECT send_campaign($campaign);
	DROP EXTENSION sendcampaign;
	COMMIT;
	SQL
is($error->{message}, '', 'a run can be queued and the extension dropped in one transaction');
ok(worker_is_gone($node, 20), 'no worker is left');

$node->stop;
is(worker_errors($node), '', 'no worker met an error');
done_testing();
