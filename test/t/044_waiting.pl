# Told to go while it waits for the database, the worker goes, and what it
# could not record is found again.
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
my $conf = <<~'CONF';
	max_prepared_transactions = 5
	sendcampaign.request_timeout = '1s'
	sendcampaign.lookup_delay = '200ms'
	sendcampaign.receipts = off
	CONF
my $node = new_cluster('waiting', $twilio, init => { allows_streaming => 1 }, conf => $conf);

sub terminated_soon
{
	my $name = shift;
	my $soon = seconds_here($node, 5);
	my $begin = time;
	terminate_workers($node);
	ok(worker_is_gone($node, 10), "$name: a worker that is terminated ends");
	cmp_ok(time - $begin, '<', $soon, 'soon');
}

sub goes_on
{
	my ($campaign, $job, $total, $name) = @_;
	is(wake($node), 1, "$name: wake() starts a worker");
	sent_once($node, $twilio, $campaign, $job, $name, total => $total);
	ok(worker_is_gone($node, 10), 'which ends');
}

# Waits until 20 messages have been accepted, whose outcome cannot be recorded.
sub wait_for_answers
{
	poll(sub { $twilio->stats->{accepted} >= 20 });
}

# For a transaction that has been prepared
my $campaign = create_campaign($node, users => 10);
my $job = sql($node, <<~"SQL", role => 'app');
	BEGIN;
	SELECT send_campaign($campaign);
	PREPARE TRANSACTION 'later';
	SQL
ok(wait_until($node, <<~'SQL'), 'a worker waits');
	SELECT count(*) = 1 FROM pg_stat_activity
	WHERE backend_type = 'sendcampaign worker' AND wait_event_type = 'Extension'
	SQL
terminated_soon('waits for a prepared transaction');
sql($node, "COMMIT PREPARED 'later'", role => 'app');
my @ledger = $twilio->ledger;
is(scalar @ledger, 0, 'nothing was sent before the commit');
goes_on($campaign, $job, 10, 'committed later');

# For locks of the application
my $session = Session->open($node);
for
  my $lock ('SELECT FROM ac_list_users FOR UPDATE', 'LOCK TABLE ac_list_users, ac_background_jobs')
{
	($campaign, $job) = hold_campaign($node, $twilio, users => 60);
	$session->query("BEGIN; $lock");
	$twilio->set(hold => 0);
	wait_for_answers();
	terminated_soon($lock);
	is(run_row($node, $job)->{sent}, 0, 'nothing could be recorded');
	$session->query('COMMIT');
	goes_on($campaign, $job, 60, $lock);
}

# The server is stopped meanwhile.
($campaign, $job) = hold_campaign($node, $twilio, users => 60);
$session->query('BEGIN; SELECT FROM ac_list_users FOR UPDATE');
$twilio->set(hold => 0);
wait_for_answers();
my $quickly = seconds_here($node, 8);
my $begin = time;
$node->stop('fast');
cmp_ok(time - $begin, '<', $quickly, 'stop -m fast is quick');
undef $session;
$node->start;
goes_on($campaign, $job, 60, 'stopped');

# For a synchronous standby that is not there: no message leaves before its
# claim is safe there, and the worker can be told to go.
($campaign, $job) = hold_campaign($node, $twilio, users => 2000);
set_and_reload($node, 'synchronous_standby_names', 'nobody');
wait_until($node, 'SHOW synchronous_standby_names', expected => 'nobody');
$twilio->set(hold => 0);
ok(wait_until($node, <<~'SQL'), 'the worker waits for a standby');
	SELECT count(*) = 1 FROM pg_stat_activity
	WHERE backend_type = 'sendcampaign worker' AND wait_event = 'SyncRep'
	SQL
my $accepted = $twilio->stats->{accepted};
cmp_ok($accepted, '<', 2000, 'and sends no more than it had claimed');
terminated_soon('waits for a standby');
set_and_reload($node, 'synchronous_standby_names', '');
goes_on($campaign, $job, 2000, 'standby');

$node->stop;
my $errors = worker_errors($node);
$errors =~ s/.*canceling the wait for synchronous replication.*//;
is($errors, '', 'no worker met another error');
done_testing();
