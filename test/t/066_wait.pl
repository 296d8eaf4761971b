# CALL wait(): returns when the run has ended, and holds nothing until then.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";

use Campaign;
use LocalTwilio;
use Session;
use Test::More;

my $twilio = LocalTwilio->start;
my $node = new_cluster('wait', $twilio);
sql($node, <<~'SQL');
    CREATE ROLE stranger LOGIN;
    GRANT USAGE ON SCHEMA sendcampaign TO stranger;
SQL

# The error of CALL wait() with these arguments, for the application's role if no
# other one is given.
sub wait_error
{
	my ($arguments, %arg) = @_;
	return sql_error($node, "CALL sendcampaign.wait($arguments)", role => 'app', %arg);
}

my ($campaign, $job) = hold_campaign($node, $twilio, users => 60);
my $session = Session->open($node);
$session->query('SET ROLE app');
my $pid = $session->query('SELECT pg_backend_pid()');
$session->start_query("CALL sendcampaign.wait($job)");
my $waits = <<~SQL;
    SELECT backend_xmin IS NULL
        AND backend_xid IS NULL
        AND NOT EXISTS (
            SELECT FROM pg_locks l WHERE l.pid = a.pid AND l.locktype NOT IN ('virtualxid'))
    FROM pg_stat_activity a
    WHERE pid = $pid AND query LIKE 'CALL%' AND state = 'active'
SQL
ok(wait_until($node, $waits), 'it waits, and holds neither a snapshot nor a lock');
ok(wait_until($node, $waits), 'nor later') for 1 .. 5;
is(run_row($node, $job)->{state}, 'running', 'the run goes on');
$twilio->set(hold => 0);
$session->finish_query;
is($session->query("SELECT state, sent FROM sendcampaign.run WHERE job_id = $job"),
	'completed|60', 'it returns when the run has ended');
is($session->errors, '', 'without an error');
$session->query("CALL sendcampaign.wait($job)");
$session->query("CALL sendcampaign.wait(job_id => $job, timeout => '0')");
is($session->errors, '', 'it returns at once if the run has ended before');

# With a timeout.
($campaign, $job) = hold_campaign($node, $twilio, users => 60);
my $error = wait_error("$job, '50ms'");
is($error->{sqlstate}, '57014', 'a timeout is an error');
is( "$error->{message} $error->{detail}",
	qq{the run of background job $job did not end in time It is in state "running".},
	"which tells the run's state");
sql($node, "SELECT sendcampaign.pause($job)", role => 'app');
like(
	wait_error("$job, '-1 hour'")->{detail},
	qr/^It is in state "paused"\.$/,
	'a paused run has not ended');

# A cancelled run has ended when all is settled.
$session->start_query("CALL sendcampaign.wait($job)");
sql($node, "SELECT sendcampaign.cancel($job)", role => 'app');
$twilio->set(hold => 0);
$session->finish_query;
is($session->query(<<~SQL), 'cancelled|t', 'a cancelled run has ended');
    SELECT state, finished_at IS NOT NULL FROM sendcampaign.run WHERE job_id = $job
SQL

# It is refused within a transaction, whose campaign would never be sent.
my $in_block = "BEGIN; CALL sendcampaign.wait($job)";
my $in_subtransaction = <<~SQL;
    DO \$\$
    BEGIN
        BEGIN
            CALL sendcampaign.wait($job);
        EXCEPTION WHEN others THEN
            RAISE;
        END;
    END \$\$
SQL
for my $sql ($in_block, $in_subtransaction)
{
	$error = sql_error($node, $sql, role => 'app');
	isnt($error->{sqlstate}, '', 'it is refused in a transaction block');
}
$error = sql_error($node, $in_block, role => 'app');
is($error->{sqlstate}, '25001', 'with its SQLSTATE');
like($error->{hint}, qr/after COMMIT/, 'and a hint');
$campaign = create_campaign($node, users => 3);
sql($node, <<~SQL, role => 'app');
    DO \$\$
    DECLARE
        job bigint;
    BEGIN
        job := send_campaign($campaign);
        COMMIT;
        CALL sendcampaign.wait(job);
    END \$\$
SQL
is(sql($node, 'SELECT sent FROM sendcampaign.run ORDER BY job_id DESC LIMIT 1'),
	3, 'a procedure of the application may call it');

# Jobs of others, and no job.
is( wait_error($job, role => 'stranger')->{message},
	wait_error(424242)->{message} =~ s/424242/$job/r,
	"another role's job is as one that does not exist");
is(wait_error('NULL', role => undef)->{sqlstate}, '22004', 'NULL is refused');

# It can be cancelled like any statement.
($campaign, $job) = hold_campaign($node, $twilio, users => 20);
$session->start_query("CALL sendcampaign.wait($job)");
ok(wait_until($node, $waits), 'it waits again');
sql($node, "SELECT pg_cancel_backend($pid)");
$session->finish_query;
like($session->errors, qr/canceling statement due to user request/, 'it is cancelled');
$twilio->set(hold => 0);
wait_for_run($node, $job);
$session->close;
$node->stop;
done_testing();
