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

# The schema of a role, with a campaign 1 to one phone, the same for all, and a
# campaign 2 to the companion, so that something is sent later.
sub make_tenant
{
	my ($tenant, $message, $base_url) = @_;
	my $url = defined $base_url ? "'$base_url'" : 'NULL';
	sql(qq{CREATE ROLE $tenant LOGIN; GRANT USAGE ON SCHEMA sendcampaign TO $tenant;
		CREATE SCHEMA $tenant AUTHORIZATION $tenant; SET ROLE $tenant;
		SELECT sendcampaign.create_tables('$tenant');
		SET search_path = $tenant, public;
		INSERT INTO groups (configuration) VALUES (jsonb_build_object('twilioAccountSid', '$LocalTwilio::ACCOUNT',
			'twilioAuthToken', '$LocalTwilio::TOKEN', 'twilioFromSmsNumber', '$LocalTwilio::SENDER'));
		INSERT INTO ac_lists (group_id) VALUES (1), (1);
		INSERT INTO ac_list_users (ac_list_id, data) VALUES (1, '{"sms": "+15550001234", "name": "Ann"}'), (2, '{"sms": "$LocalTwilio::COMPANION"}');
		INSERT INTO ac_campaigns (ac_list_id, data) VALUES (1, jsonb_build_object('message', '$message', 'baseUrl', $url)),
			(2, jsonb_build_object('message', 'Later', 'baseUrl', $url))});
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
for my $case ([ 'the same link', 'east', 'From east', 'west', 'From west', 'https://example.org' ],
	[ 'the same text without a link', 'north', 'Hi Ann', 'south', 'Hi {{name}}', undef ])
{
	my ($name, $first, $first_text, $second, $second_text, $base_url) = @$case;
	make_tenant($first, $first_text, $base_url);
	make_tenant($second, $second_text, $base_url);
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

# It does not become known in time.
make_tenant($_, "From $_", 'https://example.com/late') for qw(spring autumn);
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
	make_tenant($_, 'The same', $base_url) for $first, $second;
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
		UPDATE sendcampaign.run_data SET next_at = now(), history = '0/0' WHERE id = ${\ run_of_tenant($first)}; SELECT sendcampaign.wake()");
	poll(sub { sql("SELECT read_back FROM sendcampaign.run WHERE id = " . run_of_tenant($first)) eq 't' }) or diag('not read back');
	$lock_session->quit;
	poll(sub { state_of($first) =~ /completed/ && state_of($second) =~ /completed/ }) or diag('no end');
	is($twilio->stats->{accepted}, 2, "$name: Twilio has taken both");
	is(recorded($first, $second), '2|0|2', "$name: both are recorded as sent, each with its SID");
}

# The other one is the same role's, of a run that is paused: in no memory.  Jobs
# of other schemas have the same numbers.
sub status_of { return sql("SELECT coalesce((SELECT status FROM sendcampaign.message WHERE schema = 'public' AND job_id = $_[0]), 'none')"); }
sub wait_for_outcome { my $job = shift; poll(sub { sql("SELECT finished_at IS NOT NULL FROM sendcampaign.run WHERE id = " . run_of($job)) eq 't' }) or diag('no end'); return status_of($job); }
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
	is(wait_for_outcome($job), 'in_doubt', '... which is not taken for the other run\'s');
	is($twilio->stats->{accepted}, 1, '... and Twilio has taken one');
	sql("SET ROLE app; SELECT sendcampaign.cancel($paused)");
	wait_for_outcome($paused);
}

# The other one has the same link, and has been left in doubt before the
# campaign's text was changed.
{
	my $campaign = create_campaign($node, users => 1, message => 'Before', phone => '+15550009876');
	$twilio->set(reset => 1, 'list-lag' => 600000, 'fault:drop-after' => '#1');
	is(wait_for_outcome(start_campaign($node, $campaign)), 'in_doubt', 'left in doubt, as the list lags');
	sql(q{UPDATE ac_campaigns SET data = data || '{"message": "After"}' WHERE id = } . $campaign);
	$twilio->set('list-lag' => 0, 'fault:drop-before' => '#1');
	is(wait_for_outcome(start_campaign($node, $campaign)), 'in_doubt', '... and the text was changed: what is found may be the earlier one');
	is($twilio->stats->{accepted}, 1, '... which is what Twilio has taken');
}
$node->stop;
done_testing();
