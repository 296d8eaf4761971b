# What is found in Twilio's list is not surely the message in doubt, where it
# may be one that another worker has, or nobody, and whose outcome is unknown.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../perl";
use Campaign;
use LocalTwilio;
use Test::More;

my $twilio = LocalTwilio->start;
my $node = new_cluster('twin_of_other_role', $twilio, conf => <<~'CONF');
	sendcampaign.receipts = off
	sendcampaign.request_timeout = '2s'
	sendcampaign.lookup_delay = 0
	CONF

# A tenant's campaign 1, and a campaign 2 to the companion, so that something is
# sent later.
sub make_two
{
	my ($tenant, $message, $base_url) = @_;
	make_tenant($node, $tenant, message => $message, base_url => $base_url);
	sql($node, <<~SQL, role => $tenant);
		SET search_path = $tenant, public;
		INSERT INTO ac_lists (group_id) VALUES (1);
		INSERT INTO ac_list_users (ac_list_id, data)
		VALUES (2, '{"sms": "$LocalTwilio::COMPANION"}');
		INSERT INTO ac_campaigns (ac_list_id, data)
		SELECT 2, data || '{"message": "Later"}' FROM ac_campaigns;
		SQL
}

# SQL that sends a campaign of a tenant
sub send_as
{
	my ($tenant, $campaign) = @_;
	return <<~SQL;
		SET ROLE $tenant;
		SET sendcampaign.schema = $tenant;
		SELECT send_campaign($campaign);
		SQL
}

# Calls a function for a job as its tenant.
sub call_as
{
	my ($tenant, $call) = @_;
	sql($node, <<~SQL, role => $tenant);
		SET sendcampaign.schema = $tenant;
		SELECT sendcampaign.$call;
		SQL
}

# The state of that run, and how many are sent and in doubt
sub state_of
{
	my $tenant = shift;
	my $run = run_of_tenant($tenant);
	return sql($node,
		"SELECT state || ' ' || sent || ' ' || in_doubt FROM sendcampaign.run WHERE id = $run");
}

sub are_completed
{
	my @tenants = @_;
	return !grep { state_of($_) !~ /completed/ } @tenants;
}

# Waits until both have completed; meanwhile the first one sends its campaign 2.
sub wait_in_company
{
	my ($first, $second) = @_;
	for (1 .. 60)
	{
		last if poll(sub { are_completed($first, $second) }, 1);
		# it may be under way still
		$node->psql('postgres', send_as($first, 2));
	}
}

# Is true for the run of a tenant's campaign 1: poll for it.
sub is_true_of
{
	my ($tenant, $condition) = @_;
	my $run = run_of_tenant($tenant);
	return poll(
		sub { sql($node, "SELECT $condition FROM sendcampaign.run WHERE id = $run") eq 't' });
}

# A session that locks a tenant's list users
sub lock_list_users
{
	my $tenant = shift;
	my $session = $node->background_psql('postgres');
	$session->query_safe("BEGIN; SELECT FROM $tenant.ac_list_users FOR UPDATE;");
	return $session;
}

# Of the next requests, the first has this fault; the companion's have none.
sub set_fault
{
	my ($fault, %arg) = @_;
	$twilio->set(
		reset => 1,
		%arg,
		"fault:$fault" => '#1',
		'to-fault' => "$LocalTwilio::COMPANION=spared");
}

# Whether a request has met this fault
sub is_hit
{
	my $fault = shift;
	return $twilio->stats->{faults}{$fault};
}

# Two messages to one phone are under way: the first one's request is lost, and
# the outcome of the second one cannot be recorded for a while.  Goes on when
# the first has been looked up again, or has ended.
sub lose_first
{
	my ($first, $second) = @_;
	my $lock_session = lock_list_users($second);
	set_fault('drop-before');
	sql($node, send_as($first, 1));
	poll(sub { is_hit('drop-before') }) or diag('no request');
	sql($node, send_as($second, 1));
	poll(sub { $twilio->stats->{lists} > 1 || are_completed($first) }) or diag('no lookup');
	return $lock_session;
}

# How many messages of these tenants are sent and in doubt, and how many SIDs
# they have
sub recorded
{
	my @tenants = @_;
	my $runs = join ', ', map { run_of_tenant($_) } @tenants;
	return sql($node, <<~SQL);
		SELECT count(*) FILTER (WHERE status = 'sent'),
		    count(*) FILTER (WHERE status = 'in_doubt'),
		    count(DISTINCT sid)
		FROM sendcampaign.message_data
		WHERE run_id IN ($runs)
		SQL
}

