# Nobody is woken: messages to recipients who have quiet hours are put off, and
# sent once, later.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";

use Campaign;
use LocalTwilio;
use PostgreSQL::Test::Utils;
use Test::More;

my $twilio = LocalTwilio->start;
my $node = new_cluster('quiet_hours', $twilio, conf => <<~CONF);
    sendcampaign.request_timeout = '1s'
    sendcampaign.lookup_delay = '100ms'
    restart_after_crash = on
    log_min_messages = debug1
CONF

# Replaces quiet hours and time zone of the campaign's group; the new ones are
# an SQL expression of type jsonb.
sub set_quiet_hours
{
	my ($campaign, $configuration) = @_;
	my $group = group_of($campaign);
	sql($node, <<~SQL);
	    UPDATE groups
	    SET configuration = (configuration - '{quietHours,timeZone}'::text[]) || $configuration
	    WHERE id = $group
	SQL
}

# As SQL: quiet hours that begin and end so long from now, in UTC.
sub hours
{
	my ($from, $to) = @_;
	return <<~SQL;
	    jsonb_build_object('quietHours', jsonb_build_object(
	        'from', to_char((now() + interval '$from') AT TIME ZONE 'UTC', 'HH24:MI:SS'),
	        'to', to_char((now() + interval '$to') AT TIME ZONE 'UTC', 'HH24:MI:SS')))
	SQL
}

# As SQL: quiet hours that it is in the middle of, in UTC.
sub night
{
	return hours('-1 hour', '2 hours');
}

# Gives these zones to the list's users in turn; undef is none.
sub set_zones
{
	my ($campaign, @zones) = @_;
	my $list = list_of($campaign);
	my $number = @zones;
	my $zones = join ', ', map { defined $_ ? "'$_'" : 'NULL' } @zones;
	sql($node, <<~SQL);
	    UPDATE ac_list_users u
	    SET data = data || jsonb_build_object('timeZone', zones[1 + n % $number])
	    FROM (SELECT ARRAY[$zones]::text[]) z(zones),
	        (SELECT id, row_number() OVER (ORDER BY id) - 1
	        FROM ac_list_users
	        WHERE ac_list_id = $list) l(id, n)
	    WHERE u.id = l.id AND zones[1 + n % $number] IS NOT NULL
	SQL
}

# Waits until a run has nothing to do before some later time, and its worker has
# left; returns the run's row.
sub fall_asleep
{
	my $job = shift;
	my $asleep = "SELECT next_at > now() FROM sendcampaign.run WHERE job_id = $job";
	poll_in_company($node, $twilio, sub { sql($node, $asleep) eq 't' })
	  or diag("job $job did not fall asleep: "
		  . sql($node, "SELECT * FROM sendcampaign.run WHERE job_id = $job"));
	wait_for_no_worker($node);
	return run_row($node, $job);
}

# As SQL: what a run has put off is due.
sub make_due
{
	my $job = shift;
	my $run_id = run_of($job);
	return <<~SQL;
	    UPDATE sendcampaign.batch SET due = now() WHERE run_id = $run_id;
	    UPDATE sendcampaign.run SET next_at = now() WHERE job_id = $job;
	SQL
}

# Makes it due and wakes a worker.
sub bring_forward
{
	my $job = shift;
	sql($node, make_due($job) . 'SELECT sendcampaign.wake()');
}

# The time of the day at which all batches of a run are due, in UTC.
sub due_times
{
	my $job = shift;
	my $run_id = run_of($job);
	return sql($node, <<~SQL);
	    SELECT DISTINCT to_char(due AT TIME ZONE 'UTC', 'HH24:MI:SS')
	    FROM sendcampaign.batch
	    WHERE run_id = $run_id
	SQL
}

# How often the log has something from an offset on.
sub logged
{
	my ($offset, $what) = @_;
	return scalar(() = slurp_file($node->logfile, $offset) =~ /$what/g);
}

# Some sleep, and some do not.  Etc/GMT-6 is UTC+6.
my $offset = -s $node->logfile;
my $campaign = create_campaign($node, users => 60);
my $group = group_of($campaign);
set_quiet_hours($campaign, night() . q( || '{"timeZone": "Etc/GMT-6"}'));
set_zones($campaign, 'UTC', 'Africa/Abidjan', 'Asia/Kathmandu', ' America/Phoenix ',
	undef, 'Mars/Olympus');
