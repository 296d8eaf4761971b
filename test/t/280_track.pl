# track(): what a recipient does with a link counts once, in the run that sent
# it and in the application's data; any other link counts nothing.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../perl";
use Campaign;
use LocalTwilio;
use Session;
use Test::More;

my $twilio = LocalTwilio->start;
my $node = new_cluster('track', $twilio, conf => 'sendcampaign.receipts = off');
my $campaign = create_campaign($node, users => 5);
my ($ann, $bob, $eve) = split /\n/,
  sql($node,
	'SELECT id FROM ac_list_users WHERE ac_list_id = ' . list_of($campaign) . ' ORDER BY id');

# What track() returns to the application.
sub track
{
	my ($yu, $yc, $event, %arg) = @_;
	return sql($node, "SELECT sendcampaign.track($yu, $yc, '$event')", role => 'app', %arg);
}

# The counts of a list user: opened, completed.
sub counts
{
	my $id = shift;
	return sql($node,
		"SELECT concat_ws(' ', coalesce(data->>'openCount', '-'), coalesce(data->>'completeCount', '-'))"
		  . " FROM ac_list_users WHERE id = $id");
}

# "list user event" of a job's events, in order
sub events
{
	my $job = shift;
	return sql($node, <<~"SQL");
		SELECT coalesce(string_agg(concat_ws(' ', list_user_id, event), ', ' ORDER BY list_user_id, event DESC), '')
		FROM sendcampaign.event
		WHERE job_id = $job
		SQL
}

is(track($ann, $campaign, 'open'), 'f', 'before anything is sent, nothing counts');
sql($node,
	qq{UPDATE ac_list_users SET data = data || '{"openCount": "x", "kept": [1]}' WHERE id = $eve});
my $job = run_campaign($node, $campaign)->{job};
is(track($ann, $campaign, 'open'), 't', 'a link is opened');
is(track($ann, $campaign, 'open'), 'f', '... and again');
is(counts($ann), '1 -', '... which counts once');
is(track($ann, $campaign, 'complete'), 't', 'the survey is completed');
is(counts($ann), '1 1', '... which counts');
is(track($bob, $campaign, 'complete'),
	't', 'a survey is completed of which nobody knows that it was opened');
is(counts($bob), '1 1', '... so it was');
is(track($bob, $campaign, 'open'), 'f', '... and that does not count again');
is(track($eve, $campaign, 'open'), 't', 'a count that is no number');
is(counts($eve), '1 -', '... begins anew');
is(track($eve, $campaign, 'video_50'), 't', 'an event of the application');
is(track($eve, $campaign, 'video_50'), 'f', '... counts once');
is( sql($node,
		"SELECT data->'kept', data->'sentCount', (SELECT count(*) FROM jsonb_object_keys(data)) FROM ac_list_users WHERE id = $eve"
	),
	'[1]|1|4',
	'... and the other data are as they were');
is( events($job),
	"$ann open, $ann complete, $bob open, $bob complete, $eve video_50, $eve open",
	'the events are recorded');

# Links that cannot be right
is(track($ann, $campaign + 1, 'open'), 'f', 'another campaign');
is(track(99999, $campaign, 'open'), 'f', 'nobody');
is(track('NULL', $campaign, 'open'), 'f', 'no list user');
is(track($ann, 'NULL', 'open'), 'f', 'no campaign');
is(track('-9223372036854775808', '9223372036854775807', 'open'),
	'f', 'numbers at the ends of their range');
for my $name ('', 'Open', '1st', 'a b', 'o' x 33, 'a-b')
{
	my $error = call_error($node, "track($bob, $campaign, '$name')");
	is($error->{sqlstate}, '22023', "an event cannot be named \"$name\"");
	like($error->{hint}, qr/^Use "open", "complete", or a name/, '... with a hint');
}
is( call_error($node, "track($bob, $campaign, NULL)")->{message},
	'the name of an event must not be null',
	'... nor null');
is( sql_error($node,
		"SET default_transaction_read_only = on; SELECT sendcampaign.track(1, 1, 'open')")
	  ->{sqlstate},
	'25006',
	'a read-only transaction is refused');

# A transaction
sql($node,
	"BEGIN; SELECT sendcampaign.track($eve, $campaign, 'complete'); ROLLBACK",
	role => 'app');
is(counts($eve), '1 -', 'what is rolled back does not count');
is(track($eve, $campaign, 'complete'), 't', '... and counts later');

# Two at once
my ($one, $two) = map { Session->open($node) } 1 .. 2;
my ($dan) =
  sql($node, 'SELECT max(id) FROM ac_list_users WHERE ac_list_id = ' . list_of($campaign));
$one->query("BEGIN; SELECT sendcampaign.track($dan, $campaign, 'open')");
$two->start_query("SELECT sendcampaign.track($dan, $campaign, 'open')");
wait_until($node, "SELECT count(*) = 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock'");
$one->query('COMMIT');
is($two->finish_query, 'f', 'two at once count once');
is(counts($dan), '1 -', '... in the data, too');
$_->close for $one, $two;

# A second run of the campaign
my $second = run_campaign($node, $campaign)->{job};
is(track($ann, $campaign, 'open'), 't', 'after the campaign was sent again, a link is opened');
is(counts($ann), '2 1', '... which counts again');
is(events($second), "$ann open", '... for that run');

