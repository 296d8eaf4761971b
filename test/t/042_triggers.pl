# A trigger of the application that raises an error fails the run, and the
# outcomes, which are facts about the world, are kept.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../perl";
use Campaign;
use LocalTwilio;
use Test::More;

my $twilio = LocalTwilio->start;
my $node = new_cluster('triggers', $twilio);
sql($node, <<~'SQL', role => 'app');
	CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
	BEGIN
		RAISE EXCEPTION 'no update today' USING DETAIL = 'It is Sunday.';
	END $$;
	SQL

my %trigger;
$trigger{immediate} = <<~'SQL';
	CREATE TRIGGER refuse BEFORE UPDATE ON ac_list_users
		FOR EACH ROW WHEN (OLD.data->>'sms' LIKE '%7') EXECUTE FUNCTION refuse()
	SQL
$trigger{deferred} = <<~'SQL';
	CREATE CONSTRAINT TRIGGER refuse AFTER UPDATE ON ac_list_users
		DEFERRABLE INITIALLY DEFERRED
		FOR EACH ROW WHEN (OLD.data->>'sms' LIKE '%7') EXECUTE FUNCTION refuse()
	SQL

for my $kind (sort keys %trigger)
{
	my $campaign = create_campaign($node, users => 1000);
	my $other = create_campaign($node, users => 1, message => 'Other');
	sql($node, $trigger{$kind}, role => 'app');
	$twilio->set(reset => 1, latency => 20);
	my $job = start_campaign($node, $campaign);
	my $other_job = start_campaign($node, $other);
	my $run = wait_for_run($node, $job);
	is($run->{state}, 'failed', "$kind: the run has failed");
	like(
		$run->{error},
		qr/^no update today\. It is Sunday\.$/,
		"$kind: with the error of the trigger");
	is(job_row($node, $job, 'error'), $run->{error}, "$kind: which the job has as well");
	wait_for_no_worker($node);
	sent_once($node, $twilio, $other, $other_job, "$kind, another run", total => 1);

	my %sid = map { split /\|/ } split /\n/, sql($node, <<~"SQL");
		SELECT phone, sid FROM sendcampaign.message WHERE job_id = $job AND status = 'sent'
		SQL
	my %accepted =
	  map { $_->{to} => $_->{sid} } grep { $_->{body} =~ /yc=$campaign$/ } $twilio->ledger;
	is_deeply(\%sid, \%accepted, "$kind: each message that was sent has its row");
	cmp_ok(scalar keys %sid, '<', 1000, "$kind: not all were sent");
	is(run_row($node, $job)->{sent}, scalar keys %sid, "$kind: the run counts them");
	my $run_id = run_of($job);
	is(sql($node, "SELECT count(*) FROM sendcampaign.claim WHERE run_id = $run_id"),
		0, "$kind: nothing is left in doubt");

	# without the trigger it goes on, and counts what it could not count
	sql($node, 'DROP TRIGGER refuse ON ac_list_users');
	$twilio->set(latency => 0);
	is(start_campaign($node, $campaign, job => $job), $job, "$kind: the call returns the job");
	sent_once($node, $twilio, $campaign, $job, "$kind, trigger dropped", total => 1000);
	is(sql($node, 'SELECT count(*) FROM sendcampaign.claim'), 0, "$kind: nothing is claimed");
}

# A trigger on the job fails the run as well, and loses nothing.
my $campaign = create_campaign($node, users => 300);
my $job = create_job($node);
sql($node, <<~'SQL', role => 'app');
	CREATE TRIGGER refuse BEFORE UPDATE ON ac_background_jobs
		FOR EACH ROW WHEN (NEW.progress > 5) EXECUTE FUNCTION refuse()
	SQL
my $run = run_campaign($node, $campaign, job => $job);
is($run->{state}, 'failed', 'trigger on the job: the run has failed');
like($run->{error}, qr/no update today/, 'with its error');
wait_for_no_worker($node);
is(run_row($node, $job)->{sent}, sent_of($twilio, $campaign), 'all that was sent is counted');
sql($node, 'DROP TRIGGER refuse ON ac_background_jobs');
start_campaign($node, $campaign, job => $job);
sent_once($node, $twilio, $campaign, $job, 'trigger on the job dropped', total => 300);

# A trigger that suppresses the update hides the count from us, no more.
$campaign = create_campaign($node, users => 50);
sql($node, <<~'SQL', role => 'app');
	CREATE FUNCTION suppress() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
	CREATE TRIGGER suppress BEFORE UPDATE ON ac_list_users
		FOR EACH ROW EXECUTE FUNCTION suppress();
	SQL
is(run_campaign($node, $campaign)->{sent}, 50, 'updates suppressed: the run is complete');
is(sent_of($twilio, $campaign), 50, 'each was sent once');

$node->stop;
done_testing();