# Two tenants' messages that could be one another
$twilio->{has_companion} = 1;
my @twins = (
	[
		'the same link',
		east => [ 'From east', 'https://example.org' ],
		west => [ 'From west', 'https://example.org' ]
	],
	[
		'the same text without a link',
		north => [ 'Hi Ann', undef ],
		south => [ 'Hi {{name}}', undef ]
	],
	[
		'a link that contains the other one',
		above => [ 'From above', 'https://example.org/page' ],
		below => [ 'From below', 'https://example.org/page#top' ]
	]);
for my $twins (@twins)
{
	my ($name, $first, $of_first, $second, $of_second) = @$twins;
	make_two($first, @$of_first);
	make_two($second, @$of_second);
	my $lock_session = lose_first($first, $second);
	is(state_of($first), 'running 0 0', "$name: whose it is is not known yet");
	$lock_session->quit;
	wait_in_company($first, $second);
	is($twilio->stats->{accepted}, 2, "$name: Twilio has taken both");
	is(recorded($first, $second), '2|0|2', "$name: both are recorded as sent, each with its SID");
}

# What the owner of the database has loaded, or another role has sent to the
# same phone by an account of its own, hides nothing and stops nobody.
sub load_claim
{
	my ($job, %claim) = @_;
	my $message = $claim{message} || "'Hi'";
	my $account = $claim{account} || $LocalTwilio::ACCOUNT;
	my $texts = $claim{texts} || 'NULL';
	sql($node, <<~SQL);
		WITH r AS (
		    INSERT INTO sendcampaign.run_data (schema, job_id, campaign_id, role, role_oid,
		        database, state, message, base_url, started_at, total)
		    SELECT 'elsewhere', $job, $job, 'app', 'app'::regrole,
		        oid, 'paused', $message, 'https://example.net/crowd', now(), 1
		    FROM pg_database
		    WHERE datname = current_database()
		    RETURNING id)
		INSERT INTO sendcampaign.claim (run_id, number, list_user_ids, phones, account, senders,
		    claimed_at, twilio_time, texts)
		SELECT id, 1, $claim{ids}, $claim{phones}, '$account', '{}', now(), 0, $texts
		FROM r;
		SQL
}

sub unload_claims
{
	sql($node, <<~'SQL');
		DELETE FROM sendcampaign.claim
		USING sendcampaign.run_data r
		WHERE run_id = r.id AND r.schema = 'elsewhere';
		DELETE FROM sendcampaign.run_data WHERE schema = 'elsewhere';
		SQL
}

make_two($_, "From $_", 'https://example.net/crowd') for qw(dawn dusk);
{
	load_claim(
		1,
		account => 'AC00000000000000000000000000000009',
		ids => 'array(SELECT generate_series(1, 20000)::bigint)',
		phones => "array_fill('+15550001234'::text, '{20000}')");
	my $lock_session = lose_first('dawn', 'dusk');
	is(state_of('dawn'), 'running 0 0',
		'many claims of another account: the other message is seen beside them');
	$lock_session->quit;
	wait_in_company('dawn', 'dusk');
	is(recorded('dawn', 'dusk'), '2|0|2', '... and both are recorded as sent, each with its SID');
	unload_claims();
}
make_two('noon', 'From noon', 'https://example.net/noon');
{
	load_claim(
		2,
		message => "repeat('{{', 4000)",
		ids => "'{1,2}'",
		phones => "'{+15550001234,+15550001234}'");
	load_claim(
		3,
		message => "repeat('{{x}}', 200000)",
		ids => "'{1}'",
		phones => "'{+15550001234}'");
	load_claim(
		4,
		ids => "'{{1,NULL},{3,4}}'",
		phones => "'{+15550001234,+15550001234,NULL}'",
		texts => "ARRAY['x', repeat('y', 1000000), NULL]");
	load_claim(
		5,
		ids => 'array(SELECT generate_series(1, 300000)::bigint)',
		phones => "array_fill('+15550001234'::text, '{300000}')");
	set_fault('drop-after');
	sql($node, send_as('noon', 1));
	poll(sub { are_completed('noon') });
	is( state_of('noon'),
		'completed 1 0',
		'absurd claims, and others to the same phone: what is found is recorded as sent');
	unload_claims();
}

# The outcome does not become known in time.
make_two($_, "From $_", 'https://example.com/late') for qw(spring autumn);
set_and_reload($node, 'sendcampaign.lookup_timeout', '3s');
{
	my $lock_session = lose_first('spring', 'autumn');
	poll(sub { are_completed('spring') });
	is(state_of('spring'), 'completed 0 1', 'what is not known in time is in doubt');
	my $run = run_of_tenant('spring');
	like(
		sql($node, "SELECT error_message FROM sendcampaign.message_data WHERE run_id = $run"),
		qr/Twilio's list has a message that may be another run's, whose outcome is not known yet/,
		'... with the reason');
	$lock_session->quit;
	poll(sub { are_completed('autumn') });
	is(state_of('autumn'), 'completed 1 0', '... and the other one is recorded as sent');
	is($twilio->stats->{accepted}, 1, '... which is what Twilio has taken');
}

