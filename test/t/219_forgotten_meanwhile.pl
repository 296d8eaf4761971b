# forget_recipient() beside those who write at that moment: no phone number is left
# behind, what is needed stays, and there is no deadlock.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../perl";
use Campaign;
use LocalTwilio;
use Receipts;
use Session;
use Test::More;
use Webhook;

my $twilio = LocalTwilio->start;
my $node = new_cluster('meanwhile', $twilio, conf => <<~'CONF');
	deadlock_timeout = '20ms'
	sendcampaign.receipts = off
	sendcampaign.retry_undelivered_after = 0
	CONF
install_receipts($node);
create_webhook_role($node);

sub phone
{
	return sprintf '+1555%07d', shift;
}

# Sends a campaign whose group has a URL; returns the job and the SIDs.
sub send_to_users
{
	my $campaign = create_campaign($node, users => 10);
	configure($node, $campaign, qq(configuration || '{"twilioStatusCallback": "$URL"}'));
	my $job = run_campaign($node, $campaign)->{job};
	wait_for_no_worker($node);
	return ($job, sids($node, $job));
}

# Begins a statement in a session, and waits until it has ended or waits for a lock.
sub begin
{
	my ($session, $sql) = @_;
	my $pid = $session->query('SELECT pg_backend_pid()');
	$session->start_query($sql);
	wait_until($node, <<~"SQL");
		SELECT wait_event_type IS NOT DISTINCT FROM 'Lock'
		    OR (state LIKE 'idle%' AND query NOT LIKE '%pg_backend_pid%')
		FROM pg_stat_activity WHERE pid = $pid
		SQL
	return;
}

sub forget
{
	my $n = shift;
	return "SELECT sendcampaign.forget_recipient('${\phone($n)}')";
}

# How many phones are marked as unreachable.
sub num_marks
{
	return sql($node, 'SELECT count(*) FROM sendcampaign.unreachable_data');
}

my ($one, $two, $third) = map { Session->open($node) } 1 .. 3;

# Reports that are not committed yet, in each way in which they are stored
my ($job, @sid) = send_to_users();
my @failed = (MessageStatus => 'undelivered', ErrorCode => 30006);
my @ways = (
	[
		'a page of the list',
		sub {
			my ($sid) = @_;
			return
			  "SELECT report($job, " . Receipts::as_jsonb("$sid undelivered code=30006") . ')';
		}
	],
	[
		'a callback',
		sub {
			my ($sid, $n) = @_;
			return Webhook::call_of(signed_form({
				MessageSid => $sid,
				@failed,
				AccountSid => $LocalTwilio::ACCOUNT,
				From => $LocalTwilio::SENDER,
				To => phone($n)
			}));
		}
	]);
my $n = 1;
for my $way (@ways)
{
	my ($how, $report) = @$way;
	$one->query('BEGIN; ' . $report->($sid[ $n - 1 ], $n));
	begin($two, forget($n));
	$one->query('COMMIT');
	is($two->finish_query, 1, "$how: a number is forgotten while it is reported on");
	is(num_marks(), 0, '... and is not marked');
	$n++;
	is($two->query('BEGIN; ' . forget($n)), 1, "$how: a number is just being forgotten");
	begin($one, $report->($sid[ $n - 1 ], $n));
	$two->query('COMMIT');
	$one->finish_query;
	is(num_marks(), 0, '... and is not marked');
	$n++;
}
is($two->query('BEGIN; ' . forget($n)), 1, 'whoever forgets a number');
is(report($node, $job, "$sid[$n] undelivered code=30006"), 1, '... keeps no other one');
$two->query('ROLLBACK');
is(num_marks(), 1, '... from being marked');
is($one->errors . $two->errors, '', 'no session has an error');

