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
$node->safe_psql('postgres', 'CREATE ROLE stranger LOGIN; GRANT USAGE ON SCHEMA sendcampaign TO stranger');

my ($campaign, $job) = hold_campaign($node, $twilio, users => 60);
my $session = Session->open($node);
$session->query('SET ROLE app');
my $pid = $session->query('SELECT pg_backend_pid()');
$session->start_query("CALL sendcampaign.wait($job)");
my $held = qq{SELECT backend_xmin IS NULL AND backend_xid IS NULL AND NOT EXISTS (SELECT FROM pg_locks l
		WHERE l.pid = a.pid AND l.locktype NOT IN ('virtualxid'))
	FROM pg_stat_activity a WHERE pid = $pid AND query LIKE 'CALL%' AND state = 'active'};
ok($node->poll_query_until('postgres', $held), 'it waits, and holds neither a snapshot nor a lock');
ok($node->poll_query_until('postgres', "$held AND backend_xmin IS NULL"), 'nor later') for 1 .. 5;
is($node->safe_psql('postgres', "SELECT state FROM sendcampaign.run WHERE job_id = $job"), 'running', 'the run goes on');
$twilio->set(hold => 0);
$session->finish_query;
is($session->query("SELECT state, sent FROM sendcampaign.run WHERE job_id = $job"), 'completed|60', 'it returns when it has ended');
is($session->errors, '', 'without an error');
$session->query("CALL sendcampaign.wait($job)");
$session->query("CALL sendcampaign.wait(job_id => $job, timeout => '0')");
is($session->errors, '', 'at once, where it has ended before');

# in time, or not
($campaign, $job) = hold_campaign($node, $twilio, users => 60);
my $error = sql_error($node, "SET ROLE app; CALL sendcampaign.wait($job, '50ms')");
is($error->{sqlstate}, '57014', 'too late');
is($error->{message}, "the run of background job $job has not ended in time, it is running", 'with its state');
$node->safe_psql('postgres', "SET ROLE app; SELECT sendcampaign.pause($job)");
like(sql_error($node, "SET ROLE app; CALL sendcampaign.wait($job, '-1 hour')")->{message}, qr/it is paused$/, 'paused is no end');

# cancelled is one, when all is settled
$session->start_query("CALL sendcampaign.wait($job)");
$node->safe_psql('postgres', "SET ROLE app; SELECT sendcampaign.cancel($job)");
$twilio->set(hold => 0);
$session->finish_query;
is($session->query("SELECT state, finished_at IS NOT NULL FROM sendcampaign.run WHERE job_id = $job"), 'cancelled|t', 'cancelled');

# not within a transaction, whose campaign would never be sent
for my $sql ("BEGIN; CALL sendcampaign.wait($job)", 'DO $$ BEGIN BEGIN CALL sendcampaign.wait(' . $job . '); EXCEPTION WHEN others THEN RAISE; END; END $$')
{
	$error = sql_error($node, "SET ROLE app; $sql");
	isnt($error->{sqlstate}, '', 'not in a transaction block');
}
$error = sql_error($node, "SET ROLE app; BEGIN; CALL sendcampaign.wait($job)");
is($error->{sqlstate}, '25001', 'with its SQLSTATE');
like($error->{hint}, qr/after COMMIT/, 'and a hint');
$campaign = create_campaign($node, users => 3);
$node->safe_psql('postgres', qq{SET ROLE app; DO \$\$ DECLARE job bigint; BEGIN
	job := send_campaign($campaign); COMMIT; CALL sendcampaign.wait(job); END \$\$});
is($node->safe_psql('postgres', 'SELECT sent FROM sendcampaign.run ORDER BY job_id DESC LIMIT 1'), 3, 'a procedure of the application may call it');

# others' jobs, and none
is(sql_error($node, "SET ROLE stranger; CALL sendcampaign.wait($job)")->{message},
	sql_error($node, 'SET ROLE app; CALL sendcampaign.wait(424242)')->{message} =~ s/424242/$job/r,
	"another role's job is as one that does not exist");
is(sql_error($node, 'CALL sendcampaign.wait(NULL)')->{sqlstate}, '22004', 'no job');

# it can be cancelled like any statement
($campaign, $job) = hold_campaign($node, $twilio, users => 20);
$session->start_query("CALL sendcampaign.wait($job)");
ok($node->poll_query_until('postgres', $held), 'it waits again');
$node->safe_psql('postgres', "SELECT pg_cancel_backend($pid)");
$session->finish_query;
like($session->errors, qr/canceling statement due to user request/, 'cancelled');
$twilio->set(hold => 0);
wait_for_run($node, $job);
$session->close;
$node->stop;
done_testing();