my $job = start_campaign($node, $campaign);
my $run_id = run_of($job);
my $run = fall_asleep($job);
is( "$run->{state} $run->{sent} of $run->{total}",
	'running 40 of 60',
	'those who are awake get the message at once');
my $ends = sql($node, "SELECT configuration->'quietHours'->>'to' FROM groups WHERE id = $group");
is(sql($node, <<~SQL), "$ends true true", 'the others are put off until the quiet hours end');
    SELECT DISTINCT to_char(due AT TIME ZONE 'UTC', 'HH24:MI:SS')
        || ' ' || (due > now())
        || ' ' || (due < now() + interval '1 day')
    FROM sendcampaign.batch
    WHERE run_id = $run_id
SQL
is(sql($node, <<~SQL), 20, 'all of the others are put off');
    SELECT sum(cardinality(list_user_ids)) FROM sendcampaign.batch WHERE run_id = $run_id
SQL
is(sql($node, <<~SQL), 't|t|t', 'the views show until when');
    SELECT r.next_at = p.next_at,
        r.next_at = (SELECT min(due) FROM sendcampaign.batch b WHERE b.run_id = r.id),
        p.time_left IS NULL
    FROM sendcampaign.run r JOIN sendcampaign.progress p USING (job_id)
    WHERE r.job_id = $job
SQL
is( sql($node, "SELECT progress FROM ac_background_jobs WHERE id = $job"),
	5 + int(40 / 60 * 95),
	'the progress of the job is that of two thirds');
is(logged($offset, 'list user \d+ has an unknown time zone "Mars/Olympus"'),
	1, 'an unknown zone is logged once');
is(logged($offset, 'has no time zone'), 0, "those without a zone have the group's");

# It is woken before its time, and sends nothing.
my $accepted = $twilio->stats->{accepted};
sql($node, 'SELECT sendcampaign.wake()');
no_worker_is_to_come($node);
is(fall_asleep($job)->{sent}, 40, 'nothing is sent when it is woken too early');
like(sql($node, <<~SQL, role => 'app'), qr/^$job$/, 'it is called again');
    SET client_min_messages = notice;
    SELECT send_campaign($campaign, $job)
SQL
no_worker_is_to_come($node);
is(fall_asleep($job)->{sent}, 40, 'nothing is sent when it is called again');

# Whether it is night is judged again, whatever time it was put off to.
bring_forward($job);
is(fall_asleep($job)->{sent}, 40, 'nothing is sent when it is due in the middle of the night');
is(due_times($job), $ends, 'the others are put off once more');
set_quiet_hours($campaign, hours('-2 hours', '5 hours'));
bring_forward($job);
is(fall_asleep($job)->{sent}, 40, 'nothing is sent when the night has become longer');
is(sql($node, <<~SQL), 't', 'the others are put off for longer');
    SELECT DISTINCT due > now() + interval '4 hours'
    FROM sendcampaign.batch
    WHERE run_id = $run_id
SQL
is($twilio->stats->{accepted}, $accepted, 'nobody was woken');
set_quiet_hours($campaign, hours('1 hours', '2 hours'));
bring_forward($job);
sent_once($node, $twilio, $campaign, $job, 'in the morning');
is(sql($node, "SELECT next_at IS NULL FROM sendcampaign.run WHERE job_id = $job"),
	't', 'the run waits for nothing any more');
wait_for_no_worker($node);

# A night ends by itself.
$twilio->set(reset => 1);
$campaign = create_campaign($node, users => 40);
$group = group_of($campaign);
set_quiet_hours($campaign, hours('-1 hour', '4 seconds'));
set_zones($campaign, 'UTC', 'Etc/GMT-6');
my $morning = sql($node, <<~SQL);
    SELECT extract(epoch FROM (configuration->'quietHours'->>'to')::time)
    FROM groups
    WHERE id = $group
SQL
$job = start_campaign($node, $campaign);
poll(sub {
	sql($node, 'SELECT sendcampaign.wake()');
	run_row($node, $job)->{state} eq 'completed';
});
sent_once($node, $twilio, $campaign, $job, 'a night ends', total => 40);
my $list = list_of($campaign);
my $sleepers = sql($node, <<~SQL);
    SELECT data->>'sms'
    FROM ac_list_users
    WHERE ac_list_id = $list AND data->>'timeZone' = 'UTC'
