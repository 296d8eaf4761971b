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

my $duplicate = 'duplicate: an earlier list user has the same phone';
my $twilio = LocalTwilio->start;
my $node = new_cluster('first', $twilio, init => { extra => [ '--encoding=UTF8', '--locale=C' ] }, conf => "restart_after_crash = on\n");

sub sql { return $node->safe_psql('postgres', $_[0]); }
sub list_of { return "(SELECT ac_list_id FROM ac_campaigns WHERE id = $_[0])"; }

# A campaign to these: pairs of phone and name, undef is none.
sub campaign_to
{
	my ($users, %arg) = @_;
	my $campaign = create_campaign($node, users => scalar @$users, message => 'Hi {{name}}', %arg);
	my $n = 0;
	my $rows = join ', ', map { '(' . ++$n . ', ' . join(', ', map { defined $_ ? Campaign::quoted($_) : 'NULL::text' } @$_[0, 1]) . ')' } @$users;
	sql(qq{UPDATE ac_list_users u SET data = jsonb_build_object('sms', v.phone, 'name', v.name)
		FROM (VALUES $rows) v(n, phone, name), (SELECT id, row_number() OVER (ORDER BY id) AS n FROM ac_list_users
			WHERE ac_list_id = } . list_of($campaign) . q{) i WHERE i.n = v.n AND u.id = i.id});
	return $campaign;
}

sub short { return map { s/duplicate: .*/duplicate/r =~ s/no value.*/no value/r } @_; }
sub outcomes { my $job = shift; return short(split /\n/, sql(qq{SELECT CASE status WHEN 'skipped' THEN error_message ELSE status END
	FROM sendcampaign.message WHERE job_id = $job ORDER BY list_user_id})); }
sub previewed { my $campaign = shift; return short(split /\n/, sql("SELECT coalesce(skipped, 'sent') FROM sendcampaign.preview($campaign, NULL)")); }

# preview(), estimate() and the run say the same.
sub is_outcome
{
	my ($name, $campaign, @expected) = @_;
	$twilio->set(reset => 1);
	is_deeply([ previewed($campaign) ], \@expected, "$name: preview");
	is(sql("SELECT messages, duplicates FROM sendcampaign.estimate($campaign)"),
		join('|', map { my $what = $_; scalar grep { $_ eq $what } @expected } 'sent', 'duplicate'), "$name: estimate");
	my $job = start_campaign($node, $campaign);
	my $run = wait_for_run($node, $job);
	is_deeply([ outcomes($job) ], \@expected, "$name: the run") or diag($run->{error});
	is((grep { $_ != 1 } values %{ $twilio->count_by_phone }), 0, "$name: once a phone");
	return $job;
}

my @a = ('+15550000001', 'Ann');
my @no_name = ('+1 555 000 0001', undef);
is_outcome('no value', campaign_to([ \@no_name, \@a, \@a ]), 'no value', 'sent', 'duplicate');
is_outcome('no value, twice', campaign_to([ \@no_name, \@no_name, \@a, \@no_name, \@a ]), 'no value', 'no value', 'sent', 'no value', 'duplicate');
is_outcome('none would', campaign_to([ \@no_name, \@no_name ]), 'no value', 'no value');
is_outcome('the last one only', campaign_to([ (\@no_name) x 600, \@a ]), ('no value') x 600, 'sent');
is_outcome('across batches', campaign_to([ \@no_name, (map { [ sprintf('+1556%07d', $_), 'x' ] } 1 .. 500), \@a, @{[ ([ '+15560000001', 'x' ]) x 3 ]}, \@a ]),
	'no value', ('sent') x 501, ('duplicate') x 4);
sql("SET ROLE app; SELECT sendcampaign.opt_out('+15550000009')");
is_outcome('opted out', campaign_to([ [ '+15550000009', 'x' ], [ '+1 555 0000009', 'x' ], \@a ]), 'opted out', 'opted out', 'sent');
{
	my $campaign = campaign_to([ \@a, \@a, \@a ]);
	sql("UPDATE ac_campaigns SET data = data || jsonb_build_object('sendUntil', now() - interval '1 minute') WHERE id = $campaign");
	is_outcome('too late', $campaign, ('expired: it was to be sent before') x 3);
}

# The first fails for good: the second has the same phone.  Tried again, it is the first.
{
	$twilio->set('to-fault' => '+15550000001=code:30003');
	my $job = is_outcome_of_failure(campaign_to([ \@no_name, \@a, \@a ]));
	$twilio->set('to-fault' => '+15550000001=none');
	is(sql("SET ROLE app; SELECT sendcampaign.retry_failed($job)"), 1, 'tried again');
	wait_for_run($node, $job);
	is_deeply([ outcomes($job) ], [ 'no value', 'sent', 'duplicate' ], 'tried again: the same one has it');
}
sub is_outcome_of_failure
{
	my $job = start_campaign($node, shift);
	wait_for_run($node, $job);
	is_deeply([ outcomes($job) ], [ 'no value', 'failed', 'duplicate' ], 'it fails: the others are duplicates still');
	return $job;
}

