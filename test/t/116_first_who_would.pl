# Of list users with the same phone the first one who would get the message
# gets it, whatever becomes of those before.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../perl";
use Campaign;
use LocalTwilio;
use PostgreSQL::Test::Utils;
use Test::More;

my $twilio = LocalTwilio->start;
my $node = new_cluster(
	'first', $twilio,
	init => { extra => [ '--encoding=UTF8', '--locale=C' ] },
	conf => "restart_after_crash = on\n");

# List users as pairs of phone and name, undef for none; these have the same phone.
my @ann = ('+15550000001', 'Ann');
my @no_name = ('+1 555 000 0001', undef);

# So many list users called "x" whose phones begin so.
sub others
{
	my ($prefix, $n) = @_;
	return map { [ sprintf('%s%07d', $prefix, $_), 'x' ] } 1 .. $n;
}

# A campaign to these, pairs as above.
sub campaign_to
{
	my @users = @_;
	my $campaign = create_campaign($node, users => scalar @users, message => 'Hi {{name}}');
	my $list = list_of($campaign);
	my $n = 0;
	my @rows;
	for my $user (@users)
	{
		my ($phone, $name) = map { defined $_ ? Campaign::quoted($_) : 'NULL::text' } @$user;
		$n++;
		push @rows, "($n, $phone, $name)";
	}
	my $rows = join ', ', @rows;
	sql($node, <<~SQL);
		WITH numbered AS (
		    SELECT id, row_number() OVER (ORDER BY id) AS n
		    FROM ac_list_users
		    WHERE ac_list_id = $list
		)
		UPDATE ac_list_users u
		SET data = jsonb_build_object('sms', v.phone, 'name', v.name)
		FROM (VALUES $rows) v (n, phone, name)
		JOIN numbered USING (n)
		WHERE u.id = numbered.id
		SQL
	return $campaign;
}

# Reasons without what follows "duplicate" and "no value".
sub shorten
{
	my @reasons = @_;
	for my $reason (@reasons)
	{
		$reason =~ s/duplicate: .*/duplicate/;
		$reason =~ s/no value.*/no value/;
	}
	return @reasons;
}

# What became of each list user: a status, or why it was skipped.
sub outcomes
{
	my $job = shift;
	my $outcomes = sql($node, <<~SQL);
		SELECT CASE status WHEN 'skipped' THEN error_message ELSE status END
		FROM sendcampaign.message
		WHERE job_id = $job
		ORDER BY list_user_id
		SQL
	return shorten(split /\n/, $outcomes);
}

# The same as preview() has it.
sub previewed
{
	my $campaign = shift;
	my $outcomes = sql($node, <<~SQL);
		SELECT coalesce(skipped, 'sent') FROM sendcampaign.preview($campaign, NULL)
		SQL
	return shorten(split /\n/, $outcomes);
}

# preview(), estimate() and the run say the same.
sub is_outcome
{
	my ($name, $campaign, @expected) = @_;
	my $sent = grep { $_ eq 'sent' } @expected;
	my $duplicates = grep { $_ eq 'duplicate' } @expected;
	$twilio->set(reset => 1);
	is_deeply([ previewed($campaign) ], \@expected, "$name: preview()");
	is(sql($node, "SELECT messages, duplicates FROM sendcampaign.estimate($campaign)"),
		"$sent|$duplicates", "$name: estimate()");
	my $run = run_campaign($node, $campaign);
	is_deeply([ outcomes($run->{job}) ], \@expected, "$name: the run") or diag($run->{error});
	is((grep { $_ != 1 } values %{ $twilio->count_by_phone }),
		0, "$name: one message per phone number");
}

is_outcome('no value', campaign_to(\@no_name, \@ann, \@ann), 'no value', 'sent', 'duplicate');
is_outcome(
	'no value, twice',
	campaign_to(\@no_name, \@no_name, \@ann, \@no_name, \@ann),
	'no value', 'no value', 'sent', 'no value', 'duplicate');
