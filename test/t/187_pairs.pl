# Features that meet in the same moment: doubt, lost commits, and what people
# do to the runs meanwhile.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../perl";
use Campaign;
use LocalTwilio;
use Test::More;

my $twilio = LocalTwilio->start;
my $node = new_cluster('pairs', $twilio, conf => <<~'CONF');
	sendcampaign.receipts = off
	sendcampaign.request_timeout = '2s'
	sendcampaign.lookup_delay = 0
	sendcampaign.lookup_timeout = '20s'
	CONF
$twilio->{has_companion} = 1;

# The statuses of a job's messages, in the order of its list users
sub status_of
{
	my $job = shift;
	return sql($node, <<~SQL);
		SELECT coalesce(string_agg(status, ' ' ORDER BY list_user_id), 'none')
		FROM sendcampaign.message
		WHERE schema = 'public' AND job_id = $job
		SQL
}

# Calls a function of the extension as the role "app".
sub call
{
	my $call = shift;
	return sql($node, "SELECT sendcampaign.$call", role => 'app');
}

# A run is forgotten, and the campaign is sent again; what is in doubt then is
# not taken for what the forgotten run has sent.
my %forget = (
	forget => 'forget(now()) > 0',
	forget_recipient => q{forget_recipient('+15550007001') > 0});
for my $how ('forget', 'forget_recipient')
{
	my $campaign = create_campaign(
		$node,
		users => 1,
		message => $how,
		phone => '+15550007001',
		base_url => "https://example.org/$how");
	$twilio->set(reset => 1, 'clock-skew' => -60);
	is(run_campaign($node, $campaign)->{sent}, 1, "$how(): the first run has sent");
	wait_for_no_worker($node);
	is(call($forget{$how}), 't', "$how(): it is forgotten");
	$twilio->set(
		'clock-skew' => 0,
		'fault:drop-before' => '#1',
		'to-fault' => "$LocalTwilio::COMPANION=spared");
	my $second = run_campaign($node, $campaign)->{job};
	my $accepted = sent_with($twilio, $how);
	my $status = status_of($second);
	like(
		"$accepted accepted, $status",
		qr/^(2 accepted, sent|1 accepted, in_doubt)$/,
		"$how(): the second run's message is not taken for an earlier one");
}

# After lost commits, one of a batch is known to be sent, and the other is
# skipped: nothing is claimed any more.
{
	my $campaign = create_campaign(
		$node,
		users => 2,
		message => 'Claim',
		base_url => 'https://example.org/claim');
	$twilio->set(reset => 1);
	sql($node, <<~'SQL', role => 'app');
		UPDATE ac_list_users
		SET data = data || '{"sms": "none"}'
		WHERE id = (SELECT max(id) FROM ac_list_users)
		SQL
	my $run = run_campaign($node, $campaign);
	my $job = $run->{job};
	my $id = run_of($job);
	is($run->{sent}, 1, 'one is sent to, one is skipped');
	wait_for_no_worker($node);
	sql($node, "UPDATE sendcampaign.run_data SET skipped = skipped - 1 WHERE id = $id");
	lose_commits($node, $job, 2);
	is(status_of($job), 'sent skipped', 'the same is known after lost commits');
	is(sent_with($twilio, 'Claim'), 1, '... and Twilio has one');
	is(sql($node, "SELECT count(*) FROM sendcampaign.claim WHERE run_id = $id"),
		0, '... and nothing is claimed');
}

# The number has changed since what was lost was sent: a person says that the
# new one has nothing, and has it sent.
{
	my $campaign = create_campaign(
		$node,
		users => 1,
		message => 'Moved',
		phone => '+15550007003',
		base_url => 'https://example.org/moved');
	$twilio->set(reset => 1);
	my $job = run_campaign($node, $campaign)->{job};
	wait_for_no_worker($node);
	sql($node, <<~'SQL', role => 'app');
		UPDATE ac_list_users
		SET data = data || '{"sms": "+15550007004"}'
		WHERE data->>'sms' = '+15550007003'
		SQL
	lose_commits($node, $job, 1);
	is(status_of($job), 'in_doubt', 'what may have gone to another number is in doubt');
	wait_for_no_worker($node);
	sql($node, <<~SQL, role => 'app');
		SELECT sendcampaign.settle(m.job_id, m.list_user_id, false)
		FROM sendcampaign.message m
		WHERE m.job_id = $job
		SQL
	call("retry_failed($job)");
	wait_for_run($node, $job);
	is(status_of($job), 'sent', '... settled as not sent and tried again: it is sent')
	  or diag(sql($node, "SELECT error_message FROM sendcampaign.message WHERE job_id = $job"));
}

