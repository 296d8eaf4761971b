# Who sees a run, and who touches it.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../perl";
use Campaign;
use LocalTwilio;
use Test::More;

my $twilio = LocalTwilio->start;
my $node = new_cluster('visibility', $twilio, conf => "log_min_messages = debug1\n");
sql($node, <<~'SQL');
	CREATE ROLE stranger LOGIN;
	CREATE ROLE member LOGIN NOINHERIT;
	CREATE ROLE blind LOGIN;
	GRANT app TO member;
	GRANT USAGE ON SCHEMA sendcampaign TO stranger, member;
	SQL

# What SQL prints for a role that connects.
sub as
{
	my ($role, $sql) = @_;
	return sql($node, $sql, user => $role);
}

# The SQLSTATE and the message with which a role that connects is refused.
sub refusal
{
	my ($role, $sql) = @_;
	my $error = sql_error($node, $sql, user => $role);
	return $error->{sqlstate} ? "$error->{sqlstate}: $error->{message}" : 'no error';
}

my $campaign = create_campaign($node, users => 3);
my $job = as('app', "SELECT send_campaign($campaign)");
wait_for_run($node, $job);

my %rows = (run => 1, message => 3, progress => 1);
for my $table (sort keys %rows)
{
	my $count = "SELECT count(*) FROM sendcampaign.$table";
	is(as('app', $count), $rows{$table}, "$table: the role that sent sees its rows");
	is(as('member', $count), $rows{$table}, "$table: so does a member of it");
	is(as('stranger', $count), 0, "$table: another role does not");
	like(
		refusal('blind', $count),
		qr/^42501: permission denied for schema sendcampaign/,
		"$table: nor does one without USAGE on the schema");
	like(
		refusal('app', "DELETE FROM sendcampaign.$table"),
		qr/^(42501: permission denied|55000: cannot delete)/,
		"$table: nobody changes it");
}
for my $table ('claim', 'batch')
{
	like(
		refusal('app', "SELECT FROM sendcampaign.$table"),
		qr/^42501: permission denied for table $table/,
		"$table: only the extension reads it");
}
my $forged = <<~"SQL";
	INSERT INTO sendcampaign.run (job_id, campaign_id, role, schema)
	VALUES (99, $campaign, 'postgres', 'public')
	SQL
like(refusal('app', $forged), qr/^42501: permission denied for view run/,
	'a run cannot be forged');

# a function that tells what it is shown sees nothing either
is(as('stranger', <<~'SQL'), "0\n0", 'nothing leaks through a function');
	CREATE FUNCTION pg_temp.tell(text) RETURNS boolean LANGUAGE plpgsql COST 0.0001 AS $$
	BEGIN
		RAISE EXCEPTION 'seen: %', $1;
	END $$;
	SELECT count(*) FROM sendcampaign.progress WHERE pg_temp.tell(state);
	SELECT count(*) FROM sendcampaign.message WHERE pg_temp.tell(phone);
	SQL

# For what is done to a run: there is none that a stranger may see.
for my $call ('resume(JOB)', 'settle(JOB, 1, true)')
{
	my ($real, $unknown) = map { $call =~ s/JOB/$_/r } $job, 4711;
	my $error = refusal('stranger', "SELECT sendcampaign.$real");
	my $error_of_unknown = refusal('stranger', "SELECT sendcampaign.$unknown");
	like(
		$error,
		qr/^P0002: there is no run of background job $job$/,
		"$real: a stranger is refused");
	is( $error =~ s/$job$//r,
		$error_of_unknown =~ s/4711$//r,
		"$real: with the same words as for a run that does not exist");
	unlike(
		refusal('member', "SELECT sendcampaign.$real"),
		qr/there is no run/,
		"$real: a member finds the run");
}

# Switches sending on or off, and waits until the library knows.
sub switch
{
	my $value = shift;
	change_conf($node, "sendcampaign.enabled = $value");
	wait_until($node, <<~"SQL");
		SELECT sendcampaign.version() IS NOT NULL
			AND current_setting('sendcampaign.enabled') = '$value'
		SQL
}

# a queued run without a worker: wake() is for members
switch ('off');
$job = as('app', "SELECT send_campaign($campaign)");
ok(no_worker_is_to_come($node), 'no worker stays');
switch ('on');
is(wake($node, user => 'stranger'), 0, 'wake() does nothing for a stranger');
is(run_row($node, $job)->{state}, 'queued', 'the run stays queued');
is(wake($node, user => 'member'), 1, 'wake() starts a worker for a member');
is(wait_for_run($node, $job)->{sent}, 3, 'and the run is sent');
is(sql($node, "SELECT role FROM sendcampaign.run WHERE job_id = $job"),
	'app', 'with the rights of its own role');

# to send, a role needs no USAGE on the schema sendcampaign
sql($node, <<~'SQL');
	GRANT SELECT ON groups, ac_lists, ac_campaigns TO blind;
	GRANT SELECT, UPDATE, INSERT ON ac_list_users, ac_background_jobs TO blind;
	GRANT USAGE ON SEQUENCE ac_background_jobs_id_seq TO blind;
	SQL
$job = as('blind', "SELECT send_campaign($campaign)");
is(wait_for_run($node, $job)->{sent}, 3, 'it is sent without USAGE on the schema');

# rights that are taken back in mid-run end it, with the reason
$twilio->set(latency => 300);
$campaign = create_campaign($node, users => 1000);
wait_for_no_worker($node);
sql($node, 'ALTER ROLE blind SET sendcampaign.max_concurrency = 1');
$job = as('blind', "SELECT send_campaign($campaign)");
wait_until($node, "SELECT sent > 0 FROM sendcampaign.run WHERE job_id = $job");
sql($node, 'REVOKE UPDATE ON ac_list_users FROM blind');
my $run = wait_for_run($node, $job);
like(
	"$run->{state}: $run->{error}",
	qr/^failed: permission denied for table ac_list_users/,
	'a right that is taken back: the run fails');
sql($node, <<~'SQL');
	GRANT UPDATE ON ac_list_users TO blind;
	ALTER ROLE blind RESET sendcampaign.max_concurrency;
	SQL
$twilio->set(latency => 0);
is(as('blind', "SELECT send_campaign($campaign, $job)"),
	$job, 'given again: the same call goes on');
sent_once($node, $twilio, $campaign, $job, 'given again', total => 1000);

wait_for_no_worker($node);
$node->stop;
done_testing();
