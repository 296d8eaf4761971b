# What became of messages is told to the job of a run that has ended, and
# nothing that is wrong there changes the run.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../perl";
use Campaign;
use LocalTwilio;
use Session;
use Sweeps;
use Test::More;

my $twilio = LocalTwilio->start;
my $node = new_cluster('told_later', $twilio);

# The counts of deliveries in a job, and what else it says.
sub told
{
	my $job = shift;
	return job_row($node, $job, <<~'SQL');
		progress, error, data->>'state', data->>'sent', data->>'delivered',
		data->>'undelivered', data->>'unconfirmed'
		SQL
}

# Sends a campaign to three, of whom the last will not be reached; returns its job.
sub send_to_three
{
	$twilio->set('deliver-after' => -1, 'to-delivery' => '+15550000003=undelivered:30007');
	my $job = run_campaign($node, create_campaign($node, users => 3))->{job};
	wait_for_no_worker($node);
	$twilio->set('sent-after' => 0, 'deliver-after' => 0);
	return $job;
}

my $listener = Session->open($node);
$listener->query('LISTEN sendcampaign');
my $job = send_to_three();
is(told($job), '100||completed|3|0|0|0', 'at its end, nothing is known');
sweep_now($node, $job);
is(told($job), '100||completed|3|2|1|0', 'the job is told what became of the messages');
my $heard = '';
ok(poll(sub { $heard .= $listener->query('SELECT 1'); $heard =~ /"receipts" : "complete"/ }),
	'and listeners, that all is known');
my @complete = $heard =~ /"job_id" : $job\b[^}]*"receipts"/g;
is(scalar @complete, 1, 'once');

# Somebody has locked the job; a trigger raises an error, at once or deferred.
$job = send_to_three();
my $session = Session->open($node);
$session->query("BEGIN; SELECT FROM ac_background_jobs WHERE id = $job FOR UPDATE");
sweep_now($node, $job);
is(counts_of($node, $job), '3|2|1|0', 'a job that is locked: the run has the counts');
is(told($job), '100||completed|3|0|0|0', 'the job is left alone');
$session->query('ROLLBACK');

for my $deferred ('', 'DEFERRABLE INITIALLY DEFERRED')
{
	$job = send_to_three();
	sql($node, <<~"SQL", role => 'app');
		CREATE OR REPLACE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS \$\$
		BEGIN
			SET lock_timeout = 0;
			RAISE EXCEPTION 'not now';
		END \$\$;
		CREATE CONSTRAINT TRIGGER refuse AFTER UPDATE ON ac_background_jobs $deferred
			FOR EACH ROW EXECUTE FUNCTION refuse();
		SQL
	sweep_now($node, $job);
	sql($node, 'DROP TRIGGER refuse ON ac_background_jobs', role => 'app');
	is(counts_of($node, $job), '3|2|1|0', "a trigger, $deferred: the run has the counts");
	is(run_row($node, $job)->{state}, 'completed', 'and stays completed');
	is(told($job), '100||completed|3|0|0|0', 'the job is left alone');
	like(
		log_of($node),
		qr/LOG:  sendcampaign: job $job: could not write what became of its messages: not now/,
		'the log says so');
}

# A job that is gone, and a test, which has none.
$job = send_to_three();
sql($node, "DELETE FROM ac_background_jobs WHERE id = $job", role => 'app');
sweep_now($node, $job);
is(counts_of($node, $job), '3|2|1|0', 'a job that is gone: the run has the counts');
my $campaign = create_campaign($node, users => 1);
my $test = sql($node, "SELECT sendcampaign.send_test($campaign, '+15550000009')");
wait_for_run($node, $test);
sweep_now($node, $test);
is(counts_of($node, $test), '1|1|0|0', 'so has a test');
is(worker_errors($node), '', 'no worker has raised an error');

$node->stop;
done_testing();
