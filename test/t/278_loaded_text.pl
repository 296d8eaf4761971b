# Rows of runs that others have written: one that has begun, but has no text, fails,
# and nothing crashes.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../perl";
use Campaign;
use LocalTwilio;
use Test::More;

my $twilio = LocalTwilio->start;
my $node = new_cluster('loaded_text', $twilio, conf => 'sendcampaign.receipts = off');
my $message = 'the run of campaign %d has begun, but its text is not recorded';
my $campaign = create_campaign($node, users => 2);
my $job = run_campaign($node, $campaign)->{job};
wait_for_no_worker($node);
my @others = map { create_campaign($node, users => 2) } 1 .. 2;
sql($node, <<~"SQL");
	INSERT INTO ac_background_jobs (id, progress) VALUES (900, 5), (901, 5);
	INSERT INTO sendcampaign.run_data (schema, job_id, campaign_id, role, role_oid, state, database,
	    total, started_at, timeline, list_id, account, group_id)
	SELECT schema, 900 + n, CASE n WHEN 0 THEN $others[0] ELSE $others[1] END, role, role_oid,
	    'running', database, 2, now(), timeline, list_id, account, group_id
	FROM sendcampaign.run_data, generate_series(0, 1) n
	WHERE job_id = $job
	SQL
my $run = run_campaign($node, create_campaign($node, users => 2));
is("$run->{state} $run->{sent}", 'completed 2', 'another run of the role is sent');

for my $n (0, 1)
{
	my $error = wait_for_run($node, 900 + $n, alone => 1)->{error};
	is( $error,
		sprintf($message, $others[$n])
		  . '. Its row in sendcampaign.run_data was not written by sendcampaign.'
		  . ' Send the campaign with another background job.',
		"a run without a text fails ($n)");
}
unlike(log_of($node), qr/terminated by signal|TRAP/, 'no process has crashed');
$node->stop;
done_testing();
