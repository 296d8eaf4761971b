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
my $node = new_cluster('send_test', $twilio, init => { allows_streaming => 1 }, conf => qq{
	restart_after_crash = on
	sendcampaign.request_timeout = '1s'
	sendcampaign.lookup_delay = '100ms'
});

# Calls it and waits for its end; returns the number of its run.
sub send_test
{
	my ($campaign, $phone) = @_;
	my $job = $node->safe_psql('postgres', "SET ROLE app; SELECT sendcampaign.send_test($campaign, '" . ($phone || $author) . "')");
	wait_for_run($node, $job);
	return $job;
}

sub bodies_to { my $phone = shift; return map { $_->{body} } grep { $_->{to} eq $phone } $twilio->ledger; }

# All that it must leave as it is.
sub application
{
	return $node->safe_psql('postgres', q{SELECT md5(string_agg(t, '' ORDER BY t)) FROM (SELECT u::text || ctid || xmin FROM ac_list_users u
		UNION ALL SELECT j::text || ctid || xmin FROM ac_background_jobs j UNION ALL SELECT c::text FROM ac_campaigns c
		UNION ALL SELECT r::text FROM sendcampaign.run r WHERE job_id > 0 UNION ALL SELECT m::text FROM sendcampaign.message m WHERE job_id > 0) x(t)});
}

sub personal
{
	my $campaign = create_campaign($node, message => 'Hi {{name}}: {{link}}', @_);
	$node->safe_psql('postgres', qq{UPDATE ac_list_users SET data = data || jsonb_build_object('name', 'user ' || id)
		WHERE ac_list_id = (SELECT ac_list_id FROM ac_campaigns WHERE id = $campaign)});
	return $campaign;
}

sub first_user { return $node->safe_psql('postgres', "SELECT min(id) FROM ac_list_users WHERE ac_list_id = (SELECT ac_list_id FROM ac_campaigns WHERE id = $_[0])"); }

# before the campaign is sent
my $campaign = personal(users => 5);
my $before = application();
my $job = send_test($campaign, ' 00 1 555-999-0000 ');
cmp_ok($job, '<', 0, 'its run has a negative number');
is_deeply([ bodies_to($author) ], ["Hi user 1: https://example.org/survey?yu=1&yc=$campaign"], "the first recipient's message");
is(scalar(() = $twilio->ledger), 1, 'and nothing else');
is(application(), $before, 'nothing of the application is touched');
is_deeply(run_row($node, $job), { state => 'completed', total => 1, sent => 1, failed => 0, skipped => 0, in_doubt => 0, error => '' }, 'its run');
is($node->safe_psql('postgres', "SELECT list_user_id, phone, status FROM sendcampaign.message WHERE job_id = $job"), "1|$author|sent", 'its message');
isnt(send_test($campaign), $job, 'another one is another run');
is($node->safe_psql('postgres', 'SELECT count(*) FROM sendcampaign.batch') + $node->safe_psql('postgres', 'SELECT count(*) FROM sendcampaign.claim'), 0, 'nothing is left over');

# the campaign afterwards, and a test while and after it is sent
$twilio->set(reset => 1);
my $real = start_campaign($node, $campaign);
sent_once($node, $twilio, $campaign, $real, 'sent after tests', total => 5);
$before = application();
send_test($campaign);
is(application(), $before, 'a test after it was sent: nothing is touched');
is(scalar(bodies_to($author)), 1, 'and it is sent');
$campaign = personal(users => 3000);
$twilio->set(reset => 1, hold => 1);
$real = start_campaign($node, $campaign);
wait_for_flight($twilio, 5);
$job = $node->safe_psql('postgres', "SET ROLE app; SELECT sendcampaign.send_test($campaign, '$author')");
$twilio->set(hold => 0);
is(wait_for_run($node, $job)->{sent}, 1, 'a test while it is sent');
is(wait_for_run($node, $real)->{sent}, 3000, 'the campaign is sent all the same');
is(scalar(bodies_to($author)), 1, 'the test once');
is((grep { $_ != 1 } values %{ $twilio->count_by_phone }), 0, 'all others, too');
is($node->safe_psql('postgres', "SELECT count(*) FROM ac_list_users WHERE data->>'sentCount' = '1' AND data->>'sms' IS DISTINCT FROM '+18885550000'"), 3005, 'and counted once');

