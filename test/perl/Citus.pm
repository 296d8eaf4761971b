# Several nodes with Citus and the extension on 127.0.0.1: a coordinator and
# workers.  A tenant is a schema with the application's tables and a campaign; its
# home is the node that has the schema.
#
#   my $citus = Citus->new('moves', $twilio);
#   my $tenant = $citus->add_tenant('t1', users => 100, on => 1);
#   $citus->call($citus->home('t1'), $tenant);
#   $citus->sent_once($tenant, 'at home');
#
# Node 0 is the coordinator.  Options of functions are given by name.
package Citus;

use strict;
use warnings;

use Campaign ();
use Exporter 'import';
use LocalTwilio;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Session;
use Test::More;

our @EXPORT = qw(need_citus);

# Ends the test, as skipped, where the server has no Citus (see script/test).
sub need_citus
{
	plan skip_all => 'CITUS is not set' if !$ENV{CITUS};
	return;
}

# What all nodes have in their configuration.
my $conf = <<~'CONF';
	shared_preload_libraries = 'citus, sendcampaign'
	listen_addresses = '127.0.0.1'
	wal_level = logical
	max_connections = 100
	max_wal_senders = 10
	max_replication_slots = 10
	max_worker_processes = 32
	max_prepared_transactions = 50
	citus.node_conninfo = 'sslmode=disable keepalives_idle=5 keepalives_interval=2 keepalives_count=3 tcp_user_timeout=15000'
	citus.enable_statistics_collection = off
	citus.local_hostname = '127.0.0.1'
	citus.recover_2pc_interval = '1s'
	citus.defer_shard_delete_interval = '1s'
	sendcampaign.launcher_interval = '1s'
	sendcampaign.request_timeout = '5s'
	sendcampaign.max_concurrency = 10
	sendcampaign.lookup_delay = '300ms'
	restart_after_crash = on
	CONF

#
# Nodes
#

# Options: workers (2), conf (more lines), linger.
sub new
{
	my ($class, $name, $twilio, %arg) = @_;
	my $self = bless {
		name => $name,
		twilio => $twilio,
		arg => \%arg,
		nodes => [],
		tenants => 0,
		sessions => {}
	  },
	  $class;
	$self->start_node for 0 .. $arg{workers} // 2;
	my ($coordinator) = @{ $self->{nodes} };
	my $port = $coordinator->port;
	Campaign::sql($coordinator, "SELECT citus_set_coordinator_host('127.0.0.1', $port)");
	Campaign::sql($coordinator,
		"SELECT citus_set_node_property('127.0.0.1', $port, 'shouldhaveshards', true)");
	$self->register($_) for 1 .. $#{ $self->{nodes} };
	Campaign::sql($coordinator, 'CREATE EXTENSION sendcampaign; CREATE ROLE app LOGIN');
	$self->grant($_) for @{ $self->{nodes} };
	return $self;
}

