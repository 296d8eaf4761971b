# Rights and names change while a list worker has stored a list that is not yet
# committed: what the run does next is up to the new ones.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../perl";
use Campaign;
use LocalTwilio;
use Session;
use Test::More;

plan skip_all => 'the library is built without debug points' if !$ENV{SENDCAMPAIGN_DEBUG_POINTS};

my $users = 500;    # enough for each second run of a build for tests (see long_lists.c)
my $twilio = LocalTwilio->start;
my $node = new_cluster('list_worker_rights', $twilio, conf => "sendcampaign.receipts = off\n");
run_campaign($node, create_campaign($node, users => 2, message => 'small'));
my $holder = Session->open($node);

# Changes something while the list of a new campaign is stored; returns the campaign and its job.
sub change_while_stored
{
	my ($name, $change) = @_;
	$holder->query('SELECT pg_advisory_lock(5005, 8)');
	my $campaign = create_campaign($node, users => $users, message => $name);
	my $job = start_with_id($node, 1, $campaign);
	ok(waits_at($node, 8), "$name: a list worker stores the list");
	sql($node, $change);
	$holder->query('SELECT pg_advisory_unlock(5005, 8)');
	wait_for_run($node, $job);
	return ($campaign, $job);
}

sub fails_and_continues
{
	my ($name, $change, $mend, $reason) = @_;
	my ($campaign, $job) = change_while_stored($name, $change);
	like(run_row($node, $job)->{error}, $reason, "$name: the run fails with the reason");
	is(sent_with($twilio, $name), 0, "$name: nothing is sent");
	sql($node, $mend);
	start_campaign($node, $campaign, job => $job);
	wait_for_run($node, $job);
	sent_once($node, $twilio, $campaign, $job, $name, total => $users);
}

sub goes_on
{
	my ($name, $change) = @_;
	my ($campaign, $job) = change_while_stored($name, $change);
	sent_once($node, $twilio, $campaign, $job, $name, total => $users);
	return $job;
}

fails_and_continues(
	'may not read',
	'REVOKE SELECT ON ac_list_users FROM app',
	'GRANT SELECT ON ac_list_users TO app',
	qr/permission|SELECT/);
fails_and_continues(
	'may not count',
	'REVOKE UPDATE ON ac_list_users FROM app',
	'GRANT UPDATE ON ac_list_users TO app',
	qr/permission|UPDATE/);
my $job = goes_on('renamed', 'ALTER ROLE app RENAME TO application');
is(sql($node, "SELECT role FROM sendcampaign.run WHERE job_id = $job"),
	'application', 'renamed: the run has the new name');
sql($node, 'ALTER ROLE application RENAME TO app');
goes_on('may not connect', 'ALTER ROLE app NOLOGIN');
sql($node, 'ALTER ROLE app LOGIN');

# What the list contained when it was read stays the run's; what a user is, is read later.
my ($campaign, $changed) = change_while_stored('others', <<~'SQL');
	DELETE FROM ac_list_users WHERE id = (SELECT max(id) FROM ac_list_users);
	UPDATE ac_list_users SET ac_list_id = ac_list_id - 1
	WHERE id = (SELECT max(id) FROM ac_list_users);
	INSERT INTO ac_list_users (ac_list_id, data)
	SELECT max(ac_list_id), '{"sms": "+15558880001"}' FROM ac_list_users;
	SQL
is( sql($node,
		"SELECT total, sent + failed + skipped FROM sendcampaign.run WHERE job_id = $changed"),
	"$users|$users",
	'others: each recipient of the list that was read has an outcome');
is(scalar(grep { $_->{to} eq '+15558880001' } $twilio->ledger),
	0, 'others: who was added since gets nothing');
is(worker_errors($node), '', 'the log has no errors');
$node->stop;
done_testing();
