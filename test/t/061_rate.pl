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

sub segments { return length($_[0]->{body}) > 160 ? 2 : 1; }

# The most segments that any second has seen, and those of a second on average.
sub rates
{
	my @rows = sort { $a->{time} <=> $b->{time} } map { { %$_, time => $_->{time} / 1e6 } } @_;
	my ($most, $first, $in_window) = (0, 0, 0);
	for my $row (@rows)
	{
		$in_window += segments($row);
		while ($row->{time} - $rows[$first]{time} >= 1)
		{
			$in_window -= segments($rows[ $first++ ]);
		}
		$most = max($most, $in_window);
	}
	my $span = $rows[-1]{time} - $rows[0]{time};
	return ($most, (sum(map { segments($_) } @rows) - segments($rows[-1])) / $span);
}

# Where the machine is busy, requests that left in time may arrive together.
sub held
{
	my ($rate, $name, @rows) = @_;
	my ($most, $mean) = rates(@rows);
	cmp_ok($most, '<=', $rate * 1.1, "$name: no second has more than the rate");
	cmp_ok($mean, '>=', $rate * 0.9, "$name: and it is made use of");
	diag(sprintf "%s: %d in the fullest second, %.2f a second for a rate of %g", $name, $most, $mean, $rate);
}

set_and_reload($node, 'sendcampaign.segments_per_second', 50);
my $campaign = create_campaign($node, users => 150);
my $group = $node->safe_psql('postgres', "SELECT max(id) FROM groups");
my $other = create_campaign($node, users => 10);
$node->safe_psql('postgres', "UPDATE ac_lists SET group_id = $group;
	UPDATE ac_campaigns SET data = data || jsonb_build_object('message', repeat('x', 150)) WHERE id = $other;
	INSERT INTO ac_list_users (ac_list_id, data)
	SELECT 2, jsonb_build_object('sms', '+1666' || lpad(i::text, 7, '0')) FROM generate_series(1, 30) i");
my $job = start_campaign($node, $campaign);
my $other_job = start_campaign($node, $other);
sent_once($node, $twilio, $campaign, $job, 'one run');
sent_once($node, $twilio, $other, $other_job, 'another one of the sender');
is((grep { segments($_) == 2 } $twilio->ledger), 40, 'texts of two segments');
held(50, 'two runs', $twilio->ledger);

# the group's own rate goes first; it may be a fraction, or a text
$twilio->set(reset => 1);
$node->safe_psql('postgres', qq{UPDATE groups SET configuration = configuration || '{"twilioSegmentsPerSecond": "7.5"}'});
$campaign = create_campaign($node, users => 25, group => $group);
$node->safe_psql('postgres', "UPDATE ac_lists SET group_id = $group");
$job = start_campaign($node, $campaign);
sent_once($node, $twilio, $campaign, $job, 'a rate of the group');
held(7.5, 'the group', $twilio->ledger);

# not all of a list is claimed for a slow sender
$node->safe_psql('postgres', qq{UPDATE groups SET configuration = configuration || '{"twilioSegmentsPerSecond": 2}'});
$campaign = create_campaign($node, users => 600);
$node->safe_psql('postgres', "UPDATE ac_lists SET group_id = $group");
$twilio->set(reset => 1);
$job = start_campaign($node, $campaign);
poll(sub { run_row($node, $job)->{sent} >= 3 });
cmp_ok($node->safe_psql('postgres', 'SELECT sum(cardinality(list_user_ids)) FROM sendcampaign.claim'), '<=', 12,
	'a slow sender claims little');
my $claimed = $node->safe_psql('postgres', q{SELECT count(*), count(DISTINCT id) FROM (
	SELECT unnest(list_user_ids) FROM sendcampaign.batch UNION ALL
	SELECT unnest(list_user_ids) FROM sendcampaign.claim c WHERE true UNION ALL
	SELECT list_user_id FROM sendcampaign.message m WHERE NOT EXISTS (
		SELECT FROM sendcampaign.claim c WHERE m.list_user_id = ANY (c.list_user_ids))
		AND list_user_id IN (SELECT id FROM ac_list_users WHERE ac_list_id = (SELECT max(id) FROM ac_lists))) r(id)});
is($claimed, '600|600', 'each recipient is in one place');

# 0 is no limit, for those who are in a hurry now
$node->safe_psql('postgres', qq{UPDATE groups SET configuration = configuration || '{"twilioSegmentsPerSecond": 0}'});
sent_once($node, $twilio, $campaign, $job, 'the limit is lifted in mid-run');

# nonsense is no licence to send as fast as can be
$node->safe_psql('postgres', qq{UPDATE groups SET configuration = configuration || '{"twilioSegmentsPerSecond": "fast"}'});
$campaign = create_campaign($node, users => 1);
$node->safe_psql('postgres', "UPDATE ac_lists SET group_id = $group");
my $run = wait_for_run($node, start_campaign($node, $campaign));
is($run->{state}, 'failed', 'a rate that is no number fails the run');
like($run->{error}, qr/"twilioSegmentsPerSecond" is not 0, nor a number/, 'and says so');
is(worker_errors($node), '', 'no worker complained');

$node->stop;
done_testing();
