# send_test(): the first recipient's message, once, to the author's phone; and
# nothing else is changed by it.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";

use Campaign;
use LocalTwilio;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Session;
use Test::More;

my $author = '+15559990000';
my $twilio = LocalTwilio->start;
my $node = new_cluster(
	'send_test', $twilio,
	init => { allows_streaming => 1 },
	conf => <<~CONF);
    sendcampaign.receipts = off
    restart_after_crash = on
    sendcampaign.request_timeout = '1s'
    sendcampaign.lookup_delay = '100ms'
CONF

# Calls send_test(), to the author where no phone is given; returns the number
# of its run.
sub start_test
{
	my ($campaign, $phone) = @_;
	$phone ||= $author;
	return sql($node, "SELECT sendcampaign.send_test($campaign, '$phone')", role => 'app');
}

# The same, and waits for the end of the run.
sub send_test
{
	my ($campaign, $phone) = @_;
	my $job = start_test($campaign, $phone);
	wait_for_run($node, $job);
	return $job;
}

# The error that send_test() gives.
sub error_of_test
{
	my ($campaign, $phone) = @_;
	return call_error($node, "send_test($campaign, '$phone')");
}

# The texts that Twilio has accepted for a phone number.
sub bodies_to
{
	my $phone = shift;
	return map { $_->{body} } grep { $_->{to} eq $phone } $twilio->ledger;
}

# All that a test must leave as it is; companions may be sent meanwhile.
sub application
{
	my $companions = "SELECT id FROM ac_campaigns WHERE data->>'message' = 'Companion'";
	my $jobs = "SELECT job_id FROM sendcampaign.run WHERE campaign_id IN ($companions)";
	return sql($node, <<~"SQL");
	    SELECT md5(string_agg(t, '' ORDER BY t))
	    FROM (
	        SELECT u::text || ctid || xmin
	        FROM ac_list_users u
	        WHERE data->>'sms' IS DISTINCT FROM '$LocalTwilio::COMPANION'
	        UNION ALL
	        SELECT j::text || ctid || xmin FROM ac_background_jobs j WHERE id NOT IN ($jobs)
	        UNION ALL
	        SELECT c::text FROM ac_campaigns c WHERE id NOT IN ($companions)
	        UNION ALL
	        SELECT r::text FROM sendcampaign.run r WHERE job_id > 0 AND job_id NOT IN ($jobs)
	        UNION ALL
	        SELECT m::text
	        FROM sendcampaign.message m
	        WHERE job_id > 0 AND job_id NOT IN ($jobs)) x(t)
	SQL
}

# A campaign with a personal text; options as for create_campaign().
sub personal
{
	my $campaign = create_campaign($node, message => 'Hi {{name}}: {{link}}', @_);
	sql($node, <<~SQL);
	    UPDATE ac_list_users
	    SET data = data || jsonb_build_object('name', 'user ' || id)
	    WHERE ac_list_id = (SELECT ac_list_id FROM ac_campaigns WHERE id = $campaign)
	SQL
	return $campaign;
}

# The list user who comes first in the campaign's list.
sub first_user
{
	my $campaign = shift;
	return sql($node, <<~SQL);
	    SELECT min(id)
	    FROM ac_list_users
	    WHERE ac_list_id = (SELECT ac_list_id FROM ac_campaigns WHERE id = $campaign)
	SQL
}

# Before the campaign is sent.
my $campaign = personal(users => 5);
my $before = application();
my $job = send_test($campaign, ' 00 1 555-999-0000 ');
cmp_ok($job, '<', 0, 'the run of a test has a negative number');
is_deeply(
	[ bodies_to($author) ],
	["Hi user 1: https://example.org/survey?yu=1&yc=$campaign"],
	"the author gets the first recipient's message");
is(scalar(() = $twilio->ledger), 1, 'nothing else is sent');
is(application(), $before, 'nothing of the application is touched');
is_deeply(
	run_row($node, $job),
	{
		state => 'completed',
		total => 1,
		sent => 1,
		failed => 0,
		skipped => 0,
		in_doubt => 0,
		error => ''
	},
	'the run of the test');
