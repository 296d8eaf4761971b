# What is found in Twilio's list is not surely the one in doubt where it may be
# a message that another worker has, or nobody, and whose outcome is not known.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../perl";
use Campaign;
use LocalTwilio;
use Test::More;

my $twilio = LocalTwilio->start;
my $node = new_cluster('twin_of_other_role', $twilio, conf => qq{
	sendcampaign.request_timeout = '2s'
	sendcampaign.lookup_delay = 0
});
sub sql { my $sql = shift; return $node->safe_psql('postgres', $sql); }

# A tenant's campaign 1, and a campaign 2 to the companion, so that something is
# sent later.
sub make_two
{
	my ($tenant, $message, $base_url) = @_;
	make_tenant($node, $tenant, message => $message, base_url => $base_url);
	sql(qq{SET ROLE $tenant; SET search_path = $tenant, public;
		INSERT INTO ac_lists (group_id) VALUES (1);
		INSERT INTO ac_list_users (ac_list_id, data) VALUES (2, '{"sms": "$LocalTwilio::COMPANION"}');
		INSERT INTO ac_campaigns (ac_list_id, data) SELECT 2, data || '{"message": "Later"}' FROM ac_campaigns});
}
sub send_as { my ($tenant, $campaign) = @_; return "SET ROLE $tenant; SET sendcampaign.schema = $tenant; SELECT send_campaign($campaign)"; }
sub run_of_tenant { return "(SELECT id FROM sendcampaign.run WHERE schema = '$_[0]' AND campaign_id = 1)"; }
sub state_of { return sql("SELECT state || ' ' || sent || ' ' || in_doubt FROM sendcampaign.run WHERE id = " . run_of_tenant(shift)); }

