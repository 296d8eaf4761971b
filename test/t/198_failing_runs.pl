# A run that fails, together with what else can go wrong then: its job refuses
# the error, or it is called again while an outcome cannot be recorded.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../perl";
use Campaign;
use LocalTwilio;
use Test::More;

my $twilio = LocalTwilio->start;
my $node = new_cluster('failing_runs', $twilio, conf => <<~'CONF');
	sendcampaign.request_timeout = '5s'
	sendcampaign.lookup_delay = '100ms'
	sendcampaign.failure_threshold = 5
	CONF

# Too many messages fail, but the job refuses to be told that the run is paused
{
	my $campaign = create_campaign($node, users => 600);
	my $job = create_job($node);
	sql($node, <<~SQL, role => 'app');
		CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS
		\$\$BEGIN RAISE 'no errors here'; END\$\$;
		CREATE TRIGGER refuse BEFORE UPDATE ON ac_background_jobs
		FOR EACH ROW WHEN (NEW.id = $job AND NEW.error IS NOT NULL) EXECUTE FUNCTION refuse();
		SQL
	$twilio->set('fault:code:21211' => 100);
	start_campaign($node, $campaign, job => $job);
	my $run = wait_for_run($node, $job, state => 'failed');
	like($run->{error}, qr/no errors here/, 'a run that cannot tell its job of a pause fails');
	wait_for_no_worker($node);
	is(sql($node, "SELECT error IS NULL FROM ac_background_jobs WHERE id = $job"),
		't', '... and the job has what it accepts');

	sql($node, 'DROP TRIGGER refuse ON ac_background_jobs', role => 'app');
	$twilio->set('fault:code:21211' => 0);
	start_campaign($node, $campaign, job => $job);
	$run = wait_for_run($node, $job);
	is($run->{state}, 'completed', '... it goes on when it is called again');
	is($run->{sent} + $run->{failed}, 600, '... and everybody has an outcome');
	is($twilio->num_twice, 0, '... and nobody has the message twice');
}

# One message makes the run fail while the request of another is under way; it
# is called again, and then the outcome of the other cannot be recorded.
{
	my $campaign = create_campaign($node, users => 2);
	my $users = "SELECT %s FROM ac_list_users WHERE ac_list_id = ${\list_of($campaign)}";
	my $second = sql($node, sprintf $users, 'max(id)');
	my ($phone, $other) = map { sql($node, sprintf $users, "$_(data->>'sms')") } 'min', 'max';
	sql($node, <<~SQL);
		ALTER TABLE sendcampaign.message_data
		ADD CONSTRAINT refuse CHECK (list_user_id <> $second) NOT VALID
		SQL
	$twilio->set(reset => 1, 'to-fault' => "$phone=code:20003");
	$twilio->set('to-fault' => "$other=slow");
	my $job = start_campaign($node, $campaign);
	wait_for_run($node, $job, state => 'failed', alone => 1);
	ok(poll(sub { $twilio->num_to($other) == 1 }), 'the other message is under way');
	$twilio->set('to-fault' => "$phone=none");
	start_campaign($node, $campaign, job => $job);
	my $run = wait_for_run($node, $job, state => 'failed', alone => 1);
	like($run->{error}, qr/"refuse"/, 'it fails for the other reason');
	wait_for_no_worker($node);
	sql($node, 'ALTER TABLE sendcampaign.message_data DROP CONSTRAINT refuse');
	start_campaign($node, $campaign, job => $job);
	$run = wait_for_run($node, $job);
	is("$run->{state} $run->{sent}", 'completed 2', 'called once more, it is completed');
	is($twilio->num_twice, 0, '... and nobody has the message twice');
}
$node->stop;
done_testing();
