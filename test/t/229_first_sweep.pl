# The cost of a receipt does not depend on how many there are already: neither when
# the first ones of all come, nor while the planner knows of a few rows only.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../perl";
use Campaign;
use LocalTwilio;
use Sweeps;
use Test::More;

my $messages = 12000;
my $twilio = LocalTwilio->start;
my $node = new_cluster('first', $twilio, conf => "autovacuum = off\n");
$twilio->set('sent-after' => 0, 'deliver-after' => -1);

# How many rows of the table of receipts have been read so far, by index or not.
sub rows_read
{
	wait_for_no_worker($node); # it reports them in the end
	return sql($node, <<~'SQL');
		SELECT coalesce(sum(t.seq_tup_read), 0)
		    + (SELECT coalesce(sum(i.idx_tup_read), 0) FROM pg_stat_user_indexes i
		    WHERE i.schemaname = 'sendcampaign' AND i.relname = 'receipt_data')
		FROM pg_stat_user_tables t
		WHERE t.schemaname = 'sendcampaign' AND t.relname = 'receipt_data'
		SQL
}

for my $planner ('knows nothing', 'knows of a few rows')
{
	my $job = run_campaign($node, create_campaign($node, users => $messages))->{job};
	my $before = rows_read();
	sweep_now($node, $job);
	is(receipts_of($node, $job), "sent $messages", "the planner $planner: first receipts");
	my $read = rows_read() - $before;
	cmp_ok($read, '<', 8 * $messages, 'each is found by its index');
	$before = rows_read();
	$twilio->set('deliver-after' => 0, 'price-after' => 0);
	sweep_now($node, $job);
	is(receipts_of($node, $job), "delivered $messages", "the planner $planner: later ones");
	cmp_ok(rows_read() - $before, '<', 8 * $messages, 'each is found by its index');
	$twilio->set('deliver-after' => -1);
	sql($node, <<~'SQL');
		DELETE FROM sendcampaign.receipt_data WHERE list_user_id % 1000 <> 0;
		VACUUM FULL ANALYZE sendcampaign.receipt_data
		SQL
}

$node->stop;
done_testing();
