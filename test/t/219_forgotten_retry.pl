# A number is forgotten after its message was sent again: what was reported of
# the message before is not taken for what became of the new one.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../perl";
use Campaign;
use LocalTwilio;
use Receipts;
use Test::More;

my $twilio = LocalTwilio->start;
my $node = new_cluster('forgotten_retry', $twilio, conf => <<~'CONF');
	sendcampaign.receipts = off
	sendcampaign.retry_undelivered_after = 0
	CONF
install_receipts($node);

my $job = run_campaign($node, create_campaign($node, users => 3))->{job};
wait_for_no_worker($node);
my @sid = sids($node, $job);
report($node, $job, map { "$_ undelivered code=30003 at=2026-01-01" } @sid);
is(receipt_counts($node, $job), '3 0 3 0', 'three do not arrive');
is(sql($node, "SELECT sendcampaign.retry_failed($job)", role => 'app'), 3, 'they are sent again');
is(wait_for_run($node, $job)->{sent}, 3, '... which Twilio takes');
wait_for_no_worker($node);
my @again = sids($node, $job);
report($node, $job, "$again[1] delivered");
for my $n (1, 2)
{
	sql($node, "SELECT sendcampaign.forget_recipient('+1555000000$n')", role => 'app');
}
is(deliveries($node, $job), '-, delivered, -', 'nothing is known of a message that is forgotten');
report($node, $job, "$again[2] delivered");
is(receipt_counts($node, $job), '3 2 0 0', 'two have arrived');
like(close_receipts($node, $job), qr/^1 .*complete/, 'asking ends');
is(deliveries($node, $job), 'unknown, delivered, delivered', 'the other one stays unknown');
is(receipt_counts($node, $job), '3 2 0 1', '... and the counts are complete');

is(worker_errors($node), '', 'workers have no errors');
$node->stop;
done_testing();