# What is read back after lost commits may be another run's, likewise.
set_and_reload($node, 'sendcampaign.lookup_timeout', '60s');
for my $base_url ('https://example.com/back', undef)
{
	my ($name, $first, $second) =
	  defined $base_url
	  ? ('read back, the same link', 'lake', 'river')
	  : ('read back, the same text', 'wood', 'hill');
	make_two($_, 'The same', $base_url) for $first, $second;
	sql($node, <<~SQL);
		UPDATE $first.groups
		SET configuration = configuration || jsonb_build_object(
		    'timeZone', 'UTC',
		    'quietHours', jsonb_build_object(
		        'from', to_char(now() AT TIME ZONE 'UTC' - interval '1 hour', 'HH24:MI'),
		        'to', to_char(now() AT TIME ZONE 'UTC' + interval '1 hour', 'HH24:MI')));
		SQL
	$twilio->set(reset => 1);
	sql($node, send_as($first, 1));
	is_true_of($first, 'next_at IS NOT NULL') or diag('not asleep');
	my $lock_session = lock_list_users($second);
	sql($node, send_as($second, 1));
	poll(sub { $twilio->stats->{accepted} > 0 }) or diag('nothing was sent');
	my $run = run_of_tenant($first);
	sql($node, <<~SQL);
		UPDATE $first.groups SET configuration = configuration - 'quietHours';
		UPDATE sendcampaign.batch SET due = now() WHERE run_id = $run;
		UPDATE sendcampaign.run_data SET next_at = now(), timeline = '0/0' WHERE id = $run;
		SELECT sendcampaign.wake();
		SQL
	is_true_of($first, 'read_back') or diag('not read back');
	$lock_session->quit;
	poll(sub { are_completed($first, $second) }) or diag('no end');
	is($twilio->stats->{accepted}, 2, "$name: Twilio has taken both");
	is(recorded($first, $second), '2|0|2', "$name: both are recorded as sent, each with its SID");
}

# The other one is the same role's, of a run that is paused: in no memory.
sub wait_for_end
{
	my $job = shift;
	my $run = run_of($job);
	my $query = "SELECT finished_at IS NOT NULL FROM sendcampaign.run WHERE id = $run";
	ok(poll(sub { sql($node, $query) eq 't' }), "job $job has ended");
}