# Quiet hours: who sleeps will get it.  In the morning he has left, and so the next one looked at has it.
sub night { return qq{UPDATE groups SET configuration = configuration || jsonb_build_object('timeZone', 'UTC', 'quietHours', jsonb_build_object(
	'from', to_char(now() AT TIME ZONE 'UTC' - interval '1 hour', 'HH24:MI'), 'to', to_char(now() AT TIME ZONE 'UTC' + interval '1 hour', 'HH24:MI')))
	WHERE id = } . group_of(shift); }
sub morning
{
	my ($campaign, $job) = @_;
	sql("UPDATE groups SET configuration = configuration - 'quietHours' WHERE id = " . group_of($campaign));
	sql("UPDATE sendcampaign.batch SET due = now() WHERE run_id = ${\ run_of($job)};
		UPDATE sendcampaign.run_data SET next_at = now() WHERE job_id = $job; SELECT sendcampaign.wake()");
	return wait_for_run($node, $job);
}
{
	my $campaign = campaign_to([ \@no_name, \@a, \@a, [ '+15550000002', 'x' ] ]);
	sql(night($campaign));
	is_deeply([ previewed($campaign) ], [ 'no value', 'sent', 'duplicate', 'sent' ], 'asleep: preview');
	$twilio->set(reset => 1);
	my $job = start_campaign($node, $campaign);
	$node->poll_query_until('postgres', "SELECT next_at IS NOT NULL FROM sendcampaign.run WHERE job_id = $job");
	is_deeply([ outcomes($job) ], [ 'no value', 'duplicate' ], 'asleep: who has the same phone is a duplicate already');
	morning($campaign, $job);
	is_deeply([ outcomes($job) ], [ 'no value', 'sent', 'duplicate', 'sent' ], 'asleep: sent in the morning');
}
{
	# one is asleep and leaves the list; another one, far behind, is looked at after that
	my $campaign = campaign_to([ \@a, (map { [ sprintf('+1557%07d', $_), 'x' ] } 1 .. 1500), \@a ]);
	sql("UPDATE ac_list_users SET data = data || jsonb_build_object('timeZone', 'UTC') WHERE ac_list_id = " . list_of($campaign));
	sql(night($campaign));
	my $job = start_campaign($node, $campaign);
	$node->poll_query_until('postgres', "SELECT next_at IS NOT NULL FROM sendcampaign.run WHERE job_id = $job");
	is_deeply([ outcomes($job) ], ['duplicate'], 'all are asleep: one is a duplicate');
	morning($campaign, $job);
	is(sql("SELECT count(*) FROM sendcampaign.message WHERE job_id = $job AND status = 'sent'"), 1501, 'and the others have it');
}

{
	# one is asleep, and has no name in the morning: who was a duplicate by then stays one
	my $campaign = campaign_to([ \@a, \@a, [ '+15550000002', 'x' ] ]);
	sql(night($campaign));
	$twilio->set(reset => 1);
	my $job = start_campaign($node, $campaign);
	$node->poll_query_until('postgres', "SELECT next_at IS NOT NULL FROM sendcampaign.run WHERE job_id = $job");
	is_deeply([ outcomes($job) ], ['duplicate'], 'asleep: the second one is a duplicate');
	sql("UPDATE ac_list_users SET data = data - 'name' WHERE id = (SELECT min(id) FROM ac_list_users WHERE ac_list_id = " . list_of($campaign) . ')');
	morning($campaign, $job);
	is_deeply([ outcomes($job) ], [ 'no value', 'duplicate', 'sent' ], 'asleep, and the first one has no name in the morning: nobody of the phone has it');
}

# The one that was chosen is skipped after it was put back: the next one that is looked at has it.
{
	my $campaign = campaign_to([ \@a, (map { [ sprintf('+1558%07d', $_), 'x' ] } 1 .. 5000), \@a ]);
	$twilio->set(reset => 1, hold => 1);
	my $job = start_campaign($node, $campaign);
	wait_for_flight($twilio, 5);
	sql("SET ROLE app; SELECT sendcampaign.pause($job)");
	$twilio->set(hold => 0);
	wait_for_no_worker($node);
	my $sent = sql("SELECT count(*) FROM sendcampaign.message WHERE job_id = $job");
	cmp_ok($sent, '<', 5000, 'paused before it came to the last one');
	# as if the first one had been given back, and had then lost its name
	my $first = sql("SELECT min(list_user_id) FROM sendcampaign.message WHERE job_id = $job");
	sql("UPDATE sendcampaign.message_data SET status = 'skipped', sid = NULL WHERE list_user_id = $first;
		UPDATE sendcampaign.run_data SET sent = sent - 1, skipped = skipped + 1 WHERE job_id = $job;
		SET ROLE app; SELECT sendcampaign.resume($job)");
	wait_for_run($node, $job);
	is(sql("SELECT status FROM sendcampaign.message WHERE job_id = $job ORDER BY list_user_id DESC LIMIT 1"), 'sent', 'the chosen one was skipped: the last one has it');
}

# Crashes, pauses and resumes in between: once a phone, and everybody who can be reached is.
{
	my $groups = 400;
	my $campaign = campaign_to([ (map { [ sprintf('+1559%07d', $_), $_ % 2 ? 'x' : undef ] } 1 .. $groups), (map { [ sprintf('001559%07d', $_), $_ % 3 ? 'x' : undef ] } 1 .. $groups),
		(map { [ sprintf('+1 559 %07d', $_), 'x' ] } 1 .. $groups) ]);
	set_and_reload($node, 'sendcampaign.request_timeout', '1s');
	set_and_reload($node, 'sendcampaign.lookup_delay', '0');
	$twilio->set(reset => 1, latency => 5, 'fault:drop-after' => 10, 'fault:drop-before' => 10);
	my $job = start_campaign($node, $campaign);
	for my $n (1 .. 3)
	{
		poll(sub { $twilio->stats->{accepted} > 30 * $n || run_row($node, $job)->{state} eq 'completed' });
		if ($n == 2)
		{
			sql("SET ROLE app; SELECT sendcampaign.pause($job)") if run_row($node, $job)->{state} eq 'running';
			wait_for_no_worker($node);
			sql("SET ROLE app; SELECT sendcampaign.resume($job)") if run_row($node, $job)->{state} eq 'paused';
		}
		else
		{
			kill_worker($node);
			$node->poll_query_until('postgres', 'SELECT sendcampaign.wake() >= 0');
		}
	}
	my $run = wait_for_run($node, $job);
	my $count = $twilio->count_by_phone;
	is("$run->{state} $run->{sent}", "completed $groups", 'crashes and a pause: every phone has it');
	is(scalar(keys %$count) . ' ' . (grep { $_ != 1 } values %$count), "$groups 0", 'once');
	my @wrong = grep { my ($phone, $statuses) = split /\|/; $statuses !~ /^((no value), )*sent(, (no value|duplicate))*$/ } map { s/duplicate:[^,]*/duplicate/gr =~ s/no value[^,]*/no value/gr } split /\n/,
	  sql(qq{SELECT right(regexp_replace(u.data->>'sms', '[^0-9]', '', 'g'), 7), string_agg(CASE m.status WHEN 'skipped' THEN m.error_message ELSE m.status END, ', ' ORDER BY u.id)
		FROM sendcampaign.message m JOIN ac_list_users u ON u.id = m.list_user_id WHERE m.job_id = $job GROUP BY 1});
	is_deeply([ @wrong[0 .. ($#wrong > 3 ? 3 : $#wrong)] ], [], 'and it is the first one who could');
	$twilio->set(latency => 0, 'fault:drop-after' => 0, 'fault:drop-before' => 0);
}

# Commits are lost in which the second one was chosen: nobody is sent to again.
{
	my $campaign = campaign_to([ \@no_name, \@a ]);
	$twilio->set(reset => 1);
	my $job = start_campaign($node, $campaign);
	wait_for_run($node, $job);
	sql("UPDATE ac_list_users SET data = data || '{\"name\": \"Ann\"}' WHERE ac_list_id = " . list_of($campaign) . ";
		DELETE FROM sendcampaign.chosen WHERE run_id = ${\ run_of($job)}");
	my $ids = sql("SELECT string_agg(list_user_id::text, ',' ORDER BY list_user_id) FROM sendcampaign.message WHERE job_id = $job");
	my ($first) = split /,/, $ids;
	sql(qq{UPDATE sendcampaign.run_data SET sent = 0, skipped = 0, state = 'running', finished_at = NULL, timeline = '0/0' WHERE job_id = $job;
		DELETE FROM sendcampaign.message_data WHERE run_id = ${\ run_of($job)};
		INSERT INTO sendcampaign.batch (run_id, number, list_user_ids, duplicates, firsts) VALUES (${\ run_of($job)}, 1, '{$ids}', '{$ids}', '{$first,$first}');
		SELECT sendcampaign.wake()});
	wait_for_run($node, $job);
	is_deeply([ outcomes($job) ], [ 'duplicate', 'sent' ], 'commits were lost: the one who has had it stays the one');
	is(scalar(my @rows = $twilio->ledger), 1, 'commits were lost: once');
}

# What is forgotten leaves nothing.
wait_for_no_worker($node);
sql('SELECT sendcampaign.forget(now())');
is(sql('SELECT count(*) FROM sendcampaign.chosen c WHERE NOT EXISTS (SELECT FROM sendcampaign.run_data r WHERE r.id = c.run_id)'), 0, 'nothing is left of runs that are forgotten');
is((grep { !/terminated by signal|because of crash|Killed/ } split /\n/, worker_errors($node)), 0, 'no worker complained');
$node->stop;
done_testing();
