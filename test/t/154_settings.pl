# Settings of the role, or that a trigger leaves behind, end no worker, and
# what is wrong with one run is in its error and stops no other.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../perl";
use Campaign;
use LocalTwilio;
use PostgreSQL::Test::Utils;
use Session;
use Test::More;

my $twilio = LocalTwilio->start;
my $node = new_cluster('settings', $twilio, conf => "log_min_messages = debug1\n");

# Does the run end?
sub ends
{
	my $job = shift;
	my $ended = "SELECT finished_at IS NOT NULL FROM sendcampaign.run WHERE job_id = $job";
	return poll(sub { sql($node, $ended) eq 't' });
}

# List users that do something when they are updated, and jobs that are doomed
sql($node, <<~'SQL', role => 'app');
	CREATE FUNCTION act() RETURNS trigger LANGUAGE plpgsql AS $$
	BEGIN
	    EXECUTE OLD.data->>'act';
	    RETURN NEW;
	END $$;
	CREATE TRIGGER act BEFORE UPDATE ON ac_list_users
	    FOR EACH ROW WHEN (OLD.data ? 'act') EXECUTE FUNCTION act();

	CREATE TABLE doomed (id bigint);
	CREATE FUNCTION doom() RETURNS trigger LANGUAGE plpgsql AS $$
	BEGIN
	    IF EXISTS (SELECT FROM doomed WHERE doomed.id = NEW.id) THEN
	        RAISE EXCEPTION 'job % is doomed', NEW.id;
	    END IF;
	    RETURN NULL;
	END $$;
	CREATE CONSTRAINT TRIGGER doom AFTER UPDATE ON ac_background_jobs
	    DEFERRABLE INITIALLY DEFERRED
	    FOR EACH ROW EXECUTE FUNCTION doom();
	SQL

# A campaign whose list users do this when they are updated
sub acting_campaign
{
	my ($act, $text) = @_;
	my $campaign = create_campaign($node, users => 3, message => $text);
	$act =~ s/'/''/g;
	sql($node, <<~SQL);
		UPDATE ac_list_users
		SET data = data || jsonb_build_object('act', '$act')
		WHERE ac_list_id = (SELECT ac_list_id FROM ac_campaigns WHERE id = $campaign)
		SQL
	return $campaign;
}
my $refuse = q{DO $x$ BEGIN RAISE EXCEPTION 'no update today'; END $x$};

# Starts campaigns of three users each, all of which begin before one ends;
# returns their jobs.
sub start_together
{
	my @campaigns = @_;
	$twilio->set(hold => 1);
	my @jobs = map { start_campaign($node, $_) } @campaigns;
	wait_for_flight($twilio, 3 * @campaigns);
	$twilio->set(hold => 0);
	return @jobs;
}

# One run fails, and another one, which begins before it ends, does not.
sub one_fails
{
	my $name = shift;
	my $bad = acting_campaign($refuse, "Bad, $name");
	my $good = create_campaign($node, users => 3, message => "Good, $name");
	my @jobs = start_together($bad, $good);
	ok(ends($_), "$name: the run ends") for @jobs;
	my $run = run_row($node, $jobs[0]);
	is($run->{state}, 'failed', "$name: the run with the error has failed");
	like($run->{error}, qr/^no update today/, "$name: and says why");
	sent_once($node, $twilio, $good, $jobs[1], "$name, another run", total => 3);
}

one_fails('plain');
my @settings = (
	'exit_on_error = on',
	'row_security = off',
	'transform_null_equals = on',
	'array_nulls = off',
	'backslash_quote = on',
	'check_function_bodies = off',
	'debug_print_parse = on',
	'plan_cache_mode = force_generic_plan',
	'IntervalStyle = iso_8601',
	"default_toast_compression = 'pglz'",
	'escape_string_warning = off');
@settings = grep { !/escape_string_warning/ } @settings
  if $node->pg_version->major >= 19;    # it has gone
for my $setting (@settings)
{
	sql($node, "ALTER ROLE app SET $setting");
	one_fails($setting);
	ok(no_worker_is_to_come($node), "$setting: the worker ends");
	sql($node, 'ALTER ROLE app RESET ALL');
}
sql($node, 'ALTER DATABASE postgres SET exit_on_error = on');
one_fails('exit_on_error = on for the database');
sql($node, 'ALTER DATABASE postgres RESET exit_on_error');
ok(no_worker_is_to_come($node), 'the worker ends');