is_outcome('none would', campaign_to(\@no_name, \@no_name), 'no value', 'no value');
is_outcome('the last one only', campaign_to((\@no_name) x 600, \@ann), ('no value') x 600, 'sent');
is_outcome(
	'across batches',
	campaign_to(\@no_name, others('+1556', 500), \@ann, ([ '+15560000001', 'x' ]) x 3, \@ann),
	'no value',
	('sent') x 501,
	('duplicate') x 4);
sql($node, "SELECT sendcampaign.opt_out('+15550000009')", role => 'app');
is_outcome('opted out', campaign_to([ '+15550000009', 'x' ], [ '+1 555 0000009', 'x' ], \@ann),
	'opted out', 'opted out', 'sent');
{
	my $campaign = campaign_to(\@ann, \@ann, \@ann);
	sql($node, <<~SQL);
		UPDATE ac_campaigns
		SET data = data || jsonb_build_object('sendUntil', now() - interval '1 minute')
		WHERE id = $campaign
		SQL
	is_outcome('too late', $campaign, ('expired: it was to be sent before') x 3);
}

# The first fails for good: the second has the same phone.  Tried again, it is
# the first.
{
	my $campaign = campaign_to(\@no_name, \@ann, \@ann);
	$twilio->set('to-fault' => '+15550000001=code:30003');
	my $job = run_campaign($node, $campaign)->{job};
	is_deeply(
		[ outcomes($job) ],
		[ 'no value', 'failed', 'duplicate' ],
		'it fails: the others are still duplicates');
	$twilio->set('to-fault' => '+15550000001=none');
	is(sql($node, "SELECT sendcampaign.retry_failed($job)", role => 'app'),
		1, 'one message is tried again');
	wait_for_run($node, $job);
	is_deeply(
		[ outcomes($job) ],
		[ 'no value', 'sent', 'duplicate' ],
		'tried again, the same list user has it');
}

# Quiet hours: who sleeps will get it.  Who has left in the morning does not, and
# so the next one that is looked at has it.

# Now is the middle of a campaign's quiet hours.
sub begin_night
{
	my $campaign = shift;
	my $group = group_of($campaign);
	sql($node, <<~SQL);
		UPDATE groups
		SET configuration = configuration || jsonb_build_object(
		    'timeZone', 'UTC',
		    'quietHours', jsonb_build_object(
		        'from', to_char(now() AT TIME ZONE 'UTC' - interval '1 hour', 'HH24:MI'),
		        'to', to_char(now() AT TIME ZONE 'UTC' + interval '1 hour', 'HH24:MI')))
		WHERE id = $group
		SQL
}

# Waits until a run has nothing more to do before the morning.
sub fall_asleep
{
	my $job = shift;
	wait_until($node, "SELECT next_at IS NOT NULL FROM sendcampaign.run WHERE job_id = $job");
}

# The quiet hours are over; waits until the run has ended.
sub end_night
{
	my ($campaign, $job) = @_;
	my $group = group_of($campaign);
	my $run = run_of($job);
	sql($node, <<~SQL);
		UPDATE groups SET configuration = configuration - 'quietHours' WHERE id = $group;
		UPDATE sendcampaign.batch SET due = now() WHERE run_id = $run;
		UPDATE sendcampaign.run_data SET next_at = now() WHERE job_id = $job;
		SELECT sendcampaign.wake();
		SQL
	return wait_for_run($node, $job);
}

{
	my $campaign = campaign_to(\@no_name, \@ann, \@ann, [ '+15550000002', 'x' ]);
	my @expected = ('no value', 'sent', 'duplicate', 'sent');
	begin_night($campaign);
	is_deeply([ previewed($campaign) ], \@expected, 'asleep: preview()');
	$twilio->set(reset => 1);
	my $job = start_campaign($node, $campaign);
	fall_asleep($job);
	is_deeply(
		[ outcomes($job) ],
		[ 'no value', 'duplicate' ],
		'asleep: who has the same phone is a duplicate already');
	end_night($campaign, $job);
	is_deeply([ outcomes($job) ], \@expected, 'asleep: the message is sent in the morning');
}

