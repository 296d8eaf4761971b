# Yesterday's backup, and a standby that lags: what was sent since is known
# again, and nothing is sent twice.  A dump restored in another cluster sends nothing.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../perl";
use Campaign;
use LocalTwilio;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $users = 3000;
my $conf = "shared_preload_libraries = 'sendcampaign'\nsendcampaign.launcher_interval = 1\n"
  . "sendcampaign.request_timeout = '1s'\nsendcampaign.lookup_delay = '100ms'\nsendcampaign.lookup_timeout = '1s'\n"
  . "sendcampaign.max_concurrency = 20\n";
my $twilio = LocalTwilio->start;
my $node = new_cluster('origin', $twilio, conf => $conf, init => { allows_streaming => 1 });

sub check_all_once
{
	my ($db_node, $job, $what) = @_;
	my $run = wait_for_run($db_node, $job);
	is($run->{state}, 'completed', "$what: completed");
	is("$run->{sent} of $run->{total}", "$users of $users", "$what: all are recorded as sent");
	my $count = $twilio->count_by_phone;
	is(scalar(keys %$count), $users, "$what: nobody was left out");
	is((grep { $_ != 1 } values %$count), 0, "$what: nobody has it twice");
	my %sid = map { $_->{to} => $_->{sid} } $twilio->ledger;
	my @rows = map { [ split /\|/ ] } split /\n/, $db_node->safe_psql('postgres',
		"SELECT phone, sid FROM sendcampaign.message WHERE job_id = $job AND status = 'sent'");
	is((grep { $sid{ $_->[0] } ne $_->[1] } @rows), 0, "$what: every SID is right");
	is($db_node->safe_psql('postgres', qq{SELECT count(*) FROM ac_list_users
		WHERE data->>'sentCount' = '1' AND ac_list_id = (SELECT list_id FROM sendcampaign.run WHERE job_id = $job)}),
		$users, "$what: sentCount is 1 for each");
}

# Starts a campaign, makes a copy of the cluster in mid-run, lets the run finish.
sub finish_after_copy
{
	my ($copy, $base_url) = @_;
	$twilio->set('reset' => 1, 'latency' => 20);
	my $campaign = create_campaign($node, users => $users, base_url => $base_url);
	my $job = $node->safe_psql('postgres', "SET ROLE app; SELECT send_campaign($campaign)");
	$node->poll_query_until('postgres',
		"SELECT sent BETWEEN 300 AND $users - 1000 FROM sendcampaign.run WHERE job_id = $job")
	  or die 'the run went too fast';
	$node->backup($copy);
	wait_for_run($node, $job);
	$twilio->set('latency' => 0);
	return $job;
}

for my $case ([ 'promoted', 1, 'https://example.org/s' ], [ 'started', 0, 'https://example.org/s' ],
	[ 'promoted without links', 1, undef ])
{
	my ($what, $promote, $base_url) = @$case;
	my $name = $what =~ s/\W+/_/gr;
	my $job = finish_after_copy($name, $base_url);
	check_all_once($node, $job, "$what: origin");
	my $restored = PostgreSQL::Test::Cluster->new($name);
	$restored->init_from_backup($node, $name);
	$restored->set_standby_mode if $promote;
	$node->stop if $promote;
	$restored->start;
	$restored->promote if $promote;
	check_all_once($restored, $job, $what);
	is($restored->safe_psql('postgres', 'SELECT count(*) FROM sendcampaign.claim'), 0, "$what: nothing is claimed");
	$restored->stop;
	$node->start if $promote;
}

# a standby that lags when it is promoted: what was committed since is lost
{
	$twilio->set('reset' => 1, 'latency' => 20);
	$node->backup('standby');
	my $standby = PostgreSQL::Test::Cluster->new('standby');
	$standby->init_from_backup($node, 'standby', has_streaming => 1);
	$standby->start;
	my $campaign = create_campaign($node, users => $users);
	my $job = $node->safe_psql('postgres', "SET ROLE app; SELECT send_campaign($campaign)");
	$standby->poll_query_until('postgres',
		"SELECT sent BETWEEN 300 AND $users - 1000 FROM sendcampaign.run WHERE job_id = $job")
	  or die 'the run went too fast';
	$standby->append_conf('postgresql.conf', "primary_conninfo = ''");
	$standby->reload;
	$standby->poll_query_until('postgres', 'SELECT count(*) = 0 FROM pg_stat_wal_receiver');
	wait_for_run($node, $job);
	my $known = run_row($standby, $job)->{sent};
	cmp_ok($known, '<', $users - 500, "lagging standby: it knows of $known only");
	$twilio->set('latency' => 0);
	$node->stop;
	$standby->promote;
	check_all_once($standby, $job, 'lagging standby');
	$standby->stop;
	$node->start;
}

# a dump taken in mid-run
$twilio->set('reset' => 1, 'latency' => 20);
my $campaign = create_campaign($node, users => $users);
my $job = $node->safe_psql('postgres', "SET ROLE app; SELECT send_campaign($campaign)");
$node->poll_query_until('postgres',
	"SELECT sent BETWEEN 300 AND $users - 1000 FROM sendcampaign.run WHERE job_id = $job");
my $dump = PostgreSQL::Test::Utils::tempdir() . '/dump.sql';
$node->command_ok([ 'pg_dump', '-f', $dump, '-d', $node->connstr('postgres') ], 'dump');
wait_for_run($node, $job);
my $accepted = $twilio->stats->{accepted};
my $staging = new_cluster('staging', $twilio, conf => $conf, no_extension => 1);
$staging->safe_psql('postgres', 'CREATE ROLE app LOGIN');
$staging->command_ok([ 'psql', '-X', '-q', '-f', $dump, '-d', $staging->connstr('postgres') ], 'restore');
$staging->safe_psql('postgres', 'SELECT sendcampaign.wake()');
is(wait_for_run($staging, $job, state => 'paused')->{state}, 'paused', 'a dump restored elsewhere is paused');
like(run_row($staging, $job)->{error}, qr/not the cluster and database in which the run was queued/, '... and says why');
wait_for_no_worker($staging);
is($twilio->stats->{accepted}, $accepted, '... and nothing was sent');
$staging->stop;
$node->stop;
done_testing();
