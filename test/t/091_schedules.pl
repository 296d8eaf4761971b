# The recipes of docs/operations.md, section Schedules: by pg_cron, by a
# trigger, and an application in Node that listens.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";

use Campaign;
use Cwd qw(getcwd);
use Document;
use File::Copy qw(copy);
use IPC::Run ();
use LocalTwilio;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

plan skip_all => 'pg_cron is not installed'
  if !-e PostgreSQL::Test::Cluster->new('probe')->config_data('--pkglibdir') . '/pg_cron.so';

my $twilio = LocalTwilio->start;
$twilio->set(account => "$LocalTwilio::ACCOUNT:your-auth-token");
my $node = new_cluster(
	'schedules', $twilio,
	no_extension => 1,
	conf => <<~CONF);
    shared_preload_libraries = 'pg_cron'
    cron.database_name = 'postgres'
    cron.use_background_workers = on
CONF
install_as_shown($node);

my @blocks = blocks_of('docs/operations.md');

# Runs SQL as the application's role and returns what it prints.
sub as_app
{
	my $sql = shift;
	return sql($node, $sql, role => 'app');
}

# Runs the statements of a section.
sub follow
{
	my $section = shift;
	for my $block (grep { $_->{section} eq $section && $_->{language} eq 'sql' } @blocks)
	{
		my (undef, $errors) = run_block($node, 'postgres', $block, 'app');
		is($errors, '', $block->{name});
	}
}

# Has pg_cron call a job; returns "succeeded" or "failed".  Its clock ticks once a
# minute, but @reboot runs at once after a restart.
sub let_cron_call
{
	my $name = shift;
	my $job = sql($node, "SELECT jobid FROM cron.job WHERE jobname = '$name'");
	my $last = sql($node, 'SELECT coalesce(max(runid), 0) FROM cron.job_run_details');
	my $of_job = "FROM cron.job_run_details WHERE jobid = $job AND runid > $last";
	sql($node, <<~SQL);
	    UPDATE cron.job
	    SET schedule = CASE jobname WHEN '$name' THEN '\@reboot' ELSE '0 0 1 1 *' END
	SQL
	$node->restart;
	ok(wait_until($node, "SELECT count(*) = 1 $of_job AND status IN ('succeeded', 'failed')"),
		"pg_cron calls $name")
	  or diag(sql($node, 'SELECT * FROM cron.job_run_details ORDER BY runid DESC LIMIT 3'));
	note(sql($node, "SELECT return_message $of_job"));
	return sql($node, "SELECT status $of_job");
}

# The newest job that a campaign was sent for.
sub last_job
{
	return sql($node, 'SELECT max(job_id) FROM sendcampaign.run');
}

# How many runs there are.
sub runs
{
	return sql($node, 'SELECT count(*) FROM sendcampaign.run');
}

# What comes before, as far as it is needed: numbers are those of the document.
my ($first_block) = grep { $_->{language} eq 'sql' } @blocks;
run_block($node, 'postgres', $first_block, 'app');
as_app(<<~'SQL');
    SELECT setval('ac_background_jobs_id_seq', 6),
        setval('ac_lists_id_seq', 2),
        setval('ac_campaigns_id_seq', 2);
    UPDATE groups SET configuration = configuration - 'twilioSegmentsPerSecond';
SQL
follow('Schedules');

# Once.
follow('Once');
is(let_cron_call('reminder'), 'succeeded', 'once: it is called');
is(wait_for_run($node, 7, alone => 1)->{sent}, 3, 'once: it is sent');
is(sql($node, 'SELECT count(*) FROM cron.job'), 0, 'once: the schedule has ended');
my ($again) = grep { $_->{section} eq 'Once' && $_->{text} =~ /cron/ } @blocks;
run_block($node, 'postgres', $again, 'app');
is(let_cron_call('reminder'), 'succeeded', 'once: it is called again');
ok(worker_is_gone($node, 20), 'once: no worker is left');
is($twilio->stats->{accepted}, 3, 'once: nothing is sent again');

# Every week.
follow('Every week');
is(let_cron_call('weekly'), 'succeeded', 'weekly: it is called');
my $job = last_job();
is(wait_for_run($node, $job, alone => 1)->{sent}, 3, 'weekly: it is sent');
is(let_cron_call('weekly'), 'succeeded', 'weekly: it is called again in that week');
is(last_job(), $job, 'weekly: there is no other job');
as_app(<<~SQL);
    UPDATE ac_background_jobs
    SET internal_data = '{"once": "campaign 1, week 2020-01"}'
    WHERE id = $job
SQL
is(let_cron_call('weekly'), 'succeeded', 'weekly: it is called in another week');
cmp_ok(last_job(), '>', $job, 'weekly: that week has a job of its own');
is(wait_for_run($node, last_job(), alone => 1)->{sent}, 3, 'weekly: it is sent again');