# Runs statements as a tenant.
sub as_tenant
{
	my ($tenant, $statements) = @_;
	return sql($node, "SET sendcampaign.schema = $tenant; $statements", role => $tenant);
}

# The state of a tenant's run, and how many are sent, skipped and in doubt
sub state_of
{
	my $tenant = shift;
	return sql($node, <<~SQL);
		SELECT state || ' ' || sent || ' ' || skipped || ' ' || in_doubt
		FROM sendcampaign.run
		WHERE schema = '$tenant'
		SQL
}

sub has_ended
{
	my $tenant = shift;
	return sql($node,
		"SELECT finished_at IS NOT NULL FROM sendcampaign.run WHERE schema = '$tenant'") eq 't';
}

# How many claims a tenant's run has
sub claims_of
{
	my $tenant = shift;
	return sql($node, <<~SQL);
		SELECT count(*)
		FROM sendcampaign.claim c
		JOIN sendcampaign.run r ON r.id = c.run_id
		WHERE r.schema = '$tenant'
		SQL
}

# After lost commits a message is found that waits for what becomes of another
# run's, and then its run is cancelled.
for my $case (['cancel'], [ 'pause', 'cancel' ], [ 'pause', 'resume' ])
{
	my $what = join '', @$case;
	my ($first, $second) = ("east$what", "west$what");
	make_tenant($node, $_, message => "From $_", base_url => "https://example.org/$what")
	  for $first, $second;
	$twilio->set(reset => 1, 'clock-skew' => -7000);
	my $job = as_tenant($first, 'SELECT send_campaign(1)');
	poll(sub { state_of($first) =~ /completed/ });
	wait_for_no_worker($node);
	sql($node, <<~SQL);
		UPDATE sendcampaign.run_data
		SET queued_at = queued_at - interval '2 hours',
		    started_at = started_at - interval '2 hours'
		WHERE schema = '$first'
		SQL
	$twilio->set('clock-skew' => 0);

	# the other one's request is held, and its outcome not known
	my $lock_session = $node->background_psql('postgres');
	$lock_session->query_safe("BEGIN; SELECT FROM $second.ac_list_users FOR UPDATE;");
	$twilio->set('fault:drop-before' => '#1', 'to-fault' => "$LocalTwilio::COMPANION=spared");
	my $second_job = as_tenant($second, 'SELECT send_campaign(1)');
	poll(sub { $twilio->stats->{faults}{'drop-before'} });
	sql($node, <<~'SQL');
		SELECT pg_terminate_backend(pid)
		FROM pg_stat_activity
		WHERE backend_type = 'sendcampaign worker'
		SQL
	wait_for_no_worker($node);

	# the first one's commits are lost
	my $run = sql($node, "SELECT id FROM sendcampaign.run WHERE schema = '$first'");
	sql($node, <<~SQL);
		UPDATE sendcampaign.run_data
		SET sent = 0, state = 'running', finished_at = NULL, timeline = '0/0'
		WHERE id = $run;
		INSERT INTO sendcampaign.batch (run_id, number, list_user_ids)
		SELECT run_id, 1, ARRAY[list_user_id]
		FROM sendcampaign.message_data
		WHERE run_id = $run;
		DELETE FROM sendcampaign.message_data WHERE run_id = $run;
		SQL
	as_tenant($second, "SELECT sendcampaign.pause($second_job)");
	sql($node, 'SELECT sendcampaign.wake()');
	poll(sub { claims_of($first) == 1 }) or diag('not claimed');
	my $lists = $twilio->stats->{lists};
	poll(sub { $twilio->stats->{lists} > $lists }) or diag('not looked up');
	poll(sub { $twilio->stats->{lists} > $lists + 1 }) or diag('not looked up again');

	for my $order (@$case)
	{
		as_tenant($first, "SELECT sendcampaign.$order($job)");
		wait_for_no_worker($node) if $order eq 'pause';
	}
	poll(sub { state_of($first) =~ /completed|cancelled/ && has_ended($first) }) or diag('no end');
	isnt(sql($node, "SELECT status FROM sendcampaign.message WHERE schema = '$first'"),
		'skipped', "$what: a message that Twilio has is not skipped")
	  or diag(state_of($first));
	is($twilio->stats->{accepted}, 1, "$what: ... and it has it once");
	$lock_session->quit;
	as_tenant($second, "SELECT sendcampaign.cancel($second_job)");
	poll(sub { has_ended($second) }) or diag('no end');
}
$node->stop;
done_testing();
