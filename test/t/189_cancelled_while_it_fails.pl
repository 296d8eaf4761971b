# A run that its worker cannot take up is cancelled before that has failed it:
# recipients who may have been sent to are looked up, or in doubt, and not left
# out.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../perl";
use Campaign;
use LocalTwilio;
use Session;
use Test::More;

my $twilio = LocalTwilio->start;
my $node = new_cluster('cancelled_while_it_fails', $twilio, conf => <<~'CONF');
	sendcampaign.request_timeout = '2s'
	sendcampaign.lookup_delay = '100ms'
	sendcampaign.lookup_timeout = '1s'
	CONF
sql($node, <<~'SQL');
	CREATE ROLE sender LOGIN;
	GRANT USAGE ON SCHEMA sendcampaign TO sender;
	GRANT ALL ON ALL TABLES IN SCHEMA public TO sender;
	GRANT ALL ON ALL SEQUENCES IN SCHEMA public TO sender;
	SQL

# Does this query give true within a minute?
sub becomes_true
{
	my $query = shift;
	return poll(sub { sql($node, $query) eq 't' }, 60);
}

# How many messages Twilio has accepted
sub accepted
{
	return scalar(() = $twilio->ledger);
}

my $waits_for_lock = <<~'SQL';
	SELECT count(*) > 0
	FROM pg_stat_activity
	WHERE backend_type = 'sendcampaign worker' AND wait_event_type = 'Lock'
	SQL

# What keeps the run from being taken up
my @causes = (
	[ 'another table', <<~'SQL' ],
		ALTER TABLE ac_list_users RENAME TO old_list_users;
		CREATE TABLE ac_list_users (LIKE old_list_users INCLUDING ALL);
		INSERT INTO ac_list_users TABLE old_list_users;
		GRANT ALL ON ac_list_users TO sender;
		SQL
	[ 'a right that is lost', <<~'SQL' ]);
		REVOKE SELECT ON groups FROM sender;
		SQL
my $worker_ended = "the worker ended before Twilio's answer";
my $unseen = "Twilio's list shows neither this message nor any sent later";
my $reason = qr/$worker_ended; (?:the run had failed|it cannot be looked up|$unseen)/;
my $users = 600;
for my $cause (@causes)
{
	my ($name, $statements) = @$cause;
	$twilio->set(reset => 1, 'fault:never-after' => 100);
	my $campaign = create_campaign($node, users => $users);
	my $job = start_campaign($node, $campaign, role => 'sender');
	poll(sub { accepted() >= 20 });
	sql($node, "SELECT pg_terminate_backend($_)") for worker_pids($node);
	wait_for_no_worker($node);
	sql($node, "BEGIN; SET LOCAL ROLE app; $statements; COMMIT");

	# that it has failed cannot be written to its job
	my $holder = Session->open($node);
	$holder->query("BEGIN; SELECT FROM ac_background_jobs WHERE id = $job FOR UPDATE");
	$twilio->set('fault:never-after' => 0);
	sql($node, 'SELECT sendcampaign.wake()');
	ok(becomes_true($waits_for_lock), "$name: the run is about to fail");
	sql($node, "SELECT sendcampaign.cancel($job)");
	$holder->query('COMMIT');
	$holder->close;
	sql($node, 'SELECT sendcampaign.wake()');
	my $ended = "SELECT finished_at IS NOT NULL FROM sendcampaign.run WHERE job_id = $job";
	ok(becomes_true($ended), "$name: it ends");
	my $run = run_row($node, $job);
	is($run->{state}, 'cancelled', "$name: it is cancelled");
	my $outcomes = $run->{sent} + $run->{failed} + $run->{skipped} + $run->{in_doubt};
	is($run->{total}, $outcomes, "$name: the outcomes add up");
	my $messages = "SELECT count(*) FROM sendcampaign.message WHERE job_id = $job";
	is(sql($node, $messages), $users, "$name: everybody has one");
	is(sql($node, <<~'SQL'), 0, "$name: nothing is left over");
		SELECT (SELECT count(*) FROM sendcampaign.claim)
		    + (SELECT count(*) FROM sendcampaign.batch)
		SQL
	cmp_ok(sql($node, "$messages AND status IN ('sent', 'in_doubt')"),
		'>=', accepted(), "$name: what Twilio has accepted is known");
	is($run->{sent}, accepted(), "$name: it is looked up") if $name eq 'another table';
	next if $run->{in_doubt} == 0;
	like(sql($node, <<~"SQL"), qr/^$reason(?: \| $reason)*$/, "$name: the doubt has a reason");
		SELECT string_agg(DISTINCT error_message, ' | ')
		FROM sendcampaign.message
		WHERE job_id = $job AND status = 'in_doubt'
		SQL
}
$node->stop;
done_testing();