# A server with Citus, which the coordinator does not know yet; returns its number.
sub start_node
{
	my $self = shift;
	my $number = @{ $self->{nodes} };
	my $node = Campaign::new_cluster(
		"$self->{name}_$number", $self->{twilio},
		conf => $conf . ($self->{arg}{conf} // ''),
		linger => $self->{arg}{linger},
		init => { allows_streaming => 1 },
		no_extension => 1);
	Campaign::sql($node, 'CREATE EXTENSION citus');
	push @{ $self->{nodes} }, $node;
	return $number;
}

# Makes it a node of the cluster, with the objects that the others have.
sub register
{
	my ($self, $number) = @_;
	my $port = $self->node($number)->port;
	Campaign::sql($self->node(0), "SELECT citus_add_node('127.0.0.1', $port)");
	return;
}

# What Citus does not hand on to other nodes.
sub grant
{
	my ($self, $node) = @_;
	Campaign::sql($node, <<~'SQL');
		SET citus.enable_ddl_propagation = off;
		GRANT CREATE ON SCHEMA public TO app;
		GRANT USAGE ON SCHEMA sendcampaign TO app;
		GRANT EXECUTE ON ALL ROUTINES IN SCHEMA sendcampaign TO PUBLIC;
		GRANT EXECUTE ON FUNCTION send_campaign TO PUBLIC;
		GRANT INSERT ON sendcampaign.opt_out TO app;
		SQL
	return;
}

# One more node, as an administrator adds it; returns its number.
sub add_node
{
	my $self = shift;
	my $number = $self->start_node;
	$self->register($number);
	$self->grant($self->node($number));
	return $number;
}

sub node
{
	my ($self, $number) = @_;
	return $self->{nodes}[$number];
}

sub nodes { my $self = shift; return @{ $self->{nodes} }; }

sub twilio { my $self = shift; return $self->{twilio}; }

# All nodes whose server is there; the file remains if it was killed.
sub nodes_up
{
	my $self = shift;
	return grep {
		my $file = $_->data_dir . '/postmaster.pid';
		-e $file && slurp_file($file) =~ /^(\d+)/ && kill 0, $1
	} @{ $self->{nodes} };
}

sub stop
{
	my $self = shift;
	$self->{sessions} = {};
	$_->stop('fast', fail_ok => 1) for reverse $self->nodes_up;
	return;
}

# All processes of a node end at once, as if its machine had.
sub kill_node
{
	my ($self, $node) = @_;
	return Campaign::kill_server($node);
}

# A process of the extension is killed, and so the server of the node starts again.
sub kill_worker
{
	my ($self, $node) = @_;
	return Campaign::kill_worker($node);
}

# A standby of a node, which streams from it.
sub add_standby
{
	my ($self, $node, $name) = @_;
	$name //= 'standby';
	my $standby = PostgreSQL::Test::Cluster->new($node->name . "_$name");
	$node->backup($name);
	$standby->init_from_backup($node, $name, has_streaming => 1);
	# Citus knows a clone by the address from which it streams
	my $primary_port = $node->port;
	$standby->append_conf('postgresql.conf',
		"primary_conninfo = 'host=127.0.0.1 port=$primary_port application_name=${\ $standby->name }'"
	);
	$standby->start;
	return $standby;
}

# The standby takes the place of its node, which is gone.
sub promote
{
	my ($self, $number, $standby) = @_;
	my $old = $self->node($number)->port;
	my $new = $standby->port;
	$standby->promote;
	Campaign::sql($self->node(0), <<~"SQL");
		SELECT citus_update_node(nodeid, '127.0.0.1', $new, force => true, lock_cooldown => 100)
		FROM pg_dist_node WHERE nodeport = $old
		SQL
	$self->{nodes}[$number] = $standby;
	return;
}

# A standby of a node that the coordinator knows as its clone.
sub add_clone
{
	my ($self, $number) = @_;
	my $primary = $self->node($number);
	my $clone = $self->add_standby($primary, 'clone');
	my ($port, $primary_port) = ($clone->port, $primary->port);
	$primary->wait_for_catchup($clone);
	Campaign::sql($self->node(0),
		"SELECT citus_add_clone_node('127.0.0.1', $port, '127.0.0.1', $primary_port)");
	return $clone;
}

# The clone becomes a node of its own, with some of the schemas of its primary.
sub promote_clone
{
	my ($self, $clone) = @_;
	my $port = $clone->port;
	Campaign::sql($self->node(0), <<~"SQL");
		SELECT citus_promote_clone_and_rebalance(nodeid)
		FROM pg_dist_node WHERE nodeport = $port
		SQL
	push @{ $self->{nodes} }, $clone;
	return;
}

#
# Tenants
#

# A tenant: a hash with schema, campaign, job, users and prefix, which its phones
# begin with.  Options: users (10), on (the number of a node), layout: "schema" (of
# Citus, the default), "local" (on the coordinator, without Citus) or the column
# by which the tables are distributed; like (a tenant whose phones and ids it has);
# phone (that of all recipients).
sub add_tenant
{
	my ($self, $schema, %arg) = @_;
	my $coordinator = $self->node(0);
	my $number = $arg{like} ? substr $arg{like}{prefix}, -3 : sprintf '%03d', ++$self->{tenants};
	my $tenant = {
		schema => $schema,
		users => $arg{users} // 10,
		prefix => "+15558$number",
		phone => $arg{phone},
		layout => $arg{layout} // 'schema'
	};

	Campaign::sql($coordinator, <<~"SQL");
		CREATE SCHEMA $schema AUTHORIZATION app;
		SET ROLE app;
		SELECT sendcampaign.create_tables('$schema');
		SQL
	@$tenant{qw(campaign job)} = split /\|/, $self->fill($tenant);
	$self->distribute($tenant) if $tenant->{layout} ne 'local';
	$self->move($tenant, $arg{on}) if defined $arg{on};
	return $tenant;
}

# The rows of a tenant; returns the ids of its campaign and its job.
sub fill
{
	my ($self, $tenant) = @_;
	my ($schema, $users, $prefix) = @$tenant{qw(schema users prefix)};
	my $phone = $tenant->{phone} ? "'$tenant->{phone}'" : "'$prefix' || lpad(i::text, 5, '0')";
	return Campaign::sql($self->node(0), <<~"SQL");
		SET ROLE app;
		SET search_path = $schema;
		INSERT INTO groups (configuration)
		VALUES (jsonb_build_object(
			'twilioAccountSid', '$LocalTwilio::ACCOUNT',
			'twilioAuthToken', '$LocalTwilio::TOKEN',
			'twilioFromSmsNumber', '$LocalTwilio::SENDER'));
		INSERT INTO ac_lists (group_id) SELECT max(id) FROM groups;
		INSERT INTO ac_list_users (ac_list_id, data)
		SELECT (SELECT max(id) FROM ac_lists),
			jsonb_build_object('sms', $phone)
		FROM generate_series(1, $users) i;
		INSERT INTO ac_campaigns (ac_list_id, data)
		SELECT max(id), jsonb_build_object('message', 'From $schema', 'baseUrl',
			'https://example.org/$schema')
		FROM ac_lists;
		INSERT INTO ac_background_jobs (progress) VALUES (5);
		SELECT (SELECT max(id) FROM ac_campaigns), (SELECT max(id) FROM ac_background_jobs);
		SQL
}

# Distributes the schema, or its recipients by a column.
sub distribute
{
	my ($self, $tenant) = @_;
	my ($schema, $column) = @$tenant{qw(schema layout)};
	return Campaign::sql($self->node(0), "SELECT citus_schema_distribute('$schema')")
	  if $column eq 'schema';
	Campaign::sql($self->node(0), <<~"SQL");
		ALTER TABLE $schema.ac_list_users DROP CONSTRAINT ac_list_users_pkey;
		SELECT create_distributed_table('$schema.ac_list_users', '$column');
		SQL
}

# One more campaign to the same recipients, with a job of its own: a tenant like it.
sub add_campaign
{
	my ($self, $tenant) = @_;
	my $schema = $tenant->{schema};
	my $ids = Campaign::sql($self->node(0), <<~"SQL");
		SET ROLE app;
		SET search_path = $schema;
		INSERT INTO ac_campaigns (ac_list_id, data)
		SELECT ac_list_id, data || '{"message": "Again"}' FROM ac_campaigns
		WHERE id = $tenant->{campaign};
		INSERT INTO ac_background_jobs (progress) VALUES (5);
		SELECT (SELECT max(id) FROM ac_campaigns), (SELECT max(id) FROM ac_background_jobs);
		SQL
	my %other = %$tenant;
	@other{qw(campaign job)} = split /\|/, $ids;
	return \%other;
}

# The node that has the schema now.
sub home
{
	my ($self, $tenant) = @_;
	my $port = $self->ask($self->node(0), <<~"SQL");
		SELECT n.nodeport
		FROM pg_dist_shard s
		JOIN pg_dist_placement p USING (shardid)
		JOIN pg_dist_node n ON n.groupid = p.groupid AND n.noderole = 'primary'
		WHERE s.logicalrelid = '$tenant->{schema}.ac_list_users'::regclass
		SQL
	my ($home) = grep { $_->port == $port } @{ $self->{nodes} };
	return $home;
}

# Moves the schema to the node with that number, unless it is there.  Option: mode,
# how Citus copies it ("auto", "force_logical", "block_writes").
sub move
{
	my ($self, $tenant, $number, %arg) = @_;
	my $mode = $arg{mode} // 'block_writes';
	my $node = $self->node($number);
	return if $self->home($tenant)->port == $node->port;
	Campaign::sql($self->node(0),
			"SELECT citus_schema_move('$tenant->{schema}', '127.0.0.1', "
		  . $node->port
		  . ", '$mode')");
	return;
}

#
# Calls
#

# What calls send_campaign() for a tenant.
sub call_sql
{
	my $tenant = shift;
	return <<~"SQL";
		SET ROLE app;
		SET sendcampaign.schema = '$tenant->{schema}';
		SELECT send_campaign($tenant->{campaign}, $tenant->{job});
		SQL
}

# Calls it on a node; it must succeed.
sub call
{
	my ($self, $node, $tenant) = @_;
	return Campaign::sql($node, call_sql($tenant));
}

# The same, for a campaign to which something is to happen while it is sent: at most
# ten messages a second, until send_quickly().
sub call_slowly
{
	my ($self, $node, @tenants) = @_;
	$self->{twilio}->set(latency => 1000);
	$self->call($node, $_) for @tenants;
	$self->wait_for_accepted($_, 20) for @tenants;
	return;
}

sub send_quickly
{
	my $self = shift;
	return $self->{twilio}->set('latency' => 5, 'latency-spread' => 0);
}

# The first error of such a call, as sql_error() of Campaign returns it.
sub call_error
{
	my ($self, $node, $tenant) = @_;
	return Campaign::sql_error($node, call_sql($tenant));
}

# What a query gives on a node, in a session that stays open until the node goes down.
sub ask
{
	my ($self, $node, $sql) = @_;
	my $sessions = $self->{sessions};
	for my $attempt (1, 2)
	{
		my $session = $sessions->{ $node->name } //= Session->open($node);
		my $answer = eval { $session->query($sql) };
		return $answer if defined $answer && $session->errors eq '';
		delete $sessions->{ $node->name };
	}
	# which fails with the reason
	return Campaign::sql($node, $sql);
}

# Another statement of the role "app" with the tenant's tables.
sub sql
{
	my ($self, $node, $tenant, $sql) = @_;
	return Campaign::sql($node, <<~"SQL");
		SET ROLE app;
		SET sendcampaign.schema = '$tenant->{schema}';
		SET search_path = $tenant->{schema}, public;
		$sql
		SQL
}

#
# What was sent
#

# How many messages the local Twilio took for a tenant's recipients.
sub accepted
{
	my ($self, $tenant) = @_;
	my $link = "/$tenant->{schema}?";
	return
	  scalar grep { index($_->{body}, $link) >= 0 && $_->{body} =~ /&yc=$tenant->{campaign}$/ }
	  $self->{twilio}->ledger;
}

# Waits until it took so many.
sub wait_for_accepted
{
	my ($self, $tenant, $count) = @_;
	Campaign::poll(sub { $self->accepted($tenant) >= $count })
	  or diag("$count messages for $tenant->{schema} were expected");
	return;
}

# The runs of a tenant's job, on all nodes that are there: "node state sent/total".
sub runs
{
	my ($self, $tenant) = @_;
	return map {
		my $node = $_;
		map { $node->name . " $_" } split /\n/, $self->ask($node, <<~"SQL");
			SELECT format('%s %s/%s', state, sent, total) FROM sendcampaign.run
			WHERE schema = '$tenant->{schema}' AND job_id = $tenant->{job}
			SQL
	} $self->nodes_up;
}

# Waits until the tenant's job has ended: a node has completed its run.  Where that
# takes long, others are sent to meanwhile, so that doubt can be resolved (see
# send_companion() of Campaign).
sub wait_for_end
{
	my ($self, $tenant) = @_;
	for my $round (0 .. 60)
	{
		return if Campaign::poll(
			sub {
				grep { / completed / } $self->runs($tenant);
			},
			$round ? 2 : 10);
		$self->send_companion($tenant);
	}
	diag("the run of $tenant->{schema} did not end: " . $self->describe($tenant));
	return;
}

# One message to somebody else from each node that has an unfinished run of the
# tenant's job: that may not be its home any more.
sub send_companion
{
	my ($self, $tenant) = @_;
	my %unfinished = map { /^(\S+) (?:queued|running) / ? ($1 => 1) : () } $self->runs($tenant);
	$self->{twilio}{has_companion} = 1;
	$self->{twilio}->set('to-fault' => "$LocalTwilio::COMPANION=spared");
	for my $number (grep { $unfinished{ $self->node($_)->name } } 0 .. $#{ $self->{nodes} })
	{
		my $companion = $self->{companions}{$number} //= $self->add_tenant(
			"companion$number",
			users => 1,
			phone => $LocalTwilio::COMPANION,
			on => $number);
		$companion->{job} = $self->ask($self->node(0), <<~"SQL");
			INSERT INTO companion$number.ac_background_jobs (progress) VALUES (5) RETURNING id
			SQL
		# an earlier one may be under way still
		$self->call_error($self->node($number), $companion);
	}
	return;
}

# For people, where a test fails.
sub describe
{
	my ($self, $tenant) = @_;
	return join "\n", map {
		my $node = $_;
		$node->name . ': ' . Campaign::sql($node, <<~"SQL");
			SELECT r FROM sendcampaign.run r WHERE schema = '$tenant->{schema}'
			SQL
	} $self->nodes_up;
}

# Waits for the end, and tests that each recipient has the message once and that
# all tables say so: rows of messages, sentCount, the counts of the run, the job.
# Options: times, how many campaigns have been sent to the recipients (1); sent_count,
# whether that is in the tables (true).
sub sent_once
{
	my ($self, $tenant, $name, %arg) = @_;
	my ($schema, $users) = @$tenant{qw(schema users)};
	my $times = $arg{times} // 1;
	$self->send_quickly;
	$self->wait_for_end($tenant);

	my %count;
	my $end = qr{/$schema\?yu=\d+&yc=$tenant->{campaign}$};
	$count{ $_->{to} }++ for grep { $_->{body} =~ $end } $self->{twilio}->ledger;
	my @twice = grep { $count{$_} > 1 } keys %count;
	is(scalar(keys %count), $users, "$name: all have the message");
	is(scalar @twice, 0, "$name: nobody has it twice");

	my $sent_count = $self->ask($self->node(0), <<~"SQL");
		SELECT string_agg(DISTINCT coalesce(data->>'sentCount', '0'), ',')
		FROM $schema.ac_list_users
		WHERE data->>'sms' LIKE '+15558%'
		SQL
	is($sent_count, $times, "$name: sentCount") if $arg{sent_count} // 1;
	my $job = $self->ask($self->node(0), <<~"SQL");
		SELECT coalesce(progress::text, '') FROM $schema.ac_background_jobs
		WHERE id = $tenant->{job}
		SQL
	like($job, qr/^(100)?$/, "$name: the job's progress");
	$self->rows_add_up($tenant, $name);
	return;
}

# One run has completed, its counts and its rows are those of the recipients, and
# each row has the SID of the message.
sub rows_add_up
{
	my ($self, $tenant, $name) = @_;
	my ($schema, $users) = @$tenant{qw(schema users)};
	my @completed = grep { / completed / } $self->runs($tenant);
	is(scalar @completed, 1, "$name: one run has completed") or diag($self->describe($tenant));
	my ($node) = grep { @completed && $completed[0] =~ /^\Q${\ $_->name }\E / } $self->nodes_up;
	return if !$node;

	my $of_run = "schema = '$schema' AND job_id = $tenant->{job}";
	is($self->ask($node, <<~"SQL"), "$users|$users|0|0|0|0|0", "$name: the run's counts");
		SELECT total, sent, failed, skipped, in_doubt,
			(SELECT count(*) FROM sendcampaign.claim WHERE run_id = r.id),
			(SELECT count(*) FROM sendcampaign.batch WHERE run_id = r.id)
		FROM sendcampaign.run r WHERE $of_run
		SQL
	my $sids = $self->ask($node, <<~"SQL");
		SELECT m.sid FROM sendcampaign.message m
		WHERE m.status = 'sent' AND m.run_id IN (SELECT id FROM sendcampaign.run WHERE $of_run)
		ORDER BY m.sid COLLATE "C"
		SQL
	my $end = qr{/$schema\?yu=\d+&yc=$tenant->{campaign}$};
	my @accepted = sort map { $_->{sid} } grep { $_->{body} =~ $end } $self->{twilio}->ledger;
	is($sids, join("\n", @accepted), "$name: a row for each message");
	return;
}

1;
