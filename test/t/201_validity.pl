# How long a message may wait at Twilio: until the campaign's end or the
# recipient's quiet hours, as of the moment when its request is made.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../perl";
use Campaign;
use LocalTwilio;
use Test::More;

my $twilio = LocalTwilio->start;
my $node = new_cluster('validity', $twilio, conf => <<~'CONF');
	sendcampaign.request_timeout = '2s'
	sendcampaign.lookup_delay = 0
	CONF

# The time of the server's clock that is this interval away, in UTC, as SQL.
sub clock_at
{
	my $interval = shift;
	return "to_char((clock_timestamp() + interval '$interval') AT TIME ZONE 'UTC', 'HH24:MI:SS')";
}

# Quiet hours that begin after one interval and end after another
sub set_quiet_hours
{
	my ($campaign, $from, $to) = @_;
	my ($begin, $end) = (clock_at($from), clock_at($to));
	configure($node, $campaign, <<~"SQL");
		configuration || jsonb_build_object('quietHours', jsonb_build_object(
			'from', $begin, 'to', $end))
		SQL
}

sub set_until
{
	my ($campaign, $interval) = @_;
	sql($node, <<~"SQL");
		UPDATE ac_campaigns
		SET data = data || jsonb_build_object('sendUntil', clock_timestamp() + interval '$interval')
		WHERE id = $campaign
		SQL
}