# Row-level security is obeyed, not refused.
sql($node, <<~'SQL');
	ALTER TABLE ac_list_users ENABLE ROW LEVEL SECURITY;
	ALTER TABLE ac_list_users FORCE ROW LEVEL SECURITY;
	CREATE POLICY all_but_two ON ac_list_users USING (data->>'sms' <> '+15550000002');
	ALTER ROLE app SET row_security = off;
	SQL
my $campaign = create_campaign($node, users => 0, message => 'Row security');
sql($node, <<~SQL);
	INSERT INTO ac_list_users (ac_list_id, data)
	SELECT (SELECT ac_list_id FROM ac_campaigns WHERE id = $campaign),
	    jsonb_build_object('sms', '+1555000000' || i)
	FROM generate_series(1, 3) i
	SQL
my $job = start_campaign($node, $campaign);
sent_once($node, $twilio, $campaign, $job, 'row security', total => 2);
sql($node, <<~'SQL');
	ALTER ROLE app RESET ALL;
	DROP POLICY all_but_two ON ac_list_users;
	ALTER TABLE ac_list_users DISABLE ROW LEVEL SECURITY;
	SQL
ok(no_worker_is_to_come($node), 'the worker ends');

# What a trigger of one run leaves behind does not count for another one.
my @left_behind = (
	'SET exit_on_error = on',
	'SET row_security = off',
	"SET lock_timeout = '1ms'",
	'SET default_transaction_read_only = on',
	"SET default_transaction_isolation = 'serializable'",
	'RESET ALL');
for my $left (@left_behind)
{
	my $leaves = acting_campaign($left, "Leaves $left");
	my $bad = acting_campaign($refuse, "Bad after $left");
	my $good = create_campaign($node, users => 3, message => "Good after $left");
	my @jobs = start_together($leaves, $bad, $good);
	ok(ends($_), "$left: the run ends") for @jobs;
	sent_once($node, $twilio, $leaves, $jobs[0], "$left, itself", total => 3);
	like(
		run_row($node, $jobs[1])->{error},
		qr/^no update today(\. |$)/,
		"$left: a run that fails has its own reason");
	sent_once($node, $twilio, $good, $jobs[2], "$left, another run", total => 3);
}

# A lock for which a trigger lets us wait without end holds up that run only.
my $session = Session->open($node);
my $leaves = acting_campaign('SET lock_timeout = 0', 'Leaves none');
$campaign = create_campaign($node, users => 3, message => 'Job locked');
$twilio->set(hold => 1);
my @jobs = map { start_campaign($node, $_) } $leaves, $campaign;
wait_for_flight($twilio, 6);
$session->query("BEGIN; SELECT FROM ac_background_jobs WHERE id = $jobs[1] FOR UPDATE");
$twilio->set(hold => 0);
ok(ends($jobs[0]), 'a run whose trigger leaves no time-out ends');
my $third = create_campaign($node, users => 3, message => 'Third');
push @jobs, start_campaign($node, $third);
ok(ends($jobs[2]), 'as does another, while the job of one is locked');
$session->query('COMMIT');
ok(ends($jobs[1]), 'and that one, when it is free');
sent_once($node, $twilio, $campaign, $jobs[1], 'job locked', total => 3);
$session->close;

# A deferred trigger on the job raises an error at the commit.
$campaign = create_campaign($node, users => 3, message => 'Doomed');
my $good = create_campaign($node, users => 3, message => 'Beside the doomed');
$job =
  sql($node, 'INSERT INTO ac_background_jobs (progress) VALUES (5) RETURNING id', role => 'app');
sql($node, "INSERT INTO doomed VALUES ($job)");
$twilio->set(hold => 1);
my $good_job = start_campaign($node, $good);
start_campaign($node, $campaign, job => $job);
wait_for_flight($twilio, 6);
$twilio->set(hold => 0);
ok(ends($good_job), 'deferred: another run ends');
sent_once($node, $twilio, $good, $good_job, 'beside the doomed', total => 3);
ok(ends($job), 'and so does the one whose job has a trigger that refuses');
like(run_row($node, $job)->{error}, qr/job $job is doomed/, 'which says why')
  or diag explain run_row($node, $job);

wait_for_no_worker($node);
$node->stop;
is(worker_errors($node), '', 'no worker met an error');
unlike(
	log_of($node),
	qr/\[\d+\] (FATAL|PANIC).*(?<!role "owner" does not exist)$/m,
	'and none died');
done_testing();
