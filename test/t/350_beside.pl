# The recipe of docs/install.md for an application's server that cannot have the
# extension: a small server beside it, fed by logical replication, that sends and
# reports back. Either of the two is killed while messages are on their way.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../perl";
use Campaign;
use LocalTwilio;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Session;
use Test::More;

plan skip_all => 'dblink is not installed'
  if !-e PostgreSQL::Test::Cluster->new('probe')->config_data('--pkglibdir') . '/dblink.so';

my $examples = "$FindBin::RealBin/../../examples/beside";
my $twilio = LocalTwilio->start;

#
# The application's server, whose tables have more columns than others know
#

my $application = PostgreSQL::Test::Cluster->new('application');
$application->init(allows_streaming => 'logical');
my $hba = $application->data_dir . '/pg_hba.conf';
my $lines = slurp_file($hba);
unlink $hba;
append_to_file($hba, "local all sms_sender scram-sha-256\n$lines");
$application->start;
sql($application, <<~SQL);
	CREATE TABLE groups (id serial PRIMARY KEY, name text NOT NULL DEFAULT 'Group',
	    configuration jsonb, counter_users integer NOT NULL DEFAULT 0);
	CREATE TABLE ac_lists (id serial PRIMARY KEY, group_id integer REFERENCES groups);
	CREATE TABLE ac_campaigns (id serial PRIMARY KEY, data jsonb,
	    ac_list_id integer REFERENCES ac_lists);
	CREATE TABLE ac_list_users (id serial PRIMARY KEY, data jsonb,
	    ac_list_id integer REFERENCES ac_lists, created_at timestamptz NOT NULL DEFAULT now(),
	    updated_at timestamptz NOT NULL DEFAULT now());
	CREATE TABLE ac_background_jobs (id serial PRIMARY KEY, progress integer, error text,
	    data jsonb, updated_at timestamptz NOT NULL DEFAULT now());
	INSERT INTO groups (configuration) VALUES (jsonb_build_object(
	    'twilioAccountSid', '$LocalTwilio::ACCOUNT',
	    'twilioAuthToken', '$LocalTwilio::TOKEN',
	    'twilioFromSmsNumber', '$LocalTwilio::SENDER'));
	SQL

# Campaign::create_campaign() sets a role that is not here.  Each list has its own
# phones; the first list user has been sent five messages before.
sub new_campaign
{
	my ($users) = @_;
	return sql($application, <<~SQL);
		WITH l AS (INSERT INTO ac_lists (group_id) VALUES (1) RETURNING id),
		u AS (
		    INSERT INTO ac_list_users (ac_list_id, data)
		    SELECT l.id, jsonb_build_object('openCount', 7,
		            'sms', '+1555' || lpad((1000 * l.id + i)::text, 7, '0'))
		        || CASE WHEN i = 1 THEN '{"sentCount": 5}' ELSE '{}' END::jsonb
		    FROM l, generate_series(1, $users) i)
		INSERT INTO ac_campaigns (ac_list_id, data)
		SELECT id, '{"message": "Hello", "baseUrl": "https://example.org"}' FROM l
		RETURNING id
		SQL
}

# The statement of docs/install.md that asks for a campaign
sub request_for
{
	my ($campaign) = @_;
	return <<~SQL;
		WITH j AS (
		    INSERT INTO ac_background_jobs (progress, data) VALUES (5, '{"mine": 1}') RETURNING id),
		r AS (
		    INSERT INTO sms_requests (job_id, campaign_id) SELECT id, $campaign FROM j)
		SELECT id FROM j;
		SQL
}

