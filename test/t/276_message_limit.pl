# maxMessages: how many messages a phone number gets from a group in so many days,
# over all its campaigns, roles, and runs that are under way at the same time.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../perl";
use Campaign;
use LocalTwilio;
use Receipts;
use Test::More;

my $REASON = 'has had as many messages as "maxMessages" allows';
my $twilio = LocalTwilio->start;
my $node = new_cluster('message_limit', $twilio, conf => <<~'CONF');
	sendcampaign.request_timeout = '2s'
	sendcampaign.lookup_delay = 0
	sendcampaign.receipts = off
	CONF
install_receipts($node);

# A campaign to a list of its own, whose group has this limit
sub limited_campaign
{
	my ($limit, %arg) = @_;
	my $campaign = create_campaign($node, %arg);
	configure($node, $campaign,
		"configuration || jsonb_build_object('maxMessages', '$limit'::jsonb)");
	return $campaign;
}

# Another campaign to the same list
sub next_campaign
{
	my ($campaign, $message) = @_;
	return sql($node, <<~"SQL", role => 'app');
		INSERT INTO ac_campaigns (ac_list_id, data)
		SELECT ac_list_id, data || jsonb_build_object('message', '$message')
		FROM ac_campaigns WHERE id = $campaign
		RETURNING id
		SQL
}

# What a run says: sent, failed, skipped
sub counts
{
	my $run = shift;
	return join ' ', @{$run}{qw(sent failed skipped)};
}

sub estimated
{
	my $campaign = shift;
	return sql(
		$node,
		"SELECT messages, over_limit FROM sendcampaign.estimate($campaign)",
		role => 'app');
}

# Two messages in seven days.
my $first = limited_campaign('{"count": 2, "days": 7}', users => 3);
is(counts(run_campaign($node, $first)), '3 0 0', 'the first campaign is sent');
my $second = next_campaign($first, 'Second');
is(estimated($second), '3|0', 'so may the second one be');
my $second_run = run_campaign($node, $second);
is(counts($second_run), '3 0 0', '... and it is');
my $third = next_campaign($first, 'Third');
is(estimated($third), '0|3', 'estimate() counts those who had two');
is(sql($node, "SELECT DISTINCT skipped FROM sendcampaign.preview($third)", role => 'app'),
	$REASON, 'preview() says why');
my $run = run_campaign($node, $third);
is(counts($run), '0 0 3', 'the third campaign is sent to nobody');
is( sql($node,
		"SELECT DISTINCT error_message FROM sendcampaign.message" . " WHERE job_id = $run->{job}"),
	$REASON,
	'... and its messages say why');
like($run->{error}, qr/3 of 3 skipped: \Q$REASON\E \(3\)/, 'so does the run');

# Others are not concerned, and neither are tests.
is(counts(run_campaign($node, create_campaign($node, users => 3))),
	'3 0 0', 'the same phones get messages from another group');
my $test = sql($node, "SELECT sendcampaign.send_test($third, '+15550000001')", role => 'app');
is(counts(wait_for_run($node, $test)), '1 0 0', 'a test message is sent all the same');
sql($node,
	"INSERT INTO ac_list_users (ac_list_id, data) SELECT ac_list_id,"
	  . " '{\"sms\": \"+15550000009\"}' FROM ac_campaigns WHERE id = $first",
	role => 'app');
is(counts(run_campaign($node, next_campaign($first, 'Fourth'))),
	'1 0 3', 'whoever is new in the list gets one');

# What is older does not count, and neither does what was not delivered.
sql($node, <<~"SQL");
	UPDATE sendcampaign.message_data m SET updated_at = now() - interval '169 hours'
	FROM sendcampaign.run r
	WHERE r.id = m.run_id AND r.campaign_id = $first AND m.phone = '+15550000001'
	SQL
is(estimated($third), '2|2', 'a message of eight days ago does not count');
my $old = sql($node, q{SELECT translate((now() - interval '5 hours')::text, ' ', '_')});
my @sid = sids($node, $second_run->{job});
report($node, $second_run->{job}, "$sid[1] undelivered code=30003 at=$old");
is(estimated($third), '3|1', 'nor does one that was not delivered');
is(sql($node, "SELECT sendcampaign.retry_failed($second_run->{job})", role => 'app'),
	1, 'it may be sent again');
poll_for_sent($second_run->{job}, 3);
is(estimated($third), '2|2', '... and counts again');

# Waits until the run has completed again.
sub poll_for_sent
{
	my ($job, $sent) = @_;
	$run = wait_for_run($node, $job);
	is("$run->{state} $run->{sent}", "completed $sent", 'it is sent again');
	return;
}

