# A trigger of the application that raises an error fails the run, and the
# outcomes, facts about the world, are kept.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../perl";
use Campaign;
use LocalTwilio;
use Test::More;

my $twilio = LocalTwilio->start;
my $node = new_cluster('triggers', $twilio);
$node->safe_psql('postgres', q{
	SET ROLE app;
	CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS
		$$BEGIN RAISE EXCEPTION 'no update today' USING DETAIL = 'It is Sunday.'; END$$;
});

my %trigger = (
	immediate => 'CREATE TRIGGER refuse BEFORE UPDATE ON ac_list_users FOR EACH ROW
		WHEN (OLD.data->>\'sms\' LIKE \'%7\') EXECUTE FUNCTION refuse()',
	deferred => 'CREATE CONSTRAINT TRIGGER refuse AFTER UPDATE ON ac_list_users DEFERRABLE INITIALLY DEFERRED
		FOR EACH ROW WHEN (OLD.data->>\'sms\' LIKE \'%7\') EXECUTE FUNCTION refuse()');

for my $kind (sort keys %trigger)
{
	my $campaign = create_campaign($node, users => 1000);
	my $other = create_campaign($node, users => 1, message => 'Other');
	$node->safe_psql('postgres', "SET ROLE app; $trigger{$kind}");
	$twilio->set(reset => 1, latency => 20);
	my $job = start_campaign($node, $campaign);
	my $other_job = start_campaign($node, $other);
	my $run = wait_for_run($node, $job);
	is($run->{state}, 'failed', "$kind: the run has failed");
	like($run->{error}, qr/^no update today\. It is Sunday\.$/, 'with the error of the trigger');
	is($node->safe_psql('postgres', "SELECT error FROM ac_background_jobs WHERE id = $job"), $run->{error},
		'which the job has as well');
	wait_for_no_worker($node);
	sent_once($node, $twilio, $other, $other_job, "$kind, another run", total => 1);

	my %sid = map { split /\|/ } split /\n/, $node->safe_psql('postgres',
		"SELECT phone, sid FROM sendcampaign.message WHERE job_id = $job AND status = 'sent'");
	my %accepted = map { $_->{to} => $_->{sid} } grep { $_->{body} =~ /yc=$campaign$/ } $twilio->ledger;
	is_deeply(\%sid, \%accepted, 'each message that was sent has its row');
	cmp_ok(scalar keys %sid, '<', 1000, 'and not all were');
	is(run_row($node, $job)->{sent}, scalar keys %sid, 'the run counts them');
	is($node->safe_psql('postgres', "SELECT count(*) FROM sendcampaign.claim WHERE run_id = ${\ run_of($job)}"), 0,
		'nothing is left in doubt');

	# mended, it goes on, and counts what it could not count
	$node->safe_psql('postgres', 'DROP TRIGGER refuse ON ac_list_users');
	$twilio->set(latency => 0);
	is(start_campaign($node, $campaign, job => $job), $job, 'called again');
	sent_once($node, $twilio, $campaign, $job, "$kind, mended", total => 1000);
	is($node->safe_psql('postgres', 'SELECT count(*) FROM sendcampaign.claim'), 0, 'nothing is claimed');
}

# A trigger on the job fails the run as well, and loses nothing.
my $campaign = create_campaign($node, users => 300);
my $job = $node->safe_psql('postgres', 'SET ROLE app; INSERT INTO ac_background_jobs (progress) VALUES (5) RETURNING id');
$node->safe_psql('postgres', q{SET ROLE app; CREATE TRIGGER refuse BEFORE UPDATE ON ac_background_jobs
	FOR EACH ROW WHEN (NEW.progress > 5) EXECUTE FUNCTION refuse()});
start_campaign($node, $campaign, job => $job);
my $run = wait_for_run($node, $job);
is($run->{state}, 'failed', 'trigger on the job: the run has failed');
like($run->{error}, qr/no update today/, 'with its error');
wait_for_no_worker($node);
is(run_row($node, $job)->{sent}, scalar(grep { $_->{body} =~ /yc=$campaign$/ } $twilio->ledger), 'all that was sent is counted');
$node->safe_psql('postgres', 'DROP TRIGGER refuse ON ac_background_jobs');
start_campaign($node, $campaign, job => $job);
sent_once($node, $twilio, $campaign, $job, 'trigger on the job, mended', total => 300);

# A trigger that suppresses the update hides the count from us, no more.
$campaign = create_campaign($node, users => 50);
$node->safe_psql('postgres', q{SET ROLE app;
	CREATE FUNCTION suppress() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
	CREATE TRIGGER suppress BEFORE UPDATE ON ac_list_users FOR EACH ROW EXECUTE FUNCTION suppress()});
$job = start_campaign($node, $campaign);
is(wait_for_run($node, $job)->{sent}, 50, 'updates suppressed: the run is complete');
is(scalar(grep { $_->{body} =~ /yc=$campaign$/ } $twilio->ledger), 50, 'each was sent once');

$node->stop;
done_testing();