# Asks for one; returns the job.
sub request
{
	my ($campaign, $end) = @_;
	return sql($application, join "\n", 'BEGIN;', request_for($campaign), $end // 'COMMIT');
}

my $early = new_campaign(3);
my $dir = $application->host;
my $port = $application->port;
my @application_script = (
	'psql', '-Xqd',
	$application->connstr('postgres'),
	qw(-v password=secret -f),
	"$examples/application.sql");
sql($application, 'ALTER TABLE ac_list_users REPLICA IDENTITY FULL');
$application->command_fails_like(
	\@application_script,
	qr/ERROR:  the replica identity of table "ac_list_users" is not its primary key "id"/,
	'a table whose changes could not be published as they are');
sql($application, 'ALTER TABLE ac_list_users REPLICA IDENTITY DEFAULT');
$application->command_ok(\@application_script, 'application.sql runs');
my $old_job = request($early);

#
# The server that sends
#

# Runs a script of the examples there; at the moment of its end, the campaign is asked
# for.  Returns the job.
sub run_script
{
	my ($sender, $script, $campaign) = @_;
	my ($stdout, $stderr);
	my $ended = IPC::Run::run(
		[
			'psql',
			'-XAtqd',
			$sender->connstr('postgres'),
			'-v',
			"host=$dir",
			'-v',
			"port=$port",
			qw(-v dbname=postgres -v password=secret -f),
			"$examples/$script",
			'-c',
			"\\connect \"host=$dir port=$port dbname=postgres\"",
			'-c',
			request_for($campaign)
		],
		'>' => \$stdout,
		'2>' => \$stderr);
	ok($ended, "$script runs") or diag($stderr);
	my ($job) = $stdout =~ /^(\d+)$/m;
	return $job;
}

my $sender = new_cluster(
	'sender', $twilio,
	no_extension => 1,
	conf => <<~'CONF');
	shared_preload_libraries = 'sendcampaign'
	sendcampaign.launcher_interval = '1s'
	sendcampaign.request_timeout = '1s'
	sendcampaign.lookup_delay = '200ms'
	wal_retrieve_retry_interval = '500ms'
	max_worker_processes = 16
	CONF
my $job = run_script($sender, 'sender.sql', $early);

sub tell_now { return sql_output($sender, 'CALL sms.tell()', user => 'app') }

# What the application's server knows of a campaign to so many, who each have one message.
sub told
{
	my ($campaign, $job, $users, $name) = @_;
	# there are no companions, as no campaign can be made on the sender
	wait_for_run($sender, $job, alone => 1);
	my $errors = '';
	poll(sub { $errors .= (tell_now())[1]; job_row($application, $job, 'progress') == 100 });
	is($errors, '', "$name: it is told");
	is(scalar(() = grep { $_->{body} =~ /yc=$campaign$/ } $twilio->ledger),
		$users, "$name: so many messages");
	my %phones = map { $_->{to} => 1 } grep { $_->{body} =~ /yc=$campaign$/ } $twilio->ledger;
	is(scalar keys %phones, $users, "$name: to as many phones");
	is(sql($application, <<~SQL), $users - 1 . '|1|' . $users, "$name: sentCount");
		SELECT count(*) FILTER (WHERE data ->> 'sentCount' = '1'),
		    count(*) FILTER (WHERE data ->> 'sentCount' = '6'),
		    count(*) FILTER (WHERE (data ->> 'openCount')::integer >= 7 AND data ? 'sms')
		FROM ac_list_users WHERE ac_list_id = ${\ list_of($campaign)}
		SQL
	is( job_row(
			$application, $job,
			q{progress, error, data ->> 'mine', data ->> 'state', data ->> 'sent'}),
		"100||1|completed|$users",
		"$name: the job");
	return;
}

is(sql($sender, 'SELECT count(*) FROM ac_list_users'), 3, 'the tables have been copied');
wait_until($sender, "SELECT count(*) = 1 FROM sendcampaign.run WHERE job_id = $job");
told($early, $job, 3, 'a request right after that');
is(sql($sender, 'SELECT string_agg(job_id::text, $$,$$) FROM sms_requests'),
	$job, 'and no request of the past');

#
# Transactions, repetition, errors
#

my $rolled_back = request($early, 'ROLLBACK');
sql($application, "INSERT INTO sms_requests (job_id, campaign_id) VALUES ($job, $early)");
my $wrong = request(12345);
wait_until($sender, "SELECT count(*) = 1 FROM ac_background_jobs WHERE id = $wrong");
tell_now();
like(
	job_row($application, $wrong, 'error'),
	qr/^campaign 12345 does not exist\. Check that/,
	'an error is told to the job');
is(sql($sender, 'SELECT count(*) FROM sendcampaign.run'),
	1, 'rolled back, or the same job again: there is no other run');

sql($application, <<~SQL);
	INSERT INTO sms_requests (job_id, campaign_id) VALUES (3000000000, 12345);
	DELETE FROM sms_requests WHERE job_id = $job;
	INSERT INTO sms_requests (id, job_id, campaign_id) OVERRIDING SYSTEM VALUE
	VALUES (2, $job, $early);
	INSERT INTO sms_requests (job_id, action) VALUES ($job, 'cancel');
	SQL
poll(sub { log_of($sender) =~ /WARNING:  request \d+ for background job $job: .*"completed"/ })
  or fail('the last request is followed');
is(sql($sender, 'SELECT count(*) FROM ac_background_jobs WHERE id = 3000000000'),
	1, 'an id that is no integer stops nothing, nor one that comes again');
tell_now();
is(job_row($application, $job, q{progress, error, data ->> 'state'}),
	'100||completed', 'a request that comes too late is no error of a run that has ended');
like(
	sql_error($sender, "SELECT send_campaign($early)", role => 'app')->{message},
	qr/null value in column "id" of relation "ac_background_jobs"/,
	'no job is made on the small server');

# A list user that the application keeps locked
my $locked = new_campaign(3);
$job = request($locked);
wait_until($sender, "SELECT count(*) = 1 FROM sendcampaign.run WHERE job_id = $job");
wait_for_run($sender, $job, alone => 1);
my $application_session = Session->open($application);
$application_session->query(<<~SQL);
	BEGIN;
	UPDATE ac_list_users SET data = jsonb_set(data, '{openCount}', '9')
	WHERE id = (SELECT min(id) FROM ac_list_users WHERE ac_list_id = ${\ list_of($locked)})
	SQL
is((tell_now())[1], '', 'a locked list user: no error');
is(sql($application, <<~SQL), 2, 'the others are told');
	SELECT count(*) FROM ac_list_users
	WHERE ac_list_id = ${\ list_of($locked)} AND data ->> 'sentCount' = '1'
	SQL
is(job_row($application, $job, 'progress'), 5, 'the job is not ahead of the counts');
$application_session->query('COMMIT');
$application_session->close;
told($locked, $job, 3, 'a list user that was locked');

#
# Killed while messages are on their way
#

# The servers work on, one without the other; what the application writes meanwhile stays.
my $campaign = new_campaign(200);
$twilio->set(hold => 1);
$job = request($campaign);
wait_for_flight($twilio, 20);
sql($application,
	"UPDATE ac_list_users SET data = jsonb_set(data, '{openCount}', '8') WHERE id % 2 = 0");
$application->stop('immediate');
$twilio->set(hold => 0, latency => 20);
wait_until($sender, "SELECT sent > 40 FROM sendcampaign.run WHERE job_id = $job");
my (undef, $error) = tell_now();
like($error, qr/could not establish connection/, 'the application\'s server is down');
$application->start;
told($campaign, $job, 200, 'the application\'s server was killed');

$campaign = new_campaign(200);
$twilio->set('fault:never-after' => '#5', hold => 1);
$job = request($campaign);
wait_for_flight($twilio, 20);
$twilio->set(hold => 0);
wait_until($sender, "SELECT sent > 20 FROM sendcampaign.run WHERE job_id = $job");
tell_now();
$sender->stop('immediate');
my $next = new_campaign(10);
my $next_job = request($next);
$sender->start;
told($campaign, $job, 200, 'the sender was killed');
wait_until($sender, "SELECT count(*) = 1 FROM sendcampaign.run WHERE job_id = $next_job");
told($next, $next_job, 10, 'requested while it was down');

# It is killed after the counts were told, and before it knows that
$campaign = new_campaign(50);
$job = request($campaign);
wait_until($sender, "SELECT count(*) = 1 FROM sendcampaign.run WHERE job_id = $job");
wait_for_run($sender, $job, alone => 1);
wait_for_no_worker($sender);
my $list = sql($application, 'SELECT ' . list_of($campaign));
my $teller = Session->open($sender);
sql($sender, 'SELECT sms.keep_counts_before(1000)', user => 'app');
is($teller->query('SET ROLE app; BEGIN; SELECT sms.tell_counts(1000)'),
	50, 'the counts are told, and this is not committed');
is(sql($application, <<~SQL), 50, 'the application has them');
	SELECT count(*) FROM ac_list_users WHERE ac_list_id = $list AND data ? 'sentCount'
	SQL
$sender->stop('immediate');
eval { $teller->close };
$sender->start;
is( sql($sender, "SELECT count(*) FROM ac_list_users WHERE ac_list_id = $list AND told_count = 0"),
	50,
	'the sender does not know that it has told the counts');
told($campaign, $job, 50, 'told twice');

#
# Pausing, and going on
#

$campaign = new_campaign(100);
$twilio->set(hold => 1);
$job = request($campaign);
wait_for_flight($twilio, 20);
sql($application, "INSERT INTO sms_requests (job_id, action) VALUES ($job, 'pause')");
wait_until($sender, "SELECT state = 'paused' FROM sendcampaign.run WHERE job_id = $job");
$twilio->set(hold => 0);
sql($application, "INSERT INTO sms_requests (job_id, action) VALUES ($job, 'resume')");
wait_until($sender, "SELECT state <> 'paused' FROM sendcampaign.run WHERE job_id = $job");
told($campaign, $job, 100, 'paused and resumed');
is(sql($sender, <<~SQL), 't', 'its row is still the extension\'s own');
	SELECT written_in = xmin FROM sendcampaign.run_data WHERE job_id = $job
	SQL

#
# From PostgreSQL 16 on, a subscription's trigger runs with the rights of the table's
# owner, restricted as in the query of a materialized view
#

$campaign = new_campaign(5);
wait_until($sender, "SELECT count(*) = 1 FROM ac_campaigns WHERE id = $campaign");
sql($sender, <<~SQL, role => 'app');
	CREATE FUNCTION ask() RETURNS bigint LANGUAGE sql AS \$\$
	    INSERT INTO public.sms_requests (id, job_id, campaign_id, action, created_at)
	    VALUES (-1, 9000, $campaign, 'send', now())
	    RETURNING job_id \$\$;
	SQL
sql($sender, 'CREATE MATERIALIZED VIEW asked AS SELECT ask()', role => 'app');
is(wait_for_run($sender, 9000, alone => 1)->{sent}, 5, 'a call that is restricted');

#
# Row-level security of the application's tables
#

sql($application, 'ALTER TABLE ac_list_users ENABLE ROW LEVEL SECURITY');
my $hidden = new_campaign(3);
$job = request($hidden);
wait_until($sender, "SELECT count(*) = 1 FROM sendcampaign.run WHERE job_id = $job");
wait_for_run($sender, $job, alone => 1);
like(
	(tell_now())[1],
	qr/query would be affected by row-level security policy for table "ac_list_users"/,
	'rows that are hidden are an error');
sql($application, 'ALTER ROLE sms_sender BYPASSRLS');
told($hidden, $job, 3, 'row-level security');

#
# The slot is lost: the copies begin anew
#

my $since = sql($application, 'SELECT now()');
sql($sender, 'ALTER SUBSCRIPTION sms DISABLE');
wait_until($application, q{SELECT NOT active FROM pg_replication_slots WHERE slot_name = 'sms'});
sql($application, q{SELECT pg_drop_replication_slot('sms')});
$next = new_campaign(10);
$next_job = request($next);
sql($sender, 'ALTER SUBSCRIPTION sms SET (slot_name = NONE)');
sql($sender, 'DROP SUBSCRIPTION sms');
$sender->command_fails_like(
	[ 'psql', '-Xqd', $sender->connstr('postgres'), '-f', "$examples/subscribe.sql" ],
	qr/ERROR:  the tables are not empty/,
	'the tables must be empty');
sql($sender, 'TRUNCATE groups, ac_lists, ac_campaigns, ac_list_users');
my $cancelled = new_campaign(10);
my $cancelled_job = request($cancelled);
sql($application, "INSERT INTO sms_requests (job_id, action) VALUES ($cancelled_job, 'cancel')");

# one table cannot be copied, as its rows are hidden; then called again, and once more
sql($application, 'ALTER ROLE sms_sender NOBYPASSRLS');
$sender->command_fails_like(
	[
		'psql', '-Xqd', $sender->connstr('postgres'),
		'-v', "host=$dir", '-v', "port=$port", qw(-v dbname=postgres -v password=secret),
		'-f', "$examples/subscribe.sql"
	],
	qr/ERROR:  a table could not be copied/,
	'rows that are hidden are an error of the first copy');
sql($application, 'ALTER ROLE sms_sender BYPASSRLS');
# an attempt that has begun before may still fail, and counts as a failure
my $allowed = sql($sender, 'SELECT clock_timestamp()');
wait_until($sender, <<~SQL);
	SELECT count(*) = 0 FROM pg_stat_activity
	WHERE backend_type LIKE 'logical replication%worker' AND backend_start < '$allowed'
	    AND pid NOT IN (SELECT pid FROM pg_stat_subscription
	                    WHERE relid IS NULL AND pid IS NOT NULL)
	SQL
my $between = new_campaign(2);
told($between, run_script($sender, 'subscribe.sql', $between),
	2, 'subscribed after an interruption');
my $last = new_campaign(20);
my $last_job = run_script($sender, 'subscribe.sql', $last);
wait_until($sender, "SELECT count(*) = 1 FROM sendcampaign.run WHERE job_id = $last_job");
told($last, $last_job, 20, 'requested right after that');
sql($application, <<~SQL) for 1 .. 2;
	INSERT INTO sms_requests (job_id, campaign_id)
	SELECT r.job_id, r.campaign_id
	FROM sms_requests r
	JOIN ac_background_jobs j ON j.id = r.job_id
	WHERE r.action = 'send' AND j.data -> 'state' IS NULL AND j.error IS NULL
	    AND r.created_at >= '$since'
	    AND NOT EXISTS (SELECT FROM sms_requests s
	                    WHERE s.job_id = r.job_id AND s.action IN ('pause', 'cancel'))
	SQL
wait_until($sender, "SELECT count(*) = 1 FROM sendcampaign.run WHERE job_id = $next_job");
told($next, $next_job, 10, 'requested in between');
$job = request($early);
wait_until($sender, "SELECT count(*) = 1 FROM sendcampaign.run WHERE job_id = $job");
wait_for_run($sender, $job, alone => 1);
tell_now();
is(sql($application, <<~SQL), '2,2,7', 'a second campaign to list users who were copied again');
	SELECT string_agg(data ->> 'sentCount', ',' ORDER BY data ->> 'sentCount')
	FROM ac_list_users WHERE ac_list_id = ${\ list_of($early)}
	SQL
is( sql($sender, 'SELECT count(*) FROM sendcampaign.run WHERE job_id < 9000'),
	sql($application,
		<<~SQL), 'there is a run for each job that was asked for, and not cancelled');
	SELECT count(DISTINCT job_id)
	FROM sms_requests
	WHERE action = 'send' AND campaign_id < 12345 AND id > 1 AND job_id <> $cancelled_job
	SQL

unlike(log_of($sender), qr/password.*secret/, 'the log has no password');

$application->stop;
$sender->stop;
done_testing();