# A daily proof: of runs that ended yesterday; here, of those that have just ended.
my ($proof) = grep { $_->{section} eq 'A daily proof' && $_->{text} =~ /cron/ } @blocks;
run_block($node, 'postgres', $proof, 'app');
sql($node, <<~'SQL');
    UPDATE cron.job
    SET command = replace(command, $$date_trunc('day', now())$$, $$(now() + interval '12 hours')$$)
    WHERE jobname = 'reconcile'
SQL
is(let_cron_call('reconcile'), 'succeeded', 'proof: it is called');
is(as_app('SELECT count(*) FROM sendcampaign_differences'), 0, 'proof: there is no difference');
sql($node, "DELETE FROM sendcampaign.message_data WHERE run_id = ${\run_of($job)}");
is(let_cron_call('reconcile'), 'succeeded', 'proof: it is called again');
is(as_app(<<~"SQL"), "$job|unrecorded|3", 'proof: it finds what is not recorded');
    SELECT job_id, difference, count(*)
    FROM sendcampaign_differences
    WHERE job_id = $job
    GROUP BY 1, 2
SQL

# A run is under way while the server restarts for pg_cron.
my $accepted = $twilio->stats->{accepted};
$twilio->set('fault:never-after' => '#3');
my $held = as_app('SELECT send_campaign(1)');
poll(sub { $twilio->stats->{accepted} == $accepted + 3 }) or diag('it is not under way');
as_app('UPDATE ac_background_jobs SET internal_data = NULL');
is(let_cron_call('weekly'), 'failed', 'weekly: it is refused while another run goes on');
is(last_job(), $held, 'weekly: nothing is sent then');
as_app('SELECT sendcampaign.wake()');
is(wait_for_run($node, $held, alone => 1)->{sent} + 0, 3, 'weekly: the other run ends')
  or diag(sql($node, 'SELECT job_id, state, error FROM sendcampaign.run'));

# In the recipients' morning: one of three has it now.

# A time zone where it is that hour of the day.
sub zone_where_it_is
{
	my $hour = shift;
	my $hour_in_utc = sql($node, q{SELECT extract(hour FROM now() AT TIME ZONE 'UTC')});
	my $offset = $hour_in_utc - $hour;
	$offset += 24 if $offset < -12;
	$offset -= 24 if $offset > 11;
	return sprintf 'Etc/GMT%+d', $offset;    # west of Greenwich is +
}

# Puts a recipient where it is that hour of the day.
sub set_zone
{
	my ($phone, $hour) = @_;
	my $zone = zone_where_it_is($hour);
	as_app(<<~SQL);
	    UPDATE ac_list_users
	    SET data = data || '{"timeZone": "$zone"}'
	    WHERE data->>'sms' = '$phone'
	SQL
}

follow("In the recipients' morning");
set_zone('+1 555 000 0021', 10);
set_zone('+1 555 000 0022', 15);
set_zone('+1 555 000 0023', 3);
is(let_cron_call('morning'), 'succeeded', 'morning: it is called');
$job = last_job();
my $run_id = run_of($job);
ok(wait_until($node, "SELECT next_at > now() FROM sendcampaign.run WHERE job_id = $job"),
	'morning: the others sleep');
ok(worker_is_gone($node, 20), 'morning: no worker stays up for that');
is(run_row($node, $job)->{sent}, 1, 'morning: one has it');
is(as_app(<<~'SQL'), 't', 'morning: it is not sent after the day');
    SELECT (data->>'sendUntil')::timestamptz
        BETWEEN now() + interval '19 hours' AND now() + interval '20 hours'
    FROM ac_campaigns
    WHERE id = 3
SQL
is(let_cron_call('wake'), 'succeeded', 'wake: it is called');
is(run_row($node, $job)->{sent}, 1, 'wake: it is too early');
set_zone('+1 555 000 0022', 10);
set_zone('+1 555 000 0023', 10);
sql($node, <<~SQL);
    UPDATE sendcampaign.batch SET due = now() WHERE run_id = $run_id;
    UPDATE sendcampaign.run SET next_at = now() WHERE job_id = $job;
SQL
is(let_cron_call('wake'), 'succeeded', 'wake: it is called in the morning');
my $run = wait_for_run($node, $job, alone => 1);
is("$run->{state} $run->{sent} of $run->{total}", 'completed 3 of 3', 'morning: all have it');
my $count = $twilio->count_by_phone;
is_deeply([ map { $count->{"+1555000002$_"} } 1 .. 3 ], [ 1, 1, 1 ], 'morning: each has it once');

# A welcome message.

# Waits until all has been sent; returns who got which text since the last call.
sub welcomed
{
	my $name = shift;
	my $ended = "SELECT count(*) = 0 FROM sendcampaign.run WHERE state <> 'completed'";
	ok(wait_until($node, $ended), "$name: all runs have ended");
	wait_for_no_worker($node);
	my @texts = sort map { "$_->{to} $_->{body}" } $twilio->ledger;
	$twilio->set(reset => 1);
	return \@texts;
}