# rolled back, in a subtransaction, prepared or read-only
$twilio->set(reset => 1);
my $runs = $node->safe_psql('postgres', 'SELECT count(*) FROM sendcampaign.run');
$node->safe_psql('postgres', "SET ROLE app; BEGIN; SELECT sendcampaign.send_test($campaign, '$author'); ROLLBACK;
	BEGIN; SAVEPOINT s; SELECT sendcampaign.send_test($campaign, '$author'); ROLLBACK TO s; COMMIT");
is($node->safe_psql('postgres', 'SELECT count(*) FROM sendcampaign.run'), $runs, 'rolled back: no run');
wait_for_no_worker($node);
is($twilio->stats->{create_requests}, 0, 'nothing is sent');
like(sql_error($node, "BEGIN READ ONLY; SELECT sendcampaign.send_test($campaign, '$author')")->{message}, qr/read-only transaction/, 'it is refused where nothing may be written');
is($node->safe_psql('postgres', "SELECT sendcampaign.send_test(NULL, '$author') IS NULL, sendcampaign.send_test($campaign, NULL) IS NULL"), 't|t', 'of nothing, or to nobody: nothing');

# errors
my $empty = create_campaign($node, users => 0);
my $missing = create_campaign($node, users => 2, message => 'Hi {{name}}');
for my $case ([ 'a bad phone', $campaign, '5551234', qr/^22023 phone number is not in E.164 form/ ],
	[ 'an empty phone', $campaign, '', qr/^22023 phone number/ ], [ 'SQL', $campaign, "''; --", qr/^22023 phone number/ ],
	[ 'an empty list', $empty, $author, qr/^55000 list \d+ has no users/ ],
	[ 'the first recipient is skipped', $missing, $author, qr/^55000 there is no test message: no value for "name"/ ],
	[ 'no campaign', 4242, $author, qr/campaign 4242 does not exist/ ])
{
	my ($what, $id, $phone, $expected) = @$case;
	my $error = sql_error($node, "SET ROLE app; SELECT sendcampaign.send_test($id, '$phone')");
	like("$error->{sqlstate} $error->{message}", $expected, "error: $what");
}
is($twilio->stats->{create_requests}, 0, 'no error sends anything');

# it is the author's: no quiet hours or phone of the first recipient matters
$node->safe_psql('postgres', qq{SET ROLE app;
	UPDATE ac_list_users SET data = data - 'sms' WHERE id = } . first_user($campaign));
$node->safe_psql('postgres', q{UPDATE groups SET configuration = configuration || '{"quietHours": {"from": "00:00", "to": "23:59:59"}, "timeZone": "UTC"}'
	WHERE id = (SELECT max(id) - 2 FROM groups)});
is(run_row($node, send_test($campaign))->{sent}, 1, 'at night, to a recipient without a phone: it is a test');

# refused
$twilio->set('to-fault' => "$author=code:21614");
$before = application();
$job = send_test($campaign);
is(run_row($node, $job)->{failed}, 1, 'refused by Twilio: failed');
like(run_row($node, $job)->{error}, qr/21614/, 'and why');
is(application(), $before, 'nothing of the application is touched');
$twilio->set('to-fault' => "$author=none");

# a crash in the middle: exactly one
SKIP:
{
	skip 'the library is built without debug points', 1 if !$ENV{SENDCAMPAIGN_DEBUG_POINTS};
	for my $point (1 .. 4)
	{
		my $session = Session->open($node);
		$twilio->set('reset' => 1);
		$before = application();
		$session->query("SELECT pg_advisory_lock(5005, $point)");
		$job = $node->safe_psql('postgres', "SET ROLE app; SELECT sendcampaign.send_test($campaign, '$author')");
		$node->poll_query_until('postgres', qq{SELECT count(*) > 0 FROM pg_locks
			WHERE locktype = 'advisory' AND classid = 5005 AND objid = $point AND NOT granted});
		kill_worker($node);
		eval { $session->close };
		$node->poll_query_until('postgres', 'SELECT sendcampaign.wake() >= 0');
		# another test is what it may be proven by that this one was not taken
		for (1 .. 60)
		{
			last if poll(sub { run_row($node, $job)->{state} eq 'completed' }, 2);
			$node->psql('postgres', "SET ROLE app; SELECT sendcampaign.send_test($campaign, '$LocalTwilio::COMPANION')");
		}
		is(run_row($node, $job)->{sent}, 1, "killed at point $point: sent");
		is(scalar(bodies_to($author)), 1, "killed at point $point: once");
		is(application(), $before, "killed at point $point: nothing of the application is touched");
	}
}

# Each of the runs says sent, with an SID of its own, or that it cannot tell.
sub each_its_own
{
	my ($name, @jobs) = @_;
	my $rows = $node->safe_psql('postgres', 'SELECT status, sid FROM sendcampaign.message WHERE job_id IN (' . join(',', @jobs) . ') ORDER BY sid');
	my @sids = sort map { $_->{sid} } grep { $_->{body} ne 'Others' } $twilio->ledger;
	ok($rows =~ /in_doubt/ || (@sids == 2 && $rows eq join("\n", map { "sent|$_" } @sids)), $name) or diag("$rows; accepted: @sids");
}

# In doubt, together with the first recipient's message, which has the same link.
for my $phone ($author, '+15550000001')
{
	my $what = $phone eq $author ? 'to another phone' : "to the first recipient's phone";
	for my $order ([ 'the real one', 'send_campaign', 'send_test' ], [ 'the test', 'send_test', 'send_campaign' ])
	{
		my $id = personal(users => 1);
		my %call = (send_test => "sendcampaign.send_test($id, '$phone')", send_campaign => "send_campaign($id)");
		my @sids;
		my @jobs;

		# both in doubt at once, and one was taken
		$twilio->set('reset' => 1, 'fault:drop-after' => '#1', 'fault:drop-before' => '#1');
		@jobs = split /\|/, $node->safe_psql('postgres', "SET ROLE app; SELECT $call{$order->[1]}, $call{$order->[2]}");
		wait_for_run($node, $_) for @jobs;
		each_its_own("$what, both in doubt, first $order->[0]", @jobs);

		# the first one was not taken, and the other one is under way when it is looked up
		set_and_reload($node, 'sendcampaign.request_timeout', '3s');
		$twilio->set('reset' => 1, 'fault:drop-before' => '#1');
		@jobs = $node->safe_psql('postgres', "SET ROLE app; SELECT $call{$order->[1]}");
		poll(sub { $twilio->stats->{faults}{'drop-before'} });
		# good answers let more requests be in flight at once
		wait_for_run($node, start_campaign($node, create_campaign($node, users => 10, message => 'Others', base_url => undef)));
		$twilio->set('hold' => 1, 'hold-after' => 1);
		push @jobs, $node->safe_psql('postgres', "SET ROLE app; SELECT $call{$order->[2]}");
		poll(sub { $twilio->stats->{lists} });
		$twilio->set('hold' => 0, 'hold-after' => 0);
		wait_for_run($node, $_) for @jobs;
		each_its_own("$what, $order->[0] looked up while the other is under way", @jobs);
		set_and_reload($node, 'sendcampaign.request_timeout', '1s');
	}

	# the real one is known already, or has been sent and is looked up by the test
	my $id = personal(users => 1);
	$twilio->set('reset' => 1);
	$real = start_campaign($node, $id);
	wait_for_run($node, $real);
	$twilio->set('fault:drop-before' => '#1');
	$job = send_test($id, $phone);
	is(scalar(() = $twilio->ledger), 2, "$what: the real one is not taken for the test");
	$twilio->set('fault:drop-before' => '#1');
	$real = start_campaign($node, $id);
	wait_for_run($node, $real);
	is(scalar(() = $twilio->ledger), 3, "$what: the test is not taken for the real one");
	is($node->safe_psql('postgres', "SELECT count(DISTINCT sid) FROM sendcampaign.message m JOIN sendcampaign.run r USING (job_id) WHERE campaign_id = $id"),
		3, "$what: each has its SID");
}

# settled by hand: not counted either
$twilio->set('reset' => 1, 'fault:drop-after' => '#1', 'fault:list-403' => '#1');
$before = application();
$job = send_test($campaign);
is(run_row($node, $job)->{in_doubt}, 1, 'a test in doubt');
$node->safe_psql('postgres', 'SET ROLE app; SELECT sendcampaign.settle(' . $job . ', ' . first_user($campaign) . ', true)');
is(run_row($node, $job)->{sent}, 1, 'settled by hand');
is(application(), $before, 'settled by hand: nothing of the application is touched');

# A test that a backup does not know of: it is not taken for the message of the
# first recipient, who sleeps still.
{
	my $id = personal(users => 2);
	my $group = 'id = (SELECT max(id) FROM groups)';
	$twilio->set('reset' => 1);
	$node->safe_psql('postgres', qq{UPDATE groups SET configuration = configuration || jsonb_build_object('timeZone', 'UTC', 'quietHours', jsonb_build_object(
		'from', to_char(now() AT TIME ZONE 'UTC' - interval '1 hour', 'HH24:MI'), 'to', to_char(now() AT TIME ZONE 'UTC' + interval '1 hour', 'HH24:MI'))) WHERE $group});
	$real = start_campaign($node, $id);
	$node->poll_query_until('postgres', "SELECT next_at IS NOT NULL FROM sendcampaign.run WHERE job_id = $real");
	wait_for_no_worker($node);
	$node->backup('backup');
	send_test($id);
	$node->stop;
	my $restored = PostgreSQL::Test::Cluster->new('backup');
	$restored->init_from_backup($node, 'backup');
	$restored->start;
	$restored->safe_psql('postgres', qq{UPDATE groups SET configuration = configuration - 'quietHours' WHERE $group;
		UPDATE sendcampaign.batch SET due = now() WHERE run_id = ${\ run_of($real)}; UPDATE sendcampaign.run SET next_at = now() WHERE job_id = $real;
		SELECT sendcampaign.wake()});
	wait_for_run($restored, $real);
	is(scalar(bodies_to($author)), 1, 'read back: the test is not sent again');
	is(scalar(bodies_to('+15550000002')), 1, 'read back: the second recipient has the message');
	ok(bodies_to('+15550000001') == 1 || $restored->safe_psql('postgres',
		"SELECT status FROM sendcampaign.message WHERE job_id = $real ORDER BY list_user_id LIMIT 1") eq 'in_doubt',
		'read back: the test is not taken for the real one');
	$restored->stop;
}
done_testing();
