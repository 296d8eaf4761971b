# With preload, unfinished runs go on by themselves, in every database.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../perl";
use Campaign;
use LocalTwilio;
use Test::More;

my $twilio = LocalTwilio->start;
my $node = new_cluster('preload', $twilio, conf => <<~'CONF');
	shared_preload_libraries = 'sendcampaign'
	sendcampaign.launcher_interval = '1s'
	sendcampaign.request_timeout = '500ms'
	sendcampaign.lookup_delay = '200ms'
	restart_after_crash = on
	CONF
sql($node, 'CREATE DATABASE second');
sql($node, 'CREATE DATABASE without');
install_extension($node, 'second');
# so that no two texts are alike
sql($node, <<~'SQL', db => 'second');
	ALTER SEQUENCE ac_campaigns_id_seq RESTART 1001;
	ALTER SEQUENCE ac_background_jobs_id_seq RESTART 1001;
	SQL

# The launcher holds no database.
ok(wait_until($node, <<~'SQL'), 'the launcher is in no database');
	SELECT count(*) = 1 FROM pg_stat_activity
	WHERE backend_type = 'sendcampaign launcher' AND datid IS NULL
	SQL
sql($node, 'CREATE DATABASE third TEMPLATE second');
sql($node, 'DROP DATABASE third');
pass('a database with the extension can be copied and dropped');

# Runs of 40 in two databases, 20 requests of each on their way; returns the
# database, the campaign and the job of each.
sub start_held
{
	my @runs;
	$twilio->set(hold => 1);
	for my $db ('postgres', 'second')
	{
		my $campaign = create_campaign($node, db => $db, users => 40);
		push @runs, [ $db, $campaign, start_campaign($node, $campaign, db => $db) ];
	}
	wait_for_flight($twilio, 40);
	return @runs;
}

sub all_go_on
{
	my ($name, @runs) = @_;
	$twilio->set(hold => 0);
	for my $run (@runs)
	{
		my ($db, $campaign, $job) = @$run;
		sent_once($node, $twilio, $campaign, $job, "$name, in $db", db => $db, total => 40);
	}
	ok(worker_is_gone($node, 10), "$name: the workers end");
}

for my $mode ('fast', 'immediate')
{
	my @runs = start_held();
	$node->stop($mode);
	$node->start;
	all_go_on("stopped $mode", @runs);
}

my @runs = start_held();
ok(kill_worker($node), 'the server is up again after a SIGKILL');
all_go_on('killed', @runs);

# The launcher itself comes back after ten seconds.
@runs = start_held();
sql($node, <<~'SQL');
	SELECT pg_terminate_backend(pid) FROM pg_stat_activity
	WHERE backend_type LIKE 'sendcampaign%'
	SQL
all_go_on('terminated', @runs);

# Switched off, the launcher starts nothing; switched on, it does.  What is held
# must not be in doubt, which nobody could resolve while nothing is sent.
set_and_reload($node, 'sendcampaign.request_timeout', '60s');
@runs = start_held();
set_and_reload($node, 'sendcampaign.enabled', 'off');
$twilio->set(hold => 0);
ok(worker_is_gone($node, 20), 'when sending is switched off, the workers end');
set_and_reload($node, 'sendcampaign.enabled', 'on');
all_go_on('switched on again', @runs);
set_and_reload($node, 'sendcampaign.request_timeout', '500ms');

# Switched off in one database, runs of the other go on.
@runs = start_held();
sql($node, 'ALTER DATABASE second SET sendcampaign.enabled = off');
$node->restart;
$twilio->set(hold => 0);
all_go_on('second switched off', $runs[0]);
my ($db, undef, $job) = @{ $runs[1] };
is(run_row($node, $job, $db)->{state}, 'running', 'the run in it waits');
sql($node, 'ALTER DATABASE second RESET sendcampaign.enabled');
all_go_on('second switched on', $runs[1]);

# A database with a run in it can be dropped by force.
start_held();
sql($node, 'DROP DATABASE second WITH (FORCE)');
sql($node, 'DROP DATABASE without');
$node->stop;
done_testing();
