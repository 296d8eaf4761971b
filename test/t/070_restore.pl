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
my $url = 'https://example.org/s';
my $conf = <<~CONF;
    shared_preload_libraries = 'sendcampaign'
    sendcampaign.launcher_interval = 1
    sendcampaign.request_timeout = '1s'
    sendcampaign.lookup_delay = '100ms'
    sendcampaign.lookup_timeout = '1s'
    sendcampaign.max_concurrency = 20
CONF
my $twilio = LocalTwilio->start;
my $node = new_cluster('origin', $twilio, conf => $conf, init => { allows_streaming => 1 });

# Everybody has one message, and the tables of a node have its SID.
sub check_all_once
{
	my ($db_node, $job, $what) = @_;
	my $run = wait_for_run($db_node, $job);
	is($run->{state}, 'completed', "$what: the run is complete");
	is("$run->{sent} of $run->{total}", "$users of $users", "$what: all are recorded as sent");

	my $count = $twilio->count_by_phone;
	is(scalar(keys %$count), $users, "$what: nobody is left out");
	is((grep { $_ != 1 } values %$count), 0, "$what: nobody has it twice");

	my %sid = map { $_->{to} => $_->{sid} } $twilio->ledger;
	my $rows = sql($db_node, <<~SQL);
	    SELECT phone, sid FROM sendcampaign.message WHERE job_id = $job AND status = 'sent'
	SQL
	my $wrong = 0;
	for my $row (split /\n/, $rows)
	{
		my ($phone, $sid) = split /\|/, $row;
		$wrong++ if $sid{$phone} ne $sid;
	}
	is($wrong, 0, "$what: every SID is right");
	is(sql($db_node, <<~SQL), $users, "$what: sentCount is 1 for each");
	    SELECT count(*)
	    FROM ac_list_users
	    WHERE data->>'sentCount' = '1'
	        AND ac_list_id = (SELECT list_id FROM sendcampaign.run WHERE job_id = $job)
	SQL
}

# Starts a campaign to everybody.
sub start
{
	my $base_url = shift;
	my $campaign = create_campaign($node, users => $users, base_url => $base_url);
	return start_campaign($node, $campaign);
}

# Waits until a node knows of some messages of a run, and of many not.
sub wait_for_mid_run
{
	my ($db_node, $job) = @_;
	wait_until($db_node, <<~SQL) or die 'the run went too fast';
	    SELECT sent BETWEEN 100 AND $users - 1000 FROM sendcampaign.run WHERE job_id = $job
	SQL
}

# Starts a campaign, makes a copy of the cluster in mid-run, lets the run finish.
sub finish_after_copy
{
	my ($copy, $base_url) = @_;
	$twilio->set('reset' => 1, 'latency' => 100);
	my $job = start($base_url);
	wait_for_mid_run($node, $job);
	$node->backup($copy);
	$twilio->set('latency' => 0);
	wait_for_run($node, $job);
	return $job;
}

# What is done with the backup, whether it is promoted, and the link.
my @cases =
  ([ 'promoted', 1, $url ], [ 'started', 0, $url ], [ 'promoted without links', 1, undef ]);
for my $case (@cases)
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
	is(sql($restored, 'SELECT count(*) FROM sendcampaign.claim'), 0, "$what: nothing is claimed");
	$restored->stop;
	$node->start if $promote;
}

# A standby that lags when it is promoted: what was committed since is lost.
$twilio->set('reset' => 1, 'latency' => 100);
$node->backup('standby');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($node, 'standby', has_streaming => 1);
$standby->start;
my $job = start($url);
wait_for_mid_run($standby, $job);
$standby->append_conf('postgresql.conf', "primary_conninfo = ''");
$standby->reload;
wait_until($standby, 'SELECT count(*) = 0 FROM pg_stat_wal_receiver');
$twilio->set('latency' => 0);
wait_for_run($node, $job);
my $known = run_row($standby, $job)->{sent};
cmp_ok($known, '<', $users - 500, "lagging standby: it knows of $known only");
$node->stop;
$standby->promote;
check_all_once($standby, $job, 'lagging standby');
$standby->stop;
$node->start;

# A dump that is taken in mid-run.
$twilio->set('reset' => 1, 'latency' => 100);
$job = start($url);
wait_for_mid_run($node, $job);
my $dump = PostgreSQL::Test::Utils::tempdir() . '/dump.sql';
$node->command_ok([ 'pg_dump', '-f', $dump, '-d', $node->connstr('postgres') ],
	'the database is dumped');
$twilio->set('latency' => 0);
wait_for_run($node, $job);
my $accepted = $twilio->stats->{accepted};
my $staging = new_cluster('staging', $twilio, conf => $conf, no_extension => 1);
sql($staging, 'CREATE ROLE app LOGIN');
$staging->command_ok([ 'psql', '-X', '-q', '-f', $dump, '-d', $staging->connstr('postgres') ],
	'the dump is restored');
sql($staging, 'SELECT sendcampaign.wake()');
is(wait_for_run($staging, $job, state => 'paused')->{state},
	'paused', 'a dump restored elsewhere is paused');
my $queued_elsewhere =
	'the run was queued in another cluster or database.'
  . ' Messages may have been sent from there.'
  . ' To continue it here, and nowhere else, call sendcampaign.resume().';
like(run_row($staging, $job)->{error}, qr/\Q$queued_elsewhere\E/, 'the run says why');
wait_for_no_worker($staging);
is($twilio->stats->{accepted}, $accepted, 'nothing is sent');
$staging->stop;
$node->stop;
done_testing();
