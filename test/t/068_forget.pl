# forget(): what has ended goes; forget_recipient(): a number is erased, and
# what was counted stays.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";

use Campaign;
use LocalTwilio;
use Session;
use Test::More;

my $twilio = LocalTwilio->start;
my $node = new_cluster('forget', $twilio);
sql($node, <<~'SQL');
    CREATE ROLE shop LOGIN;
    GRANT USAGE ON SCHEMA sendcampaign TO shop;
    GRANT SELECT, INSERT, UPDATE ON ALL TABLES IN SCHEMA public TO shop;
    GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO shop;
SQL

# What forget() returns to a role, for runs that ended before a time (as SQL).
sub forget
{
	my ($role, $before) = @_;
	return sql($node, "SELECT sendcampaign.forget($before)", role => $role);
}

# What forget_recipient() returns to a role.
sub forget_recipient
{
	my ($role, $phone) = @_;
	return sql($node, "SELECT sendcampaign.forget_recipient('$phone')", role => $role);
}

# The error that forget_recipient() gives to a role.
sub recipient_error
{
	my ($role, $phone) = @_;
	return call_error($node, "forget_recipient('$phone')", role => $role);
}

# How many rows a table has.
sub rows
{
	my $table = shift;
	return sql($node, "SELECT count(*) FROM sendcampaign.$table");
}

# How many messages a job has.
sub messages
{
	my $job = shift;
	return sql($node, "SELECT count(*) FROM sendcampaign.message WHERE job_id = $job");
}

# Sends a campaign to five as a role, and waits for its end; returns the job.
sub finish
{
	my $role = shift;
	my $campaign = create_campaign($node, users => 5);
	my $run = run_campaign($node, $campaign, role => $role, alone => 1);
	wait_for_no_worker($node);
	return $run->{job};
}

my $old = finish('app');
my $new = finish('app');
my $shops = finish('shop');
my $old_run = sql($node, "SELECT id FROM sendcampaign.run WHERE job_id = $old");
sql($node, <<~SQL);
    UPDATE sendcampaign.run
    SET finished_at = now() - interval '1 year'
    WHERE job_id IN ($old, $shops);
    INSERT INTO sendcampaign.read_back_message
    VALUES ($old_run, 'SM1', '+15550000001', 0, 1, 0);
    INSERT INTO sendcampaign.batch VALUES ($old_run, 9, '{1}');
    INSERT INTO sendcampaign.claim
    VALUES ($old_run, 9, '{1}', '{+1}', 'AC', '{+2}', now(), 0);
SQL
my ($held_campaign, $held) = hold_campaign($node, $twilio, users => 300);

is(forget('app', "now() - interval '30 days'"), 1, 'a role forgets its own old run');
my %key = (
	run_data => 'id',
	message_data => 'run_id',
	read_back_message => 'run_id',
	batch => 'run_id',
	claim => 'run_id');
for my $table (sort keys %key)
{
	is(sql($node, "SELECT count(*) FROM sendcampaign.$table WHERE $key{$table} = $old_run"),
		0, "nothing of it is left in $table");
}
is(messages($new), 5, 'a newer run stays');
is(messages($shops), 5, "so does another role's run");
is(forget('app', "'infinity'"), 1, 'a role forgets all its runs that have ended');
is(run_row($node, $held)->{state}, 'running', 'a run that goes on stays');
is(sql($node, "SELECT sendcampaign.forget(now() - interval '30 days')"),
	1, "a superuser forgets any role's runs");
is(rows('run'), 1, 'the other runs are gone');
is(rows('message'), 0, 'with their messages');
is(sql_error($node, <<~'SQL')->{sqlstate}, '25006', 'forget() is refused if read-only');
    SET default_transaction_read_only = on;
    SELECT sendcampaign.forget(now());
SQL

