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
is_deeply(\@heard, [ { job_id => $job + 0, campaign_id => $campaign + 0, state => 'completed', total => 3,
			sent => 3, failed => 0, skipped => 0, in_doubt => 0, error => undef } ], 'completed: one line');

(undef, @heard) = ends($campaign, $job);
is_deeply(\@heard, [], 'the same again: none');

$twilio->set('to-fault' => '+15550000005=code:21614');
$campaign = create_campaign($node, users => 6);
$node->safe_psql('postgres', "UPDATE ac_list_users SET data = '{}' WHERE data->>'sms' = '+15550000006'");
($job, @heard) = ends($campaign);
is(scalar @heard, 1, 'some failed: one line');
is_deeply([ map { delete $heard[0]{$_} } qw(state total sent failed skipped in_doubt) ],
	[ 'completed', 6, 4, 1, 1, 0 ], 'with the counts');
is($heard[0]{error}, run_row($node, $job)->{error}, 'and the error of the run');

$campaign = create_campaign($node, users => 2);
$node->safe_psql('postgres', q{UPDATE groups SET configuration = configuration || '{"twilioAuthToken": "wrong"}'});
($job, @heard) = ends($campaign);
is(scalar @heard, 1, 'failed: one line');
is("$heard[0]{job_id} $heard[0]{state} $heard[0]{sent}", "$job failed 0", 'with the state');
like($heard[0]{error}, qr/20003/, 'and why');

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