# Somebody tries failed messages again, which are locked in the other order
($job, @sid) = send_to_users();
report($node, $job, "$sid[0] undelivered code=30003 at=2026-01-01");
my $receipt = 'SELECT FROM sendcampaign.receipt_data WHERE run_id = ' . run_of($job);
$third->query("BEGIN; $receipt FOR UPDATE");
begin($two, "SELECT sendcampaign.retry_failed($job)");
begin($one, forget(1));
$third->query('COMMIT');
is($two->finish_query, 1, 'a message is sent again');
like($one->finish_query, qr/^\d+$/, '... while its number is forgotten');
is($one->errors . $two->errors, '', '... and neither call fails');
wait_for_run($node, $job);
wait_for_no_worker($node);

# A test, whose run has the phone number, too
sql($node, q{SELECT sendcampaign.forget('infinity')});
my $test = create_campaign($node, users => 1);
sql($node, "SELECT sendcampaign.send_test($test, '${\phone(1)}')", role => 'app');
wait_until($node, 'SELECT count(*) = 1 FROM sendcampaign.run WHERE finished_at IS NOT NULL');
wait_for_no_worker($node);
$job = sql($node, 'SELECT job_id FROM sendcampaign.run');
sql($node, <<~"SQL");
	UPDATE sendcampaign.message_data SET status = 'failed', sid = NULL, error_code = NULL;
	INSERT INTO sendcampaign.unreachable_data (phone, error_code, role, role_oid, updated_at)
	VALUES ('${\phone(1)}', 30006, 'app', 'app'::regrole, now())
	SQL
$third->query('BEGIN; SELECT FROM sendcampaign.unreachable_data FOR UPDATE');
begin($one, forget(1));
begin($two, "SELECT sendcampaign.retry_failed($job)");
$third->query('COMMIT');
like($one->finish_query, qr/^\d+$/, 'the number of a test is forgotten');
like($two->finish_query, qr/^\d+$/, '... while it is sent again');
is($one->errors . $two->errors, '', '... and neither call fails');

# What was sent is read back meanwhile, for a run that has not ended.
my ($sent) = send_to_users();
my ($held_campaign, $held) = hold_campaign($node, $twilio, users => 300);
sql($node, "SELECT sendcampaign.pause($held)", role => 'app');
$twilio->set(hold => 0);
wait_for_no_worker($node);
is(run_row($node, $held)->{state}, 'paused', 'a run is paused');
my $unsent = phone(9999);
sql($node, <<~"SQL");
	UPDATE sendcampaign.message_data SET phone = '$unsent'
	WHERE run_id = ${\run_of($sent)} AND phone = '${\phone(9)}';
	INSERT INTO sendcampaign.unreachable_data (phone, error_code, role, role_oid, updated_at)
	VALUES ('$unsent', 30006, 'app', 'app'::regrole, now())
	SQL
$third->query('BEGIN; SELECT FROM sendcampaign.unreachable_data FOR UPDATE');
begin($one, forget(9999));
sql($node, <<~"SQL");
	INSERT INTO sendcampaign.read_back_message
	SELECT id, 'SMread' || job_id, '$unsent', 0, 1, 0 FROM sendcampaign.run
	SQL
$third->query('COMMIT');
is($one->finish_query, 1, 'a number is forgotten while what was sent to it is read back');
is(sql($node, 'SELECT string_agg(sid, $$ $$) FROM sendcampaign.read_back_message'),
	"SMread$held", '... which a run that has not ended keeps');
like(
	call_error($node, "forget_recipient('$unsent')")->{detail},
	qr/^Only the number shows that a message of background job $held was sent to it/,
	'... as the next call says');

# A snapshot that does not show what others have written
for my $level ('REPEATABLE READ', 'SERIALIZABLE')
{
	my $error = sql_error($node, "BEGIN ISOLATION LEVEL $level; ${\forget(1)}", role => 'app');
	is( "$error->{sqlstate} $error->{message}",
		'55000 sendcampaign.forget_recipient() needs the isolation level READ COMMITTED',
		"$level is refused");
	is($error->{detail},
		'Otherwise what others are storing about the recipient would be left behind.', 'detail');
	is($error->{hint}, 'Call it in a transaction that is READ COMMITTED.', 'hint');
}

is(worker_errors($node), '', 'workers have no errors');
$node->stop;
done_testing();
