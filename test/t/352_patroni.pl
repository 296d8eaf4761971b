# Patroni with two nodes, as docs/install.md configures it: the machine of the primary
# dies in mid-run, and the run goes on by itself on the other one. Asynchronous, with
# commits that are lost, and synchronous.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../perl";
use Campaign;
use File::Temp qw(tempdir);
use HTTP::Tiny;
use IPC::Run ();
use LocalTwilio;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes ();

my @there = map { "$_/" } split /:/, $ENV{PATH};
for my $program (qw(patroni etcd))
{
	plan skip_all => "$program is not installed" if !grep { -x "$_$program" } @there;
}

my $http = HTTP::Tiny->new(timeout => 5);
my $logs = $PostgreSQL::Test::Utils::log_path;
my %running;
END { my $status = $?; $_->kill_kill for values %running; $? = $status }

sub begin
{
	my ($name, @command) = @_;
	my $log = "$logs/352_patroni_$name.log";
	$running{$name} = IPC::Run::start(\@command, '<', \undef, '>>', $log, '2>&1');
	return;
}

# The store of what both nodes agree upon
my $etcd = PostgreSQL::Test::Cluster::get_free_port();
my $peer = PostgreSQL::Test::Cluster::get_free_port();
begin(
	'etcd', 'etcd',
	'--data-dir' => tempdir(CLEANUP => 1),
	'--listen-client-urls' => "http://127.0.0.1:$etcd",
	'--advertise-client-urls' => "http://127.0.0.1:$etcd",
	'--listen-peer-urls' => "http://127.0.0.1:$peer",
	'--initial-advertise-peer-urls' => "http://127.0.0.1:$peer",
	'--initial-cluster' => "default=http://127.0.0.1:$peer");
poll(sub { $http->get("http://127.0.0.1:$etcd/health")->{success} }, 60)
  or die 'etcd does not start';

# A node, which Patroni runs
sub start_node
{
	my ($name, $twilio, $synchronous) = @_;
	my $node = PostgreSQL::Test::Cluster->new("$name$synchronous");
	my $api = $node->{api} = PostgreSQL::Test::Cluster::get_free_port();
	my $file = tempdir(CLEANUP => 1) . '/patroni.yml';
	my $url = $twilio->url;
	my $bin = $node->config_data('--bindir');
	my ($data, $dir, $port) = ($node->data_dir, $node->host, $node->port);
	append_to_file($file, <<~"YAML");
		scope: sms$synchronous
		name: $name
		restapi: { listen: "127.0.0.1:$api", connect_address: "127.0.0.1:$api" }
		etcd3: { host: "127.0.0.1:$etcd" }
		bootstrap:
		  dcs:
		    ttl: 20
		    loop_wait: 2
		    retry_timeout: 5
		    synchronous_mode: $synchronous
		    postgresql:
		      use_pg_rewind: true
		      parameters:
		        shared_preload_libraries: sendcampaign
		        max_worker_processes: 16
		        sendcampaign.api_url: "$url"
		        sendcampaign.launcher_interval: 5s
		        sendcampaign.request_timeout: 1s
		        sendcampaign.lookup_delay: 200ms
		        sendcampaign.lookup_timeout: 20s
		        sendcampaign.worker_idle_timeout: 0
		        sendcampaign.max_concurrency: 5
		  initdb: [ encoding: UTF8, data-checksums, auth: trust ]
		postgresql:
		  listen: "127.0.0.1:$port"
		  connect_address: "127.0.0.1:$port"
		  data_dir: $data
		  bin_dir: $bin
		  pgpass: $file.pass
		  authentication:
		    superuser: { username: ${\ scalar getpwuid $<} }
		    replication: { username: replicator, password: r }
		  parameters: { unix_socket_directories: "$dir" }
		  pg_hba: [ local all all trust, host all all 127.0.0.1/32 trust,
		            host replication replicator 127.0.0.1/32 trust ]
		YAML
	begin("$name$synchronous", 'patroni', $file);
	return $node;
}

# Whether Patroni says that a node is the primary, a replica, ...
sub is_now
{
	my ($node, $role, $seconds) = @_;
	return poll(sub { $http->get("http://127.0.0.1:$node->{api}/$role")->{success} },
		$seconds // 120);
}

# The machine dies: Patroni and the server, with all processes
sub kill_node
{
	my $node = shift;
	my ($pid) = split /\n/, slurp_file($node->data_dir . '/postmaster.pid');
	my @pids = ($pid, split /\n/, `ps -o pid= --ppid $pid`);
	$running{ $node->name }->signal('KILL');
	kill 'KILL', @pids;
	delete($running{ $node->name })->kill_kill;
	return;
}

for my $synchronous ('false', 'true')
{
	my $twilio = LocalTwilio->start;
	my $mode = $synchronous eq 'true' ? 'synchronous' : 'asynchronous';
	my $primary = start_node('a', $twilio, $synchronous);
	is_now($primary, 'primary') or die 'Patroni does not start the primary';
	my $standby = start_node('b', $twilio, $synchronous);
	ok(is_now($standby, $synchronous eq 'true' ? 'synchronous' : 'replica'),
		"$mode: there is a standby");
	install_extension($primary, 'postgres');
	is(sql($primary, 'SHOW synchronous_standby_names') =~ /\w/ ? 'true' : 'false',
		$synchronous, "$mode: what commits wait for");

	my $campaign = create_campaign($primary, users => 300);
	$twilio->set(hold => 1);
	my $job = start_campaign($primary, $campaign);
	wait_for_flight($twilio, 5);
	wait_until($standby, "SELECT state = 'running' FROM sendcampaign.run WHERE job_id = $job");
	# what is sent from here on is not known to the standby
	my @receiver =
	  $synchronous eq 'false' ? sql($standby, 'SELECT pid FROM pg_stat_wal_receiver') : ();
	kill 'STOP', @receiver;
	$twilio->set(hold => 0, latency => 100);
	wait_until($primary, "SELECT sent >= 50 FROM sendcampaign.run WHERE job_id = $job");
	$twilio->set(hold => 1);
	wait_for_flight($twilio, 5);
	my $sent = $twilio->stats->{accepted} // scalar(() = $twilio->ledger);
	my $begin = Time::HiRes::time();
	kill_node($primary);
	# it must not read what is still on its way
	kill $_, @receiver for 'TERM', 'CONT';
	$twilio->set(hold => 0);
	ok(is_now($standby, 'primary'), "$mode: the standby is promoted");
	my $promoted = Time::HiRes::time();
	my $known = sql($standby, "SELECT sent FROM sendcampaign.run WHERE job_id = $job");
	poll(sub { scalar(() = $twilio->ledger) > $sent + 20 });
	my $went_on = Time::HiRes::time();
	sent_once($standby, $twilio, $campaign, $job, $mode, total => 300);
	diag sprintf '%s: promoted after %.1f s, next message after %.1f s; %d messages had been'
	  . ' accepted, of which the new primary knew %s', $mode, $promoted - $begin,
	  $went_on - $begin, $sent, $known;
	kill_node($standby);
}
done_testing();
