# A cluster with the extension, the application's tables and campaigns; what
# tests do with them and wait for.
#
# Most functions take the node first, and options by name: "db" is the database
# ("postgres" unless given), "role" the role that is set, "user" the role that
# connects.
package Campaign;

use strict;
use warnings;

use Exporter 'import';
use KeptSession;
use LocalTwilio;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes ();

our @EXPORT =
  qw(new_cluster install_extension install_as_shown clone_database change_conf set_and_reload
  sql sql_error sql_output end_sessions call_error wait_until waits_for_lock poll poll_in_company
  seconds_here is_soon
  create_campaign make_tenant configure create_job job_row
  start_campaign start_with_id run_campaign hold_campaign wait_for_run wait_for_all_of_run wake
  send_companion sent_once sent_with sent_of lose_commits lose_all
  run_row run_of run_of_tenant list_of group_of
  wait_for_flight wait_for_no_worker worker_pids list_worker_pids worker_is_gone
  no_worker_is_to_come
  worker_errors log_of
  terminate_workers kill_worker kill_server wait_until_up waits_at
  outcome_of reasons_of reasons_of_doubt);

# The local Twilio of a node, or of one of its databases; companions there.
my (%twilio_of, %companion);

{
	no warnings 'redefine';

	# A server need not wait for sessions that are only kept, nor a test for their processes;
	# and those of other nodes may be connected to it (Citus).
	for my $name (qw(stop restart kill9))
	{
		my $function = PostgreSQL::Test::Cluster->can($name);
		no strict 'refs';
		*{"PostgreSQL::Test::Cluster::$name"} = sub {
			KeptSession::close_all();
			return $function->(@_);
		};
	}

	# What a test waits for and does not see is a fault, whatever it tests afterwards.
	*PostgreSQL::Test::Cluster::poll_query_until = sub {
		my ($node, $db, $query, $expected) = @_;
		$expected //= 't';
		# an error is no answer yet
		my $answer = sub {
			eval { sql($node, $query, db => $db) }
		};
		my $seen = poll(sub { ($answer->() // '') eq $expected }, 180);
		fail("waited for: $query; last answer: " . ($answer->() // $@)) if !$seen;
		return $seen;
	};
}

#
# Clusters and their configuration
#

# A running cluster that sends to this local Twilio.  Options: conf (lines for
# postgresql.conf), init (arguments of PostgreSQL::Test::Cluster->init), node (those
# of its constructor), db, no_extension, version (of the extension), linger (in ms, how
# long workers stay; 0 unless LINGER in the environment says otherwise).
sub new_cluster
{
	my ($name, $twilio, %arg) = @_;
	my $node = PostgreSQL::Test::Cluster->new($name, %{ $arg{node} || {} });
	my $url = $twilio->url;
	my $ca_file = $twilio->{tls} ? $twilio->ca_file : '';
	my $linger = $arg{linger} // $ENV{LINGER} // 0;

	$node->init(%{ $arg{init} || {} });
	$node->append_conf('postgresql.conf', <<~"CONF");
		sendcampaign.api_url = '$url'
		sendcampaign.ca_file = '$ca_file'
		sendcampaign.lookup_timeout = '60s'
		sendcampaign.worker_idle_timeout = $linger
		fsync = on
		CONF
	$node->append_conf('postgresql.conf', $arg{conf}) if $arg{conf};
	$node->start;
	$twilio_of{$name} = $twilio;
	install_extension($node, $arg{db} || 'postgres', $arg{version}) if !$arg{no_extension};
	return $node;
}

# The extension, in its newest version, that of EXTENSION_VERSION in the environment, or
# another one, and a role "app" that owns the application's tables.
sub install_extension
{
	my ($node, $db, $version) = @_;
	$version //= $ENV{EXTENSION_VERSION};
	my $which = defined $version ? "VERSION '$version'" : '';
	sql($node, <<~"SQL", db => $db);
		CREATE EXTENSION sendcampaign $which;
		DO \$\$ BEGIN
			CREATE ROLE app LOGIN;
		EXCEPTION WHEN duplicate_object THEN
		END \$\$;
		GRANT CREATE ON SCHEMA public TO app;
		GRANT USAGE ON SCHEMA sendcampaign TO app;
		GRANT EXECUTE ON ALL ROUTINES IN SCHEMA sendcampaign TO PUBLIC;
		GRANT EXECUTE ON FUNCTION send_campaign TO PUBLIC;
		GRANT INSERT ON sendcampaign.opt_out TO app;
		SET ROLE app;
		SELECT sendcampaign.create_tables();
		SQL
}

# The extension as README.md shows it: a role "app" may use it, and nobody else.
sub install_as_shown
{
	my ($node, $db) = @_;
	sql($node, <<~'SQL', db => $db);
		CREATE EXTENSION sendcampaign;
		CREATE ROLE app LOGIN;
		GRANT CREATE ON SCHEMA public TO app;
		GRANT USAGE ON SCHEMA sendcampaign TO app;
		GRANT EXECUTE ON ALL ROUTINES IN SCHEMA sendcampaign TO app;
		GRANT EXECUTE ON FUNCTION send_campaign TO app;
		SQL
	return;
}

# A copy of the database "postgres" whose messages go to a Twilio of its own.
sub clone_database
{
	my ($node, $db, $twilio) = @_;
	my $url = $twilio->url;

	$twilio_of{ $node->name . " $db" } = $twilio;
	# it waits five seconds for those who are still there
	end_sessions($node);
	wait_until($node, <<~'SQL', db => 'template1');
		SELECT count(*) = 0 FROM pg_stat_activity
		WHERE datname = 'postgres' AND backend_type = 'client backend'
		SQL
	sql($node, "CREATE DATABASE $db TEMPLATE postgres", db => 'template1');
	sql($node, "ALTER DATABASE $db SET sendcampaign.api_url = '$url'", db => 'template1');
	if ($twilio->{tls})
	{
		my $ca_file = $twilio->ca_file;
		sql($node, "ALTER DATABASE $db SET sendcampaign.ca_file = '$ca_file'", db => 'template1');
	}
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
	# a session that is there takes them up by itself
	end_sessions($node);
	my $seen = "SELECT current_setting('test.changes', true)";
	poll(sub { $node->safe_psql('postgres', $seen) eq $changes })
	  or fail('the configuration is not taken up');
}

# The same for one setting.
sub set_and_reload
{
	my ($node, $name, $value) = @_;
	change_conf($node, "$name = '$value'");
}

# Waits until the server takes connections again, after a crash.
sub wait_until_up
{
	my $node = shift;
	# psql that finds no server may be gone before it is told what to do, which
	# is an error here
	my $is_up = sub {
		return eval { $node->psql('postgres', 'SELECT 1') == 0 };
	};
	poll($is_up) or die 'the server does not come up';
}

# All that the server has logged.
sub log_of
{
	my $node = shift;
	return slurp_file($node->logfile);
}

#
# SQL
#

# Runs SQL and returns what it prints, unaligned; dies at the first error.
# Options: db, role, user.
sub sql
{
	my ($node, $sql, %arg) = @_;
	my $db = $arg{db} || 'postgres';
	$sql = as_role($sql, $arg{role});
	return KeptSession::run($node, $db, $sql) if !$arg{user} && KeptSession::suits($sql);
	end_sessions($node);
	return $node->safe_psql($db, $sql, extra_params => connect_as($arg{user}));
}

# Ends the sessions that sql() keeps, where a test looks at all that there are.
sub end_sessions { return KeptSession::close_all(shift) }

# Runs SQL up to the first error; returns what it prints, and psql's messages:
# notices, warnings and errors.  Options as for sql().
sub sql_output
{
	my ($node, $sql, %arg) = @_;
	my ($stdout, $stderr) = ('', '');
	$node->psql(
		$arg{db} || 'postgres',
		as_role($sql, $arg{role}),
		stdout => \$stdout,
		stderr => \$stderr,
		on_error_stop => 1,
		extra_params => connect_as($arg{user}));
	return ($stdout, $stderr);
}

# The first error of some SQL: { sqlstate, message, detail, hint }, all of them
# empty if there is none.  Options as for sql().
sub sql_error
{
	my ($node, $sql, %arg) = @_;
	my $verbose = "\\set VERBOSITY verbose\n" . as_role($sql, $arg{role});
	my (undef, $stderr) = sql_output($node, $verbose, %arg, role => undef);
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

sub connect_as
{
	my $user = shift;
	return $user ? [ '-U', $user ] : [];
}

sub quoted
{
	my $text = shift;
	$text =~ s/'/''/g;
	return "'$text'::text";
}

# Waits until a query gives true, or what is expected; fails if it does not.
# Options: db, expected.
sub wait_until
{
	my ($node, $query, %arg) = @_;
	return $node->poll_query_until($arg{db} || 'postgres', $query, $arg{expected} // 't');
}

# Polls a condition for up to 120 s (or so many), less and less often.  What is waited
# for needs the machine as well: the longer a look takes, the later the next one comes.
sub poll
{
	my ($condition, $seconds) = @_;
	my $until = Time::HiRes::time() + ($seconds || 120);
	my $pause = 0.02;
	my $began;
	while (($began = Time::HiRes::time()) < $until)
	{
		return 1 if $condition->();
		my $took = Time::HiRes::time() - $began;
		$pause *= 1.2 if $pause < 0.1;
		Time::HiRes::sleep($took < 0.01 ? $pause : $pause + 3 * $took);
	}
	return 0;
}

# Waits until one session waits for a lock, in a statement that is LIKE this.
sub waits_for_lock
{
	my ($node, $statement) = @_;
	return wait_until($node, <<~"SQL");
		SELECT count(*) = 1 FROM pg_stat_activity
		WHERE wait_event_type = 'Lock' AND query LIKE '$statement'
		SQL
}

# How many seconds something may take here that may take so many on an idle
# machine: more where a client takes long.
sub seconds_here
{
	my ($node, $seconds) = @_;
	my $begin = Time::HiRes::time();
	# not sql(), whose sessions stay open
	$node->safe_psql('postgres', 'SELECT 1') for 1 .. 3;
	my $took = (Time::HiRes::time() - $begin) / 3;
	return $took < 0.1 ? $seconds : $seconds * $took / 0.1;
}

# Something has taken less than so many seconds; with SHOW_TIMES=1, how many is shown.
sub is_soon
{
	my ($node, $seconds, $soon, $name) = @_;
	cmp_ok($seconds, '<', seconds_here($node, $soon), $name);
	diag(sprintf '%s: %.1f s', $name, $seconds) if $ENV{SHOW_TIMES};
	return;
}

#
# Campaigns and jobs
#

# A group, a list of so many users with the phones +1555nnnnnnn, a campaign;
# returns its id.  Options: db, users, message, base_url (undef for none), phone
# (for all of them).
sub create_campaign
{
	my ($node, %arg) = @_;
	my $users = $arg{users} // 10;
	my $phone = $arg{phone} ? quoted($arg{phone}) : q{'+1555' || lpad(i::text, 7, '0')};
	my $base_url = exists $arg{base_url} ? $arg{base_url} : 'https://example.org/survey';
	my $data = "'message', " . quoted($arg{message} // 'Hello');

	$data .= ", 'baseUrl', " . quoted($base_url) if defined $base_url;
	# a log that has all statements need not have this one, with its token
	return sql($node, <<~"SQL", db => $arg{db});
		SET log_statement = 'none';
		SET ROLE app;
		WITH g AS (
			INSERT INTO groups (configuration)
			VALUES (jsonb_build_object(
				'twilioAccountSid', '$LocalTwilio::ACCOUNT',
				'twilioAuthToken', '$LocalTwilio::TOKEN',
				'twilioFromSmsNumber', '$LocalTwilio::SENDER'))
			RETURNING id
		), l AS (
			INSERT INTO ac_lists (group_id)
			SELECT id FROM g
			RETURNING id
		), u AS (
			INSERT INTO ac_list_users (ac_list_id, data)
			SELECT l.id, jsonb_build_object('sms', $phone)
			FROM l, generate_series(1, $users) i
		)
		INSERT INTO ac_campaigns (ac_list_id, data)
		SELECT id, jsonb_build_object($data) FROM l
		RETURNING id;
		SQL
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

	sql($node, "CREATE ROLE $role LOGIN; GRANT USAGE ON SCHEMA sendcampaign TO $role")
	  if !$arg{role};
	sql($node, <<~"SQL");
		CREATE SCHEMA $schema AUTHORIZATION $role;
		SET ROLE $role;
		SELECT sendcampaign.create_tables('$schema');
		SET search_path = $schema, public;
		INSERT INTO groups (configuration)
		VALUES (jsonb_build_object(
			'twilioAccountSid', '$LocalTwilio::ACCOUNT',
			'twilioAuthToken', '$LocalTwilio::TOKEN',
			'twilioFromSmsNumber', '$LocalTwilio::SENDER'));
		INSERT INTO ac_lists (group_id) VALUES (1);
		INSERT INTO ac_list_users (ac_list_id, data)
		VALUES (1, '{"sms": "+15550001234", "name": "Ann"}');
		INSERT INTO ac_campaigns (ac_list_id, data)
		VALUES (1, jsonb_build_object('message', '$message', 'baseUrl', $url));
		SQL
}

# As SQL: the list of a campaign.
sub list_of
{
	my $campaign = shift;
	return "(SELECT ac_list_id FROM ac_campaigns WHERE id = $campaign)";
}

# As SQL: the group of a campaign.
sub group_of
{
	my $campaign = shift;
	return '(SELECT l.group_id FROM ac_lists l JOIN ac_campaigns c ON c.ac_list_id = l.id'
	  . " WHERE c.id = $campaign)";
}

# As SQL: the run of a job of the schema "public".
sub run_of
{
	my $job = shift;
	return "(SELECT id FROM sendcampaign.run WHERE job_id = $job AND schema = 'public')";
}

# As SQL: the run of a tenant's campaign, see make_tenant().
sub run_of_tenant
{
	my $tenant = shift;
	return "(SELECT id FROM sendcampaign.run WHERE schema = '$tenant' AND campaign_id = 1)";
}

# Changes the configuration of a campaign's group to an SQL expression, in which
# "configuration" is what it was.  Option: db.
sub configure
{
	my ($node, $campaign, $configuration, %arg) = @_;
	my $group = group_of($campaign);
	sql($node, "UPDATE groups SET configuration = $configuration WHERE id = $group", %arg);
}

# A background job, as the application creates it for a call; returns its id.
sub create_job
{
	my ($node, %arg) = @_;
	return sql(
		$node, 'INSERT INTO ac_background_jobs (progress) VALUES (5) RETURNING id',
		role => 'app',
		%arg);
}

# Columns of a background job.  Option: db.
sub job_row
{
	my ($node, $job, $columns, %arg) = @_;
	return sql($node, "SELECT $columns FROM ac_background_jobs WHERE id = $job", %arg);
}

#
# Runs
#

# Calls send_campaign(campaign, job).  Options: db, role ("app"), job, recipients
# (a query).  Returns the job.
sub start_campaign
{
	my ($node, $campaign, %arg) = @_;
	my $job = $arg{job} // 'NULL';
	return sql(
		$node,
		$arg{recipients}
		? "SELECT send_campaign($campaign, $job, " . quoted($arg{recipients}) . ')'
		: "SELECT send_campaign($campaign, $job)",
		db => $arg{db},
		role => $arg{role} || 'app');
}

# Queues a run whose id is odd (1) or even (0): in builds for tests, these have
# their lists stored in different ways (see long_lists.c).
sub start_with_id
{
	my ($node, $odd, $campaign) = @_;
	sql($node, <<~"SQL");
		WITH s AS (SELECT pg_sequence_last_value('sendcampaign.run_id') AS last)
		SELECT setval('sendcampaign.run_id', last + (last + 1 + $odd) % 2) FROM s
		SQL
	return start_campaign($node, $campaign);
}

# Sends a campaign and waits for the end of its run (or a state); returns the
# run's row, with its job.  Options as for start_campaign() and wait_for_run().
sub run_campaign
{
	my ($node, $campaign, %arg) = @_;
	my $job = start_campaign($node, $campaign, %arg);
	return { %{ wait_for_run($node, $job, %arg) }, job => $job };
}

# Starts a campaign of so many users, with 20 requests held by the local
# Twilio.  Options: db, users, role.  Returns the campaign and the job.
sub hold_campaign
{
	my ($node, $twilio, %arg) = @_;
	my $campaign = create_campaign($node, %arg);
	$twilio->set(hold => 1, reset => 1);
	my $job = start_campaign($node, $campaign, %arg);
	wait_for_flight($twilio, 20);
	return ($campaign, $job);
}

# Calls wake(); returns the number of workers.  Options as for sql().
sub wake
{
	my ($node, %arg) = @_;
	return sql($node, 'SELECT sendcampaign.wake()', %arg);
}

# The state, the counts and the error of a job's run.
sub run_row
{
	my ($node, $job, $db) = @_;
	my @columns = qw(state total sent failed skipped in_doubt error);
	my $columns = join ', ', @columns;
	my %run;
	@run{@columns} = split /\|/,
	  sql($node, "SELECT $columns FROM sendcampaign.run WHERE job_id = $job", db => $db),
	  scalar @columns;
	return \%run;
}

# How far a run has come; '' as long as it has not begun.
sub progress_of
{
	my ($node, $job, $db) = @_;
	return sql($node, <<~"SQL", db => $db);
		SELECT concat_ws(' ', sent, failed, skipped, in_doubt) FROM sendcampaign.run
		WHERE job_id = $job AND total IS NOT NULL
		SQL
}

# Waits until the last companion has been sent, so that nobody meets it later.
sub wait_for_companion
{
	my ($node, $db) = @_;
	my $campaign = $companion{ $node->name . " $db" } or return;
	poll(
		sub {
			my $left = eval { sql($node, <<~"SQL", db => $db) };
				SELECT count(*) FROM sendcampaign.run
				WHERE campaign_id = $campaign AND finished_at IS NULL
				SQL
			return !$left;
		},
		5);
	return;
}

# Waits until the run has ended (or has the state given) and returns its row.
# Where it has begun and makes no progress, others are sent to meanwhile, except
# with alone => 1.
sub wait_for_run
{
	my ($node, $job, %arg) = @_;
	my $db = $arg{db} || 'postgres';
	my $is_there = $arg{state} ? "state = '$arg{state}'" : 'finished_at IS NOT NULL';
	my $query = "SELECT $is_there FROM sendcampaign.run WHERE job_id = $job";
	my $twilio = $twilio_of{ $node->name . " $db" } || $twilio_of{ $node->name };
	my $company = 0;
	my $progress = '';
	my $ended;

	for (my $i = 0; $twilio && !$arg{alone} && $i < 300 && !$ended; $i++)
	{
		$ended = poll(sub { sql($node, $query, db => $db) eq 't' }, $company ? 1 : 4);
		my $before = $progress;
		$progress = $ended ? '' : progress_of($node, $job, $db);
		$company ||= $progress eq $before && $progress ne '';
		send_companion($node, $twilio, $db) if $company && !$ended;
	}
	wait_for_companion($node, $db) if $company;
	$ended ||= wait_until($node, $query, db => $db);
	$ended
	  or diag("run of job $job did not end: "
		  . sql($node, "SELECT * FROM sendcampaign.run WHERE job_id = $job", db => $db));
	return run_row($node, $job, $db);
}

# The same, once what was on its way when the run failed has been recorded as well.
sub wait_for_all_of_run
{
	my ($node, $job, %arg) = @_;
	wait_for_run($node, $job, %arg);
	wait_for_no_worker($node);
	return run_row($node, $job, $arg{db});
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
	my $group = group_of($campaign);
	my $token = $twilio->{token};

	sql($node, <<~"SQL", db => $db) if defined $token;
		UPDATE groups
		SET configuration = configuration || '{"twilioAuthToken": "$token"}'
		WHERE id = $group AND configuration->>'twilioAuthToken' <> '$token'
		SQL
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

# The first n recipients of a job are not known to have it any more, as after
# commits that were lost; waits until the run has gone on to its end.
sub lose_commits
{
	my ($node, $job, $n, $db, @wait) = @_;
	my $run = run_of($job);
	sql($node, <<~"SQL", db => $db);
		BEGIN;
		CREATE TEMP TABLE lost AS
		SELECT list_user_id, status FROM sendcampaign.message_data
		WHERE run_id = $run
		ORDER BY 1 LIMIT $n;

		UPDATE sendcampaign.run SET
			sent = sent - (SELECT count(*) FROM lost WHERE status = 'sent'),
			failed = failed - (SELECT count(*) FROM lost WHERE status = 'failed'),
			state = 'running', finished_at = NULL, timeline = '0/0'
		WHERE job_id = $job;

		DELETE FROM sendcampaign.message_data
		WHERE run_id = $run AND list_user_id IN (SELECT list_user_id FROM lost);

		INSERT INTO sendcampaign.batch (run_id, number, list_user_ids)
		SELECT $run, 1, array_agg(list_user_id ORDER BY list_user_id) FROM lost;
		COMMIT;

		SELECT sendcampaign.wake();
		SQL
	return wait_for_run($node, $job, db => $db, @wait);
}

# No recipient of a paused job is known to have it, as after commits that were
# lost; sentCount of those who had it is lost as well.
sub lose_all
{
	my ($node, $job) = @_;
	my $run = run_of($job);
	sql($node, <<~"SQL");
		UPDATE sendcampaign.run SET timeline = '9/lost' WHERE job_id = $job;
		WITH lost AS (
		    DELETE FROM sendcampaign.message_data
		    WHERE run_id = $run
		    RETURNING list_user_id),
		back AS (
		    INSERT INTO sendcampaign.batch
		    SELECT $run, 99, array_agg(list_user_id)
		    FROM lost),
		uncount AS (
		    UPDATE ac_list_users
		    SET data = data - 'sentCount'
		    WHERE id IN (SELECT list_user_id FROM lost))
		UPDATE sendcampaign.run SET sent = 0 WHERE job_id = $job;
		SQL
}

#
# Workers
#

sub pids_of
{
	my ($node, $types) = @_;
	return split /\n/, sql($node, <<~"SQL");
		SELECT pid FROM pg_stat_activity
		WHERE backend_type IN ($types)
		ORDER BY pid
		SQL
}

sub worker_pids { return pids_of(shift, q('sendcampaign worker')) }

# Those that store a long list
sub list_worker_pids { return pids_of(shift, q('sendcampaign list worker')) }

sub wait_for_no_worker
{
	my $node = shift;
	wait_until($node, <<~'SQL') or diag('a worker is left');
		SELECT count(*) = 0 FROM pg_stat_activity
		WHERE backend_type = 'sendcampaign worker'
		SQL
}

# Waits until no worker is left: so many seconds, and more on a busy machine.
sub worker_is_gone
{
	my ($node, $seconds) = @_;
	return poll(sub { !worker_pids($node) }, 45 + $seconds);
}

# Waits until no worker is left, nor about to start: the server has ended all that it
# was asked for. Its log needs the level debug1.
sub no_worker_is_to_come
{
	my $node = shift;
	# before it takes a connection, the server sees what it was asked for
	$node->safe_psql('postgres', 'SELECT 1');
	return poll(sub {
		my $log = log_of($node);
		my @registered = $log =~ / registering background worker "sendcampaign worker/g;
		my @ended = $log =~ / unregistering background worker "sendcampaign worker/g;
		return @registered == @ended;
	});
}

# What the server's processes have logged that they should not; clients' errors
# apart.
sub worker_errors
{
	my $node = shift;
	return join "\n",
	  grep { /^\S+ \S+ \S+ \[\d+\] (WARNING|ERROR|PANIC)|TRAP|terminated by signal/ }
	  split /\n/, log_of($node);
}

# Waits until a worker has stopped at a debug point (see debug_point.h).
sub waits_at
{
	my ($node, $point) = @_;
	return wait_until($node, <<~"SQL");
		SELECT count(*) > 0 FROM pg_locks
		WHERE locktype = 'advisory' AND classid = 5005 AND objid = $point AND NOT granted
		SQL
}

# Tells each of both to end, as an administrator would.
sub terminate_workers
{
	my $node = shift;
	sql($node, "SELECT pg_terminate_backend($_)") for worker_pids($node), list_worker_pids($node);
}

# SIGKILL for one of both: the server restarts by itself.  Once the
# process is gone, the server takes no connection until it is up again.  Returns
# false if there is no worker.
sub kill_worker
{
	my $node = shift;
	my @pids = (worker_pids($node), list_worker_pids($node)) or return 0;
	my $pid = $pids[ rand @pids ];
	kill('KILL', $pid) or return 0;
	poll(sub { !kill 0, $pid }) or die 'the worker does not die';
	wait_until_up($node);
	return 1;
}

# All processes of the server end at once, as if the power failed.  It is stopped
# first, so that it starts none that would be missed.
sub kill_server
{
	my $node = shift;
	my $pid = $node->{_pid};
	kill 'STOP', $pid;
	poll(sub { slurp_file("/proc/$pid/stat") =~ /\) T / }) or die 'the server does not stop';
	my @pids = split ' ', slurp_file("/proc/$pid/task/$pid/children");
	$node->kill9;
	kill 'KILL', @pids;
	poll(sub { !kill 0, @pids }) or die 'processes of the server are left';
	return;
}

#
# What the local Twilio has accepted
#

# How many messages it took whose text begins so.
sub sent_with
{
	my ($twilio, $text) = @_;
	return scalar grep { index($_->{body}, $text) == 0 } $twilio->ledger;
}

# How many messages of a campaign it took; their texts need their link.
sub sent_of
{
	my ($twilio, $campaign) = @_;
	return scalar grep { $_->{body} =~ /&yc=$campaign$/ } $twilio->ledger;
}

# Waits until it has so many requests in hand.
sub wait_for_flight
{
	my ($twilio, $requests) = @_;
	poll(sub { $twilio->stats->{create_in_flight} >= $requests }, 30)
	  or diag("$requests requests in flight were expected");
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
	my $rows = sql($node, <<~"SQL", db => $db);
		SELECT m.list_user_id, m.status, coalesce(m.sid, ''),
			coalesce((u.data->>'sentCount')::int, 0), u.id
		FROM sendcampaign.message m
		LEFT JOIN ac_list_users u ON u.id = m.list_user_id
		WHERE m.job_id = $job
		SQL
	my @wrong = wrong_rows($twilio, $campaign, split /\n/, $rows);
	my $run_id = run_of($job);
	my $left = sql($node, <<~"SQL", db => $db);
		SELECT (SELECT count(*) FROM sendcampaign.claim WHERE run_id = $run_id),
			(SELECT count(*) FROM sendcampaign.batch WHERE run_id = $run_id)
		SQL

	diag("$name: $run->{state}: $run->{error}") if $run->{state} ne 'completed';
	diag("$name: in doubt: " . reasons_of_doubt($node, $job, $db)) if $run->{in_doubt} > 0;
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
	is($left, '0|0', "$name: nothing is claimed or left over");
	like(job_row($node, $job, 'progress', db => $db), qr/^(100)?$/, "$name: the job's progress");
}

# Which rows of a job's messages, as in sent_once(), are not what the local
# Twilio has accepted of this campaign, and what it has accepted without a row.
sub wrong_rows
{
	my ($twilio, $campaign, @rows) = @_;
	my (%accepted, @wrong, %sent);

	for my $message ($twilio->ledger)
	{
		push @{ $accepted{$1} }, $message->{sid}
		  if $message->{body} =~ /\?yu=(\d+)(?:&ys=[\w-]{16})?&yc=$campaign$/;
	}
	for my $row (@rows)
	{
		my ($id, $status, $sid, $count, $exists) = split /\|/, $row;
		my @sids = @{ $accepted{$id} || [] };
		my $sid_is_wrong = ($status eq 'sent' ? $sid : '') ne "@sids";
		my $count_is_wrong = $exists ne '' && $count != @sids;
		push @wrong, "$row but accepted: @sids" if $sid_is_wrong || $count_is_wrong;
		$sent{$id} = 1 if $status eq 'sent';
	}
	for my $id (grep { !$sent{$_} } keys %accepted)
	{
		push @wrong, "list user $id has no row, but a message";
	}
	return @wrong;
}

# How many messages of a job have each status: "1 in_doubt, 39 sent".
sub outcome_of
{
	my ($node, $job) = @_;
	return sql($node, <<~"SQL");
		SELECT string_agg(n || ' ' || status, ', ' ORDER BY status)
		FROM (SELECT status, count(*) n FROM sendcampaign.message WHERE job_id = $job GROUP BY 1) s
		SQL
}

# Why messages of a job have failed, or are skipped or in doubt.
sub reasons_of
{
	my ($node, $job) = @_;
	return sql($node, <<~"SQL");
		SELECT string_agg(DISTINCT error_message, E'\n') FROM sendcampaign.message
		WHERE job_id = $job AND error_message IS NOT NULL
		SQL
}

sub reasons_of_doubt
{
	my ($node, $job, $db) = @_;
	return sql($node, <<~"SQL", db => $db);
		SELECT string_agg(DISTINCT error_message, '; ') FROM sendcampaign.message
		WHERE job_id = $job AND status = 'in_doubt'
		SQL
}

1;