# Tests, and messages that were not sent
my $other = create_campaign($node, users => 1, phone => '+15557770001');
my $tested = sql($node, "SELECT id FROM ac_list_users WHERE ac_list_id = " . list_of($other));
my $test = sql($node, "SELECT sendcampaign.send_test($other, '+15557770002')", role => 'app');
wait_for_run($node, $test);
is(track($tested, $other, 'open'), 'f', 'the link of a test counts nothing');
$twilio->set('to-fault' => '+15557770001=code:21610');
run_campaign($node, $other);
is(track($tested, $other, 'open'), 'f', 'nor does that of a message that failed');
$twilio->set('to-fault' => '+15557770001=none');

# Somebody is faster than the record of what was sent
my $quick = create_campaign($node, users => 1, phone => '+15557770003');
my $reader = sql($node, "SELECT id FROM ac_list_users WHERE ac_list_id = " . list_of($quick));
$twilio->set(hold => 1);
my $under_way = start_campaign($node, $quick);
wait_for_flight($twilio, 1);
is(track($reader, $quick, 'open'), 't', 'a link is opened before the answer is there');
$twilio->set(hold => 0);
wait_for_run($node, $under_way);
is(events($under_way), "$reader open", '... of the run');
is( sql($node,
		"SELECT data->>'openCount', data->>'sentCount' FROM ac_list_users WHERE id = $reader"),
	'1|1',
	'... and both count');

# It is recorded after track() has looked for messages, and before it looks for what is
# under way: it waits for the message of an earlier run, whose number is erased.
$twilio->set(hold => 1);
my $again_under_way = start_campaign($node, $quick);
wait_for_flight($twilio, 1);
my ($erasing, $tracking) = map { Session->open($node) } 1 .. 2;
my $first_run = run_of($under_way);
$erasing->query(<<~"SQL");
	BEGIN;
	SELECT FROM sendcampaign.message_data WHERE run_id = $first_run FOR UPDATE;
	UPDATE sendcampaign.message_data SET phone = NULL WHERE run_id = $first_run
	SQL
$tracking->start_query("SELECT sendcampaign.track($reader, $quick, 'open')");
wait_until($node, "SELECT count(*) = 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock'");
$twilio->set(hold => 0);
wait_for_run($node, $again_under_way);
$erasing->query('COMMIT');
is($tracking->finish_query, 't', 'a link is opened while the answer is recorded');
is(events($again_under_way), "$reader open", '... of the run');
$_->close for $erasing, $tracking;

# What suppresses the count, suppresses the event
sql($node, <<~'SQL', role => 'app');
	CREATE FUNCTION suppress() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
	CREATE TRIGGER suppress BEFORE UPDATE ON ac_list_users FOR EACH ROW EXECUTE FUNCTION suppress();
	SQL
is(track($reader, $quick, 'complete'), 'f', 'a trigger keeps an event from being counted');
is(events($under_way), "$reader open", '... so it is not recorded');
sql($node, 'DROP TRIGGER suppress ON ac_list_users', role => 'app');
is(track($reader, $quick, 'complete'), 't', '... and can be, later');

# A column of the table
sql($node,
	'ALTER TABLE ac_list_users ADD open_count smallint, ADD "completeCount" bigint DEFAULT 7',
	role => 'app');
is(track($eve, $campaign, 'complete'), 't', 'counts in columns');
is( sql($node,
		"SELECT open_count, \"completeCount\", data->>'openCount' FROM ac_list_users WHERE id = $eve"
	),
	'1|8|1',
	'... are counted there');

# Erasure
sql($node,
	"SELECT sendcampaign.forget_recipient(phone) FROM sendcampaign.message WHERE list_user_id = $ann AND job_id = $job",
	role => 'app');
is(sql($node, "SELECT count(*) FROM sendcampaign.event WHERE list_user_id = $ann"),
	0, 'events of a phone number that is forgotten are gone');
is(track($ann, $campaign, 'open'), 'f', '... and its links count nothing');
is(sql($node, "SELECT count(*) FROM sendcampaign.event WHERE list_user_id = $bob"),
	2, '... but others stay');
my $holder = Session->open($node);
$holder->query("BEGIN; SELECT sendcampaign.track($bob, $campaign, 'open')");
my $eraser = Session->open($node);
$eraser->start_query(
	"SELECT sendcampaign.forget_recipient(phone) FROM sendcampaign.message WHERE list_user_id = $bob AND job_id = $second"
);
wait_until($node, "SELECT count(*) = 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock'");
$holder->query('COMMIT');
$eraser->finish_query;
is(sql($node, "SELECT count(*) FROM sendcampaign.event WHERE list_user_id = $bob"),
	0, 'an event at the same time is gone, too');
$_->close for $holder, $eraser;
sql($node, "SELECT sendcampaign.forget('infinity')", role => 'app');
is(sql($node, 'SELECT count(*) FROM sendcampaign.event_data'), 0, 'events go with their runs');

# Another table under the same name
my $again = run_campaign($node, $campaign)->{job};
sql($node, <<~'SQL', role => 'app');
	ALTER TABLE ac_list_users RENAME TO old_list_users;
	CREATE TABLE ac_list_users (LIKE old_list_users INCLUDING ALL);
	INSERT INTO ac_list_users SELECT * FROM old_list_users;
	SQL
is(track($bob, $campaign, 'open'), 'f', 'people of another table do not count');
is(events($again), '', '... nor are their events recorded');
$node->stop;
done_testing();
