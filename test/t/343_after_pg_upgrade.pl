# after_pg_upgrade() takes over the runs of all roles, whatever the tables of some of
# them are like, and whatever they have locked: nobody keeps those of others waiting.
# The rows are made to look like those of a cluster before pg_upgrade.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../perl";
use Campaign;
use LocalTwilio;
use Session;
use Test::More;

my $twilio = LocalTwilio->start;
my $node = new_cluster('former', $twilio);

# Runs that wait, and one that has ended
my $ended = create_campaign($node, users => 5);
my $ended_job = start_campaign($node, $ended);
wait_for_run($node, $ended_job, alone => 1);
sql($node, "SELECT sendcampaign.opt_out('+1555000999$_', " . group_of($ended) . ')', role => 'app')
  for 1 .. 3;
set_and_reload($node, 'sendcampaign.enabled', 'off');
my @names = qw(plain faulty locked held);
my (%campaign, %job);

for my $name (@names)
{
	$campaign{$name} = create_campaign($node, users => 20);
	$job{$name} = start_campaign($node, $campaign{$name});
}
sql($node, <<~"SQL");
	UPDATE sendcampaign.run_data SET system_identifier = system_identifier - 1;
	UPDATE sendcampaign.opt_out_data SET system_identifier = system_identifier - 1;
	SQL

# As copies, they are paused
set_and_reload($node, 'sendcampaign.enabled', 'on');
wake($node);
wait_until($node, q{SELECT count(*) FROM sendcampaign.run WHERE state = 'paused'}, expected => 4);

# A trigger that fails, a job and a run that are locked, and an opt-out
sql($node, <<~"SQL", role => 'app');
	CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS \$\$
	BEGIN
	    RAISE EXCEPTION 'not this one';
	END \$\$;
	CREATE TRIGGER fail BEFORE UPDATE ON ac_background_jobs FOR EACH ROW
	    WHEN (old.id = $job{faulty} AND old.progress = 5) EXECUTE FUNCTION fail();
	SQL
my $of_job = Session->open($node);
$of_job->query(
	"SET ROLE app; BEGIN; SELECT FROM ac_background_jobs WHERE id = $job{locked} FOR UPDATE");
my $of_run = Session->open($node);
$of_run->query("SET ROLE app; BEGIN; SELECT sendcampaign.cancel($job{held})");
my $of_opt_out = Session->open($node);
$of_opt_out->query(
	"SET ROLE app; BEGIN; SELECT sendcampaign.opt_in('+15550009991', ${\ group_of($ended) })");

my $call = 'SELECT sendcampaign.after_pg_upgrade()';
my ($taken, $output) = sql_output($node, $call);
is($taken, 4, 'all but the run that is locked are taken over');
like(
	$output,
	qr/WARNING:  1 rows of sendcampaign\.opt_out_data could not be taken over$/m,
	'an opt-out that is locked');
like($output, qr/^DETAIL:  canceling statement due to lock timeout$/m, '... why');
like(
	$output,
	qr/^HINT:  They count as before, for the roles that have the names of those who entered them\.$/m,
	'... and what that means');
like(
	$output,
	qr/WARNING:  1 runs are locked, and have not been taken over$/m,
	'a run that is locked');
like(
	$output,
	qr/^HINT:  Call sendcampaign\.after_pg_upgrade\(\) once more when the transactions have ended that have locked them\.$/m,
	'... and what to do');
is(sql($node, <<~'SQL'), 2, 'the other opt-outs are taken over');
	SELECT count(*) FROM sendcampaign.opt_out_data
	WHERE system_identifier = (SELECT system_identifier FROM pg_control_system())
	SQL
sent_once($node, $twilio, $campaign{plain}, $job{plain}, 'beside them');
wait_until(
	$node,
	"SELECT state FROM sendcampaign.run WHERE job_id = $job{faulty}",
	expected => 'failed');

$_->query('ROLLBACK') for $of_job, $of_run, $of_opt_out;
sql($node, 'DROP TRIGGER fail ON ac_background_jobs', role => 'app');
is(sql($node, $call), 1, 'the run that was locked, later');
is(sql($node, $call), 0, 'once');
wake($node);
sent_once($node, $twilio, $campaign{$_}, $job{$_}, $_) for qw(locked held);
is(sql($node, <<~'SQL'), 0, 'those that have ended are taken over as well');
	SELECT count(*) FROM sendcampaign.run_data r, pg_control_system() c
	WHERE r.system_identifier <> c.system_identifier
	SQL
$_->close for $of_job, $of_run, $of_opt_out;
$node->stop;
done_testing();
