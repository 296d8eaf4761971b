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
my $node = new_cluster('extension', $twilio, conf => q{
	sendcampaign.request_timeout = '2s'
	sendcampaign.lookup_delay = '200ms'
});

sub recreate
{
	$node->safe_psql('postgres',
		'CREATE EXTENSION sendcampaign; GRANT USAGE ON SCHEMA sendcampaign TO app; '
		  . 'GRANT EXECUTE ON FUNCTION send_campaign TO app; GRANT EXECUTE ON ALL ROUTINES IN SCHEMA sendcampaign TO app');
}

# Things that leave the run alone
my $campaign = create_campaign($node, users => 300);
$twilio->set(hold => 1);
my $job = start_campaign($node, $campaign);
wait_for_flight($twilio, 1);
$node->safe_psql('postgres', 'ALTER EXTENSION sendcampaign UPDATE');
is($node->safe_psql('postgres', q{CREATE ROLE boss SUPERUSER;
	UPDATE pg_extension SET extowner = 'boss'::regrole WHERE extname = 'sendcampaign';
	SELECT run.state FROM sendcampaign.run}), 'running', 'another owner in mid-run');
$twilio->set(hold => 0, latency => 20);
sent_once($node, $twilio, $campaign, $job, 'updated', total => 300);
$node->safe_psql('postgres', q{UPDATE pg_extension SET extowner = 10 WHERE extname = 'sendcampaign'; DROP ROLE boss});
like(($node->psql('postgres', 'ALTER EXTENSION sendcampaign SET SCHEMA pg_catalog'))[2],
	qr/ERROR:  extension "sendcampaign" does not support SET SCHEMA/, 'it cannot be moved');

# Dropped with answers on their way
$campaign = create_campaign($node, users => 100);
$twilio->set(latency => 0, hold => 1);
start_campaign($node, $campaign);
wait_for_flight($twilio, 20);
$node->safe_psql('postgres', 'DROP EXTENSION sendcampaign');
ok(worker_is_gone($node, 10), 'dropped, its worker ends');
$twilio->set(hold => 0);
$twilio->set(reset => 1);
is($node->safe_psql('postgres', q{SELECT count(*) FROM pg_locks WHERE locktype = 'object'
	AND classid = 'pg_authid'::regclass}), 0, 'and leaves no lock behind');

recreate();
$campaign = create_campaign($node, users => 20);
$job = start_campaign($node, $campaign);
sent_once($node, $twilio, $campaign, $job, 'created again', total => 20);

# Dropped and created again at once: the worker must not mix them up.
$campaign = create_campaign($node, users => 1000);
$twilio->set(latency => 20);
start_campaign($node, $campaign);
wait_for_flight($twilio, 1);
$node->safe_psql('postgres', 'DROP EXTENSION sendcampaign');
recreate();
my $next = create_campaign($node, users => 20);
$job = start_campaign($node, $next);
sent_once($node, $twilio, $next, $job, 'dropped and created', total => 20);
is($node->safe_psql('postgres', 'SELECT string_agg(campaign_id::text, $$ $$) FROM sendcampaign.run'), $next,
	'nothing is left of the run before');
ok(worker_is_gone($node, 20), 'no worker of it is left');
cmp_ok(scalar(grep { $_->{body} =~ /yc=$campaign$/ } $twilio->ledger), '<', 1000, 'which was not sent to its end');

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
is(($node->psql('postgres', "BEGIN; SELECT send_campaign($campaign); DROP EXTENSION sendcampaign; COMMIT"))[0],
	0, 'queued and dropped in one transaction');
ok(worker_is_gone($node, 20), 'no worker is left');

$node->stop;
is(worker_errors($node), '', 'no worker met an error');
done_testing();
