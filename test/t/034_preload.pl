# With preload, unfinished runs go on by themselves, in every database.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../perl";
use Campaign;
use LocalTwilio;
use Test::More;

my $twilio = LocalTwilio->start;
my $node = new_cluster('preload', $twilio, conf => q{
	shared_preload_libraries = 'sendcampaign'
	sendcampaign.launcher_interval = '1s'
	sendcampaign.request_timeout = '500ms'
	sendcampaign.lookup_delay = '200ms'
	restart_after_crash = on
});
$node->safe_psql('postgres', 'CREATE DATABASE second');
$node->safe_psql('postgres', 'CREATE DATABASE without');
install_extension($node, 'second');
# so that no two texts are alike
$node->safe_psql('second', q{ALTER SEQUENCE ac_campaigns_id_seq RESTART 1001;
	ALTER SEQUENCE ac_background_jobs_id_seq RESTART 1001});

# The launcher holds no database.
ok($node->poll_query_until('postgres', q{SELECT count(*) = 1 FROM pg_stat_activity
	WHERE backend_type = 'sendcampaign launcher' AND datid IS NULL}), 'the launcher is in no database');
$node->safe_psql('postgres', 'CREATE DATABASE third TEMPLATE second');
$node->safe_psql('postgres', 'DROP DATABASE third');
pass('a database with the extension can be copied and dropped');

# Runs of 40 in two databases, 20 requests of each on their way
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
	for (@runs)
	{
		my ($db, $campaign, $job) = @$_;
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
ok(kill_worker($node), 'up again after a SIGKILL');
all_go_on('killed', @runs);

# The launcher itself comes back after ten seconds.
@runs = start_held();
$node->safe_psql('postgres', q{SELECT pg_terminate_backend(pid) FROM pg_stat_activity
	WHERE backend_type LIKE 'sendcampaign%'});
all_go_on('terminated', @runs);

# Switched off, the launcher starts nothing; switched on, it does.  What is held
# must not be in doubt, which nobody could resolve while nothing is sent.
change_conf($node, "sendcampaign.request_timeout = '60s'");
@runs = start_held();
change_conf($node, 'sendcampaign.enabled = off');
$twilio->set(hold => 0);
ok(worker_is_gone($node, 20), 'switched off, the workers end');
change_conf($node, 'sendcampaign.enabled = on');
all_go_on('switched on again', @runs);

change_conf($node, "sendcampaign.request_timeout = '500ms'");

# Switched off in one database, runs of the other go on.
@runs = start_held();
$node->safe_psql('postgres', 'ALTER DATABASE second SET sendcampaign.enabled = off');
$node->restart;
$twilio->set(hold => 0);
all_go_on('second switched off', $runs[0]);
is(run_row($node, $runs[1][2], 'second')->{state}, 'running', 'the run in it waits');
$node->safe_psql('postgres', 'ALTER DATABASE second RESET sendcampaign.enabled');
all_go_on('second switched on', $runs[1]);

# A database with a run in it can be dropped by force.
start_held();
$node->safe_psql('postgres', 'DROP DATABASE second WITH (FORCE)');
$node->safe_psql('postgres', 'DROP DATABASE without');
$node->stop;
done_testing();