{
	# One is asleep and leaves the list; another one, far behind, is looked at
	# after that.
	my $campaign = campaign_to(\@ann, others('+1557', 1500), \@ann);
	my $list = list_of($campaign);
	sql($node, <<~SQL);
		UPDATE ac_list_users
		SET data = data || jsonb_build_object('timeZone', 'UTC')
		WHERE ac_list_id = $list
		SQL
	begin_night($campaign);
	my $job = start_campaign($node, $campaign);
	fall_asleep($job);
	is_deeply([ outcomes($job) ], ['duplicate'], 'all are asleep: one is a duplicate');
	end_night($campaign, $job);
	my $sent = sql($node, <<~SQL);
		SELECT count(*) FROM sendcampaign.message WHERE job_id = $job AND status = 'sent'
		SQL
	is($sent, 1501, 'all are asleep: the others have it in the morning');
}

{
	# One is asleep, and has no name in the morning: who was a duplicate by then
	# stays one.
	my $campaign = campaign_to(\@ann, \@ann, [ '+15550000002', 'x' ]);
	my $list = list_of($campaign);
	begin_night($campaign);
	$twilio->set(reset => 1);
	my $job = start_campaign($node, $campaign);
	fall_asleep($job);
	is_deeply([ outcomes($job) ], ['duplicate'], 'asleep: the second one is a duplicate');
	sql($node, <<~SQL);
		UPDATE ac_list_users
		SET data = data - 'name'
		WHERE id = (SELECT min(id) FROM ac_list_users WHERE ac_list_id = $list)
		SQL
	end_night($campaign, $job);
	is_deeply(
		[ outcomes($job) ],
		[ 'no value', 'duplicate', 'sent' ],
		'asleep, and the first one has no name in the morning: nobody with that phone has it');
}

# The one that was chosen is skipped after it was put back: the next one that is
# looked at has it.
{
	my $campaign = campaign_to(\@ann, others('+1558', 5000), \@ann);
	$twilio->set(reset => 1, hold => 1);
	my $job = start_campaign($node, $campaign);
	wait_for_flight($twilio, 5);
	sql($node, "SELECT sendcampaign.pause($job)", role => 'app');
	$twilio->set(hold => 0);
	wait_for_no_worker($node);
	my ($sent, $first) = split /\|/, sql($node, <<~SQL);
		SELECT count(*), min(list_user_id) FROM sendcampaign.message WHERE job_id = $job
		SQL
	cmp_ok($sent, '<', 5000, 'the run is paused before it comes to the last list user');
	# as if the first one had been given back, and had then lost its name
	sql($node, <<~SQL);
		UPDATE sendcampaign.message_data
		SET status = 'skipped', sid = NULL
		WHERE list_user_id = $first;
		UPDATE sendcampaign.run_data
		SET sent = sent - 1, skipped = skipped + 1
		WHERE job_id = $job;
		SET ROLE app;
		SELECT sendcampaign.resume($job);
		SQL
	wait_for_run($node, $job);
	my $last = sql($node, <<~SQL);
		SELECT status
		FROM sendcampaign.message
		WHERE job_id = $job
		ORDER BY list_user_id DESC
		LIMIT 1
		SQL
	is($last, 'sent', 'the chosen one was skipped: the last one has it');
}