is( sql($node, "SELECT list_user_id, phone, status FROM sendcampaign.message WHERE job_id = $job"),
	"1|$author|sent",
	'the message of the test');
isnt(send_test($campaign), $job, 'another test is another run');
is(sql($node, <<~'SQL'), 0, 'nothing is left over');
    SELECT (SELECT count(*) FROM sendcampaign.batch) + (SELECT count(*) FROM sendcampaign.claim)
SQL

# The campaign after that, and a test while it is sent and afterwards.
$twilio->set(reset => 1);
my $real = start_campaign($node, $campaign);
sent_once($node, $twilio, $campaign, $real, 'sent after tests', total => 5);
$before = application();
send_test($campaign);
is(application(), $before, 'a test after the campaign was sent touches nothing');
is(scalar(bodies_to($author)), 1, 'and it is sent');
$campaign = personal(users => 3000);
$twilio->set(reset => 1, hold => 1);
$real = start_campaign($node, $campaign);
wait_for_flight($twilio, 5);
$job = start_test($campaign);
$twilio->set(hold => 0);
is(wait_for_run($node, $job)->{sent}, 1, 'a test is sent while the campaign is');
is(wait_for_run($node, $real)->{sent}, 3000, 'the campaign is sent all the same');
is(scalar(bodies_to($author)), 1, 'the author gets one message');
is((grep { $_ != 1 } values %{ $twilio->count_by_phone }), 0, 'so do all others');
is(sql($node, <<~SQL), 3005, 'each list user is counted once');
    SELECT count(*)
    FROM ac_list_users
    WHERE data->>'sentCount' = '1' AND data->>'sms' IS DISTINCT FROM '$LocalTwilio::COMPANION'
SQL

# Rolled back, in a subtransaction, in a read-only transaction, with NULLs.
$twilio->set(reset => 1);
my $runs = sql($node, 'SELECT count(*) FROM sendcampaign.run');
sql($node, <<~SQL, role => 'app');
    BEGIN;
    SELECT sendcampaign.send_test($campaign, '$author');
    ROLLBACK;

    BEGIN;
    SAVEPOINT s;
    SELECT sendcampaign.send_test($campaign, '$author');
    ROLLBACK TO s;
    COMMIT;
SQL
is(sql($node, 'SELECT count(*) FROM sendcampaign.run'), $runs, 'rolled back there is no run');
wait_for_no_worker($node);
is($twilio->stats->{create_requests}, 0, 'nothing is sent');
my $error =
  sql_error($node, "BEGIN READ ONLY; SELECT sendcampaign.send_test($campaign, '$author')");
like($error->{message}, qr/read-only transaction/, 'it is refused where nothing may be written');
is(sql($node, <<~SQL), 't|t', 'there is no test of nothing, or to nobody');
    SELECT sendcampaign.send_test(NULL, '$author') IS NULL,
        sendcampaign.send_test($campaign, NULL) IS NULL
SQL

# Errors: what is wrong, the campaign, the phone, the error.
my $empty = create_campaign($node, users => 0);
my $missing = create_campaign($node, users => 2, message => 'Hi {{name}}');
my @errors = (
	[ 'a bad phone', $campaign, '5551234', qr/^22023 phone number is not in E.164 form/ ],
	[ 'an empty phone', $campaign, '', qr/^22023 phone number/ ],
	[ 'SQL', $campaign, "''; --", qr/^22023 phone number/ ],
	[ 'an empty list', $empty, $author, qr/^55000 list \d+ has no users/ ],
	[
		'the first recipient is skipped',
		$missing, $author, qr/^55000 cannot send a test message: no value for "name"/
	],
	[ 'no campaign', 4242, $author, qr/campaign 4242 does not exist/ ]);
for my $case (@errors)
{
	my ($what, $id, $phone, $expected) = @$case;
	$error = error_of_test($id, $phone);
	like("$error->{sqlstate} $error->{message}", $expected, "the error for: $what");
}
is($twilio->stats->{create_requests}, 0, 'no error sends anything');

