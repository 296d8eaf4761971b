# A run that its worker cannot take up is cancelled before that has failed it:
# who may have been sent to is looked up, or in doubt, and not left out.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../perl";
use Campaign;
use LocalTwilio;
use Session;
use Test::More;

my $twilio = LocalTwilio->start;
my $node = new_cluster('cancelled_while_it_fails', $twilio, conf => qq{
	sendcampaign.request_timeout = '2s'
	sendcampaign.lookup_delay = '100ms'
	sendcampaign.lookup_timeout = '1s'
});
sub sql { my $sql = shift; return $node->safe_psql('postgres', $sql); }
sub is_true { my $sql = shift; return poll(sub { sql("SELECT $sql") eq 't' }, 60); }
sql('CREATE ROLE sender LOGIN; GRANT USAGE ON SCHEMA sendcampaign TO sender; GRANT ALL ON ALL TABLES IN SCHEMA public TO sender;
	GRANT ALL ON ALL SEQUENCES IN SCHEMA public TO sender');

# What keeps the run from being taken up.
my @causes = (
	[ 'another table' => 'ALTER TABLE ac_list_users RENAME TO old_list_users; CREATE TABLE ac_list_users (LIKE old_list_users INCLUDING ALL);
		INSERT INTO ac_list_users TABLE old_list_users; GRANT ALL ON ac_list_users TO sender' ],
	[ 'a right that is lost' => 'REVOKE SELECT ON groups FROM sender' ]);
my $users = 600;
for my $cause (@causes)
{
	my ($name, $sql) = @$cause;
	$twilio->set(reset => 1, 'fault:never-after' => 100);
	my $campaign = create_campaign($node, users => $users);
	my $job = start_campaign($node, $campaign, role => 'sender');
	poll(sub { (() = $twilio->ledger) >= 20 });
	sql("SELECT pg_terminate_backend($_)") for worker_pids($node);
	wait_for_no_worker($node);
	sql("BEGIN; SET LOCAL ROLE app; $sql; COMMIT");

	# that it has failed cannot be written to its job
	my $holder = Session->open($node);
	$holder->query("BEGIN; SELECT FROM ac_background_jobs WHERE id = $job FOR UPDATE");
	$twilio->set('fault:never-after' => 0);
	sql('SELECT sendcampaign.wake()');
	ok(is_true("EXISTS (SELECT FROM pg_stat_activity WHERE backend_type = 'sendcampaign worker' AND wait_event_type = 'Lock')"), "$name: it is about to fail");
	sql("SELECT sendcampaign.cancel($job)");
	$holder->query('COMMIT');
	$holder->close;
	sql('SELECT sendcampaign.wake()');
	ok(is_true("finished_at IS NOT NULL FROM sendcampaign.run WHERE job_id = $job"), "$name: it ends");
	my $run = run_row($node, $job);
	is($run->{state}, 'cancelled', "$name: cancelled");
	is($run->{total}, $run->{sent} + $run->{failed} + $run->{skipped} + $run->{in_doubt}, "$name: the outcomes add up");
	is(sql("SELECT count(*) FROM sendcampaign.message WHERE job_id = $job"), $users, "$name: everybody has one");
	is(sql('SELECT (SELECT count(*) FROM sendcampaign.claim) + (SELECT count(*) FROM sendcampaign.batch)'), 0, "$name: nothing is left over");
	my $known = sql("SELECT count(*) FROM sendcampaign.message WHERE job_id = $job AND status IN ('sent', 'in_doubt')");
	cmp_ok($known, '>=', scalar(() = $twilio->ledger), "$name: what Twilio has accepted is known");
	is($run->{sent}, scalar(() = $twilio->ledger), "$name: it is looked up") if $name eq 'another table';
}
$node->stop;
done_testing();
