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
my $node = new_cluster('schedules', $twilio, no_extension => 1, conf => q{
	shared_preload_libraries = 'pg_cron'
	cron.database_name = 'postgres'
	cron.use_background_workers = on
});
$node->safe_psql('postgres', 'CREATE EXTENSION sendcampaign; CREATE ROLE app LOGIN;'
	  . 'GRANT CREATE ON SCHEMA public TO app; GRANT USAGE ON SCHEMA sendcampaign TO app;'
	  . 'GRANT EXECUTE ON ALL ROUTINES IN SCHEMA sendcampaign TO app; GRANT EXECUTE ON FUNCTION send_campaign TO app');

my @blocks = blocks_of('docs/operations.md');

sub app { my $sql = shift; return $node->safe_psql('postgres', "SET ROLE app; $sql"); }

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

# pg_cron's clock ticks once a minute; @reboot runs at once after a restart.
sub let_cron_call
{
	my $name = shift;
	my $job = $node->safe_psql('postgres', "SELECT jobid FROM cron.job WHERE jobname = '$name'");
	my $of_job = "FROM cron.job_run_details WHERE jobid = $job AND runid > "
	  . $node->safe_psql('postgres', 'SELECT coalesce(max(runid), 0) FROM cron.job_run_details');
	$node->safe_psql('postgres', qq{UPDATE cron.job SET schedule = CASE jobname WHEN '$name' THEN '\@reboot' ELSE '0 0 1 1 *' END});
	$node->restart;
	ok($node->poll_query_until('postgres', "SELECT count(*) = 1 $of_job AND status IN ('succeeded', 'failed')"), "pg_cron calls $name")
	  or diag($node->safe_psql('postgres', 'SELECT * FROM cron.job_run_details ORDER BY runid DESC LIMIT 3'));
	note($node->safe_psql('postgres', "SELECT return_message $of_job"));
	return $node->safe_psql('postgres', "SELECT status $of_job");
}

sub last_job { return $node->safe_psql('postgres', 'SELECT max(job_id) FROM sendcampaign.run'); }
sub runs { return $node->safe_psql('postgres', 'SELECT count(*) FROM sendcampaign.run'); }

# What comes before, as far as it is needed: numbers are those of the document.
run_block($node, 'postgres', (grep { $_->{language} eq 'sql' } @blocks)[0], 'app');
app(q{SELECT setval('ac_background_jobs_id_seq', 6), setval('ac_lists_id_seq', 2), setval('ac_campaigns_id_seq', 2)});
app(q{UPDATE groups SET configuration = configuration - 'twilioSegmentsPerSecond'});
follow('Schedules');

# once
follow('Once');
is(let_cron_call('reminder'), 'succeeded', 'once: called');
is(wait_for_run($node, 7)->{sent}, 3, 'once: sent');
is($node->safe_psql('postgres', 'SELECT count(*) FROM cron.job'), 0, 'once: the schedule has ended');
my ($again) = grep { $_->{section} eq 'Once' && $_->{text} =~ /cron/ } @blocks;
run_block($node, 'postgres', $again, 'app');
is(let_cron_call('reminder'), 'succeeded', 'once: called again');
ok(worker_is_gone($node, 20), 'no worker is left');
is($twilio->stats->{accepted}, 3, 'once: nothing is sent again');

