# How many requests are in flight follows what the account takes.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";

use Campaign;
use List::Util qw(max);
use LocalTwilio;
use Test::More;

my $limit = 30;
my $twilio = LocalTwilio->start(options => [ '--latency', 50, '--concurrency', $limit ]);
my $node = new_cluster('window', $twilio);

# Two runs of one account share its limit.
my $campaign = create_campaign($node, users => 2000);
my $other = create_campaign($node, users => 1000);
my $job = start_campaign($node, $campaign);
my $other_job = start_campaign($node, $other);
sent_once($node, $twilio, $campaign, $job, 'at the limit');
sent_once($node, $twilio, $other, $other_job, 'the other run');

my $stats = $twilio->stats;
my $refused = $stats->{status_429};
my @times = sort { $a <=> $b } map { $_->{time} / 1e6 } $twilio->ledger;
my $throughput = (@times - 1) / ($times[-1] - $times[0]) / ($limit / 0.05);
cmp_ok($refused, '>', 0, 'the limit is met');
cmp_ok($refused, '<', 0.02 * @times, 'by few requests');
diag(sprintf "%d of %d requests refused, %.3f of the throughput that the limit allows",
	$refused, @times + $refused, $throughput);

# A worker that knows of no limit has as many in flight as it may.
wait_for_no_worker($node);
$twilio->set(concurrency => 0, reset => 1);
$campaign = create_campaign($node, users => 6000);
$job = start_campaign($node, $campaign);
poll(sub { $twilio->stats->{accepted} >= 1000 });
$twilio->set(hold => 1);
poll(sub { $twilio->stats->{create_in_flight} >= 100 }, 20);
$twilio->set(hold => 0);
sent_once($node, $twilio, $campaign, $job, 'without a limit');
is($twilio->stats->{max_in_flight}, 100, 'as many are in flight as max_concurrency allows');

# A claim of 240 lasts for half a second here, so each is made when it is needed;
# only where claims last for a moment are several made together.
$twilio->set(latency => 200, reset => 1);
$campaign = create_campaign($node, users => 1500);
$job = start_campaign($node, $campaign);
my $most = 0;
my $looks = 0;
poll(sub {
	my ($claims, $state) = split /\|/, sql($node, <<"EOF");
SELECT (SELECT max(n) FROM (SELECT count(*) AS n FROM sendcampaign.claim GROUP BY xmin::text) c),
	state FROM sendcampaign.run WHERE job_id = $job
EOF
	$looks++ if $claims;
	$most = max($most, $claims || 0);
	return $state eq 'completed';
});
is($most, 1, "one claim in a transaction ($looks looks)");
sent_once($node, $twilio, $campaign, $job, 'claim by claim');

$node->stop;
done_testing();