# Crashes, pauses and resumes in between: one message per phone number, and
# everybody who can be reached is.
{
	my $phones = 400;
	my @users = (
		(map { [ sprintf('+1559%07d', $_), $_ % 2 ? 'x' : undef ] } 1 .. $phones),
		(map { [ sprintf('001559%07d', $_), $_ % 3 ? 'x' : undef ] } 1 .. $phones),
		others('+1 559 ', $phones));
	my $campaign = campaign_to(@users);
	set_and_reload($node, 'sendcampaign.request_timeout', '1s');
	set_and_reload($node, 'sendcampaign.lookup_delay', '0');
	$twilio->set(
		'reset' => 1,
		'latency' => 5,
		'fault:drop-after' => 10,
		'fault:drop-before' => 10);
	my $job = start_campaign($node, $campaign);
	for my $n (1 .. 3)
	{
		# a worker that is killed early leaves all of them in doubt
		poll_in_company(
			$node, $twilio,
			sub {
				$twilio->stats->{accepted} > 30 * $n
				  || run_row($node, $job)->{state} eq 'completed';
			});
		if ($n == 2)
		{
			sql($node, "SELECT sendcampaign.pause($job)", role => 'app')
			  if run_row($node, $job)->{state} eq 'running';
			wait_for_no_worker($node);
			sql($node, "SELECT sendcampaign.resume($job)", role => 'app')
			  if run_row($node, $job)->{state} eq 'paused';
		}
		else
		{
			kill_worker($node);
			wait_until($node, 'SELECT sendcampaign.wake() >= 0');
		}
	}
	my $run = wait_for_run($node, $job);
	my $count = $twilio->count_by_phone;
	my $twice = grep { $_ != 1 } values %$count;
	is( "$run->{state} $run->{sent}",
		"completed $phones",
		'crashes and a pause: every phone number has the message');
	is(keys(%$count) . " $twice", "$phones 0", 'crashes and a pause: each has it once');

	# all outcomes of each phone number, in the order of the list users
	my $outcomes = sql($node, <<~SQL);
		SELECT right(regexp_replace(u.data->>'sms', '[^0-9]', '', 'g'), 7),
		    string_agg(CASE
		        WHEN m.status <> 'skipped' THEN m.status
		        WHEN m.error_message LIKE 'duplicate:%' THEN 'duplicate'
		        WHEN m.error_message LIKE 'no value%' THEN 'no value'
		        ELSE m.error_message
		    END, ', ' ORDER BY u.id)
		FROM sendcampaign.message m
		JOIN ac_list_users u ON u.id = m.list_user_id
		WHERE m.job_id = $job
		GROUP BY 1
		SQL
	my $right = qr/\|((no value), )*sent(, (no value|duplicate))*$/;
	my @wrong = grep { !/$right/ } split /\n/, $outcomes;
	is_deeply([ splice @wrong, 0, 4 ],
		[], 'crashes and a pause: it is the first one who could have it');
	$twilio->set('latency' => 0, 'fault:drop-after' => 0, 'fault:drop-before' => 0);
}

# Commits are lost in which the second one was chosen: nobody is sent to again.
{
	my $campaign = campaign_to(\@no_name, \@ann);
	my $list = list_of($campaign);
	$twilio->set(reset => 1);
	my $job = run_campaign($node, $campaign)->{job};
	my $run = run_of($job);
	my $ids = sql($node, <<~SQL);
		SELECT string_agg(list_user_id::text, ',' ORDER BY list_user_id)
		FROM sendcampaign.message
		WHERE job_id = $job
		SQL
	my ($first) = split /,/, $ids;
	sql($node, <<~SQL);
		UPDATE ac_list_users SET data = data || '{"name": "Ann"}' WHERE ac_list_id = $list;
		DELETE FROM sendcampaign.chosen WHERE run_id = $run;
		UPDATE sendcampaign.run_data
		SET sent = 0, skipped = 0, state = 'running', finished_at = NULL, timeline = '0/0'
		WHERE job_id = $job;
		DELETE FROM sendcampaign.message_data WHERE run_id = $run;
		INSERT INTO sendcampaign.batch (run_id, number, list_user_ids, duplicates, firsts)
		    VALUES ($run, 1, '{$ids}', '{$ids}', '{$first,$first}');
		SELECT sendcampaign.wake();
		SQL
	wait_for_run($node, $job);
	is_deeply(
		[ outcomes($job) ],
		[ 'duplicate', 'sent' ],
		'commits were lost: the one who has had it stays the one');
	is(scalar(my @rows = $twilio->ledger), 1, 'commits were lost: it was sent once');
}

# What is forgotten leaves nothing.
wait_for_no_worker($node);
sql($node, 'SELECT sendcampaign.forget(now())');
my $left = sql($node, <<~SQL);
	SELECT count(*)
	FROM sendcampaign.chosen c
	WHERE NOT EXISTS (SELECT FROM sendcampaign.run_data r WHERE r.id = c.run_id)
	SQL
is($left, 0, 'nothing is left of runs that are forgotten');
my @complaints =
  grep { !/terminated by signal|because of crash|Killed/ } split /\n/, worker_errors($node);
is(scalar @complaints, 0, 'no worker complained');
$node->stop;
done_testing();