SQL
my %sleeper = map { $_ => 1 } split /\n/, $sleepers;
my $woken = 0;
for my $message (grep { $sleeper{ $_->{to} } } $twilio->ledger)
{
	# no message may come in the twelve hours before the morning
	my $since_evening = $message->{time} / 1e6 - ($morning - 43200);
	$woken++ if $since_evening % 86400 < 43200;
}
is($woken, 0, 'nobody was woken');

# Where no zone is known at all, it is UTC.
$offset = -s $node->logfile;
$campaign = create_campaign($node, users => 600);
set_zones($campaign, undef, '', '  ');
set_quiet_hours($campaign, night());
$job = start_campaign($node, $campaign);
is(fall_asleep($job)->{sent}, 0, 'where no zone is known, it is UTC');
my $no_zone = "list user \\d+ has no time zone\n"
  . '.*DETAIL:  The group\'s time zone, "UTC", is used for the quiet hours\.';
is(logged($offset, $no_zone), 1, 'which is logged once');
$run_id = run_of($job);
is(sql($node, <<~SQL), '3|600', 'nothing was claimed: there are as few batches as before');
    SELECT count(*), sum(cardinality(list_user_ids))
    FROM sendcampaign.batch
    WHERE run_id = $run_id
SQL

# A column of the application.
$list = list_of($campaign);
sql($node, 'ALTER TABLE ac_list_users ADD time_zone text');
sql($node, "UPDATE ac_list_users SET time_zone = 'europe/berlin' WHERE ac_list_id = $list");
set_quiet_hours($campaign,
	q('{"quietHours": {"from": "00:00", "to": "12:00"}, "timeZone": "UTC"}'));
like(sql($node, <<~SQL), qr/^(t\|t|f\|f)$/, 'a column time_zone, in lower case');
    SELECT deferred_until IS NOT NULL, (now() AT TIME ZONE 'Europe/Berlin')::time < '12:00'
    FROM sendcampaign.preview($campaign, 1)
SQL
sql($node, 'ALTER TABLE ac_list_users DROP time_zone');

# A zone is a name of the time zone database: UTC+3 would be UTC-3 in POSIX.
my @no_zones = qw(UTC+3 UTC-3 AAA5 AAA5BBB <+03>-3 A/B5 ../UTC GMT+0);
my @zones_by_day = qw(EST5EDT Etc/GMT-6);
my @zones_by_night = qw(UTC Zulu);
set_zones($campaign, @no_zones, @zones_by_day, @zones_by_night);
set_quiet_hours($campaign, night());
is(sql($node, <<~SQL), 'true ' x 8 . 'false ' x 2 . 'true true', 'which names are zones');
    SELECT string_agg((deferred_until IS NOT NULL)::text, ' ' ORDER BY list_user_id)
    FROM sendcampaign.preview($campaign, 12)
SQL

# Quiet hours that make no sense fail the run, and nothing is sent.
my @wrong_hours = (
	'"21:00-08:00"',
	'{"from": "25:00", "to": "08:00"}',
	'{"from": "21:00", "to": "08:60"}',
	'{"from": "21:00"}',
	'{"to": "08:00"}',
	'{"from": "21:00", "to": "8"}',
	'{"from": "21:00", "to": "08:00 am"}',
	'{"from": "21:00", "to": "08:00:60"}',
	'{"from": "24:01", "to": "08:00"}',
	'{"from": "-1:00", "to": "08:00"}',
	'{"from": 21, "to": 8}',
	'["21:00", "08:00"]',
	'2100',
	'true',
	'{"from": "21:00:", "to": "08:00"}',
	'{"from": "", "to": "08:00"}',
	'{"from": {"h": 21}, "to": "08:00"}',
	'{"from": "00:00", "to": "24:00"}');

# A campaign to two, whose group has this configuration.
sub campaign_with
{
	my $configuration = shift;
	my $campaign = create_campaign($node, users => 2);
	set_quiet_hours($campaign, $configuration);
	return $campaign;
}

# The same with these quiet hours, as JSON.
sub campaign_with_hours
{
	my $hours = shift;
	return campaign_with("jsonb_build_object('quietHours', '$hours'::jsonb)");
}

# The hint of the error that a preview gives.
sub hint_of_preview
{
	my $campaign = shift;
	return sql_error($node, "SELECT sendcampaign.preview($campaign)")->{hint};
}

