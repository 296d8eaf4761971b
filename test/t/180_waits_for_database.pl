# An error of the application's tables that may pass is tried again; while it
# does not pass, the run and the job say what is waited for.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../perl";
use Campaign;
use LocalTwilio;
use Session;
use Test::More;

my $twilio = LocalTwilio->start;
my $node = new_cluster('waits', $twilio);

# The state and the error that a job has
sub job_summary
{
	my $job = shift;
	return sql($node, <<~SQL);
		SELECT coalesce(data->>'state', ''), coalesce(error, '')
		FROM ac_background_jobs
		WHERE id = $job
		SQL
}

# Does the job come to have this state, and an error like this?
sub job_says
{
	my ($job, $state, $says) = @_;
	return poll(sub {
		my ($its_state, $error) = split /\|/, job_summary($job), 2;
		return $its_state eq $state && $error =~ $says;
	});
}

# Does the run come to have an error like this?
sub run_says
{
	my ($job, $says) = @_;
	return poll(sub { run_row($node, $job)->{error} =~ $says });
}

# What a run says that waits until an error has passed
sub waits_for
{
	my $reason = shift;
	return qr/^trying again, as the database has raised an error: .*$reason/;
}

# Has the statements of one place ("count", "deferred", "read", "job") fail for
# a list or a job.
sub make_fail
{
	my ($place, $id, $code) = @_;
	sql($node, "INSERT INTO faults SELECT '$place', $id, '$code'");
}

# What raises the errors: a row of "faults" has those of its list or job fail.
sql($node, <<~'SQL', role => 'app');
	CREATE TABLE faults (place text, id bigint, code text);

	CREATE FUNCTION fail_if(p text, i bigint) RETURNS boolean LANGUAGE plpgsql AS $$
	DECLARE
	    c text := (SELECT code FROM public.faults WHERE place = p AND id = i);
	BEGIN
	    IF c = 'read only' THEN
	        SET LOCAL transaction_read_only = on;
	        CREATE TABLE public.not_this_one ();
	    ELSIF c IS NOT NULL THEN
	        RAISE EXCEPTION 'no % now', p
	            USING ERRCODE = c, DETAIL = 'It is ' || c || '.', HINT = 'Wait for it.';
	    END IF;
	    RETURN true;
	END $$;

	CREATE FUNCTION fail_by_trigger() RETURNS trigger LANGUAGE plpgsql AS $$
	BEGIN
	    PERFORM public.fail_if(TG_ARGV[0], (to_jsonb(NEW)->>TG_ARGV[1])::bigint);
	    RETURN NEW;
	END $$;

	CREATE TRIGGER fail BEFORE UPDATE ON ac_list_users
	    FOR EACH ROW EXECUTE FUNCTION fail_by_trigger('count', 'ac_list_id');
	CREATE CONSTRAINT TRIGGER fail_later AFTER UPDATE ON ac_list_users
	    DEFERRABLE INITIALLY DEFERRED
	    FOR EACH ROW EXECUTE FUNCTION fail_by_trigger('deferred', 'ac_list_id');
	CREATE TRIGGER fail BEFORE UPDATE ON ac_background_jobs
	    FOR EACH ROW EXECUTE FUNCTION fail_by_trigger('job', 'id');
	ALTER TABLE ac_list_users ENABLE ROW LEVEL SECURITY;
	ALTER TABLE ac_list_users FORCE ROW LEVEL SECURITY;
	CREATE POLICY reads ON ac_list_users USING (fail_if('read', ac_list_id));
	SQL

# Each class of errors, in each place; all of them at once, in one worker
my %codes_of = (
	count =>
	  [ qw(40001 40P01 53100 53400 57014 57P03 58000 58030 55P03 55006 25006), 'read only' ],
	deferred => [qw(53100)],
	read => [qw(55P03 57014)],
	job => [qw(55006 58030)]);
my @cases;
for my $place (qw(count deferred read job))
{
	for my $code (@{ $codes_of{$place} })
	{
		my $campaign = create_campaign($node, users => 3, message => "Hello $place $code");
		my $job = sql(
			$node,
			'INSERT INTO ac_background_jobs (progress) VALUES (5) RETURNING id',
			role => 'app');
		make_fail($place, $place eq 'job' ? $job : list_of($campaign), $code);
		push @cases, [ $place, $code, $campaign, $job ];
	}
}
for my $case (@cases)
{
	my ($place, $code, $campaign, $job) = @$case;
	start_campaign($node, $campaign, job => $job);
}

# Beside them others are sent.
my $other = create_campaign($node, users => 200);
my $other_job = start_campaign($node, $other);
sent_once($node, $twilio, $other, $other_job, 'beside them', total => 200);

for my $case (@cases)
{
	my ($place, $code, $campaign, $job) = @$case;
	my $name = "$place, $code";
	my $says = waits_for(
		$code eq 'read only'
		? qr/read-only transaction/
		: qr/no $place now\. It is $code\. Wait for it\.$/);
	ok(run_says($job, $says), "$name: the run says what it waits for")
	  or diag explain run_row($node, $job);
	like(run_row($node, $job)->{state}, qr/^(queued|running)$/, "$name: it has not failed");
	next if $place eq 'job';
	my $state = $place eq 'read' ? 'queued' : 'running';
	ok(job_says($job, $state, $says), "$name: and so does the job")
	  or diag job_summary($job);
}