# It is the author's: quiet hours and phone of the first recipient do not matter.
my $first = first_user($campaign);
sql($node, "UPDATE ac_list_users SET data = data - 'sms' WHERE id = $first", role => 'app');
my $whole_day = '{"quietHours": {"from": "00:00", "to": "23:59:59"}, "timeZone": "UTC"}';
configure($node, $campaign, "configuration || '$whole_day'");
is(run_row($node, send_test($campaign))->{sent},
	1, 'a test is sent at night, and where the first recipient has no phone');

# Twilio refuses it.
$twilio->set('to-fault' => "$author=code:21614");
$before = application();
$job = send_test($campaign);
is(run_row($node, $job)->{failed}, 1, 'a test that Twilio refuses has failed');
like(run_row($node, $job)->{error}, qr/21614/, 'the run says why');
is(application(), $before, 'nothing of the application is touched');
$twilio->set('to-fault' => "$author=none");

# A crash in the middle: exactly one message.
SKIP:
{
	skip 'the library is built without debug points', 1 if !$ENV{SENDCAMPAIGN_DEBUG_POINTS};
	for my $point (1 .. 4)
	{
		my $session = Session->open($node);
		$twilio->set('reset' => 1);
		$before = application();
		$session->query("SELECT pg_advisory_lock(5005, $point)");
		$job = start_test($campaign);
		wait_until($node, <<~SQL);
		    SELECT count(*) > 0
		    FROM pg_locks
		    WHERE locktype = 'advisory' AND classid = 5005 AND objid = $point AND NOT granted
		SQL
		kill_worker($node);
		eval { $session->close };
		wait_until($node, 'SELECT sendcampaign.wake() >= 0');

		# Only a later message proves that this one was not taken; an error in
		# sending it does not matter.
		for (1 .. 60)
		{
			last if poll(sub { run_row($node, $job)->{state} eq 'completed' }, 2);
			error_of_test($campaign, $LocalTwilio::COMPANION);
		}
		is(run_row($node, $job)->{sent}, 1, "killed at point $point: the test is sent");
		is(scalar(bodies_to($author)), 1, "killed at point $point: it is sent once");
		is(application(), $before,
			"killed at point $point: nothing of the application is touched");
	}
}

# Each of the runs says sent, with an SID of its own, or that it cannot tell.
sub each_its_own
{
	my ($name, @jobs) = @_;
	my $jobs = join ',', @jobs;
	my $rows = sql($node, <<~SQL);
	    SELECT status, sid FROM sendcampaign.message WHERE job_id IN ($jobs) ORDER BY sid
	SQL
	my @sids = sort map { $_->{sid} } grep { $_->{body} ne 'Others' } $twilio->ledger;
	my $all_sent = join "\n", map { "sent|$_" } @sids;
	ok($rows =~ /in_doubt/ || (@sids == 2 && $rows eq $all_sent), $name)
	  or diag("$rows; accepted: @sids");
}