# A failed run whose last answers are outstanding: they are dropped.
sql($node, "SELECT sendcampaign.pause($held)", role => 'app');
# all but those who are under way are put back
wait_until($node, 'SELECT sum(cardinality(list_user_ids)) >= 270 FROM sendcampaign.batch');
sql($node, <<~SQL);
    UPDATE sendcampaign.run SET state = 'failed', finished_at = now() WHERE job_id = $held
SQL
is(forget('app', "'infinity'"), 1, 'a failed run with answers outstanding is forgotten');
$twilio->set(hold => 0);
ok(worker_is_gone($node, 20), 'the worker lets go of it');
for my $table (qw(run message batch claim))
{
	is(rows($table), 0, "nothing is in $table");
}
unlike(log_of($node), qr/is gone/, 'the worker does not stumble');

# What a worker commits while forget() waits for it goes with the run.
my $late_run = sql($node, 'SELECT ' . run_of(finish('app')));
my $worker = Session->open($node);
my $caller = Session->open($node);
$worker->query(<<~"SQL");
    BEGIN;
    UPDATE sendcampaign.run_data SET sent = sent + 1 WHERE id = $late_run;
    INSERT INTO sendcampaign.batch VALUES ($late_run, 9, '{1}');
    INSERT INTO sendcampaign.claim
    VALUES ($late_run, 9, '{1}', '{+1}', 'AC', '{+2}', now(), 0);
    INSERT INTO sendcampaign.message_data (run_id, list_user_id, phone, status, counted)
    VALUES ($late_run, -1, '+15550000001', 'sent', true);
    INSERT INTO sendcampaign.read_back_message
    VALUES ($late_run, 'SM1', '+15550000001', 0, 1, 0)
SQL
$caller->start_query("SELECT sendcampaign.forget('infinity')");
ok( waits_for_lock($node, 'SELECT sendcampaign.forget%'),
	'forget() waits for who writes to the run');
$worker->query('COMMIT');
is($caller->finish_query, 1, 'it deletes the run');

for my $table (sort keys %key)
{
	is(sql($node, "SELECT count(*) FROM sendcampaign.$table WHERE $key{$table} = $late_run"),
		0, "what was written meanwhile is not left in $table");
}

# Nor is what a worker moves from one table to another meanwhile: it has the run still
# if somebody else has ended that.
my %written =
  (batch => "(RUN, 9, '{1}')", claim => "(RUN, 9, '{1}', '{+1}', 'AC', '{+2}', now(), 0)");
for my $move ([qw(batch claim)], [qw(claim batch)])
{
	my ($from, $to) = @$move;
	my $moved_run = sql($node, 'SELECT ' . run_of(finish('app')));
	my %values = map { $_ => $written{$_} =~ s/RUN/$moved_run/r } keys %written;
	sql($node, "INSERT INTO sendcampaign.$from VALUES $values{$from}");
	$worker->query(<<~"SQL");
	    BEGIN;
	    DELETE FROM sendcampaign.$from WHERE run_id = $moved_run;
	    INSERT INTO sendcampaign.$to VALUES $values{$to}
	SQL
	$caller->start_query("SELECT sendcampaign.forget('infinity')");
	waits_for_lock($node, 'SELECT sendcampaign.forget%');
	$worker->query('COMMIT');
	is($caller->finish_query, 1, "forget() deletes a run while a $from becomes a $to");

	for my $table ($from, $to)
	{
		is(sql($node, "SELECT count(*) FROM sendcampaign.$table WHERE run_id = $moved_run"),
			0, "no $table is left");
	}
}

# A number, which is in the list more than once.
my $campaign = create_campaign($node, users => 6);
my @phones = (
	'+1 (555) 000-0001', '0015550000001', '+15550000001', '+15550000002',
	'not a number', '+1555000000199');
my @ids = split /\n/, sql($node, <<~SQL);
    SELECT id
    FROM ac_list_users
    WHERE ac_list_id = (SELECT ac_list_id FROM ac_campaigns WHERE id = $campaign)
    ORDER BY id
