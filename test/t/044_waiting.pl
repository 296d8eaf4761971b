# Told to go while it waits for the database, the worker goes, and what it
# then could not record is found again.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../perl";
use Campaign;
use LocalTwilio;
use Session;
use Test::More;
use Time::HiRes qw(time);

my $twilio = LocalTwilio->start;
my $node = new_cluster('waiting', $twilio, init => { allows_streaming => 1 }, conf => q{
	max_prepared_transactions = 5
	sendcampaign.request_timeout = '1s'
	sendcampaign.lookup_delay = '200ms'
});
my ($campaign, $job);

sub terminated_soon
{
	my $name = shift;
	my $begin = time;
	$node->safe_psql('postgres', q{SELECT pg_terminate_backend(pid) FROM pg_stat_activity
		WHERE backend_type = 'sendcampaign worker'});
	ok(worker_is_gone($node, 10), "$name: terminated, the worker ends");
	cmp_ok(time - $begin, '<', 5, 'soon');
}

sub goes_on
{
	my ($name, $total) = @_;
	is($node->safe_psql('postgres', 'SELECT sendcampaign.wake()'), 1, "$name: wake() starts a worker");
	sent_once($node, $twilio, $campaign, $job, $name, total => $total);
	ok(worker_is_gone($node, 10), 'which ends');
}

# For a transaction that has been prepared
$campaign = create_campaign($node, users => 10);
$job = $node->safe_psql('postgres', qq{SET ROLE app; BEGIN; SELECT send_campaign($campaign);
	PREPARE TRANSACTION 'later'});
ok($node->poll_query_until('postgres', q{SELECT count(*) = 1 FROM pg_stat_activity
	WHERE backend_type = 'sendcampaign worker' AND wait_event_type = 'Extension'}), 'a worker waits');
terminated_soon('waits for a prepared transaction');
$node->safe_psql('postgres', q{SET ROLE app; COMMIT PREPARED 'later'});
is(scalar(() = $twilio->ledger), 0, 'nothing was sent before the commit');
goes_on('committed later', 10);

# For locks of the application
my $session = Session->open($node);
for my $lock ('SELECT FROM ac_list_users FOR UPDATE', 'LOCK TABLE ac_list_users, ac_background_jobs')
{
	$campaign = create_campaign($node, users => 60);
	$twilio->set(hold => 1, reset => 1);
	$job = start_campaign($node, $campaign);
	wait_for_flight($twilio, 20);
	$session->query("BEGIN; $lock");
	$twilio->set(hold => 0);
	poll(sub { $twilio->stats->{accepted} >= 20 }, 20);
	terminated_soon($lock);
	is(run_row($node, $job)->{sent}, 0, 'nothing could be recorded');
	$session->query('COMMIT');
	goes_on($lock, 60);
}

# The server is stopped meanwhile.
$campaign = create_campaign($node, users => 60);
$job = start_campaign($node, $campaign);
$session->query('BEGIN; SELECT FROM ac_list_users FOR UPDATE');
poll(sub { $twilio->stats->{accepted} >= 20 }, 20);
my $begin = time;
$node->stop('fast');
cmp_ok(time - $begin, '<', 8, 'stop -m fast is quick');
undef $session;
$node->start;
goes_on('stopped', 60);

# For a synchronous standby that is not there: no message leaves before its
# claim is safe there, and the worker can be told to go.
$campaign = create_campaign($node, users => 2000);
$twilio->set(hold => 1, reset => 1);
$job = start_campaign($node, $campaign);
wait_for_flight($twilio, 20);
change_conf($node, "synchronous_standby_names = 'nobody'");
$node->poll_query_until('postgres', 'SHOW synchronous_standby_names', 'nobody');
$twilio->set(hold => 0);
ok($node->poll_query_until('postgres', q{SELECT count(*) = 1 FROM pg_stat_activity
	WHERE backend_type = 'sendcampaign worker' AND wait_event = 'SyncRep'}), 'the worker waits for a standby');
my $accepted = $twilio->stats->{accepted};
cmp_ok($accepted, '<', 2000, 'and sends no more than it had claimed');
terminated_soon('waits for a standby');
change_conf($node, "synchronous_standby_names = ''");
goes_on('standby', 2000);

$node->stop;
is(worker_errors($node) =~ s/.*canceling the wait for synchronous replication.*//r, '', 'no worker met an error');
done_testing();