# In doubt, together with the first recipient's message, which has the same link.
for my $phone ($author, '+15550000001')
{
	my $what = $phone eq $author ? 'to another phone' : "to the first recipient's phone";
	for my $first_is_test (0, 1)
	{
		my $first = $first_is_test ? 'the test' : 'the real one';
		my $id = personal(users => 1);
		my @calls = ("send_campaign($id)", "sendcampaign.send_test($id, '$phone')");
		@calls = reverse @calls if $first_is_test;
		my @jobs;

		# Both are in doubt at once, and one was taken.
		$twilio->set('reset' => 1, 'fault:drop-after' => '#1', 'fault:drop-before' => '#1');
		@jobs = split /\|/, sql($node, "SELECT $calls[0], $calls[1]", role => 'app');
		wait_for_run($node, $_) for @jobs;
		each_its_own("$what, both in doubt, first $first", @jobs);

		# The first one was not taken, and the other one is under way when it is
		# looked up.  Good answers let more requests be in flight at once.
		set_and_reload($node, 'sendcampaign.request_timeout', '3s');
		$twilio->set('reset' => 1, 'fault:drop-before' => '#1');
		@jobs = sql($node, "SELECT $calls[0]", role => 'app');
		poll(sub { $twilio->stats->{faults}{'drop-before'} });
		my $others = create_campaign($node, users => 10, message => 'Others', base_url => undef);
		run_campaign($node, $others);
		$twilio->set('hold' => 1, 'hold-after' => 1);
		push @jobs, sql($node, "SELECT $calls[1]", role => 'app');
		poll(sub { $twilio->stats->{lists} });
		$twilio->set('hold' => 0, 'hold-after' => 0);
		wait_for_run($node, $_) for @jobs;
		each_its_own("$what, $first looked up while the other is under way", @jobs);
		set_and_reload($node, 'sendcampaign.request_timeout', '1s');
	}

	# The real one is known already, or has been sent and is looked up by the test.
	my $id = personal(users => 1);
	$twilio->set('reset' => 1);
	run_campaign($node, $id);
	$twilio->set('fault:drop-before' => '#1');
	send_test($id, $phone);
	is(scalar(() = $twilio->ledger), 2, "$what: the real one is not taken for the test");
	$twilio->set('fault:drop-before' => '#1');
	run_campaign($node, $id);
	is(scalar(() = $twilio->ledger), 3, "$what: the test is not taken for the real one");
	is(sql($node, <<~SQL), 3, "$what: each has its SID");
	    SELECT count(DISTINCT sid)
	    FROM sendcampaign.message m JOIN sendcampaign.run r USING (job_id)
	    WHERE campaign_id = $id
	SQL
}

# A test that is settled by hand is not counted either.
$twilio->set('reset' => 1, 'fault:drop-after' => '#1', 'fault:list-403' => '#1');
$before = application();
$job = send_test($campaign);
is(run_row($node, $job)->{in_doubt}, 1, 'a test is in doubt');
$first = first_user($campaign);
sql($node, "SELECT sendcampaign.settle($job, $first, true)", role => 'app');
is(run_row($node, $job)->{sent}, 1, 'settled by hand it is sent');
is(application(), $before, 'settled by hand: nothing of the application is touched');

# A test that a backup does not know of is not taken for the message of the first
# recipient, who still sleeps.
{
	my $id = personal(users => 2);
	my $newest_group = 'id = (SELECT max(id) FROM groups)';
	$twilio->set('reset' => 1);
	sql($node, <<~SQL);
	    UPDATE groups
	    SET configuration = configuration || jsonb_build_object(
	        'timeZone', 'UTC',
	        'quietHours', jsonb_build_object(
	            'from', to_char(now() AT TIME ZONE 'UTC' - interval '1 hour', 'HH24:MI'),
	            'to', to_char(now() AT TIME ZONE 'UTC' + interval '1 hour', 'HH24:MI')))
	    WHERE $newest_group
	SQL
	$real = start_campaign($node, $id);
	my $run_id = run_of($real);
	wait_until($node, "SELECT next_at IS NOT NULL FROM sendcampaign.run WHERE job_id = $real");
	wait_for_no_worker($node);
	$node->backup('backup');
	send_test($id);
	$node->stop;
	my $restored = PostgreSQL::Test::Cluster->new('backup');
	$restored->init_from_backup($node, 'backup');
	$restored->start;
	sql($restored, <<~SQL);
	    UPDATE groups SET configuration = configuration - 'quietHours' WHERE $newest_group;
	    UPDATE sendcampaign.batch SET due = now() WHERE run_id = $run_id;
	    UPDATE sendcampaign.run SET next_at = now() WHERE job_id = $real;
	    SELECT sendcampaign.wake();
	SQL
	wait_for_run($restored, $real);
	my $status = sql($restored, <<~SQL);
	    SELECT status
	    FROM sendcampaign.message
	    WHERE job_id = $real
	    ORDER BY list_user_id
	    LIMIT 1
	SQL
	is(scalar(bodies_to($author)), 1, 'read back: the test is not sent again');
	is(scalar(bodies_to('+15550000002')), 1, 'read back: the second recipient has the message');
	ok( bodies_to('+15550000001') == 1 || $status eq 'in_doubt',
		'read back: the test is not taken for the real one');
	$restored->stop;
}
done_testing();
