# pg_upgrade in mid-run, from the server that runs the tests to the one whose pg_config
# PG_UPGRADE_TO names: nobody gets a message twice, and nobody is left out.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../perl";
use Campaign;
use LocalTwilio;
use MidRun;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Release;
use Test::More;

plan skip_all => 'PG_UPGRADE_TO names no pg_config of a newer server' if !$ENV{PG_UPGRADE_TO};
plan skip_all => why_no_server() if why_no_server();

my $newer = newer_server($ENV{PG_UPGRADE_TO});
install_release($newer, '1.1');
my $major = $newer->{path} =~ m{/(\d+)$} ? $1 : 0;

# A name; the release in the old cluster and that of its library; whether it is
# preloaded; how pg_upgrade is called; who continues the runs.
my @cases = (
	[ 'copied', '1.1', '1.1', 0, [], 'after_pg_upgrade' ],
	[ 'linked', '1.1', '1.1', 1, ['--link'], 'after_pg_upgrade' ],
	[ 'released', '1.0', '1.0', 1, [], 'resume' ],);

# A cluster of the newer server, ready for pg_upgrade.
sub new_target
{
	my ($name, $conf) = @_;
	my $node = PostgreSQL::Test::Cluster->new("new_$name", install_path => $newer->{path});
	$node->init(extra => $major >= 18 ? ['--no-data-checksums'] : []);
	$node->append_conf('postgresql.conf', $conf);
	return $node;
}

sub pg_upgrade
{
	my ($server, $old, $new, @options) = @_;
	my $work = PostgreSQL::Test::Utils::tempdir();
	my $log = '';
	chdir $work or die "could not enter $work: $!";
	my $done = IPC::Run::run(
		[
			"$newer->{path}/bin/pg_upgrade", '--no-sync',
			'-b' => "$server->{path}/bin",
			'-B' => "$newer->{path}/bin",
			'-d' => $old->data_dir,
			'-D' => $new->data_dir,
			'-p' => $old->port,
			'-P' => $new->port,
			'-s' => $new->host,
			@options
		],
		'>&',
		\$log);
	chdir $ENV{TESTDIR} or die "could not enter $ENV{TESTDIR}: $!";
	diag($log) if !$done;
	return $done;
}

# What was accepted by all of the local Twilios.
sub accepted
{
	my $accepted = 0;
	$accepted += $_->[1]->stats->{accepted} for @_;
	return $accepted;
}

sub state_in
{
	my ($node, $db, $job) = @_;
	return sql($node, "SELECT state FROM sendcampaign.run WHERE job_id = $job", db => $db);
}

# The runs of all databases go on, by the one way or the other.
sub continue_runs
{
	my ($node, $way, @runs) = @_;
	for my $run (@runs)
	{
		my ($state, undef, undef, $job) = @$run;
		my $db = $state->{name};
		if ($way eq 'resume')
		{
			# the one that a person has paused is resumed in the end, as ever
			call_in($node, $db, "resume($job)") if $db ne 'paused';
			next;
		}
		is(sql($node, 'SELECT sendcampaign.after_pg_upgrade()', db => $db),
			1, "$db: a run is taken over");
	}
}

for my $case (@cases)
{
	my ($name, $version, $library, $preloaded, $options, $way) = @$case;
  SKIP:
	{
		skip why_no_release(), 1 if $library eq '1.0' && why_no_release();
		my $server = server_copy($name);
		install_release($server, $library);
		my $twilio = LocalTwilio->start;
		my $preload = $preloaded ? "shared_preload_libraries = 'sendcampaign'" : '';
		my $conf = "$patient_conf\n$preload\nsendcampaign.launcher_interval = '1s'\n";
		my $old = cluster_of(
			$server, "old_$name", $twilio,
			conf => $conf,
			version => $version);

		my @runs = make_states($old);

		# a run that has ended
		my $done = create_campaign($old, users => 2);
		my $done_job = start_campaign($old, $done);
		wait_for_run($old, $done_job);
		call_in($old, 'postgres', q{opt_out('+15550009999')});

		is(ended($old), '', "$name: all runs are in progress");
		$old->stop('fast');
		my $accepted = accepted(@runs);

		my $url = $twilio->url;
		my $new = new_target($name, "$conf\nsendcampaign.api_url = '$url'\n");
		ok(pg_upgrade($server, $old, $new, @$options), "$name: pg_upgrade");
		$new->start;
		is(sql($new, 'SHOW server_version_num') =~ s/\d{4}$//r, $major, "$name: upgraded");

		# first they wait
		for my $run (@runs)
		{
			my ($state, undef, undef, $job) = @$run;
			my $db = $state->{name};
			# there, sending is switched off
			next if $db eq 'queued' && $way ne 'resume';
			sql($new, "ALTER DATABASE $db RESET sendcampaign.enabled");
			sql($new, 'SELECT sendcampaign.wake()', db => $db);
			wait_until($new, "SELECT state = 'paused' FROM sendcampaign.run WHERE job_id = $job",
				db => $db);
		}
		is(accepted(@runs), $accepted, "$name: nothing is sent by itself");

		continue_runs($new, $way, @runs);
		if ($way eq 'after_pg_upgrade')
		{
			is(state_in($new, 'paused', $runs[1][3]),
				'paused', "$name: what a person has paused stays so");
			is(sql($new, 'SELECT sendcampaign.after_pg_upgrade()'),
				1, "$name: a run that has ended is taken over, too");
			is(sql($new, 'SELECT sendcampaign.after_pg_upgrade()'), 0, "$name: once");
		}
		end_states($new, @runs);
		all_sent_once($new, $name, @runs);
		is(sql($new, 'SELECT phone FROM sendcampaign.opt_out', role => 'app'),
			'+15550009999', "$name: opt-outs are kept");
		$new->stop;
		is(worker_errors($new), '', "$name: no worker met an error");
	}
}
done_testing();