# every week
follow('Every week');
is(let_cron_call('weekly'), 'succeeded', 'weekly: called');
my $job = last_job();
is(wait_for_run($node, $job, alone => 1)->{sent}, 3, 'weekly: sent');
is(let_cron_call('weekly'), 'succeeded', 'weekly: called again in that week');
is(last_job(), $job, 'weekly: no other job');
app(qq{UPDATE ac_background_jobs SET internal_data = '{"once": "campaign 1, week 2020-01"}' WHERE id = $job});
is(let_cron_call('weekly'), 'succeeded', 'weekly: called in another week');
cmp_ok(last_job(), '>', $job, 'weekly: a job of its own');
is(wait_for_run($node, last_job(), alone => 1)->{sent}, 3, 'weekly: sent again');
# it is under way while the server restarts for pg_cron
my $accepted = $twilio->stats->{accepted};
$twilio->set('fault:never-after' => '#3');
my $held = app('SELECT send_campaign(1)');
poll(sub { $twilio->stats->{accepted} == $accepted + 3 }) or diag('it is not under way');
app(q{UPDATE ac_background_jobs SET internal_data = NULL});
is(let_cron_call('weekly'), 'failed', 'weekly: not while another run goes on');
is(last_job(), $held, 'weekly: nothing is sent then');
app('SELECT sendcampaign.wake()');
is(wait_for_run($node, $held, alone => 1)->{sent} + 0, 3, 'weekly: that one ends')
  or diag($node->safe_psql('postgres', 'SELECT job_id, state, error FROM sendcampaign.run'));

# in the morning: one of three has it now
sub zone_where_it_is
{
	my $hour = shift;
	my $offset = $node->safe_psql('postgres', q{SELECT extract(hour FROM now() AT TIME ZONE 'UTC')}) - $hour;
	$offset += 24 if $offset < -12;
	$offset -= 24 if $offset > 11;
	return sprintf 'Etc/GMT%+d', $offset;    # west of Greenwich is +
}
sub set_zone
{
	my ($phone, $hour) = @_;
	my $zone = zone_where_it_is($hour);
	app(qq{UPDATE ac_list_users SET data = data || '{"timeZone": "$zone"}' WHERE data->>'sms' = '$phone'});
}
follow("In the recipients' morning");
set_zone('+1 555 000 0021', 10);
set_zone('+1 555 000 0022', 15);
set_zone('+1 555 000 0023', 3);
is(let_cron_call('morning'), 'succeeded', 'morning: called');
$job = last_job();
ok($node->poll_query_until('postgres', "SELECT next_at > now() FROM sendcampaign.run WHERE job_id = $job"), 'morning: they sleep');
ok(worker_is_gone($node, 20), 'morning: nobody stays up for that');
is(run_row($node, $job)->{sent}, 1, 'morning: one has it');
is(app(q{SELECT (data->>'sendUntil')::timestamptz BETWEEN now() + interval '19 hours' AND now() + interval '20 hours'
	FROM ac_campaigns WHERE id = 3}), 't', 'morning: not after the day');
is(let_cron_call('wake'), 'succeeded', 'wake: called');
is(run_row($node, $job)->{sent}, 1, 'wake: it is too early');
set_zone("+1 555 000 002$_", 10) for 2, 3;
$node->safe_psql('postgres', "UPDATE sendcampaign.batch SET due = now() WHERE run_id = ${\ run_of($job)}; UPDATE sendcampaign.run SET next_at = now() WHERE job_id = $job");
is(let_cron_call('wake'), 'succeeded', 'wake: called in the morning');
my $run = wait_for_run($node, $job, alone => 1);
is("$run->{state} $run->{sent} of $run->{total}", 'completed 3 of 3', 'morning: all have it');
is_deeply([ map { $twilio->count_by_phone->{"+1555000002$_"} } 1 .. 3 ], [ 1, 1, 1 ], 'morning: once');

# welcome
sub welcomed
{
	my $name = shift;
	ok($node->poll_query_until('postgres', q{SELECT count(*) = 0 FROM sendcampaign.run WHERE state <> 'completed'}), "$name: all has ended");
	wait_for_no_worker($node);
	my @texts = sort map { "$_->{to} $_->{body}" } $twilio->ledger;
	$twilio->set(reset => 1);
	return \@texts;
}
wait_for_no_worker($node);
$twilio->set(reset => 1);
follow('A welcome message');
is_deeply(welcomed('one'), ['+15550000031 Welcome, Hal!'], 'welcome: one');
app(q{UPDATE ac_list_users SET data = data || '{"name": "Hal B."}' WHERE data->>'sms' = '+1 555 000 0031'});
is_deeply(welcomed('update'), [], 'welcome: not at an update');
app(q{BEGIN; INSERT INTO ac_list_users (ac_list_id, data) VALUES (1, '{"sms": "+15550000032"}'); ROLLBACK});
is_deeply(welcomed('rollback'), [], 'welcome: not when rolled back');
my $before = runs();
app(q{INSERT INTO ac_list_users (ac_list_id, data) VALUES (1, '{"sms": "+15550000032", "name": "Ida"}'), (2, '{"sms": "+15550000033"}'),
	(1, '{"sms": "+15550000034", "name": ""}'), (1, '{}'), (1, NULL)});
