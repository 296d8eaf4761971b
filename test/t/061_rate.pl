# A sender's rate: over all its runs, in segments, evenly.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";

use Campaign;
use LocalTwilio;
use List::Util qw(max sum);
use Test::More;

my $twilio = LocalTwilio->start(options => [ '--latency', 20 ]);
my $node = new_cluster('rate', $twilio);

# How many segments the text of a message has.
sub segments
{
	my $message = shift;
	return length($message->{body}) > 160 ? 2 : 1;
}

# The most segments that any second has seen, and those of a second on average.
sub rates
{
	my @messages = sort { $a->{time} <=> $b->{time} } @_;
	my ($most, $first, $in_window) = (0, 0, 0);
	for my $message (@messages)
	{
		$in_window += segments($message);
		while ($message->{time} - $messages[$first]{time} >= 1e6)
		{
			$in_window -= segments($messages[ $first++ ]);
		}
		$most = max($most, $in_window);
	}
	my $before_last = sum(map { segments($_) } @messages[ 0 .. $#messages - 1 ]);
	my $seconds = ($messages[-1]{time} - $messages[0]{time}) / 1e6;
	return ($most, $before_last / $seconds);
}

# What Twilio has accepted of these campaigns kept to the rate, and made use of it.
# Where the machine is busy, requests that left in time may arrive together: then
# they get another chance.
sub kept_to_rate
{
	my ($rate, $name, @campaigns) = @_;
	my ($most, $mean) = rates($twilio->ledger);
	for (1 .. 4)
	{
		last if $most <= $rate * 1.1 && $mean >= $rate * 0.9;
		$twilio->set(reset => 1);
		my @jobs = map { start_campaign($node, $_) } @campaigns;
		wait_for_run($node, $_, alone => 1) for @jobs;
		($most, $mean) = rates($twilio->ledger);
	}
	cmp_ok(
		$most, '<=',
		$rate * 1.1 * seconds_here($node, 1),
		"$name: no second has more than the rate");
	cmp_ok($mean, '>=', $rate * 0.9, "$name: the rate is made use of");
	diag(sprintf '%s: %d in the fullest second, %.2f per second for a rate of %g',
		$name, $most, $mean, $rate);
}

# Sets the rate in the configuration of all groups, given as JSON.
sub set_rate
{
	my $rate = shift;
	sql($node, <<~SQL);
	    UPDATE groups SET configuration = configuration || '{"twilioSegmentsPerSecond": $rate}'
	SQL
}

# A campaign whose sender is that of the first one.
my $group;

sub campaign_of_group
{
	my $users = shift;
	my $campaign = create_campaign($node, users => $users);
	sql($node, "UPDATE ac_lists SET group_id = $group");
	return $campaign;
}

# Two runs of one sender, the other one with texts of two segments.
set_and_reload($node, 'sendcampaign.segments_per_second', 50);
my $campaign = create_campaign($node, users => 150);
$group = sql($node, 'SELECT max(id) FROM groups');
my $other = campaign_of_group(10);
sql($node, <<~SQL);
    UPDATE ac_campaigns
    SET data = data || jsonb_build_object('message', repeat('x', 150))
    WHERE id = $other;

    INSERT INTO ac_list_users (ac_list_id, data)
    SELECT 2, jsonb_build_object('sms', '+1666' || lpad(i::text, 7, '0'))
    FROM generate_series(1, 30) i;
SQL
my $job = start_campaign($node, $campaign);
my $other_job = start_campaign($node, $other);
sent_once($node, $twilio, $campaign, $job, 'one run');
sent_once($node, $twilio, $other, $other_job, 'another run of the sender');
is((grep { segments($_) == 2 } $twilio->ledger), 40, 'forty texts have two segments');
kept_to_rate(50, 'two runs', $campaign, $other);

# The group's own rate goes first; it may be a fraction, or a text.
$twilio->set(reset => 1);
set_rate('"7.5"');
$campaign = campaign_of_group(25);
$job = start_campaign($node, $campaign);
sent_once($node, $twilio, $campaign, $job, 'a rate of the group');
kept_to_rate(7.5, 'a rate of the group', $campaign);

# Not all of a list is claimed for a slow sender.
set_rate(2);
$campaign = campaign_of_group(600);
$twilio->set(reset => 1);
$job = start_campaign($node, $campaign);
poll(sub { run_row($node, $job)->{sent} >= 3 });
my $claimed = sql($node, 'SELECT sum(cardinality(list_user_ids)) FROM sendcampaign.claim');
cmp_ok($claimed, '<=', 12, 'a slow sender claims little');
is(sql($node, <<~'SQL'), '600|600', 'each recipient is in one place');
    SELECT count(*), count(DISTINCT id)
    FROM (
        SELECT unnest(list_user_ids) FROM sendcampaign.batch
        UNION ALL
        SELECT unnest(list_user_ids) FROM sendcampaign.claim
        UNION ALL
        SELECT list_user_id
        FROM sendcampaign.message m
        WHERE NOT EXISTS (
                SELECT FROM sendcampaign.claim c WHERE m.list_user_id = ANY (c.list_user_ids))
            AND list_user_id IN (
                SELECT id
                FROM ac_list_users
                WHERE ac_list_id = (SELECT max(id) FROM ac_lists))) r(id)
SQL

# 0 is no limit, for those who are in a hurry now.
set_rate(0);
wait_for_run($node, $job, alone => 1);    # another run would have it lifted
sent_once($node, $twilio, $campaign, $job, 'the limit is lifted in mid-run');
my (undef, $mean) = rates($twilio->ledger);
cmp_ok($mean, '>', 4, 'the limit is lifted in mid-run: faster than it allowed');

# It is lifted for one of two groups that share the sender: until the other one's run has
# ended, that one's counts.
my ($lifted, $limited) = map { create_campaign($node, users => $_) } 40, 20;
configure($node, $_, q(configuration || '{"twilioSegmentsPerSecond": 5}')) for $lifted, $limited;
$twilio->set(reset => 1);
my @pair = map { start_campaign($node, $_) } $lifted, $limited;
poll(sub { run_row($node, $pair[1])->{sent} >= 2 });
configure($node, $lifted, q(configuration || '{"twilioSegmentsPerSecond": 0}'));
wait_for_run($node, $_, alone => 1) for @pair;
my @until_limited = $twilio->ledger;
pop @until_limited while $until_limited[-1]{body} !~ /yc=$limited$/;
my ($fullest) = rates(@until_limited);
cmp_ok(
	$fullest, '<=',
	5 * 1.1 * seconds_here($node, 1),
	'lifted for one of two groups: the other one limits the sender');

# Nonsense is no licence to send as fast as can be.
set_rate('"fast"');
my $run = run_campaign($node, campaign_of_group(1));
is($run->{state}, 'failed', 'a rate that is no number fails the run');
like(
	$run->{error},
	qr/invalid value for "twilioSegmentsPerSecond" in the group's configuration/,
	'the run says so');
is(worker_errors($node), '', 'no worker complains');

$node->stop;
done_testing();