# The status of a job's only message, or "none"
sub status_of
{
	my $job = shift;
	return sql($node, <<~SQL);
		SELECT coalesce((
		    SELECT status
		    FROM sendcampaign.message
		    WHERE schema = 'public' AND job_id = $job), 'none')
		SQL
}
{
	my ($first, $second) =
	  map { create_campaign($node, users => 1, message => 'The same', base_url => undef) } 1 .. 2;
	# the list lags, so that it is not found before the run is paused
	$twilio->set(reset => 1, 'fault:drop-after' => '#1', 'list-lag' => 600000);
	my $paused = start_campaign($node, $first);
	poll(sub { $twilio->stats->{accepted} == 1 });
	sql($node, "SELECT sendcampaign.pause($paused)", role => 'app');
	wait_for_no_worker($node);
	set_and_reload($node, 'sendcampaign.lookup_timeout', '3s');
	$twilio->set('list-lag' => 0);
	is(sql($node, 'SELECT count(*) FROM sendcampaign.claim'),
		1, 'the message of a paused run is in doubt');
	$twilio->set('fault:drop-before' => '#1');
	my $job = start_campaign($node, $second);
	wait_for_end($job);
	is(status_of($job), 'in_doubt', q{... which is not taken for the other run's});
	is($twilio->stats->{accepted}, 1, '... and Twilio has taken one');
	sql($node, "SELECT sendcampaign.cancel($paused)", role => 'app');
	wait_for_end($paused);
}

sub settle
{
	my $job = shift;
	sql($node, <<~SQL, role => 'app');
		SELECT sendcampaign.settle(m.job_id, m.list_user_id, true)
		FROM sendcampaign.message m
		WHERE m.schema = 'public' AND m.job_id = $job
		SQL
	is(status_of($job), 'sent', 'settled by hand: it was sent, under a SID that nobody knows');
}

# The run's message is in doubt of another account; returns whose it was.
sub move_to_account
{
	my ($run, $account) = @_;
	return sql($node, <<~SQL);
		UPDATE sendcampaign.message_data m
		SET account = '$account'
		FROM sendcampaign.message_data old
		WHERE old.run_id = m.run_id AND m.run_id = $run
		RETURNING old.account
		SQL
}

# Sends a campaign to one user, whose message is left in doubt; returns the job.
sub leave_in_doubt
{
	my ($campaign) = @_;
	$twilio->set(reset => 1, 'list-lag' => 600000, 'fault:drop-after' => '#1');
	my $job = start_campaign($node, $campaign);
	wait_for_end($job);
	is(status_of($job), 'in_doubt', 'it is left in doubt, as the list lags');
	$twilio->set('list-lag' => 0, 'fault:drop-before' => '#1');
	return $job;
}

# The other one has been left in doubt, and then the campaign's text was changed.
my @changed = (
	[ 'the same link', 'https://example.org/survey', 0 ],
	[ 'the same link, settled by hand', 'https://example.org/settled', 1 ]);
for my $case (@changed)
{
	my ($name, $base_url, $settled) = @$case;
	my $campaign = create_campaign(
		$node,
		users => 1,
		message => 'Before',
		base_url => $base_url,
		phone => '+15550009876');
	my $doubtful = leave_in_doubt($campaign);
	settle($doubtful) if $settled;
	sql($node, <<~SQL);
		UPDATE ac_campaigns SET data = data || '{"message": "After"}' WHERE id = $campaign
		SQL
	my $job = start_campaign($node, $campaign);
	wait_for_end($job);
	is(status_of($job), 'in_doubt',
		"$name, and the text was changed: what is found may be the earlier one");
	is($twilio->stats->{accepted}, 1, '... which is what Twilio has taken');
}

# The other one was sent later than the first one, whose run was paused then.
my @later = (
	[ 'the same text', 'Ho Ann', 'Ho {{name|Ann}}', 0 ],
	[ 'the same text, settled by hand', 'Hey Ann', 'Hey {{name|Ann}}', 1 ],
	[ 'the same text, of another account', 'Hello Ann', 'Hello {{name|Ann}}', 0, 'AC0' ]);
for my $case (@later)
{
	my ($name, $text, $template, $settled, $account) = @$case;
	my @of_campaign = (users => 1, base_url => undef, phone => '+15550009877');
	my $first = create_campaign($node, @of_campaign, message => $text);
	my $second = create_campaign($node, @of_campaign, message => $template);
	$twilio->set(reset => 1, 'fault:drop-before' => '#1');
	my $paused = start_campaign($node, $first);
	poll(sub { is_hit('drop-before') });
	sql($node, "SELECT sendcampaign.pause($paused)", role => 'app');
	wait_for_no_worker($node);
	my $doubtful = leave_in_doubt($second);
	settle($doubtful) if $settled;
	move_to_account(run_of($doubtful), $account) if $account;
	$twilio->set('list-lag' => 0);
	sql($node, "SELECT sendcampaign.resume($paused)", role => 'app');
	wait_for_end($paused);

	if ($account)
	{
		is(status_of($paused), 'sent', "$name: what is found is the paused run's");
		next;
	}
	is(status_of($paused), 'in_doubt', "$name: what is found is not taken for the paused run's");
	my $run = run_of($paused);
	like(
		sql($node, "SELECT error_message FROM sendcampaign.message WHERE run_id = $run"),
		qr/Twilio's list has several messages that may be this one/,
		'... with the reason');
}

# The same with two tenants that have one link
for my $case ([ 'of one account', 'in_doubt' ], [ 'of two accounts', 'sent', 'AC0' ])
{
	my ($name, $status, $account) = @$case;
	my ($first, $second) = map { "${_}_" . $name =~ s/\W/_/gr } 'first', 'second';
	make_tenant($node, $_, base_url => "https://example.org/$first") for $first, $second;
	$twilio->set(reset => 1, 'list-lag' => 0, 'fault:drop-before' => '#1');
	my $job = sql($node, send_as($first, 1));
	poll(sub { is_hit('drop-before') });
	call_as($first, "pause($job)");
	wait_for_no_worker($node);
	$twilio->set(reset => 1, 'list-lag' => 600000, 'fault:drop-after' => '#1');
	sql($node, send_as($second, 1));
	poll(sub { state_of($second) eq 'completed 0 1' });
	is(state_of($second), 'completed 0 1', "$name: the second is left in doubt");

	if ($account)
	{
		is(move_to_account(run_of_tenant($second), $account),
			$LocalTwilio::ACCOUNT, "$name: its account is known");
	}
	$twilio->set('list-lag' => 0);
	call_as($first, "resume($job)");
	poll(sub { are_completed($first) });
	my $run = run_of_tenant($first);
	is(sql($node, "SELECT status FROM sendcampaign.message_data WHERE run_id = $run"),
		$status, "$name: the first, found in the list, is $status");
}
$node->stop;
done_testing();
