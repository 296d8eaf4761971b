# Nobody is woken: recipients in their night are put off, and get it once, later.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../perl";
use Campaign;
use LocalTwilio;
use PostgreSQL::Test::Utils;
use Test::More;

my $twilio = LocalTwilio->start;
my $node = new_cluster('quiet_hours', $twilio, conf => qq{
	sendcampaign.request_timeout = '1s'
	sendcampaign.lookup_delay = '100ms'
	restart_after_crash = on
});

sub sql { my $sql = shift; return $node->safe_psql('postgres', $sql); }
sub list_of { my $campaign = shift; return "(SELECT ac_list_id FROM ac_campaigns WHERE id = $campaign)"; }
sub configure
{
	my ($campaign, $configuration) = @_;
	sql("UPDATE groups SET configuration = (configuration - '{quietHours,timeZone}'::text[]) || $configuration WHERE id = ${\ group_of($campaign)}");
}
# quietHours from and to so long from now, in UTC
sub hours
{
	my ($from, $to) = @_;
	return "jsonb_build_object('quietHours', jsonb_build_object("
	  . join(', ', "'from', to_char((now() + interval '$from') AT TIME ZONE 'UTC', 'HH24:MI:SS')",
		"'to', to_char((now() + interval '$to') AT TIME ZONE 'UTC', 'HH24:MI:SS')") . '))';
}
sub night { return hours('-1 hour', '2 hours'); }
# zones of the list's users in turn; undef for none
sub set_zones
{
	my ($campaign, @zones) = @_;
	my $zones = join ', ', map { defined $_ ? "'$_'" : 'NULL' } @zones;
	sql(qq{UPDATE ac_list_users SET data = data || CASE WHEN zone IS NULL THEN '{}' ELSE jsonb_build_object('timeZone', zone) END
		FROM (SELECT id AS n, (ARRAY[$zones]::text[])[1 + (row_number() OVER (ORDER BY id) - 1) % @{[ scalar @zones ]}] AS zone
			FROM ac_list_users WHERE ac_list_id = ${\ list_of($campaign)}) z WHERE id = n});
}
sub fall_asleep
{
	my $job = shift;
	poll_in_company($node, $twilio, sub { sql("SELECT next_at > now() FROM sendcampaign.run WHERE job_id = $job") eq 't' })
	  or diag("job $job did not fall asleep: " . sql("SELECT * FROM sendcampaign.run WHERE job_id = $job"));
	wait_for_no_worker($node);
	return run_row($node, $job);
}
# What was put off is due.
sub bring_forward
{
	my $job = shift;
	sql("UPDATE sendcampaign.batch SET due = now() WHERE run_id = ${\ run_of($job)};
		UPDATE sendcampaign.run SET next_at = now() WHERE job_id = $job; SELECT sendcampaign.wake()");
}
sub logged { my ($offset, $what) = @_; return scalar(() = slurp_file($node->logfile, $offset) =~ /$what/g); }

# Some sleep, and some do not.
my $offset = -s $node->logfile;
my $campaign = create_campaign($node, users => 60);
configure($campaign, night() . q{ || '{"timeZone": "Etc/GMT-6"}'});	# which is UTC+6
set_zones($campaign, 'UTC', 'Africa/Abidjan', 'Asia/Kathmandu', ' America/Phoenix ', undef, 'Mars/Olympus');
my $job = start_campaign($node, $campaign);
my $run = fall_asleep($job);
is("$run->{state} $run->{sent} of $run->{total}", 'running 40 of 60', 'those who are awake get it at once');
my $ends = sql(qq{SELECT (configuration->'quietHours'->>'to') FROM groups WHERE id = ${\ group_of($campaign)}});
is(sql(qq{SELECT DISTINCT to_char(due AT TIME ZONE 'UTC', 'HH24:MI:SS') || ' ' || (due > now()) || ' ' || (due < now() + interval '1 day')
	FROM sendcampaign.batch WHERE run_id = ${\ run_of($job)}}), "$ends true true", 'the others are put off');
is(sql("SELECT sum(cardinality(list_user_ids)) FROM sendcampaign.batch WHERE run_id = ${\ run_of($job)}"), 20, 'all of them');
is(sql(qq{SELECT r.next_at = p.next_at, r.next_at = (SELECT min(due) FROM sendcampaign.batch b WHERE b.run_id = r.id), p.time_left IS NULL
	FROM sendcampaign.run r JOIN sendcampaign.progress p USING (job_id) WHERE r.job_id = $job}), 't|t|t', 'and it is shown until when');
is(sql("SELECT progress FROM ac_background_jobs WHERE id = $job"), 5 + int(40 / 60 * 95), 'as far as the job is concerned');
is(logged($offset, 'list user \d+ has an unknown time zone "Mars/Olympus"'), 1, 'an unknown zone is told of once');
is(logged($offset, 'has no time zone'), 0, 'those without one have the group\'s');

# It is woken before its time, and nothing comes of it.
my $accepted = $twilio->stats->{accepted};
sql('SELECT sendcampaign.wake()');
wait_for_no_worker($node);
is(fall_asleep($job)->{sent}, 40, 'woken too early');
like($node->safe_psql('postgres', "SET client_min_messages = notice; SET ROLE app; SELECT send_campaign($campaign, $job)"), qr/^$job$/, 'called again');
wait_for_no_worker($node);
is(fall_asleep($job)->{sent}, 40, 'likewise');

# The night is judged anew: whatever time it was put off to.
bring_forward($job);
is(fall_asleep($job)->{sent}, 40, 'due, but in the middle of the night');
is(sql(qq{SELECT DISTINCT to_char(due AT TIME ZONE 'UTC', 'HH24:MI:SS') FROM sendcampaign.batch WHERE run_id = ${\ run_of($job)}}), $ends,
	'put off once more');
configure($campaign, hours('-2 hours', '5 hours'));
bring_forward($job);
is(fall_asleep($job)->{sent}, 40, 'the night has become longer');
is(sql(qq{SELECT DISTINCT due > now() + interval '4 hours' FROM sendcampaign.batch WHERE run_id = ${\ run_of($job)}}), 't', 'they are put off for longer');
is($twilio->stats->{accepted}, $accepted, 'nobody was woken');
configure($campaign, hours('1 hours', '2 hours'));
bring_forward($job);
sent_once($node, $twilio, $campaign, $job, 'in the morning');
is(sql("SELECT next_at IS NULL FROM sendcampaign.run WHERE job_id = $job"), 't', 'and it waits for nothing');
wait_for_no_worker($node);

# A night ends by itself.
$twilio->set(reset => 1);
$campaign = create_campaign($node, users => 40);
configure($campaign, hours('-1 hour', '4 seconds'));
set_zones($campaign, 'UTC', 'Etc/GMT-6');
my $morning = sql(qq{SELECT extract(epoch FROM (configuration->'quietHours'->>'to')::time) FROM groups WHERE id = ${\ group_of($campaign)}});
$job = start_campaign($node, $campaign);
poll(sub { sql("SELECT sendcampaign.wake()"); run_row($node, $job)->{state} eq 'completed' });
sent_once($node, $twilio, $campaign, $job, 'a night ends', total => 40);
my %sleeper = map { $_ => 1 } split /\n/, sql(qq{SELECT data->>'sms' FROM ac_list_users WHERE ac_list_id = ${\ list_of($campaign)} AND data->>'timeZone' = 'UTC'});
is((grep { $sleeper{ $_->{to} } && ($_->{time} / 1e6 - $morning + 43200) % 86400 < 43200 } $twilio->ledger), 0, 'nobody was woken');

# No zone at all: UTC.
$offset = -s $node->logfile;
$campaign = create_campaign($node, users => 600);
set_zones($campaign, undef, '', '  ');
configure($campaign, night());
$job = start_campaign($node, $campaign);
is(fall_asleep($job)->{sent}, 0, 'UTC, where no zone is known');
is(logged($offset, "list user \\d+ has no time zone\n.*DETAIL:  Quiet hours are those of the group's time zone, which is \"UTC\"."), 1, 'which is told of once');
# and everybody is asleep: nothing was claimed
is(sql("SELECT count(*), sum(cardinality(list_user_ids)) FROM sendcampaign.batch WHERE run_id = ${\ run_of($job)}"), '3|600', 'as few batches as there were');

# columns of the application
sql('ALTER TABLE ac_list_users ADD time_zone text');
sql("UPDATE ac_list_users SET time_zone = 'europe/berlin' WHERE ac_list_id = ${\ list_of($campaign)}");
configure($campaign, q{'{"quietHours": {"from": "00:00", "to": "12:00"}, "timeZone": "UTC"}'});
my $at = sql(q{SELECT deferred_until IS NOT NULL, (now() AT TIME ZONE 'Europe/Berlin')::time < '12:00' FROM sendcampaign.preview(} . "$campaign, 1)");
like($at, qr/^(t\|t|f\|f)$/, 'a column time_zone, in small letters');
sql('ALTER TABLE ac_list_users DROP time_zone');

# A zone is a name of the time zone database: UTC+3 would be UTC-3 in POSIX.
set_zones($campaign, 'UTC+3', 'UTC-3', 'AAA5', 'AAA5BBB', '<+03>-3', 'A/B5', '../UTC', 'GMT+0', 'EST5EDT', 'Etc/GMT-6', 'UTC', 'Zulu');
configure($campaign, night());
is(sql(qq{SELECT string_agg((deferred_until IS NOT NULL)::text, ' ' ORDER BY list_user_id) FROM sendcampaign.preview($campaign, 12)}),
	'true true true true true true true true false false true true', 'what is a zone');

# What makes no sense fails the run, and sends nothing.
$twilio->set(reset => 1);
$accepted = $twilio->stats->{create_requests};
for my $hours ('"21:00-08:00"', '{"from": "25:00", "to": "08:00"}', '{"from": "21:00", "to": "08:60"}', '{"from": "21:00"}',
	'{"to": "08:00"}', '{"from": "21:00", "to": "8"}', '{"from": "21:00", "to": "08:00 am"}', '{"from": "21:00", "to": "08:00:60"}',
	'{"from": "24:01", "to": "08:00"}', '{"from": "-1:00", "to": "08:00"}', '{"from": 21, "to": 8}', '["21:00", "08:00"]', '2100', 'true',
	'{"from": "21:00:", "to": "08:00"}', '{"from": "", "to": "08:00"}', '{"from": {"h": 21}, "to": "08:00"}', '{"from": "00:00", "to": "24:00"}')
{
	$campaign = create_campaign($node, users => 2);
	configure($campaign, "jsonb_build_object('quietHours', '$hours'::jsonb)");
	$run = wait_for_run($node, start_campaign($node, $campaign));
	like("$run->{state} $run->{error}", qr/^failed the group's "quietHours" (is not two times of the day|leave no time)/, "quietHours: $hours");
	like(sql_error($node, "SELECT sendcampaign.preview($campaign)")->{hint}, qr/"from": "21:00", "to": "08:00"/, 'with a hint');
}
for my $zone ('Mars/Olympus', 'UTC+3', 'AAA5')
{
	$campaign = create_campaign($node, users => 2);
	configure($campaign, night() . qq{ || '{"timeZone": "$zone"}'});
	$run = wait_for_run($node, start_campaign($node, $campaign));
	like("$run->{state} $run->{error}", qr/^failed the group's "timeZone" is not a time zone: "\Q$zone\E"/, "timeZone: $zone");
	like(sql_error($node, "SELECT sendcampaign.preview($campaign)")->{hint}, qr/pg_timezone_names/, 'with a hint');
}
is($twilio->stats->{create_requests}, $accepted, 'nothing was sent');
# all of these have no night
for my $hours ('null', '{"from": "08:00", "to": "08:00"}', '{"from": "24:00", "to": "00:00"}')
{
	$campaign = create_campaign($node, users => 2);
	configure($campaign, "jsonb_build_object('quietHours', '$hours'::jsonb)");
	is(wait_for_run($node, start_campaign($node, $campaign))->{sent}, 2, "quietHours: $hours");
}
# keys that are none: a night that someone wanted
for my $hours ('{}', '{"From": "21:00", "To": "08:00"}')
{
	$campaign = create_campaign($node, users => 2);
	configure($campaign, "jsonb_build_object('quietHours', '$hours'::jsonb)");
	is(wait_for_run($node, start_campaign($node, $campaign))->{state}, 'failed', "quietHours: $hours");
}

# Claimed by day, and it has to wait until night.
$twilio->set(reset => 1, 'retry-after' => 3, 'fault:429' => '#20');
$campaign = create_campaign($node, users => 20);
configure($campaign, hours('2 seconds', '2 hours'));
$job = start_campaign($node, $campaign);
is(fall_asleep($job)->{sent}, 0, 'asked to come again by night: put off');
is($twilio->stats->{accepted}, 0, 'nobody was woken');
is(sql("SELECT count(*) FROM sendcampaign.claim WHERE run_id = ${\ run_of($job)}"), 0, 'nothing is claimed');
configure($campaign, "'{}'");
bring_forward($job);
sent_once($node, $twilio, $campaign, $job, 'asked to come again', total => 20);
$twilio->set(reset => 1, 'retry-after' => 0, 'fault:429' => 0);

# The server crashes, and is stopped, while some are put off.
for my $mode ('immediate', 'fast')
{
	$twilio->set(reset => 1, 'hold' => 1);
	$campaign = create_campaign($node, users => 40);
	configure($campaign, night());
	set_zones($campaign, 'UTC', 'Etc/GMT-6');
	$job = start_campaign($node, $campaign);
	wait_for_flight($twilio, 20);
	$node->stop($mode);
	$twilio->set('hold' => 0);
	$node->start;
	is(sql("SELECT sum(cardinality(list_user_ids)) FROM sendcampaign.batch WHERE run_id = ${\ run_of($job)} AND due > now()"), 20, "$mode: put off all the same");
	is(sql('SELECT sendcampaign.wake()'), 1, "$mode: woken");
	is(fall_asleep($job)->{sent}, 20, "$mode: those who are awake get it");
	if ($mode eq 'immediate')
	{
		$node->stop('immediate');
		$node->start;
		sql('SELECT sendcampaign.wake()');
	}
	is(fall_asleep($job)->{sent}, 20, "$mode: asleep still");
	configure($campaign, "'{}'");
	bring_forward($job);
	sent_once($node, $twilio, $campaign, $job, $mode, total => 40);
}

# What was on its way when the server crashed, and is not known to Twilio, is
# sent again, but not by night.
$twilio->set(reset => 1, 'hold' => 1);
$campaign = create_campaign($node, users => 20);
$job = start_campaign($node, $campaign);
wait_for_flight($twilio, 20);
$node->stop('immediate');
$twilio->set('hold' => 0);
$node->start;
configure($campaign, night());
sql('SELECT sendcampaign.wake()');
poll_in_company($node, $twilio, sub { sql("SELECT next_at > now() OR state = 'completed' FROM sendcampaign.run WHERE job_id = $job") eq 't' });
is(sent_with($twilio, 'Hello'), 0, 'in doubt since the day: nobody is woken');
configure($campaign, "'{}'");
bring_forward($job);
sent_once($node, $twilio, $campaign, $job, 'in doubt since the day', total => 20);

# One of several runs sleeps, and is woken while the worker has others.
$twilio->set(reset => 1);
my $asleep = create_campaign($node, users => 30);
configure($asleep, night());
my $asleep_job = start_campaign($node, $asleep);
fall_asleep($asleep_job);
my ($awake, $awake_job) = hold_campaign($node, $twilio, users => 30);
is(run_row($node, $asleep_job)->{sent}, 0, 'asleep beside another run');
configure($asleep, "'{}'");
my ($pid) = worker_pids($node);
sql("UPDATE sendcampaign.batch SET due = now() WHERE run_id = ${\ run_of($asleep_job)}; UPDATE sendcampaign.run SET next_at = now() WHERE job_id = $asleep_job");
ok($node->poll_query_until('postgres', "SELECT next_at IS NULL FROM sendcampaign.run WHERE job_id = $asleep_job"), 'it is taken up when it is due');
is(join(' ', worker_pids($node)), $pid, 'by the same worker');
$twilio->set(hold => 0);
sent_once($node, $twilio, $asleep, $asleep_job, 'the one that slept', total => 30);
sent_once($node, $twilio, $awake, $awake_job, 'the other one', total => 30);

# With preload it goes on by itself; a dump keeps who is put off, and until when.
wait_for_no_worker($node);
$node->append_conf('postgresql.conf', "shared_preload_libraries = 'sendcampaign'\nsendcampaign.launcher_interval = '1s'");
$node->restart;
$twilio->set(reset => 1);
$campaign = create_campaign($node, users => 40);
configure($campaign, night());
set_zones($campaign, 'UTC', 'Asia/Kathmandu');
$job = start_campaign($node, $campaign);
$node->poll_query_until('postgres', "SELECT next_at > now() FROM sendcampaign.run WHERE job_id = $job");
my $dump = PostgreSQL::Test::Utils::tempdir() . '/dump.sql';
$node->command_ok([ 'pg_dump', '-f', $dump, '-d', $node->connstr('postgres') ], 'pg_dump');
sql('CREATE DATABASE restored');
$node->command_ok([ 'psql', '-X', '-q', '-v', 'ON_ERROR_STOP=1', '-f', $dump, '-d', $node->connstr('restored') ], 'restored');
my $batches = "SELECT * FROM sendcampaign.batch ORDER BY run_id, number";
is($node->safe_psql('restored', $batches), sql($batches), 'the batches are in the dump');
my $due = "UPDATE sendcampaign.batch SET due = now() WHERE run_id = ${\ run_of($job)}; UPDATE sendcampaign.run SET next_at = now() WHERE job_id = $job";
$node->safe_psql('restored', $due);
is(wait_for_run($node, $job, db => 'restored', state => 'paused')->{sent}, 20, 'where the copy is due, it is paused');
is(run_row($node, $job)->{sent}, 20, 'the original sleeps');
configure($campaign, "'{}'");
sql($due);
sent_once($node, $twilio, $campaign, $job, 'the launcher wakes it', total => 40);

$node->stop;
is(worker_errors($node) =~ s/.*terminating connection because of crash.*//r, '', 'no worker complained');
done_testing();