is_deeply(welcomed('many'), [ '+15550000032 Welcome, Ida!', '+15550000034 Welcome, friend!' ], 'welcome: those of that list');
is(runs(), $before + 1, 'welcome: in one run');
app(q{DELETE FROM ac_list_users WHERE id = 3; CREATE UNIQUE INDEX ON ac_list_users (ac_list_id, (data->>'sms'));
	INSERT INTO ac_list_users (ac_list_id, data) VALUES (1, '{"sms": "+15550000032", "name": "Ida B."}'), (1, '{"sms": "+15550000035", "name": "Jo"}')
	ON CONFLICT (ac_list_id, (data->>'sms')) DO UPDATE SET data = excluded.data});
is_deeply(welcomed('conflict'), ['+15550000035 Welcome, Jo!'], 'welcome: not at an insert that becomes an update');
app(q{INSERT INTO ac_list_users (ac_list_id, data) SELECT 1, jsonb_build_object('sms', '+1555001' || n, 'name', n) FROM generate_series(1000, 1999) n});
is_deeply(welcomed('thousand'), [ map { "+1555001$_ Welcome, $_!" } 1000 .. 1999 ], 'welcome: a thousand');
is(runs(), $before + 3, 'welcome: in one run, too');

# an application that listens
my $dir = PostgreSQL::Test::Utils::tempdir();
copy("$FindBin::RealBin/../node/$_", "$dir/$_") or die "could not copy $_: $!" for qw(package.json package-lock.json);
my ($program) = grep { $_->{language} eq 'js' } @blocks;
append_to_file("$dir/listen.js", $program->{text});
my $here = getcwd();
chdir $dir;
local $ENV{npm_config_cache} = "$dir/cache";
command_ok([ 'npm', 'ci', '--no-audit', '--no-fund', '--loglevel=error' ], 'npm ci');
local @ENV{qw(PGHOST PGPORT PGUSER PGDATABASE)} = ($node->host, $node->port, 'app', 'postgres');
my ($in, $out, $err) = ('', '', '');
my $application = IPC::Run::start([ 'node', 'listen.js' ], '<', \$in, '>', \$out, '2>', \$err);
chdir $here;

sub hears
{
	my $what = shift;
	return poll(sub { $application->pump_nb; return $out =~ /^\Q$what\E$/m; }, 60) || diag("heard: $out, complained: $err") && 0;
}
my $listening = q{SELECT pid FROM pg_stat_activity WHERE usename = 'app' AND query ILIKE '%finished_at > now()%' AND state = 'idle'};
ok(hears("job $held is completed: 3 of 7 sent"), 'listener: what has ended before');
$job = app('SELECT send_campaign(3)');
ok(hears("job $job is completed: 3 of 3 sent"), 'listener: what ends');
my $pid = $node->safe_psql('postgres', $listening);
is($node->safe_psql('postgres', "SELECT pg_terminate_backend($pid, 10000)"), 't', 'listener: its connection is cut');
$job = app('SELECT send_campaign(3)');
ok(hears("job $job is completed: 3 of 3 sent"), 'listener: what has ended meanwhile');
is(scalar(() = $out =~ /^job $job /mg), 1, 'listener: once');
$application->kill_kill(grace => 5);

is(join("\n", grep { !/campaign 1 is being sent already/ } split /\n/, worker_errors($node)), '', 'the server has nothing else to complain of');
$node->stop;
done_testing();