# Two messages to one phone are under way: the first one's request is lost, and
# the outcome of the second one cannot be recorded for a while.  Goes on when
# the first has been looked up again, or has ended.
sub lose_first
{
	my ($first, $second) = @_;
	my $lock_session = $node->background_psql('postgres');
	$lock_session->query_safe("BEGIN; SELECT FROM $second.ac_list_users FOR UPDATE;");
	$twilio->set(reset => 1, 'fault:drop-before' => '#1', 'to-fault' => "$LocalTwilio::COMPANION=spared");
	sql(send_as($first, 1));
	poll(sub { $twilio->stats->{requests} > 0 }) or diag('no request');
	sql(send_as($second, 1));
	poll(sub { $twilio->stats->{lists} > 1 || state_of($first) =~ /completed/ }) or diag('no look-up');
	return $lock_session;
}
sub recorded
{
	return sql("SELECT count(*) FILTER (WHERE status = 'sent'), count(*) FILTER (WHERE status = 'in_doubt'), count(DISTINCT sid)
		FROM sendcampaign.message_data WHERE run_id IN (" . join(', ', map { run_of_tenant($_) } @_) . ')');
}

$twilio->{has_companion} = 1;
for my $case ([ 'the same link', 'east', 'From east', 'https://example.org', 'west', 'From west', 'https://example.org' ],
	[ 'the same text without a link', 'north', 'Hi Ann', undef, 'south', 'Hi {{name}}', undef ],
	[ 'a link that has the other one in it', 'above', 'From above', 'https://example.org/page', 'below', 'From below', 'https://example.org/page#top' ])
{
	my ($name, $first, $first_text, $first_url, $second, $second_text, $second_url) = @$case;
	make_two($first, $first_text, $first_url);
	make_two($second, $second_text, $second_url);
	my $lock_session = lose_first($first, $second);
	is(state_of($first), 'running 0 0', "$name: whose it is is not known yet");
	$lock_session->quit;
	for (1 .. 60)
	{
		last if poll(sub { state_of($first) =~ /completed/ && state_of($second) =~ /completed/ }, 1);
		# it may be under way still
		$node->psql('postgres', send_as($first, 2));
	}
	is($twilio->stats->{accepted}, 2, "$name: Twilio has taken both");
	is(recorded($first, $second), '2|0|2', "$name: both are recorded as sent, each with its SID");
}

# What the owner of the database has loaded, or another role has sent to the
# same phone by an account of its own, hides nothing and stops nobody.
sub load_claim
{
	my ($job, $message, $account, $ids, $phones, $texts) = @_;
	sql(qq{WITH r AS (INSERT INTO sendcampaign.run_data (schema, job_id, campaign_id, role, role_oid, database, state, message, base_url, started_at, total)
			SELECT 'elsewhere', $job, $job, 'app', 'app'::regrole, oid, 'paused', $message, 'https://example.net/crowd', now(), 1
			FROM pg_database WHERE datname = current_database() RETURNING id)
		INSERT INTO sendcampaign.claim (run_id, number, list_user_ids, phones, account, senders, claimed_at, twilio_time, texts)
		SELECT id, 1, $ids, $phones, $account, '{}', now(), 0, $texts FROM r});
}
sub unload_claims { sql(q{DELETE FROM sendcampaign.claim USING sendcampaign.run_data r WHERE run_id = r.id AND r.schema = 'elsewhere'; DELETE FROM sendcampaign.run_data WHERE schema = 'elsewhere'}); }
make_two($_, "From $_", 'https://example.net/crowd') for qw(dawn dusk);
{
	load_claim(1, "'Hi'", "'AC00000000000000000000000000000009'", 'array(SELECT generate_series(1, 20000)::bigint)', "array_fill('+15550001234'::text, '{20000}')", 'NULL');
	my $lock_session = lose_first('dawn', 'dusk');
	is(state_of('dawn'), 'running 0 0', 'many claims of another account: the other message is seen beside them');
	$lock_session->quit;
	for (1 .. 60)
	{
		last if poll(sub { state_of('dawn') =~ /completed/ && state_of('dusk') =~ /completed/ }, 1);
		$node->psql('postgres', send_as('dawn', 2));
	}
	is(recorded('dawn', 'dusk'), '2|0|2', '... and both are recorded as sent, each with its SID');
	unload_claims();
}
make_two('noon', 'From noon', 'https://example.net/noon');
{
	my $account = "'$LocalTwilio::ACCOUNT'";
	my $job = 2;
	load_claim($job++, $_->[0], $account, @$_[1 .. 3]) for
		[ "repeat('{{', 4000)", "'{1,2}'", "'{+15550001234,+15550001234}'", 'NULL' ],
		[ "repeat('{{x}}', 200000)", "'{1}'", "'{+15550001234}'", 'NULL' ],
		[ "'Hi'", "'{{1,NULL},{3,4}}'", "'{+15550001234,+15550001234,NULL}'", "ARRAY['x', repeat('y', 1000000), NULL]" ],
		[ "'Hi'", 'array(SELECT generate_series(1, 300000)::bigint)', "array_fill('+15550001234'::text, '{300000}')", 'NULL' ];
	$twilio->set(reset => 1, 'fault:drop-after' => '#1', 'to-fault' => "$LocalTwilio::COMPANION=spared");
	sql(send_as('noon', 1));
	poll(sub { state_of('noon') =~ /completed/ });
	is(state_of('noon'), 'completed 1 0', 'absurd claims, and others to the same phone: what is found is recorded as sent');
	unload_claims();
}

# It does not become known in time.
make_two($_, "From $_", 'https://example.com/late') for qw(spring autumn);
set_and_reload($node, 'sendcampaign.lookup_timeout', '3s');
{
	my $lock_session = lose_first('spring', 'autumn');
	poll(sub { state_of('spring') =~ /completed/ });
	is(state_of('spring'), 'completed 0 1', 'not known in time: in doubt');
	like(sql("SELECT error_message FROM sendcampaign.message_data WHERE run_id = " . run_of_tenant('spring')), qr/another run's/, '... with the reason');
	$lock_session->quit;
	poll(sub { state_of('autumn') =~ /completed/ });
	is(state_of('autumn'), 'completed 1 0', '... and the other one is recorded as sent');
	is($twilio->stats->{accepted}, 1, '... which is what Twilio has taken');
}

# What is read back after lost commits may be another run's, likewise.
for my $base_url ('https://example.com/back', undef)
{
	my ($name, $first, $second) = defined $base_url ? ('read back, the same link', 'lake', 'river') : ('read back, the same text', 'wood', 'hill');
	make_two($_, 'The same', $base_url) for $first, $second;
	sql("UPDATE $first.groups SET configuration = configuration || jsonb_build_object('timeZone', 'UTC', 'quietHours', jsonb_build_object(
		'from', to_char(now() AT TIME ZONE 'UTC' - interval '1 hour', 'HH24:MI'), 'to', to_char(now() AT TIME ZONE 'UTC' + interval '1 hour', 'HH24:MI')))");
	$twilio->set(reset => 1);
	sql(send_as($first, 1));
	poll(sub { sql("SELECT next_at IS NOT NULL FROM sendcampaign.run WHERE id = " . run_of_tenant($first)) eq 't' }) or diag('not asleep');
	my $lock_session = $node->background_psql('postgres');
	$lock_session->query_safe("BEGIN; SELECT FROM $second.ac_list_users FOR UPDATE;");
	sql(send_as($second, 1));
	poll(sub { $twilio->stats->{accepted} > 0 }) or diag('nothing was sent');
	sql("UPDATE $first.groups SET configuration = configuration - 'quietHours';
		UPDATE sendcampaign.batch SET due = now() WHERE run_id = ${\ run_of_tenant($first)};
		UPDATE sendcampaign.run_data SET next_at = now(), timeline = '0/0' WHERE id = ${\ run_of_tenant($first)}; SELECT sendcampaign.wake()");
	poll(sub { sql("SELECT read_back FROM sendcampaign.run WHERE id = " . run_of_tenant($first)) eq 't' }) or diag('not read back');
	$lock_session->quit;
	poll(sub { state_of($first) =~ /completed/ && state_of($second) =~ /completed/ }) or diag('no end');
	is($twilio->stats->{accepted}, 2, "$name: Twilio has taken both");
	is(recorded($first, $second), '2|0|2', "$name: both are recorded as sent, each with its SID");
}

# The other one is the same role's, of a run that is paused: in no memory.
sub wait_for_end
{
	my $job = shift;
	ok(poll(sub { sql("SELECT finished_at IS NOT NULL FROM sendcampaign.run WHERE schema = 'public' AND job_id = $job") eq 't' }), "job $job has ended");
}
sub status_of { return sql("SELECT coalesce((SELECT status FROM sendcampaign.message WHERE schema = 'public' AND job_id = $_[0]), 'none')"); }
{
	my ($first, $second) = map { create_campaign($node, users => 1, message => 'The same', base_url => undef) } 1 .. 2;
	$twilio->set(reset => 1, 'fault:drop-after' => '#1');
	my $paused = start_campaign($node, $first);
	poll(sub { $twilio->stats->{accepted} == 1 });
	sql("SET ROLE app; SELECT sendcampaign.pause($paused)");
	wait_for_no_worker($node);
	is(sql('SELECT count(*) FROM sendcampaign.claim'), 1, 'a paused run: its message is in doubt');
	$twilio->set('fault:drop-before' => '#1');
	my $job = start_campaign($node, $second);
	wait_for_end($job);
	is(status_of($job), 'in_doubt', '... which is not taken for the other run\'s');
	is($twilio->stats->{accepted}, 1, '... and Twilio has taken one');
	sql("SET ROLE app; SELECT sendcampaign.cancel($paused)");
	wait_for_end($paused);
}

sub settle
{
	my $job = shift;
	sql("SET ROLE app; SELECT sendcampaign.settle(m.job_id, m.list_user_id, true) FROM sendcampaign.message m WHERE m.schema = 'public' AND m.job_id = $job");
	is(status_of($job), 'sent', 'settled by hand: it was sent, under a SID that nobody knows');
}

# Its message is in doubt of another account; returns whose it was.
sub move_to_account
{
	my ($run, $account) = @_;
	return sql(qq{UPDATE sendcampaign.message_data m SET account = '$account'
		FROM sendcampaign.message_data old WHERE old.run_id = m.run_id AND m.run_id = $run RETURNING old.account});
}

# The other one has been left in doubt, and then the campaign's text was changed.
sub leave_in_doubt
{
	my ($campaign) = @_;
	$twilio->set(reset => 1, 'list-lag' => 600000, 'fault:drop-after' => '#1');
	my $job = start_campaign($node, $campaign);
	wait_for_end($job);
	is(status_of($job), 'in_doubt', 'left in doubt, as the list lags');
	$twilio->set('list-lag' => 0, 'fault:drop-before' => '#1');
	return $job;
}
for my $case ([ 'the same link', 'Before', 'After', 'https://example.org/survey', 0 ],
	[ 'the same link, settled by hand', 'Before', 'After', 'https://example.org/settled', 1 ])
{
	my ($name, $before, $after, $base_url, $settled) = @$case;
	my $campaign = create_campaign($node, users => 1, message => $before, base_url => $base_url, phone => '+15550009876');
	my $doubtful = leave_in_doubt($campaign);
	settle($doubtful) if $settled;
	sql("UPDATE ac_campaigns SET data = data || jsonb_build_object('message', '$after') WHERE id = $campaign");
	my $job = start_campaign($node, $campaign);
	wait_for_end($job);
	is(status_of($job), 'in_doubt', "$name, and the text was changed: what is found may be the earlier one");
	is($twilio->stats->{accepted}, 1, '... which is what Twilio has taken');
}

# The other one was sent later than the first one, whose run was paused then.
for my $case ([ 'the same text', 'Ho Ann', 'Ho {{name|Ann}}', 0 ], [ 'the same text, settled by hand', 'Hey Ann', 'Hey {{name|Ann}}', 1 ],
	[ 'the same text, of another account', 'Hello Ann', 'Hello {{name|Ann}}', 0, 'AC0' ])
{
	my ($name, $text, $template, $settled, $account) = @$case;
	my ($first, $second) = map { create_campaign($node, users => 1, message => $_, base_url => undef, phone => '+15550009877') } $text, $template;
	$twilio->set(reset => 1, 'fault:drop-before' => '#1');
	my $paused = start_campaign($node, $first);
	poll(sub { $twilio->stats->{requests} == 1 });
	sql("SET ROLE app; SELECT sendcampaign.pause($paused)");
	wait_for_no_worker($node);
	my $doubtful = leave_in_doubt($second);
	settle($doubtful) if $settled;
	move_to_account(run_of($doubtful), $account) if $account;
	$twilio->set('list-lag' => 0);
	sql("SET ROLE app; SELECT sendcampaign.resume($paused)");
	wait_for_end($paused);
	if ($account)
	{
		is(status_of($paused), 'sent', "$name: what is found is the paused run's");
		next;
	}
	is(status_of($paused), 'in_doubt', "$name: what is found is not taken for the paused run's");
	like(sql("SELECT error_message FROM sendcampaign.message WHERE schema = 'public' AND job_id = $paused"), qr/several messages that it can be/, '... with the reason');
}

# The same of two tenants with one link.
for my $case ([ 'of one account', 'in_doubt' ], [ 'of two accounts', 'sent', 'AC0' ])
{
	my ($name, $status, $account) = @$case;
	my ($first, $second) = map { "${_}_" . $name =~ s/\W/_/gr } 'first', 'second';
	make_tenant($node, $_, base_url => "https://example.org/$first") for $first, $second;
	$twilio->set(reset => 1, 'list-lag' => 0, 'fault:drop-before' => '#1');
	my $job = (split /\n/, sql(send_as($first, 1)))[-1];
	poll(sub { $twilio->stats->{requests} == 1 });
	sql("SET ROLE $first; SET sendcampaign.schema = $first; SELECT sendcampaign.pause($job)");
	wait_for_no_worker($node);
	$twilio->set(reset => 1, 'list-lag' => 600000, 'fault:drop-after' => '#1');
	sql(send_as($second, 1));
	poll(sub { state_of($second) eq 'completed 0 1' });
	is(state_of($second), 'completed 0 1', "$name: the second is left in doubt");
	if ($account)
	{
		is(move_to_account(run_of_tenant($second), $account), $LocalTwilio::ACCOUNT, "$name: its account is known");
	}
	$twilio->set('list-lag' => 0);
	sql("SET ROLE $first; SET sendcampaign.schema = $first; SELECT sendcampaign.resume($job)");
	poll(sub { state_of($first) =~ /completed/ });
	is(sql('SELECT status FROM sendcampaign.message_data WHERE run_id = ' . run_of_tenant($first)), $status, "$name: the first, found in the list, is $status");
}
$node->stop;
done_testing();