wait_for_no_worker($node);
$twilio->set(reset => 1);
follow('A welcome message');
is_deeply(welcomed('one'), ['+15550000031 Welcome, Hal!'], 'welcome: one list user');
as_app(<<~'SQL');
    UPDATE ac_list_users
    SET data = data || '{"name": "Hal B."}'
    WHERE data->>'sms' = '+1 555 000 0031'
SQL
is_deeply(welcomed('update'), [], 'welcome: none for an update');
as_app(<<~'SQL');
    BEGIN;
    INSERT INTO ac_list_users (ac_list_id, data) VALUES (1, '{"sms": "+15550000032"}');
    ROLLBACK;
SQL
is_deeply(welcomed('rollback'), [], 'welcome: none for what is rolled back');
my $before = runs();
as_app(<<~'SQL');
    INSERT INTO ac_list_users (ac_list_id, data) VALUES
        (1, '{"sms": "+15550000032", "name": "Ida"}'),
        (2, '{"sms": "+15550000033"}'),
        (1, '{"sms": "+15550000034", "name": ""}'),
        (1, '{}'),
        (1, NULL)
SQL
is_deeply(
	welcomed('many'),
	[ '+15550000032 Welcome, Ida!', '+15550000034 Welcome, friend!' ],
	'welcome: the new list users of that list');
is(runs(), $before + 1, 'welcome: in one run');
as_app(<<~'SQL');
    DELETE FROM ac_list_users WHERE id = 3;
    CREATE UNIQUE INDEX ON ac_list_users (ac_list_id, (data->>'sms'));
    INSERT INTO ac_list_users (ac_list_id, data) VALUES
        (1, '{"sms": "+15550000032", "name": "Ida B."}'),
        (1, '{"sms": "+15550000035", "name": "Jo"}')
    ON CONFLICT (ac_list_id, (data->>'sms')) DO UPDATE SET data = excluded.data;
SQL
is_deeply(
	welcomed('conflict'),
	['+15550000035 Welcome, Jo!'],
	'welcome: none for an insert that becomes an update');
as_app(<<~'SQL');
    INSERT INTO ac_list_users (ac_list_id, data)
    SELECT 1, jsonb_build_object('sms', '+1555001' || n, 'name', n)
    FROM generate_series(1000, 1999) n
SQL
is_deeply(
	welcomed('thousand'),
	[ map { "+1555001$_ Welcome, $_!" } 1000 .. 1999 ],
	'welcome: a thousand list users');
is(runs(), $before + 3, 'welcome: in one run, too');

# An application that listens.
my $dir = PostgreSQL::Test::Utils::tempdir();
for my $file (qw(package.json package-lock.json))
{
	copy("$FindBin::RealBin/../node/$file", "$dir/$file") or die "could not copy $file: $!";
}
my ($program) = grep { $_->{language} eq 'js' } @blocks;
append_to_file("$dir/listen.js", $program->{text});
my $here = getcwd();
chdir $dir;
local $ENV{npm_config_cache} = "$dir/cache";
command_ok([ 'npm', 'ci', '--no-audit', '--no-fund', '--loglevel=error' ],
	'its packages are installed');
local @ENV{qw(PGHOST PGPORT PGUSER PGDATABASE)} = ($node->host, $node->port, 'app', 'postgres');
my ($in, $out, $err) = ('', '', '');
my $application = IPC::Run::start([ 'node', 'listen.js' ], '<', \$in, '>', \$out, '2>', \$err);
chdir $here;

# Waits until the application prints a line.
sub hears
{
	my $line = shift;
	my $heard = poll(sub {
		$application->pump_nb;
		return $out =~ /^\Q$line\E$/m;
	});
	diag("heard: $out, complained: $err") if !$heard;
	return $heard;
}

ok(hears("job $held is completed: 3 of 7 sent"), 'the listener hears what ended before');
$job = as_app('SELECT send_campaign(3)');
ok(hears("job $job is completed: 3 of 3 sent"), 'the listener hears what ends');
my $pid = sql($node, <<~'SQL');
    SELECT pid
    FROM pg_stat_activity
    WHERE usename = 'app' AND query ILIKE '%finished_at > now()%' AND state = 'idle'
SQL
is(sql($node, "SELECT pg_terminate_backend($pid, 10000)"),
	't', "the listener's connection is cut");
$job = as_app('SELECT send_campaign(3)');
ok(hears("job $job is completed: 3 of 3 sent"), 'the listener hears what ended meanwhile');
is(scalar(() = $out =~ /^job $job /mg), 1, 'the listener hears it once');
$application->kill_kill(grace => 5);

my @errors =
  grep { !/campaign 1 is already being sent/ } split /\n/, worker_errors($node);
is(join("\n", @errors), '', 'the server has nothing else to complain about');
$node->stop;
done_testing();
