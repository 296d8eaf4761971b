# What is new beside what was there: queries where others take the slots for workers,
# limits and signed links after lost commits.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../perl";
use Campaign;
use LocalTwilio;
use Test::More;

my $twilio = LocalTwilio->start;
my $node = new_cluster('new_beside_old', $twilio, conf => <<~'CONF');
	max_worker_processes = 8
	shared_preload_libraries = 'sendcampaign'
	sendcampaign.receipts = off
	sendcampaign.request_timeout = '2s'
	sendcampaign.lookup_delay = '100ms'
	sendcampaign.lookup_timeout = '5s'
	CONF

# Half of the slots are taken: by the launchers, the role's own worker and others.
my @busy;
for my $role (qw(one other))
{
	sql($node, <<~"SQL");
		CREATE ROLE $role LOGIN IN ROLE app;
		GRANT USAGE ON SCHEMA sendcampaign TO $role;
		GRANT EXECUTE ON ALL ROUTINES IN SCHEMA sendcampaign TO $role;
		GRANT EXECUTE ON FUNCTION send_campaign TO $role
		SQL
	my $slow = create_campaign($node, users => 1000, message => 'Slow');
	configure($node, $slow, q{configuration || '{"twilioSegmentsPerSecond": 1}'});
	push @busy, start_campaign($node, $slow, role => $role);
}
wait_until($node, <<~'SQL', expected => 2);
	SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'sendcampaign worker'
	SQL
my $campaign = create_campaign($node, users => 5);
my $users = 'SELECT u.id FROM public.ac_list_users u WHERE u.ac_list_id = '
  . sql($node, 'SELECT ' . list_of($campaign));
my $job = start_campaign($node, $campaign, recipients => $users);
my $run = wait_for_run($node, $job, alone => 1);
is("$run->{state} $run->{sent}", 'completed 5',
	'a query runs although others take half the slots');
is(job_row($node, $job, 'error'), '', '... and the job has no error');
sql($node, "SELECT sendcampaign.cancel($_)") for @busy;
wait_for_run($node, $_, state => 'cancelled', alone => 1) for @busy;

# What a run has sent, of which only Twilio knows, does not count against the run.
$campaign = create_campaign($node, users => 10, message => 'First');
my $limit = sub { return qq(configuration || '{"maxMessages": {"count": $_[0], "days": 7}}') };
configure($node, $campaign, $limit->(2));
$job = run_campaign($node, $campaign)->{job};
my $later = sql($node, <<~"SQL", role => 'app');
	INSERT INTO ac_campaigns (ac_list_id, data)
	SELECT ac_list_id, data || '{"message": "Second"}' FROM ac_campaigns WHERE id = $campaign
	RETURNING id
	SQL
is(run_campaign($node, $later)->{sent}, 10, 'another campaign is sent to the same phones');
configure($node, $campaign, $limit->(1));
$run = lose_commits($node, $job, 10);
is( "$run->{state} $run->{sent} $run->{skipped}",
	'completed 10 0',
	'after lost commits, what was sent is recorded as sent');
is(sent_with($twilio, 'First'), 10, '... and nothing is sent again');

# A text is the same whether its link is signed or not.
for my $change (
	[
		'links are no longer signed',
		"UPDATE groups SET configuration = configuration - 'signLinks'"
	],
	[
		'the secret is another one',
		"UPDATE sendcampaign.link_secret SET secret = sha256('other')"
	])
{
	my ($name, $statement) = @$change;
	$campaign = create_campaign($node, users => 5, message => $name);
	configure($node, $campaign, q{configuration || '{"signLinks": true}'});
	run_campaign($node, $campaign);
	$job = run_campaign($node, $campaign)->{job};
	sql($node, $statement);
	$run = lose_commits($node, $job, 5);
	is( "$run->{state} $run->{sent} $run->{in_doubt}",
		'completed 5 0',
		"$name: what was sent is recognized");
	is(sent_with($twilio, $name), 10, '... and nothing is sent again');
}
$node->stop;
done_testing();