# Another worker takes them up, as after a crash.
sql($node, <<~'SQL');
	SELECT pg_terminate_backend(pid)
	FROM pg_stat_activity
	WHERE backend_type = 'sendcampaign worker';
	DELETE FROM faults;
	SQL
poll(sub { sql($node, 'SELECT sendcampaign.wake() IS NOT NULL') eq 't' });
for my $case (@cases)
{
	my ($place, $code, $campaign, $job) = @$case;
	my $name = "$place, $code, passed";
	sent_once($node, $twilio, $campaign, $job, $name, total => 3);
	is(run_row($node, $job)->{error}, '', "$name: nothing is wrong");
	is(job_summary($job), 'completed|', "$name: so says the job");
}

# What has passed is shown no longer while the run is still being sent.
my $waits = waits_for('no count now');
my $campaign = create_campaign($node, users => 300);
make_fail('count', list_of($campaign), '53100');
my $job = start_campaign($node, $campaign);
ok(run_says($job, $waits), 'passing: the run says what it waits for')
  or diag explain run_row($node, $job);
ok(poll(sub { job_summary($job) =~ /no count now/ }), 'passing: the job says it');
$twilio->set(hold => 1);
sql($node, 'DELETE FROM faults');
my $has_passed = poll(sub {
	my $run = run_row($node, $job);
	return $run->{error} eq '' || $run->{state} ne 'running';
});
ok($has_passed, 'passed: the run no longer says it');
ok(poll(sub { job_summary($job) =~ /\|$/ }), 'passed: nor does the job');
$twilio->set(hold => 0);
sent_once($node, $twilio, $campaign, $job, 'passed', total => 300);

# The run is cancelled, and its job cannot be told.
$campaign = create_campaign($node, users => 3);
make_fail('count', list_of($campaign), '53100');
$job = start_campaign($node, $campaign);
ok(run_says($job, $waits), 'to be cancelled: the run says what it waits for')
  or diag explain run_row($node, $job);
ok(poll(sub { job_summary($job) =~ /no count now/ }), 'to be cancelled: the job says it');
make_fail('job', $job, '55006');
sql($node, "SELECT sendcampaign.cancel($job)", role => 'app');
is(run_row($node, $job)->{state}, 'cancelled', 'cancelled: the run says so');
sql($node, 'DELETE FROM faults');
wait_for_run($node, $job);
my $ended = "SELECT finished_at IS NOT NULL FROM sendcampaign.run WHERE job_id = $job";
ok(poll(sub { sql($node, $ended) eq 't' }), 'cancelled: it ends');
is(run_row($node, $job)->{sent}, 3, 'cancelled: with what was sent');

# Once it is pausing or failing, that is what it says.
$campaign = create_campaign($node, users => 3);
make_fail('count', list_of($campaign), '53100');
$job = start_campaign($node, $campaign);
ok(run_says($job, $waits), 'another error: the run says what it waits for')
  or diag explain run_row($node, $job);
sql($node, q{UPDATE faults SET code = 'P0001'});
is(wait_for_run($node, $job)->{state}, 'failed', 'another error: it fails');
my $other_error = 'no count now. It is P0001. Wait for it.';
like(run_row($node, $job)->{error}, qr/^\Q$other_error\E$/, 'another error: with that one');
is(job_summary($job), "failed|$other_error", 'another error: the job says so, too');

# List users are locked by others for long.
sql($node, 'DELETE FROM faults');
$campaign = create_campaign($node, users => 300);
my $session = Session->open($node);
$session->query(<<~'SQL');
	BEGIN;
	SELECT FROM ac_list_users WHERE id = (SELECT max(id) FROM ac_list_users) FOR UPDATE
	SQL
$job = start_campaign($node, $campaign);
my $locked = 'trying again, as others have locked list users for a long time:'
  . ' the outcomes of their messages are recorded once they are free';
ok(run_says($job, qr/^$locked$/), 'a lock: the run says so') or diag explain run_row($node, $job);
ok(job_says($job, 'running', qr/^$locked$/), 'a lock: and so does the job');
ok(poll(sub { run_row($node, $job)->{sent} == 299 }), 'a lock: the others are recorded');
$session->query('COMMIT');
sent_once($node, $twilio, $campaign, $job, 'no lock', total => 300);
is(run_row($node, $job)->{error} . job_summary($job), 'completed|', 'no lock: nothing is wrong');

# The job is locked, and only the run can be told.
$campaign = create_campaign($node, users => 300);
$job =
  sql($node, 'INSERT INTO ac_background_jobs (progress) VALUES (5) RETURNING id', role => 'app');
$session->query("BEGIN; SELECT FROM ac_background_jobs WHERE id = $job FOR UPDATE");
start_campaign($node, $campaign, job => $job);
ok(run_says($job, waits_for('lock timeout$')), 'a locked job: the run says what it waits for')
  or diag explain run_row($node, $job);
is(job_summary($job), '|', 'a locked job: it says nothing');
$session->query('COMMIT');
sent_once($node, $twilio, $campaign, $job, 'the job is free', total => 300);
is(run_row($node, $job)->{error} . job_summary($job),
	'completed|', 'the job is free: nothing is wrong');
$session->close;

my $are_locked =
	'sendcampaign: job \d+: list users are locked by other sessions;'
  . ' their outcomes will be recorded later';
like(log_of($node), qr/LOG:  $are_locked/, 'the log tells of locks');
is(worker_errors($node), '', 'there are no errors in the log');
$node->stop;
done_testing();