SQL
for my $i (0 .. 5)
{
	sql($node, <<~SQL);
	    UPDATE ac_list_users
	    SET data = jsonb_build_object('sms', '$phones[$i]')
	    WHERE id = $ids[$i]
	SQL
}
$twilio->set(reset => 1, hold => 1);
my $job = start_campaign($node, $campaign);
wait_for_flight($twilio, 3);    # one message to each number
my $error = recipient_error('app', '+15550000001');
is( "$error->{sqlstate} $error->{message}",
	'55006 the phone number cannot be forgotten yet',
	'a number that is claimed cannot be forgotten yet');
like($error->{hint}, qr/^Try again when that run has ended\./, 'with a hint');
is(recipient_error('shop', '+15550000001')->{message},
	'', 'a role is not told of what it cannot see');
$twilio->set(hold => 0);
wait_for_run($node, $job);
wait_for_no_worker($node);

my $run_id = run_of($job);
my $counts = "SELECT sent, failed, skipped FROM sendcampaign.run WHERE job_id = $job";
my $before = sql($node, $counts);
# one recipient is skipped before its number is looked at
sql($node, <<~SQL);
    UPDATE sendcampaign.message_data
    SET status = 'skipped', phone = '+1 (555) 000-0001', sid = NULL, error_message = 'gone'
    WHERE list_user_id = $ids[0];
    INSERT INTO sendcampaign.read_back_message VALUES
        ($run_id, 'SM2', '+15550000001', $ids[1], 1, 0),
        ($run_id, 'SM3', '+15550000002', 0, 1, 0);
SQL
is(forget_recipient('shop', '+15550000001'),
	0, "a number is not forgotten in another role's messages");
is(forget_recipient('app', '001 555 000-0001'), 3, 'it is forgotten however it is written');
my @left = (
	'skipped t',
	'skipped t',
	'skipped t',
	'sent +15550000002 f',
	'skipped not a number t',
	'sent +1555000000199 f');
is(sql($node, <<~SQL), join(', ', @left), 'it is erased, and nothing else');
    SELECT string_agg(concat_ws(' ', status, phone, sid IS NULL), ', ' ORDER BY list_user_id)
    FROM sendcampaign.message
    WHERE job_id = $job
SQL
is(sql($node, $counts), $before, 'the counts stay');
is(sql($node, q{SELECT string_agg(sid, ' ') FROM sendcampaign.read_back_message}),
	'SM3', 'what was read back of others stays');
is(forget_recipient('app', 'not a number'), 1, 'a number is forgotten as it was in the list');
sql($node, "UPDATE sendcampaign.run SET state = 'failed' WHERE job_id = $job");
is(recipient_error('app', '+15550000002')->{sqlstate},
	'55006', 'a failed run may go on, and needs what was read back');

# The reason of a failure is erased with the number: a summary that is made
# anew afterwards says so.
$campaign = create_campaign($node, users => 2);
my $users = "SELECT %s FROM ac_list_users WHERE ac_list_id = ${\list_of($campaign)}";
my $first = sql($node, sprintf $users, "min(data->>'sms')");
my $second = sql($node, sprintf $users, "max(data->>'sms')");
$twilio->set('fault:list-403' => 100, 'to-fault' => "$first=code:98765");
$twilio->set('to-fault' => "$second=drop-after");
my $run = run_campaign($node, $campaign, alone => 1);
is("$run->{failed} $run->{in_doubt}", '1 1', 'one message has failed, one is in doubt');
forget_recipient('app', $first);
sql($node, <<~SQL, role => 'app');
    SELECT sendcampaign.settle(job_id, list_user_id, true)
    FROM sendcampaign.message
    WHERE job_id = $run->{job} AND status = 'in_doubt'
SQL
is( run_row($node, $run->{job})->{error},
	'1 of 2 messages failed: 98765 reason erased (1)',
	'the summary says that the reason is erased');

$node->stop;
done_testing();
