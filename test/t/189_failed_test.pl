# A test message whose run has failed goes on like any other run, as its error
# says: what Twilio has accepted of it does not stay unknown.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../perl";
use Campaign;
use LocalTwilio;
use Test::More;

my $author = '+15559990000';
my $twilio = LocalTwilio->start;
my $node = new_cluster('failed_test', $twilio, conf => qq{
	sendcampaign.request_timeout = '2s'
	sendcampaign.lookup_delay = '100ms'
	sendcampaign.lookup_timeout = '1s'
});
sub sql { my $sql = shift; return $node->safe_psql('postgres', $sql); }
sub as_app { return sql("SET ROLE app; $_[0]"); }
sub token { my $change = shift; return sql("UPDATE groups SET configuration = configuration $change"); }
sub end_worker { sql("SELECT pg_terminate_backend($_)") for worker_pids($node); wait_for_no_worker($node); }
sub to_author { return scalar grep { $_->{to} eq $author } $twilio->ledger; }
sql('CREATE ROLE stranger LOGIN; GRANT USAGE ON SCHEMA sendcampaign TO stranger; GRANT ALL ON ALL TABLES IN SCHEMA public TO stranger;
	GRANT ALL ON ALL SEQUENCES IN SCHEMA public TO stranger');

# Twilio has accepted it, and nobody knows when the token is gone.
my $campaign = create_campaign($node, users => 30);
$twilio->set('fault:never-after' => 100);
my $job = as_app("SELECT sendcampaign.send_test($campaign, '$author')");
poll(sub { to_author() == 1 });
end_worker();
token("- 'twilioAuthToken'");
$twilio->set('fault:never-after' => 0);
sql('SELECT sendcampaign.wake()');
is(wait_for_run($node, $job, alone => 1)->{state}, 'failed', 'its test fails');
wait_for_no_worker($node);
token("|| '{\"twilioAuthToken\": \"$LocalTwilio::TOKEN\"}'");

# who may not
my $other = create_campaign($node, users => 1);
like(sql_error($node, "SET ROLE app; SELECT send_campaign($other, $job)")->{message}, qr/belongs to another campaign/, 'not for another campaign');
like(sql_error($node, "SET ROLE stranger; SELECT send_campaign($campaign, $job)")->{message}, qr/job $job does not exist/, "not by another role");
like(sql_error($node, "SET ROLE app; SELECT send_campaign($campaign, -4242)")->{message}, qr/job -4242 does not exist/, 'not a test that there is not');
is(run_row($node, $job)->{state}, 'failed', 'it has failed still');

# while the campaign is sent
$twilio->set(hold => 1);
my $real = start_campaign($node, $campaign);
wait_for_flight($twilio, 5);
is(sql_error($node, "SET ROLE app; SELECT send_campaign($campaign, $job)")->{message}, '', 'called again');
$twilio->set(hold => 0);
is_deeply([ @{ wait_for_run($node, $job) }{qw(state sent error)} ], [ 'completed', 1, '' ], 'it goes on');
is(to_author(), 1, 'it was sent once');
is(wait_for_run($node, $real)->{sent}, 30, 'the campaign is sent all the same');
is(sql("SELECT count(*) FROM ac_list_users u JOIN ac_campaigns c USING (ac_list_id) WHERE c.id = $campaign AND u.data->>'sentCount' = '1'"), 30, 'the test is not counted');
is(sql("SELECT count(*) FROM ac_background_jobs WHERE id < 0"), 0, 'no job is made of it');
is(as_app("SELECT send_campaign($campaign, $job)"), $job, 'called once more');
wait_for_no_worker($node);
is(to_author(), 1, 'nothing is sent a second time');
$node->stop;
done_testing();