# What may have been sent counts.
$twilio->set('fault:drop-before' => '#1');
my $doubtful = limited_campaign('{"count": 1, "days": 30}', users => 1);
my $job = start_campaign($node, $doubtful);
$run = wait_for_run($node, $job);
is(counts($run), '1 0 0', 'a message in doubt is resolved');
is(estimated(next_campaign($doubtful, 'After doubt')), '0|1', '... and counts');

# What is claimed counts: one run's requests are held, and another one begins.
my ($held, $held_job);
$twilio->set(reset => 1);
$held = limited_campaign('{"count": 1, "days": 1}', users => 20);
$twilio->set(hold => 1);
$held_job = start_campaign($node, $held);
wait_for_flight($twilio, 20);
my $other = next_campaign($held, 'Meanwhile');
is(estimated($other), '0|20', 'what is under way counts');
$job = start_campaign($node, $other);
wait_until($node, "SELECT skipped FROM sendcampaign.run WHERE job_id = $job", expected => 20);
$twilio->set(hold => 0);
is(counts(wait_for_run($node, $_->[0])), $_->[1], $_->[2])
  for [ $held_job, '20 0 0', 'the first run sends all' ],
  [ $job, '0 0 20', 'the other one sends nothing' ];

# Many runs that are queued at once, by two roles: one message to each phone.
sql($node, <<~'SQL');
	CREATE ROLE colleague LOGIN;
	GRANT USAGE ON SCHEMA sendcampaign TO colleague;
	GRANT EXECUTE ON ALL ROUTINES IN SCHEMA sendcampaign TO colleague;
	GRANT EXECUTE ON FUNCTION send_campaign TO colleague;
	GRANT SELECT ON groups, ac_lists, ac_campaigns TO colleague;
	GRANT SELECT, UPDATE ON ac_list_users TO colleague;
	GRANT ALL ON ac_background_jobs, ac_background_jobs_id_seq TO colleague;
	SQL
for my $round (1 .. 3)
{
	my $campaign = limited_campaign(
		'{"count": 1, "days": 1}',
		users => 200,
		message => "Round $round");
	my @campaigns = ($campaign, map { next_campaign($campaign, "Round $round") } 1 .. 3);
	my $accepted = sent_with($twilio, "Round $round");
	my @jobs;
	for my $i (0 .. $#campaigns)
	{
		push @jobs,
		  sql($node, "SELECT send_campaign($campaigns[$i])", role => $i % 2 ? 'colleague' : 'app');
	}
	my @runs = map { wait_for_run($node, $_) } @jobs;
	my $sent = 0;
	$sent += $_->{sent} for @runs;
	is($sent, 200, "round $round: each phone gets one message");
	is(sent_with($twilio, "Round $round") - $accepted, 200, '... and Twilio has no more');
	is(scalar(grep { $_->{state} ne 'completed' } @runs), 0, '... and all have completed');
}

# Small runs, which otherwise begin together.
my $small = limited_campaign('{"count": 2, "days": 1}', users => 1, message => 'Small');
my @small = map { next_campaign($small, 'Small') } 1 .. 6;
my @jobs = split /\n/,
  sql(
	$node,
	'SELECT send_campaign(c) FROM unnest(ARRAY[' . join(',', @small) . ']) c',
	role => 'app');
wait_for_run($node, $_) for @jobs;
is(sent_with($twilio, 'Small'), 2, 'of six runs that begin at once, two send their message');

# What is no limit.
for my $limit (
	'{}',
	'5',
	'{"count": 1}',
	'{"days": 1}',
	'{"count": 0, "days": 1}',
	'{"count": 1, "days": 366}',
	'{"count": 1.5, "days": 1}',
	'{"count": -1, "days": 1}',
	'{"count": 99999999999999999999, "days": 1}',
	'{"Count": 1, "Days": 1}',
	'"one"')
{
	my $campaign = limited_campaign($limit, users => 1);
	my $error = call_error($node, "estimate($campaign)");
	like(
		$error->{message},
		qr/^invalid value for "maxMessages" in the group's configuration/,
		"maxMessages: $limit");
	is($error->{hint},
		'Write it as {"count": 2, "days": 7}, with a count of up to 1000 and up to 365 days.',
		'with a hint');
	is(run_campaign($node, $campaign)->{state}, 'failed', '... and a run sends nothing');
}
is(estimated(limited_campaign('null', users => 1)), '1|0', 'null is no limit');
$node->stop;
done_testing();