$twilio->set(reset => 1);
$accepted = $twilio->stats->{create_requests};
my $invalid_hours = qr/invalid value for "quietHours" in the group's configuration/;
my $whole_day = qr/the group's "quietHours" cover the whole day/;
for my $hours (@wrong_hours)
{
	$campaign = campaign_with_hours($hours);
	$run = run_campaign($node, $campaign);
	like(
		"$run->{state} $run->{error}",
		qr/^failed (?:$invalid_hours|$whole_day)/,
		"quietHours: $hours");
	like(hint_of_preview($campaign), qr/"from": "21:00", "to": "08:00"/, 'with a hint');
}
my $invalid_zone = qr/invalid value for "timeZone" in the group's configuration/;
for my $zone ('Mars/Olympus', 'UTC+3', 'AAA5')
{
	$campaign = campaign_with(night() . qq( || '{"timeZone": "$zone"}'));
	$run = run_campaign($node, $campaign);
	like("$run->{state} $run->{error}", qr/^failed $invalid_zone: "\Q$zone\E"/, "timeZone: $zone");
	like(hint_of_preview($campaign), qr/pg_timezone_names/, 'with a hint');
}
is($twilio->stats->{create_requests}, $accepted, 'nothing is sent');

# Hours that are no night.
for my $hours ('null', '{"from": "08:00", "to": "08:00"}', '{"from": "24:00", "to": "00:00"}')
{
	$campaign = campaign_with_hours($hours);
	is(run_campaign($node, $campaign)->{sent}, 2, "quietHours: $hours");
}

# Where the keys are wrong, somebody wanted a night.
for my $hours ('{}', '{"From": "21:00", "To": "08:00"}')
{
	$campaign = campaign_with_hours($hours);
	is(run_campaign($node, $campaign)->{state}, 'failed', "quietHours: $hours");
}

# What is claimed by day may have to wait until it is night.
$twilio->set(reset => 1, 'retry-after' => 3, 'fault:429' => '#20');
$campaign = create_campaign($node, users => 20);
set_quiet_hours($campaign, hours('7 seconds', '2 hours'));
$job = start_campaign($node, $campaign);
is(fall_asleep($job)->{sent}, 0, 'what Twilio wants again by night is put off');
is($twilio->stats->{accepted}, 0, 'nobody was woken');
$run_id = run_of($job);
is(sql($node, "SELECT count(*) FROM sendcampaign.claim WHERE run_id = $run_id"),
	0, 'nothing is claimed');
set_quiet_hours($campaign, "'{}'");
bring_forward($job);
sent_once($node, $twilio, $campaign, $job, 'after Twilio wanted it again', total => 20);
$twilio->set(reset => 1, 'retry-after' => 0, 'fault:429' => 0);

