# Reports by several sessions at once, beside others that lock and change the
# run: nobody waits for the run's row, there is no deadlock, and counts are exact.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../perl";
use Campaign;
use LocalTwilio;
use PostgreSQL::Test::Utils;
use Receipts;
use Session;
use Test::More;

my $twilio = LocalTwilio->start;
my $node = new_cluster('at_once', $twilio, conf => <<~'CONF');
	deadlock_timeout = '20ms'
	sendcampaign.receipts = off
	CONF
install_receipts($node);

# The counts of a job's run as its receipts have them.
sub counted
{
	my $job = shift;
	return sql($node, <<~"SQL");
		SELECT concat_ws(' ', (SELECT sent FROM sendcampaign.run WHERE job_id = $job),
		    count(*) FILTER (WHERE status IN ('delivered', 'read')),
		    count(*) FILTER (WHERE status IN ('undelivered', 'failed', 'canceled')),
		    count(*) FILTER (WHERE status = 'unknown'))
		FROM sendcampaign.receipt_data
		WHERE run_id = ${\run_of($job)}
		SQL
}

# How many notes there are of what is still to be added to a run's row.
sub num_noted
{
	my $run = run_of(shift);
	return sql($node, "SELECT count(*) FROM sendcampaign.receipt_count WHERE run_id = $run");
}

my $run = run_campaign($node, create_campaign($node, users => 40));
my $job = $run->{job};
wait_for_no_worker($node);
my @sid = sids($node, $job);

# Two sessions with the same messages, each in an order of its own.
my ($one, $two) = map { Session->open($node) } 1, 2;
my $ascending = Receipts::as_jsonb(map { "$_ delivered" } @sid[ 0 .. 9 ]);
my $descending = Receipts::as_jsonb(map { "$_ undelivered" } reverse @sid[ 0 .. 9 ]);
$one->query("BEGIN; SELECT report($job, $ascending)");
$two->start_query("SELECT report($job, $descending)");
waits_for_lock($node, '%report(%');
$one->query('COMMIT');
is($two->finish_query, 10, 'the second one waits for the first');
is(receipt_counts($node, $job), '40 10 0 0', 'whose reports count, once');

# The run's row is locked by somebody.
$one->query("BEGIN; SELECT FROM sendcampaign.run_data WHERE job_id = $job FOR UPDATE");
is(report($node, $job, map { "$_ delivered" } @sid[ 10 .. 14 ]), 5, 'nobody waits for the run');
is(receipt_counts($node, $job), '40 15 0 0', 'the counts are right at once');
is(num_noted($job), 1, 'though they are only noted');
$one->query('ROLLBACK');
report($node, $job, "$sid[15] delivered");
is(receipt_counts($node, $job), '40 16 0 0', 'and right afterwards');
is(num_noted($job), 0, 'when they are in the run');

# Sessions that report at random, and others that change the run's row meanwhile.
sub pgbench
{
	my ($name, $script, $sessions, $transactions) = @_;
	my $file = "$PostgreSQL::Test::Utils::tmp_check/$name.sql";
	PostgreSQL::Test::Utils::append_to_file($file, $script);
	return [
		'pgbench', '-n', '-c', $sessions, '-j',
		1, '-t', $transactions, '-f', $file,
		'-h', $node->host, '-p', $node->port, 'postgres'
	];
}

# A page of some messages, in a random order and with random statuses, which are
# not chosen by the random() that orders them.
my $report = <<~"SQL";
	SELECT report($job, jsonb_agg(jsonb_build_object('sid', sid, 'status',
	    (ARRAY['queued', 'sent', 'sent', 'delivered', 'undelivered', 'read',
	    'failed'])[ceil(random() * 7)])))
	FROM (SELECT sid FROM sendcampaign.message WHERE job_id = $job
	    ORDER BY random() LIMIT 10) m;
	SQL
my $change = <<~"SQL";
	BEGIN;
	SELECT FROM sendcampaign.run_data WHERE job_id = $job FOR NO KEY UPDATE;
	UPDATE sendcampaign.run_data SET error = (random() * 100)::text WHERE job_id = $job;
	COMMIT;
	SQL
for my $state ('under way', 'over')
{
	my $finished = $state eq 'over' ? 'now()' : 'NULL';
	sql($node, <<~"SQL");
		DELETE FROM sendcampaign.receipt_data;
		DELETE FROM sendcampaign.receipt_count;
		UPDATE sendcampaign.run_data
		SET delivered = 0, undelivered = 0, state = 'paused', finished_at = $finished
		WHERE job_id = $job
		SQL
	my @runs = map { IPC::Run::start(@$_, '>', \my $out, '2>', \my $err) }
	  [ pgbench("report_$finished", $report, 5, 40) ],
	  [ pgbench("change_$finished", $change, 2, 100) ];
	ok($_->finish, "$state: no session fails") for @runs;
	my $counts = receipt_counts($node, $job);
	like($counts, qr/^40 [1-9]\d* [1-9]\d* 0$/, "$state: something has been reported");
	is($counts, counted($job), "$state: the counts are exact");
	cmp_ok(num_noted($job), '>', 0, "$state: they are left to the worker") if $finished eq 'NULL';
}
unlike(log_of($node), qr/deadlock detected/, 'there was no deadlock');

# A worker goes on while somebody has reported, and not committed.
set_and_reload($node, 'sendcampaign.segments_per_second', 40);
$job = start_campaign($node, create_campaign($node, users => 120));
wait_until($node, "SELECT sent > 10 FROM sendcampaign.run WHERE job_id = $job");
@sid = sids($node, $job);
my $some = Receipts::as_jsonb(map { "$_ delivered" } @sid[ 0 .. 4 ]);
$one->query("BEGIN; SELECT report($job, $some)");
report($node, $job, "$sid[5] undelivered");
is(wait_for_run($node, $job)->{state}, 'completed', 'the run does not wait for it');
is(receipt_counts($node, $job), '120 0 1 0', 'it does not count yet');
$one->query('COMMIT');
is(receipt_counts($node, $job), '120 5 1 0', 'then it does');
is(num_noted($job), 1, 'as a note of a run that was under way');
report($node, $job, "$sid[6] delivered");
is(receipt_counts($node, $job) . ' ' . num_noted($job), '120 6 1 0 0', 'which the next one adds');

# What is deleted meanwhile leaves nothing behind.
$some = Receipts::as_jsonb(map { "$_ delivered" } @sid[ 7 .. 9 ]);
$one->query('BEGIN; SELECT sendcampaign.forget($$infinity$$)');
$two->start_query("SELECT report($job, $some)");
is($two->finish_query, 3, 'messages that are just being deleted are known');
$one->query('COMMIT');
sql($node, q{SELECT sendcampaign.forget('-infinity')});
is(sql($node, <<~'SQL'), '0|0', 'nothing is left of them after the next forget()');
	SELECT (SELECT count(*) FROM sendcampaign.receipt_data),
	    (SELECT count(*) FROM sendcampaign.receipt_count)
	SQL

$node->stop;
done_testing();
