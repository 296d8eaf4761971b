# One JSON line on the channel "sendcampaign" when a run ends, however it does.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../perl";
use Campaign;
use JSON::PP ();
use LocalTwilio;
use Session;
use Test::More;

my $twilio = LocalTwilio->start;
my $node = new_cluster('notify', $twilio);
my $listener = Session->open($node);
$listener->query('LISTEN sendcampaign');

# What has been heard since the last time.
sub heard
{
	my $printed = $listener->query('SELECT 1');
	my @payloads =
	  $printed =~ /^Asynchronous notification "sendcampaign" with payload "(.*)" received/mg;
	return map { JSON::PP::decode_json($_) } @payloads;
}

# The job of a campaign and what is heard at its end.  Runs end before their
# notification is sent, in the same commit.
sub send_and_hear
{
	my ($campaign, $job) = @_;
	$job = run_campaign($node, $campaign, job => $job, alone => 1)->{job};
	wait_for_no_worker($node);
	return ($job, heard());
}

my $campaign = create_campaign($node, users => 3);
my ($job, @heard) = send_and_hear($campaign);
my %completed = (
	schema => 'public',
	job_id => $job + 0,
	campaign_id => $campaign + 0,
	state => 'completed');
is_deeply(\@heard, [ \%completed ], 'completed: one line, without counts and errors');

(undef, @heard) = send_and_hear($campaign, $job);
is_deeply(\@heard, [], 'the same call again: there is none');

# some recipients fail
$twilio->set('to-fault' => '+15550000005=code:21614');
$campaign = create_campaign($node, users => 6);
sql($node, q{UPDATE ac_list_users SET data = '{}' WHERE data->>'sms' = '+15550000006'});
($job, @heard) = send_and_hear($campaign);
is(scalar @heard, 1, 'some recipients failed: one line');
is($heard[0]{state}, 'completed', 'with the state');

# the run fails
$campaign = create_campaign($node, users => 2);
sql($node, <<~'SQL');
	UPDATE groups SET configuration = configuration || '{"twilioAuthToken": "wrong"}'
	SQL
($job, @heard) = send_and_hear($campaign);
is(scalar @heard, 1, 'failed: one line');
is("$heard[0]{job_id} $heard[0]{state}", "$job failed", 'with the state');

# the run pauses itself
$campaign = create_campaign($node, users => 300);
my $right_token = qq{configuration || '{"twilioAuthToken": "$LocalTwilio::TOKEN"}'};
sql($node, "UPDATE groups SET configuration = $right_token");
my @phones = map { sprintf '+1555%07d', $_ } 1 .. 150;
$twilio->set(map { ('to-fault' => "$_=code:21211") } @phones);
$job = start_campaign($node, $campaign);
wait_for_run($node, $job, state => 'paused', alone => 1);
wait_for_no_worker($node);
@heard = map { "$_->{job_id} $_->{state}" } heard();
is_deeply(\@heard, ["$job paused"], 'a run that pauses itself: one line, as it needs a person');
$twilio->set(map { ('to-fault' => "$_=none") } @phones);

# an error far longer than a notification may be
sql($node, <<~'SQL', role => 'app');
	CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
	BEGIN
		RAISE EXCEPTION USING MESSAGE = repeat(E'\x01"\\ð', 5000);
	END $$;
	CREATE TRIGGER refuse BEFORE UPDATE ON ac_list_users
		FOR EACH ROW EXECUTE FUNCTION refuse();
	SQL
sql($node, "UPDATE groups SET configuration = $right_token");
($job, @heard) = send_and_hear(create_campaign($node, users => 1));
is(scalar @heard, 1, 'a very long error: one line');
is("$heard[0]{job_id} $heard[0]{state}", "$job failed", 'with the state');

$listener->close;
$node->stop;
done_testing();