# The server crashes, or is stopped, while some are put off.
for my $mode ('immediate', 'fast')
{
	$twilio->set(reset => 1, 'hold' => 1);
	$campaign = create_campaign($node, users => 40);
	set_quiet_hours($campaign, night());
	set_zones($campaign, 'UTC', 'Etc/GMT-6');
	$job = start_campaign($node, $campaign);
	wait_for_flight($twilio, 20);
	$node->stop($mode);
	$twilio->set('hold' => 0);
	$node->start;
	$run_id = run_of($job);
	is(sql($node, <<~SQL), 20, "$mode: they are put off all the same");
	    SELECT sum(cardinality(list_user_ids))
	    FROM sendcampaign.batch
	    WHERE run_id = $run_id AND due > now()
	SQL
	is(sql($node, 'SELECT sendcampaign.wake()'), 1, "$mode: a worker is woken");
	is(fall_asleep($job)->{sent}, 20, "$mode: those who are awake get the message");

	if ($mode eq 'immediate')
	{
		$node->stop('immediate');
		$node->start;
		sql($node, 'SELECT sendcampaign.wake()');
	}
	is(fall_asleep($job)->{sent}, 20, "$mode: the others are still asleep");
	set_quiet_hours($campaign, "'{}'");
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
set_quiet_hours($campaign, night());
sql($node, 'SELECT sendcampaign.wake()');
my $asleep_or_ended =
  "SELECT next_at > now() OR state = 'completed' FROM sendcampaign.run WHERE job_id = $job";
poll_in_company($node, $twilio, sub { sql($node, $asleep_or_ended) eq 't' });
is(sent_with($twilio, 'Hello'), 0, 'what is in doubt since the day wakes nobody');
set_quiet_hours($campaign, "'{}'");
bring_forward($job);
sent_once($node, $twilio, $campaign, $job, 'in doubt since the day', total => 20);

# One of several runs sleeps, and is woken while the worker has others.
$twilio->set(reset => 1);
my $asleep = create_campaign($node, users => 30);
set_quiet_hours($asleep, night());
my $asleep_job = start_campaign($node, $asleep);
fall_asleep($asleep_job);
my ($awake, $awake_job) = hold_campaign($node, $twilio, users => 30);
is(run_row($node, $asleep_job)->{sent}, 0, 'a run is asleep beside another run');
set_quiet_hours($asleep, "'{}'");
my ($pid) = worker_pids($node);
sql($node, make_due($asleep_job));
ok(wait_until($node, "SELECT next_at IS NULL FROM sendcampaign.run WHERE job_id = $asleep_job"),
	'it is taken up when it is due');
is(join(' ', worker_pids($node)), $pid, 'by the same worker');
$twilio->set(hold => 0);
sent_once($node, $twilio, $asleep, $asleep_job, 'the run that slept', total => 30);
sent_once($node, $twilio, $awake, $awake_job, 'the other run', total => 30);

# Paused and resumed in one transaction, as it is to be no night any more, while the
# last messages of the day are under way.
$twilio->set(reset => 1, hold => 1);
$campaign = create_campaign($node, users => 60);
set_quiet_hours($campaign, night() . q( || '{"timeZone": "Etc/GMT-6"}'));
set_zones($campaign, 'UTC', undef);
$job = start_campaign($node, $campaign);
wait_for_flight($twilio, 20);
my $no_night = "configuration - 'quietHours'";
$group = group_of($campaign);
sql($node, <<~SQL);
    BEGIN;
    SELECT sendcampaign.pause($job);
    UPDATE groups SET configuration = $no_night WHERE id = $group;
    SELECT sendcampaign.resume($job);
    COMMIT
SQL
$twilio->set(hold => 0);
my $at_rest = "SELECT finished_at IS NOT NULL OR next_at > now() FROM sendcampaign.run"
  . " WHERE job_id = $job";
poll_in_company($node, $twilio, sub { sql($node, $at_rest) eq 't' });
is(run_row($node, $job)->{state}, 'completed', 'resumed in the moment: nobody is put off again')
  or bring_forward($job);
sent_once($node, $twilio, $campaign, $job, 'resumed in the moment', total => 60);

# A run goes on by itself if the library is preloaded.  A dump keeps who is put
# off, and until when.
wait_for_no_worker($node);
$node->append_conf('postgresql.conf', <<~CONF);
    shared_preload_libraries = 'sendcampaign'
    sendcampaign.launcher_interval = '1s'
CONF
$node->restart;
$twilio->set(reset => 1);
$campaign = create_campaign($node, users => 40);
set_quiet_hours($campaign, night());
set_zones($campaign, 'UTC', 'Asia/Kathmandu');
$job = start_campaign($node, $campaign);
wait_until($node, "SELECT next_at > now() FROM sendcampaign.run WHERE job_id = $job");
my $dump = PostgreSQL::Test::Utils::tempdir() . '/dump.sql';
$node->command_ok([ 'pg_dump', '-f', $dump, '-d', $node->connstr('postgres') ],
	'the database is dumped');
sql($node, 'CREATE DATABASE restored');
my @psql = ('psql', '-X', '-q', '-v', 'ON_ERROR_STOP=1');
$node->command_ok([ @psql, '-f', $dump, '-d', $node->connstr('restored') ],
	'the dump is restored');
my $batches = 'SELECT * FROM sendcampaign.batch ORDER BY run_id, number';
is(sql($node, $batches, db => 'restored'), sql($node, $batches), 'the batches are in the dump');
sql($node, make_due($job), db => 'restored');
$run = wait_for_run($node, $job, db => 'restored', state => 'paused');
is($run->{sent}, 20, 'the copy is paused when it is due');
is(run_row($node, $job)->{sent}, 20, 'the original sleeps');
set_quiet_hours($campaign, "'{}'");
sql($node, make_due($job));
sent_once($node, $twilio, $campaign, $job, 'the launcher wakes it', total => 40);

$node->stop;
my $errors = worker_errors($node) =~ s/.*terminating connection because of crash.*//r;
is($errors, '', 'no worker complains');
done_testing();
