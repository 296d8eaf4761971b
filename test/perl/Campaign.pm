# A cluster with the extension, the application's tables and a campaign.
package Campaign;

use strict;
use warnings;

use Cwd qw(abs_path);
use Exporter 'import';
use LocalTwilio;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes ();

our @EXPORT = qw(new_cluster install_extension clone_database change_conf set_and_reload
  sql sql_error call_error wait_until poll poll_in_company
  create_campaign make_tenant start_campaign run_campaign hold_campaign wait_for_run
  send_companion sent_once sent_with lose_commits run_row run_of group_of
  wait_for_flight wait_for_no_worker worker_pids worker_is_gone worker_errors log_of
  kill_worker wait_until_up);

# The local Twilio of a node, or of one of its databases; companions there.
my (%twilio_of, %companion);

# What a test waits for and does not see is a fault, whatever it tests afterwards.
{
	no warnings 'redefine';
	my $poll_query_until = \&PostgreSQL::Test::Cluster::poll_query_until;
	*PostgreSQL::Test::Cluster::poll_query_until = sub {
		my $seen = $poll_query_until->(@_);
		fail("waited for: $_[2]") if !$seen;
		return $seen;
	};
}

# A running cluster that sends to this local Twilio; conf => lines to add.
sub new_cluster
{
	my ($name, $twilio, %arg) = @_;
	my $node = PostgreSQL::Test::Cluster->new($name);
	$node->init(%{ $arg{init} || {} });
	$node->append_conf('postgresql.conf',
			"sendcampaign.api_url = '"
		  . $twilio->url . "'\n"
		  . "sendcampaign.ca_file = '"
		  . ($twilio->{tls} ? $twilio->ca_file : '') . "'\n"
		  . "fsync = on\nsendcampaign.lookup_timeout = '60s'\n"
		  . ($arg{conf} || ''));
	$node->start;
	$twilio_of{$name} = $twilio;
	install_extension($node, $arg{db} || 'postgres') if !$arg{no_extension};
	return $node;
}

# The extension, and a role "app" that owns the application's tables.
sub install_extension
{
	my ($node, $db) = @_;
	$node->safe_psql(
		$db, q{
		CREATE EXTENSION sendcampaign;
		DO $$ BEGIN CREATE ROLE app LOGIN; EXCEPTION WHEN duplicate_object THEN NULL; END $$;
		GRANT CREATE ON SCHEMA public TO app;
		GRANT USAGE ON SCHEMA sendcampaign TO app;
		GRANT EXECUTE ON ALL ROUTINES IN SCHEMA sendcampaign TO PUBLIC;
		GRANT EXECUTE ON FUNCTION send_campaign TO PUBLIC;
		GRANT INSERT ON sendcampaign.opt_out TO app;
		SET ROLE app;
		SELECT sendcampaign.create_tables();
	});
}

# A group, a list of so many users +1555nnnnnnn, a campaign; returns its id.
# Options: db, users, message, base_url (undef for none), phone (for all of them).
sub create_campaign
{
	my ($node, %arg) = @_;
	my $users = $arg{users} // 10;
	my $message = $arg{message} // 'Hello';
	my $base_url = exists $arg{base_url} ? $arg{base_url} : 'https://example.org/survey';
	my $phone = $arg{phone} ? quoted($arg{phone}) : q{'+1555' || lpad(i::text, 7, '0')};
	my $data = 'jsonb_build_object('
	  . join(', ',
		"'message', " . quoted($message),
		defined $base_url ? ("'baseUrl', " . quoted($base_url)) : ())
	  . ')';
	# a log that has all statements need not have this one, with its token
	return $node->safe_psql(
		$arg{db} || 'postgres', qq{
		SET log_statement = 'none';
		SET ROLE app;
		WITH g AS (INSERT INTO groups (configuration) VALUES (jsonb_build_object(
				'twilioAccountSid', '$LocalTwilio::ACCOUNT', 'twilioAuthToken', '$LocalTwilio::TOKEN',
				'twilioFromSmsNumber', '$LocalTwilio::SENDER')) RETURNING id),
		l AS (INSERT INTO ac_lists (group_id) SELECT id FROM g RETURNING id),
		u AS (INSERT INTO ac_list_users (ac_list_id, data) SELECT l.id,
				jsonb_build_object('sms', $phone)
				FROM l, generate_series(1, $users) i)
		INSERT INTO ac_campaigns (ac_list_id, data) SELECT id, $data FROM l RETURNING id;
	});
}

