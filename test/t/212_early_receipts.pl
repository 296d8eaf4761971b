# A report that comes before its message is recorded: kept, and taken over when
# it is.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../perl";
use Campaign;
use LocalTwilio;
use Receipts;
use Session;
use Test::More;

my $twilio = LocalTwilio->start;
my $node = new_cluster('early', $twilio, conf => <<~'CONF');
	sendcampaign.request_timeout = '600s'
	sendcampaign.receipts = off
	CONF
install_receipts($node);

# How many reports wait.
sub num_early
{
	return sql($node, 'SELECT count(*) FROM sendcampaign.early_receipt');
}

# Starts a campaign to so many, whose messages Twilio has taken, and does not say
# so; returns the job and their SIDs, by phone number.
sub start_held
{
	my ($users) = @_;
	my $campaign = create_campaign($node, users => $users);
	$twilio->set(reset => 1, hold => 1, 'hold-after' => 1);
	my $job = start_campaign($node, $campaign);
	ok(poll(sub { scalar(() = $twilio->ledger) == $users }), 'Twilio has the messages');
	my %sid_to = map { $_->{to} => $_->{sid} } $twilio->ledger;
	return ($job, map { $sid_to{$_} } sort keys %sid_to);
}

my ($job, @sid) = start_held(5);
is(report($node, $job, "$sid[0] delivered"), 0, 'a message that is not recorded is not known');
is( report_early(
		$node, $job, "$sid[0] sent",
		"$sid[0] delivered",
		"$sid[1] undelivered code=30007"),
	2,
	'what is reported of it is kept');
is(report_early($node, $job, "$sid[0] sent", "$sid[2] sent price=0.01 unit=USD"),
	1, 'forward only');
is(report_early($node, $job, "$sid[2] delivered"), 1, 'here as well');
is(report_early($node, $job, 'SMnobody delivered'), 1, 'of whatever message');
is(num_early(), 4, 'each message once');
my $group = "role_oid, account, schema, group_id";
is(sql($node, <<~"SQL"), 0, 'of a group that sends nothing, nothing is kept');
	SELECT store_receipts(role_oid, account, schema, group_id + 1,
	    '[{"sid": "SM1", "status": "sent"}]', true)
	FROM sendcampaign.run
	SQL

# A claim names the region, which a callback does not.
sql($node, q(UPDATE sendcampaign.claim SET account = account || '@ie1'));
is(report_early($node, $job, 'SMnobody read'), 1, 'in another region, too');
sql($node, q(UPDATE sendcampaign.claim SET account = split_part(account, '@', 1)));

# Somebody else's early report of the same message stays where it is.
sql($node, <<~"SQL");
	INSERT INTO sendcampaign.early_receipt (role_oid, schema, group_id, sid, account, status,
	    updated_at)
	SELECT 10, schema, group_id, '$sid[3]', account, 'failed', now()
	FROM sendcampaign.run
	SQL

# One is just being changed: the worker does not wait for that.
my $session = Session->open($node);
$session->query("BEGIN; SELECT FROM sendcampaign.early_receipt WHERE sid = '$sid[1]' FOR UPDATE");
$twilio->set(hold => 0);
is(wait_for_run($node, $job)->{state}, 'completed', 'the run ends');
is(deliveries($node, $job), 'delivered, -, delivered, -, -', 'the reports are taken over');
is(receipt_counts($node, $job), '5 2 0 0', 'and counted');
is(sql($node, "SELECT price FROM sendcampaign.message WHERE sid = '$sid[2]'"),
	'0.01', 'with what they say');
$session->query('COMMIT');
like(take_early($node, $job), qr/^1\b/, 'what is left over is taken later');
is(deliveries($node, $job), 'delivered, undelivered 30007, delivered, -, -', 'and stored');
is(receipt_counts($node, $job), '5 2 1 0', 'and counted');
is(num_early(), 2, 'what is of no message of ours stays');
is(report_early($node, $job, 'SM2 sent'), 0, 'when nothing is on its way, nothing is kept');
sql($node, "UPDATE sendcampaign.early_receipt SET received_at = now() - interval '25 hours'");
is(take_early($node, $job), 0, 'after a day');
is(num_early(), 1, 'it is deleted');
sql($node, q{SELECT sendcampaign.forget('-infinity')});
is(num_early(), 1, 'forget() deletes none that are younger than it says');
sql($node, 'SELECT sendcampaign.forget(now())');
is(num_early(), 0, 'and those of anybody that are older than a day');

# The last of a run may be early: its end is announced with its receipts.
wait_for_no_worker($node);
my $listener = Session->open($node);
$listener->query('LISTEN sendcampaign');
($job, @sid) = start_held(2);
report_early($node, $job, map { "$_ delivered" } @sid);
$twilio->set(hold => 0);
wait_for_run($node, $job);
is(receipt_counts($node, $job), '2 2 0 0', 'all of them were early');
my $seen = '';
ok(poll(sub { $seen .= $listener->query('SELECT 1'); $seen =~ /"job_id" : $job\b/ }),
	'the end is announced');
like($seen, qr/"state" : "completed", "receipts" : "complete"\}/, 'with that they are complete');

# Somebody reports the same message, and does not commit: a run of that group is
# recorded all the same.
my $campaign = create_campaign($node, users => 3);
my $before = run_campaign($node, $campaign)->{job};
my ($locked) = sids($node, $before);
sql($node, <<~"SQL");
	INSERT INTO sendcampaign.early_receipt (role_oid, schema, group_id, sid, account, status,
	    updated_at)
	SELECT role_oid, schema, group_id, '$locked', account, 'delivered', now()
	FROM sendcampaign.run
	WHERE job_id = $before
	SQL
my $sent = Receipts::as_jsonb("$locked sent");
$session->query("BEGIN; SELECT report($before, $sent)");
is(run_campaign($node, $campaign)->{sent}, 3, 'a report that is not committed holds nobody up');
is(num_early() . ' ' . deliveries($node, $before), '1 -, -, -', 'the early one waits');
$session->query('COMMIT');
take_early($node, $before);
is(deliveries($node, $before), 'delivered, -, -', 'and is taken over later');

$node->stop;
done_testing();
