# One JSON line on the channel "sendcampaign" when a run ends, however it does.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../perl";
use Campaign;
use JSON::PP ();
use LocalTwilio;
use PostgreSQL::Test::Utils;
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
	return map { JSON::PP::decode_json($_) }
	  $printed =~ /^Asynchronous notification "sendcampaign" with payload "(.*)" received/mg;
}

# Runs end before their notification is sent, in the same commit.
sub ends
{
	my ($campaign, $job) = @_;
	$job = start_campaign($node, $campaign, job => $job);
	wait_for_run($node, $job);
	wait_for_no_worker($node);
	return ($job, heard());
}

my $campaign = create_campaign($node, users => 3);
my ($job, @heard) = ends($campaign);
is_deeply(\@heard, [ { schema => 'public', job_id => $job + 0, campaign_id => $campaign + 0, state => 'completed' } ],
	'completed: one line, without counts and errors');

(undef, @heard) = ends($campaign, $job);
is_deeply(\@heard, [], 'the same again: none');

$twilio->set('to-fault' => '+15550000005=code:21614');
$campaign = create_campaign($node, users => 6);
$node->safe_psql('postgres', "UPDATE ac_list_users SET data = '{}' WHERE data->>'sms' = '+15550000006'");
($job, @heard) = ends($campaign);
is(scalar @heard, 1, 'some failed: one line');
is($heard[0]{state}, 'completed', 'with the state');

$campaign = create_campaign($node, users => 2);
$node->safe_psql('postgres', q{UPDATE groups SET configuration = configuration || '{"twilioAuthToken": "wrong"}'});
($job, @heard) = ends($campaign);
is(scalar @heard, 1, 'failed: one line');
is("$heard[0]{job_id} $heard[0]{state}", "$job failed", 'with the state');

$campaign = create_campaign($node, users => 300);
$node->safe_psql('postgres', qq{UPDATE groups SET configuration = configuration || '{"twilioAuthToken": "$LocalTwilio::TOKEN"}'});
$twilio->set(map { ('to-fault' => sprintf('+1555%07d=code:21211', $_)) } 1 .. 150);
$job = start_campaign($node, $campaign);
wait_for_run($node, $job, state => 'paused');
wait_for_no_worker($node);
is_deeply([ map { "$_->{job_id} $_->{state}" } heard() ], [ "$job paused" ], 'a run that pauses itself needs a person');
$twilio->set(map { ('to-fault' => sprintf('+1555%07d=none', $_)) } 1 .. 150);

# an error far longer than a notification may be
$node->safe_psql('postgres', q{
	SET ROLE app;
	CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS
		$$ BEGIN RAISE EXCEPTION USING MESSAGE = repeat(E'\x01"\\\\ð', 5000); END $$;
	CREATE TRIGGER refuse BEFORE UPDATE ON ac_list_users FOR EACH ROW EXECUTE FUNCTION refuse()});
$node->safe_psql('postgres', qq{UPDATE groups SET configuration = configuration || '{"twilioAuthToken": "$LocalTwilio::TOKEN"}'});
($job, @heard) = ends(create_campaign($node, users => 1));
is(scalar @heard, 1, 'a very long error: one line');
is("$heard[0]{job_id} $heard[0]{state}", "$job failed", 'with the state');

$listener->close;
$node->stop;
done_testing();