# The validity of each message, in seconds ('' if there is none), and when it was
# accepted.
sub validities
{
	return
	  map { [ ($_->{extra} =~ /(?:^|&)ValidityPeriod=(\d+)/)[0] // '', $_->{time} / 1e6 ] }
	  $twilio->ledger;
}

# Sends a campaign to so many, which this function has prepared, and tests that
# each message may wait until that many seconds after the preparation; or not at
# all if undefined.
sub waits_until
{
	my ($name, $users, $seconds, $prepare) = @_;
	$twilio->set(reset => 1);
	my $campaign = create_campaign($node, users => $users);
	my $before = sql($node, 'SELECT extract(epoch FROM clock_timestamp())');
	$prepare->($campaign);
	my $job = start_campaign($node, $campaign);
	sent_once($node, $twilio, $campaign, $job, $name, total => $users);
	# it is computed between the start of the run and when it is accepted, and rounded down
	my @wrong = grep {
		my ($validity, $accepted) = @$_;
		defined $seconds
		  ? $validity eq ''
		  || $validity > $seconds || $accepted + $validity < $before + $seconds - 2
		  : $validity ne '';
	} validities();
	is_deeply(\@wrong, [], "$name: for as long as it should");
}

waits_until('no limit', 3, undef, sub { });
waits_until('until the end', 20, 3600, sub { set_until(shift, '1 hour') });
waits_until('until quiet hours', 20, 1800, sub { set_quiet_hours(shift, '30 min', '2 h') });
waits_until(
	'until the end, before quiet hours',
	3, 600,
	sub {
		set_until($_[0], '10 min');
		set_quiet_hours($_[0], '30 min', '2 h');
	});
waits_until(
	'until quiet hours, before the end',
	3, 1200,
	sub {
		set_until($_[0], '1 day');
		set_quiet_hours($_[0], '20 min', '2 h');
	});

# Each recipient has quiet hours of their own.
waits_until(
	'a time zone to the west',
	3, 7200,
	sub {
		my $campaign = shift;
		my $list = list_of($campaign);
		set_quiet_hours($campaign, '-1 h', '1 h');
		sql($node, <<~"SQL");
			UPDATE ac_list_users SET data = data || '{"timeZone": "Etc/GMT+3"}'
			WHERE ac_list_id = $list
			SQL
	});

# Twilio's greatest value, and no end at all
for my $interval ('11 hours', '400 days')
{
	$twilio->set(reset => 1);
	my $campaign = create_campaign($node, users => 2);
	set_until($campaign, $interval);
	is(run_campaign($node, $campaign)->{sent}, 2, "$interval: it is sent");
	is_deeply([ map { $_->[0] } validities() ], [ 36000, 36000 ], "$interval: at most 36000 s");
}
$twilio->set(reset => 1);
my $campaign = create_campaign($node, users => 1);
sql($node, <<~"SQL");
	UPDATE ac_campaigns SET data = data || '{"sendUntil": "infinity"}' WHERE id = $campaign
	SQL
is(run_campaign($node, $campaign)->{sent}, 1, 'infinity: it is sent');
is_deeply([ map { $_->[0] } validities() ], [36000], 'infinity: at most 36000 s');

# A test goes to its author at any time.
$twilio->set(reset => 1);
$campaign = create_campaign($node, users => 1);
set_until($campaign, '1 hour');
set_quiet_hours($campaign, '-1 h', '1 h');
my $test = sql($node, "SELECT sendcampaign.send_test($campaign, '+15550009999')", role => 'app');
is(wait_for_run($node, $test)->{sent}, 1, 'a test is sent');
is_deeply([ map { $_->[0] } validities() ], [''], 'without a limit');

# It is computed when the request is made, not when the recipient is claimed: by
# then, others that were claimed with it have been sent.
$twilio->set(reset => 1, 'retry-after' => 4, 'fault:429' => '#10');
$campaign = create_campaign($node, users => 20);
set_until($campaign, '1 hour');
my $job = start_campaign($node, $campaign);
sent_once($node, $twilio, $campaign, $job, 'some are sent later', total => 20);
my @validities = sort { $a <=> $b } map { $_->[0] } validities();
cmp_ok($validities[-1] - $validities[0],
	'>=', 3, 'those that are sent later may wait for a shorter time');
$twilio->set('retry-after' => 0, 'fault:429' => 0);

# Few seconds are left: Twilio might not be able to pass it on.  Nothing is sent.
$twilio->set(reset => 1);
$campaign = create_campaign($node, users => 10);
set_until($campaign, '3 s');
$job = start_campaign($node, $campaign);
sent_once($node, $twilio, $campaign, $job, 'three seconds left', total => 10, skipped => 10);
is($twilio->stats->{create_requests}, 0, 'Twilio is not asked');

$campaign = create_campaign($node, users => 10);
set_quiet_hours($campaign, '3 s', '2 h');
is(sql($node, <<~"SQL", role => 'app'), 't', 'quiet hours in three seconds: put off');
	SELECT every(deferred_until > now() + interval '1 hour') FROM sendcampaign.preview($campaign)
	SQL
$job = start_campaign($node, $campaign);
ok(wait_until($node, "SELECT next_at > now() FROM sendcampaign.run WHERE job_id = $job"),
	'the run waits for their end');
wait_for_no_worker($node);
is($twilio->stats->{create_requests}, 0, 'Twilio is not asked');
is(run_row($node, $job)->{sent}, 0, 'nobody has got it');

# What has been claimed and waits for Twilio comes too late, too, and is judged
# again.
$twilio->set(reset => 1, 'retry-after' => 4, 'fault:429' => '#10');
$campaign = create_campaign($node, users => 10);
set_until($campaign, '8 s');
$job = start_campaign($node, $campaign);
sent_once($node, $twilio, $campaign, $job, 'too late after a pause', total => 10, skipped => 10);
is($twilio->stats->{accepted}, 0, 'it is sent to nobody');
$twilio->set('retry-after' => 0, 'fault:429' => 0);

# Twilio refuses the value: the run fails, and nobody is counted as failed.
$twilio->set(reset => 1, 'fault:code:21624' => 100);
$campaign = create_campaign($node, users => 10);
set_until($campaign, '1 hour');
my $run = run_campaign($node, $campaign);
is("$run->{state} $run->{failed}", 'failed 0', 'refused by Twilio: the run fails');
like($run->{error}, qr/21624/, 'and says why');

$node->stop;
is(worker_errors($node), '', 'no worker complains');
done_testing();
