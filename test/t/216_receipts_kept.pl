# Who sees receipts, and what becomes of them: row-level security, forget(),
# forget_recipient(), dump and restore.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../perl";
use Campaign;
use LocalTwilio;
use PostgreSQL::Test::Utils;
use Receipts;
use Test::More;

my $twilio = LocalTwilio->start;
my $node = new_cluster('kept', $twilio, conf => 'sendcampaign.receipts = off');
install_receipts($node);
sql($node, 'CREATE ROLE stranger; GRANT USAGE ON SCHEMA sendcampaign TO stranger');

my $job = run_campaign($node, create_campaign($node, users => 4))->{job};
wait_for_no_worker($node);
my @sid = sids($node, $job);
report(
	$node, $job,
	"$sid[0] delivered price=0.0079 unit=USD",
	"$sid[1] undelivered code=30005",
	"$sid[2] undelivered code=30003 at=2026-01-01");

# Views.
my $messages = 'SELECT count(delivery) FROM sendcampaign.message';
is(sql($node, $messages, role => 'app'), 3, 'the role sees its receipts');
is(sql($node, $messages, role => 'stranger'), 0, 'others do not');
for my $table (qw(receipt_data receipt_count early_receipt unreachable_data))
{
	is(sql_error($node, "TABLE sendcampaign.$table", role => 'app')->{sqlstate},
		'42501', "nobody reads $table");
}
is(sql($node, <<~"SQL", role => 'app'), '4|1', 'progress shows what was delivered');
	SELECT sent, delivered FROM sendcampaign.progress WHERE job_id = $job
	SQL

# A dump that is loaded: receipts are there, but prove nothing.
my $dump = "$PostgreSQL::Test::Utils::tmp_check/kept.sql";
$node->command_ok([ 'pg_dump', '-f', $dump, $node->connstr('postgres') ], 'a dump');
sql($node, 'CREATE DATABASE copy', db => 'template1');
$node->command_ok(
	[
		'psql', '-X', '-v', 'ON_ERROR_STOP=1', '-q', '-f', $dump,
		'-o', '/dev/null', $node->connstr('copy')
	],
	'is loaded');
my $copied = <<~"SQL";
	SELECT string_agg(concat_ws(' ', delivery, delivery_code, price), ', ' ORDER BY list_user_id)
	FROM sendcampaign.message
	WHERE job_id = $job
	SQL
is(sql($node, $copied, db => 'copy'), sql($node, $copied), 'with all that is known');
is(sql($node, 'SELECT string_agg(phone, $$ $$) FROM sendcampaign.unreachable', db => 'copy'),
	'+15550000002', 'and the phones that cannot be reached');
is(sql($node, "SELECT sendcampaign.retry_failed($job)", db => 'copy'),
	0, 'but nothing is sent again on the strength of it');
is( sql($node, 'SELECT count(*) FROM sendcampaign.error_code', db => 'copy'),
	sql($node, 'SELECT count(*) FROM sendcampaign.error_code'),
	'codes have their meanings there');

# Somebody calls forget() while it is loaded, table by table: run_data is the last one.
sql($node, <<~"SQL");
	INSERT INTO sendcampaign.receipt_count SELECT id, 0, 0, 0 FROM sendcampaign.run;
	INSERT INTO sendcampaign.event_data SELECT run_id, list_user_id, 'click'
	FROM sendcampaign.message
	SQL
$node->command_ok([ 'pg_dump', '-f', $dump, $node->connstr('postgres') ], 'another dump');
my $loads = slurp_file($dump) =~ s/^\\(?:un)?restrict .*\n//mgr;
my ($first, $rest) = $loads =~ /\A(.*?\n)(COPY sendcampaign\.run_data .*)\z/s;
sql($node, 'CREATE DATABASE slowly', db => 'template1');
for my $part ($first, $rest)
{
	unlink $dump;
	append_to_file($dump, $part);
	$node->command_ok(
		[
			'psql', '-X', '-v', 'ON_ERROR_STOP=1', '-q', '-f', $dump,
			'-o', '/dev/null', $node->connstr('slowly')
		],
		'a part is loaded');
	sql($node, q{SELECT sendcampaign.forget('-infinity')}, db => 'slowly');
}
is(sql($node, $copied, db => 'slowly'), sql($node, $copied), 'what was reported is there');
is(sql($node, <<~'SQL', db => 'slowly'), '4|1', '... and events, and what is noted');
	SELECT (SELECT count(*) FROM sendcampaign.event_data),
	    (SELECT count(*) FROM sendcampaign.receipt_count)
	SQL

# A recipient is forgotten.
report($node, $job, "$sid[3] sent");
sql($node, q{SELECT sendcampaign.forget_recipient('+15550000004')}, role => 'app');
sql($node, q{SELECT sendcampaign.forget_recipient('+15550000001')}, role => 'app');
is(sql($node, <<~"SQL"), 0, 'SIDs are erased');
	SELECT count(*) FROM sendcampaign.receipt_data
	WHERE sid IN ('$sid[0]', '$sid[3]') OR first_sid IS NOT NULL
	SQL
is(receipt_counts($node, $job), '4 1 2 0', 'the counts stay');
is( deliveries($node, $job),
	'delivered, undelivered 30005, undelivered 30003, sent',
	'and what became of the messages');
is(report($node, $job, "$sid[3] delivered"), 0, 'no report brings the SID back');
like(close_receipts($node, $job), qr/^1 .*complete/, 'in the end, it stays unknown');
is(receipt_counts($node, $job), '4 1 2 1', 'and is counted');

# A message that a person has settled has no SID.
$twilio->set('fault:drop-after' => '#1', 'fault:list-403' => 100);
change_conf($node, "sendcampaign.request_timeout = '1s'\nsendcampaign.lookup_delay = 0");
my $settled = run_campaign($node, create_campaign($node, users => 1), alone => 1)->{job};
sql($node, <<~"SQL", role => 'app');
	SELECT sendcampaign.settle(job_id, list_user_id, true) FROM sendcampaign.message
	WHERE job_id = $settled AND status = 'in_doubt'
	SQL
is(receipt_counts($node, $settled), '1 0 0 0', 'a message that was settled is sent');
like(close_receipts($node, $settled), qr/complete/, 'what became of it stays unknown, too');
is(deliveries($node, $settled), 'unknown', 'and is shown');

# Runs are forgotten.
sql($node, "SELECT sendcampaign.forget('infinity')", role => 'app');
is(sql($node, <<~'SQL'), 0, 'with the runs, their receipts are gone');
	SELECT count(*) FROM sendcampaign.receipt_data
	SQL
sql($node, "SELECT sendcampaign.forget('infinity')", db => 'slowly');
is(sql($node, <<~'SQL', db => 'slowly'), '0|0|0', '... and those that were loaded');
	SELECT (SELECT count(*) FROM sendcampaign.receipt_data),
	    (SELECT count(*) FROM sendcampaign.event_data),
	    (SELECT count(*) FROM sendcampaign.receipt_count)
	SQL

$node->stop;
done_testing();