sub quoted { my $s = shift; $s =~ s/'/''/g; return "'$s'::text"; }

# How many messages Twilio took whose text begins so.
sub sent_with
{
	my ($twilio, $text) = @_;
	return scalar grep { index($_->{body}, $text) == 0 } $twilio->ledger;
}

# As SQL: the group that a campaign is of.
sub group_of
{
	return
	  "(SELECT l.group_id FROM ac_lists l JOIN ac_campaigns c ON c.ac_list_id = l.id WHERE c.id = $_[0])";
}

# The first n recipients of a job are not known to have it any more, as after
# commits that were lost; waits until the run has gone on to its end.
sub lose_commits
{
	my ($node, $job, $n, $db, @wait) = @_;
	my $run = run_of($job);
	$node->safe_psql(
		$db || 'postgres', qq{
		CREATE TEMP TABLE lost AS SELECT list_user_id FROM sendcampaign.message_data WHERE run_id = $run ORDER BY 1 LIMIT $n;
		UPDATE sendcampaign.run r SET sent = sent - (SELECT count(*) FROM sendcampaign.message_data WHERE run_id = $run AND status = 'sent' AND list_user_id IN (TABLE lost)),
			failed = failed - (SELECT count(*) FROM sendcampaign.message_data WHERE run_id = $run AND status = 'failed' AND list_user_id IN (TABLE lost)),
			state = 'running', finished_at = NULL, timeline = '0/0' WHERE job_id = $job;
		DELETE FROM sendcampaign.message_data WHERE run_id = $run AND list_user_id IN (TABLE lost);
		INSERT INTO sendcampaign.batch (run_id, number, list_user_ids) SELECT $run, 1, array_agg(list_user_id ORDER BY 1) FROM lost;
		SELECT sendcampaign.wake();});
	return wait_for_run($node, $job, db => $db, @wait);
}

# As SQL: the run of a job of the schema "public".
sub run_of
{
	return "(SELECT id FROM sendcampaign.run WHERE job_id = $_[0] AND schema = 'public')";
}

# Runs SQL and returns what it prints, unaligned; dies of its first error.
# Options: db ("postgres"), role (the superuser).
sub sql
{
	my ($node, $sql, %arg) = @_;
	return $node->safe_psql($arg{db} || 'postgres', as_role($sql, $arg{role}));
}

# The first error of some SQL: { sqlstate, message, detail, hint }, all of them
# empty if there is none.  Options as for sql().
sub sql_error
{
	my ($node, $sql, %arg) = @_;
	my ($stdout, $stderr) = ('', '');
	$node->psql(
		$arg{db} || 'postgres', "\\set VERBOSITY verbose\n" . as_role($sql, $arg{role}),
		stdout => \$stdout,
		stderr => \$stderr,
		on_error_stop => 1);
	my %error = (sqlstate => '', message => '', detail => '', hint => '');
	@error{qw(sqlstate message)} = ($1, $2) if $stderr =~ /(?:ERROR|FATAL):  (\w{5}): (.*)/;
	$error{detail} = $1 if $stderr =~ /^DETAIL:  (.*)/m;
	$error{hint} = $1 if $stderr =~ /^HINT:  (.*)/m;
	return \%error;
}

# The error of a function of the extension, called by the role "app":
# call_error($node, "pause($job)", role => 'somebody').
sub call_error
{
	my ($node, $call, %arg) = @_;
	return sql_error($node, "SELECT sendcampaign.$call", role => 'app', %arg);
}

sub as_role
{
	my ($sql, $role) = @_;
	return $role ? "SET ROLE $role;\n$sql" : $sql;
}

# Waits until a query gives true, or fails.  Option: db.
sub wait_until
{
	my ($node, $query, %arg) = @_;
	return $node->poll_query_until($arg{db} || 'postgres', $query);
}

# All that the server has logged.
sub log_of
{
	my $node = shift;
	return slurp_file($node->logfile);
}

sub run_row
{
	my ($node, $job, $db) = @_;
	my $row = $node->safe_psql(
		$db || 'postgres',
		"SELECT state, total, sent, failed, skipped, in_doubt, error FROM sendcampaign.run WHERE job_id = $job"
	);
	my %run;
	@run{qw(state total sent failed skipped in_doubt error)} = split /\|/, $row, 7;
	return \%run;
}

# A schema with a campaign 1 to one phone, the same in all of them.  Options:
# role (its owner, else one that is made with the schema's name), message,
# base_url (undef for none).
sub make_tenant
{
	my ($node, $schema, %arg) = @_;
	my $role = $arg{role} // $schema;
	my $message = $arg{message} // "From $schema";
	my $base_url = exists $arg{base_url} ? $arg{base_url} : 'https://example.org';
	my $url = defined $base_url ? "'$base_url'" : 'NULL';
	$node->safe_psql('postgres',
		"CREATE ROLE $role LOGIN; GRANT USAGE ON SCHEMA sendcampaign TO $role")
	  if !$arg{role};
	$node->safe_psql(
		'postgres', qq{CREATE SCHEMA $schema AUTHORIZATION $role; SET ROLE $role;
		SELECT sendcampaign.create_tables('$schema');
		SET search_path = $schema, public;
		INSERT INTO groups (configuration) VALUES (jsonb_build_object('twilioAccountSid', '$LocalTwilio::ACCOUNT',
			'twilioAuthToken', '$LocalTwilio::TOKEN', 'twilioFromSmsNumber', '$LocalTwilio::SENDER'));
		INSERT INTO ac_lists (group_id) VALUES (1);
		INSERT INTO ac_list_users (ac_list_id, data) VALUES (1, '{"sms": "+15550001234", "name": "Ann"}');
		INSERT INTO ac_campaigns (ac_list_id, data) VALUES (1, jsonb_build_object('message', '$message', 'baseUrl', $url))}
	);
}

# Something is sent later: one message of another campaign, to which no fault
# of Twilio applies.  Without that, a message that is in doubt and was not taken
# could stay in doubt, where it is among a run's last.
sub send_companion
{
	my ($node, $twilio, $db) = @_;
	my $campaign = $companion{ $node->name . " $db" } ||= create_campaign(
		$node,
		db => $db,
		users => 1,
		message => 'Companion',
		phone => $LocalTwilio::COMPANION);
	$node->safe_psql(
		$db,
		qq{UPDATE groups SET configuration = configuration || '{"twilioAuthToken": "$twilio->{token}"}'
		WHERE id = ${\ group_of($campaign)} AND configuration->>'twilioAuthToken' <> '$twilio->{token}'}
	) if defined $twilio->{token};
	$twilio->{has_companion} = 1;
	$twilio->set('to-fault' => "$LocalTwilio::COMPANION=spared");
	# it may be under way still
	$node->psql($db, "SET ROLE app; SELECT send_campaign($campaign)");
}

# Polls a condition while others are sent to.
sub poll_in_company
{
	my ($node, $twilio, $condition) = @_;
	for (1 .. 120)
	{
		return 1 if poll($condition, 1);
		send_companion($node, $twilio, 'postgres');
	}
	return 0;
}

# Waits until the run has ended (or has the state given) and returns its row.
# Where that takes long, others are sent meanwhile, except with alone => 1.
sub wait_for_run
{
	my ($node, $job, %arg) = @_;
	my $states = $arg{state} ? "'$arg{state}'" : "'completed', 'failed', 'cancelled'";
	my $db = $arg{db} || 'postgres';
	my $query = "SELECT state IN ($states) FROM sendcampaign.run WHERE job_id = $job";
	my $twilio = $twilio_of{ $node->name . " $db" } || $twilio_of{ $node->name };
	my $ended;

	for (my $i = 0; $twilio && !$arg{alone} && $i < 300 && !$ended; $i++)
	{
		$ended = poll(sub { $node->safe_psql($db, $query) eq 't' }, $i ? 1 : 8);
		send_companion($node, $twilio, $db) if !$ended;
	}
	$ended ||= $node->poll_query_until($db, $query);
	$ended
	  or diag("run of job $job did not end: "
		  . $node->safe_psql($db, "SELECT * FROM sendcampaign.run WHERE job_id = $job"));
	return run_row($node, $job, $db);
}

sub wait_for_no_worker
{
	my $node = shift;
	$node->poll_query_until('postgres',
		"SELECT count(*) = 0 FROM pg_stat_activity WHERE backend_type = 'sendcampaign worker'")
	  or diag('a worker is left');
}

# Calls send_campaign(campaign, job); options db, role, job.  Returns the job.
sub start_campaign
{
	my ($node, $campaign, %arg) = @_;
	my $role = $arg{role} || 'app';
	my $job = $arg{job} // 'NULL';
	return $node->safe_psql($arg{db} || 'postgres',
		"SET ROLE $role; SELECT send_campaign($campaign, $job)");
}

# Sends a campaign and waits for the end of its run (or a state); returns the
# run's row, with its job.  Options as for start_campaign() and wait_for_run().
sub run_campaign
{
	my ($node, $campaign, %arg) = @_;
	my $job = start_campaign($node, $campaign, %arg);
	return { %{ wait_for_run($node, $job, %arg) }, job => $job };
}

# Waits until the local Twilio has so many requests in hand.
sub wait_for_flight
{
	my ($twilio, $requests) = @_;
	poll(sub { $twilio->stats->{create_in_flight} >= $requests }, 30)
	  or diag("$requests requests in flight were expected");
}

sub worker_pids
{
	my $node = shift;
	return split /\n/, $node->safe_psql(
		'postgres', q{
		SELECT pid FROM pg_stat_activity WHERE backend_type = 'sendcampaign worker' ORDER BY pid});
}

# Is every worker gone within so many seconds?
# Waits until no worker is left: so many seconds, and more on a busy machine.
sub worker_is_gone
{
	my ($node, $seconds) = @_;
	return poll(sub { !worker_pids($node) }, 45 + $seconds);
}

# Starts a campaign of so many users, with 20 requests held by the local
# Twilio; options db, users, role.  Returns the campaign and the job.
sub hold_campaign
{
	my ($node, $twilio, %arg) = @_;
	my $campaign = create_campaign($node, %arg);
	$twilio->set(hold => 1, reset => 1);
	my $job = start_campaign($node, $campaign, %arg);
	wait_for_flight($twilio, 20);
	return ($campaign, $job);
}

# Adds lines to the configuration file, and waits until they count for every
# process that starts.  A worker that is there takes them up as soon as it can.
my $changes = 0;

sub change_conf
{
	my ($node, $lines) = @_;
	$changes++;
	$node->append_conf('postgresql.conf', "$lines\ntest.changes = $changes");
	$node->reload;
	$node->poll_query_until('postgres',
		"SELECT current_setting('test.changes', true) = '$changes'");
}

# The same for one setting.
sub set_and_reload
{
	my ($node, $name, $value) = @_;
	change_conf($node, "$name = '$value'");
}

# What its processes have logged that they should not; clients' errors apart.
sub worker_errors
{
	my $node = shift;
	return join "\n",
	  grep { /^\S+ \S+ \S+ \[\d+\] (WARNING|ERROR|PANIC)|TRAP|terminated by signal/ }
	  split /\n/, slurp_file($node->logfile);
}

# Waits for the run's end and compares everything with what the local Twilio
# has accepted.  All were sent, where the counts given do not say otherwise:
# sent_once($node, $twilio, $campaign, $job, $name, db =>, total =>, failed =>,
# skipped =>).  The texts need their link.
sub sent_once
{
	my ($node, $twilio, $campaign, $job, $name, %arg) = @_;
	my $db = $arg{db} || 'postgres';
	$twilio_of{ $node->name } ||= $twilio;
	my $run = wait_for_run($node, $job, db => $db);
	my ($failed, $skipped) = ($arg{failed} // 0, $arg{skipped} // 0);
	my $total = $arg{total} // $run->{total};
	my %accepted;

	for ($twilio->ledger)
	{
		push @{ $accepted{$1} }, $_->{sid} if $_->{body} =~ /\?yu=(\d+)&yc=$campaign$/;
	}
	my $rows = $node->safe_psql(
		$db, qq{
		SELECT m.list_user_id, m.status, coalesce(m.sid, ''), coalesce((u.data->>'sentCount')::int, 0), u.id
		FROM sendcampaign.message m LEFT JOIN ac_list_users u ON u.id = m.list_user_id
		WHERE m.job_id = $job});
	my (@wrong, %sent);
	for (split /\n/, $rows)
	{
		my ($id, $status, $sid, $count, $exists) = split /\|/;
		my @sids = @{ $accepted{$id} || [] };
		push @wrong, "$_ but accepted: @sids"
		  if ($status eq 'sent' ? "$sid" : '') ne "@sids" || ($exists ne '' && $count != @sids);
		$sent{$id} = 1 if $status eq 'sent';
	}
	push @wrong, "list user $_ has no row, but a message" for grep { !$sent{$_} } keys %accepted;
	my $left = $node->safe_psql(
		$db, qq{SELECT (SELECT count(*) FROM sendcampaign.claim WHERE run_id = ${\ run_of($job)}),
		(SELECT count(*) FROM sendcampaign.batch WHERE run_id = ${\ run_of($job)})});
	my $job_row = $node->safe_psql($db, "SELECT progress FROM ac_background_jobs WHERE id = $job");

	diag("$name: $run->{state}: $run->{error}") if $run->{state} ne 'completed';
	diag(
		"$name: in doubt: "
		  . $node->safe_psql(
			$db,
			"SELECT string_agg(DISTINCT error_message, '; ') FROM sendcampaign.message WHERE job_id = $job AND status = 'in_doubt'"
		  )) if $run->{in_doubt} > 0;
	delete $run->{error};
	is_deeply(
		$run,
		{
			state => 'completed',
			total => $total,
			sent => $total - $failed - $skipped,
			failed => $failed,
			skipped => $skipped,
			in_doubt => 0
		},
		"$name: the run is complete");
	is(scalar(() = $rows =~ /^\d/mg), $total, "$name: a row for each recipient");
	is_deeply([ @wrong[ 0 .. ($#wrong > 4 ? 4 : $#wrong) ] ],
		[], "$name: rows and counts are what Twilio accepted");
	is($left, '0|0', "$name: nothing claimed or left over");
	like($job_row, qr/^(100)?$/, "$name: the job's progress");
}

# Polls a condition every 20 ms, for up to 120 s (or so many).
sub poll
{
	my ($condition, $seconds) = @_;
	my $until = Time::HiRes::time() + ($seconds || 120);
	while (Time::HiRes::time() < $until)
	{
		return 1 if $condition->();
		Time::HiRes::sleep(0.02);
	}
	return 0;
}

# A copy of the database "postgres" whose messages go to a Twilio of its own.
sub clone_database
{
	my ($node, $db, $twilio) = @_;
	$twilio_of{ $node->name . " $db" } = $twilio;
	$node->safe_psql('template1', "CREATE DATABASE $db TEMPLATE postgres");
	$node->safe_psql('template1',
		"ALTER DATABASE $db SET sendcampaign.api_url = '" . $twilio->url . "'");
	$node->safe_psql('template1',
		"ALTER DATABASE $db SET sendcampaign.ca_file = '" . $twilio->ca_file . "'")
	  if $twilio->{tls};
}

# psql that finds no server may be gone before it is told what to do.
sub wait_until_up
{
	my $node = shift;
	poll(
		sub {
			eval { $node->psql('postgres', 'SELECT 1') == 0 }
		}) or die 'the server does not come up';
}

# SIGKILL for one of the workers: the server restarts by itself.  Once the
# process is gone, the server takes no connection until it is up again.  Returns
# false if there is no worker.
sub kill_worker
{
	my $node = shift;
	my @pids = worker_pids($node) or return 0;
	my $pid = $pids[ rand @pids ];
	kill('KILL', $pid) or return 0;
	poll(sub { !kill 0, $pid }) or die 'the worker does not die';
	wait_until_up($node);
	return 1;
}

1;
