# An error of the application's tables that may pass is tried again; where it
# does not pass, run and job say what is waited for, until it has passed.
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
sub sql { return $node->safe_psql('postgres', $_[0]); }
sub job_row { return sql("SELECT coalesce(data->>'state', ''), coalesce(error, '') FROM ac_background_jobs WHERE id = $_[0]"); }
sub lists_of { return "(SELECT ac_list_id FROM ac_campaigns WHERE id = $_[0])"; }

# Does the run say that it waits for this?
sub says
{
	my ($job, $reason, $name) = @_;
	my $says = qr/^trying again, as the database has raised an error: .*$reason/;
	ok(poll(sub { run_row($node, $job)->{error} =~ $says }), "$name: the run says what it waits for")
	  or diag explain run_row($node, $job);
	return $says;
}

# What raises the errors: a row here has those of its list or job fail.
sql(q{SET ROLE app;
	CREATE TABLE faults (place text, id bigint, code text);
	CREATE FUNCTION fail_if(p text, i bigint) RETURNS boolean LANGUAGE plpgsql AS $$
	DECLARE
		c text := (SELECT code FROM public.faults WHERE place = p AND id = i);
	BEGIN
		IF c = 'read only' THEN
			SET LOCAL transaction_read_only = on;
			CREATE TABLE public.not_this_one ();
		ELSIF c IS NOT NULL THEN
			RAISE EXCEPTION 'no % now', p USING ERRCODE = c, DETAIL = 'It is ' || c || '.', HINT = 'Wait for it.';
		END IF;
		RETURN true;
	END $$;
	CREATE FUNCTION fail_by_trigger() RETURNS trigger LANGUAGE plpgsql AS $$
		BEGIN PERFORM public.fail_if(TG_ARGV[0], to_jsonb(NEW)->>TG_ARGV[1]); RETURN NEW; END $$;
	CREATE OR REPLACE FUNCTION fail_by_trigger() RETURNS trigger LANGUAGE plpgsql AS $$
		BEGIN PERFORM public.fail_if(TG_ARGV[0], (to_jsonb(NEW)->>TG_ARGV[1])::bigint); RETURN NEW; END $$;
	CREATE TRIGGER fail BEFORE UPDATE ON ac_list_users FOR EACH ROW EXECUTE FUNCTION fail_by_trigger('count', 'ac_list_id');
	CREATE CONSTRAINT TRIGGER fail_later AFTER UPDATE ON ac_list_users DEFERRABLE INITIALLY DEFERRED
		FOR EACH ROW EXECUTE FUNCTION fail_by_trigger('deferred', 'ac_list_id');
	CREATE TRIGGER fail BEFORE UPDATE ON ac_background_jobs FOR EACH ROW EXECUTE FUNCTION fail_by_trigger('job', 'id');
	ALTER TABLE ac_list_users ENABLE ROW LEVEL SECURITY;
	ALTER TABLE ac_list_users FORCE ROW LEVEL SECURITY;
	CREATE POLICY reads ON ac_list_users USING (fail_if('read', ac_list_id))});

# Each class of errors, in each place; all of them at once, in one worker.
my @cases = ((map { [ 'count', $_ ] } qw(40001 40P01 53100 53400 57014 57P03 58000 58030 55P03 55006 25006), 'read only'),
	[ 'deferred', '53100' ], [ 'read', '55P03' ], [ 'read', '57014' ], [ 'job', '55006' ], [ 'job', '58030' ]);
for my $case (@cases)
{
	my ($place, $code) = @$case;
	my $campaign = create_campaign($node, users => 3, message => "Hello $place $code");
	my $job = sql('SET ROLE app; INSERT INTO ac_background_jobs (progress) VALUES (5) RETURNING id');
	sql("INSERT INTO faults SELECT '$place', " . ($place eq 'job' ? $job : lists_of($campaign)) . ", '$code'");
	push @$case, $campaign, $job;
}
start_campaign($node, $_->[2], job => $_->[3]) for @cases;

# Beside them others are sent.
my $other = create_campaign($node, users => 200);
my $began = time;
my $other_job = start_campaign($node, $other);
sent_once($node, $twilio, $other, $other_job, 'beside them', total => 200);

for my $case (@cases)
{
	my ($place, $code, $campaign, $job) = @$case;
	my $name = "$place: $code";
	my $reason = $code eq 'read only' ? qr/read-only transaction/ : qr/no $place now\. It is $code\. Wait for it\.$/;
	my $says = says($job, $reason, $name);
	like(run_row($node, $job)->{state}, qr/^(queued|running)$/, "$name: it has not failed");
	next if $place eq 'job';
	my $state = $place eq 'read' ? 'queued' : 'running';
	ok(poll(sub { my ($s, $error) = split /\|/, job_row($job), 2; $s eq $state && $error =~ $says }), "$name: and so does the job")
	  or diag job_row($job);
}

# A worker of its own takes them up, after a crash for example.
sql(q{SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = 'sendcampaign worker'});
sql('DELETE FROM faults');
poll(sub { sql('SELECT sendcampaign.wake() IS NOT NULL') eq 't' });
for my $case (@cases)
{
	my ($place, $code, $campaign, $job) = @$case;
	sent_once($node, $twilio, $campaign, $job, "$place: $code, passed", total => 3);
	is(run_row($node, $job)->{error}, '', "$place: $code, passed: nothing is wrong");
	is(job_row($job), 'completed|', "$place: $code, passed: so says the job");
}

# While it is still being sent, what has passed is shown no more.
my $campaign = create_campaign($node, users => 300);
sql("INSERT INTO faults SELECT 'count', " . lists_of($campaign) . ", '53100'");
my $job = start_campaign($node, $campaign);
says($job, qr/no count now/, 'passing');
ok(poll(sub { job_row($job) =~ /no count now/ }), 'passing: the job says it');
$twilio->set(hold => 1);
sql('DELETE FROM faults');
ok(poll(sub { run_row($node, $job)->{error} eq '' || run_row($node, $job)->{state} ne 'running' }), 'passed: the run says it no more');
ok(poll(sub { job_row($job) =~ /\|$/ }), 'passed: nor does the job');
$twilio->set(hold => 0);
sent_once($node, $twilio, $campaign, $job, 'passed', total => 300);

# What the application has written there itself is left.
$campaign = create_campaign($node, users => 3);
sql("INSERT INTO faults SELECT 'count', " . lists_of($campaign) . ", '53100'");
$job = start_campaign($node, $campaign);
says($job, qr/no count now/, 'of the application');
ok(poll(sub { job_row($job) =~ /no count now/ }), 'of the application: the job says it');

# It is cancelled, and its job cannot be told.
sql("INSERT INTO faults VALUES ('job', $job, '55006')");
sql("SET ROLE app; SELECT sendcampaign.cancel($job)");
is(run_row($node, $job)->{state}, 'cancelled', 'cancelled');
sql('DELETE FROM faults');
wait_for_run($node, $job);
ok(poll(sub { sql("SELECT finished_at IS NOT NULL FROM sendcampaign.run WHERE job_id = $job") eq 't' }), 'cancelled: it ends');
is(run_row($node, $job)->{sent}, 3, 'cancelled: with what was sent');

# Once it is pausing or failing, that is what it says.
$campaign = create_campaign($node, users => 3);
sql("INSERT INTO faults SELECT 'count', " . lists_of($campaign) . ", '53100'");
$job = start_campaign($node, $campaign);
says($job, qr/no count now/, 'another error');
sql(q{UPDATE faults SET code = 'P0001'});
is(wait_for_run($node, $job)->{state}, 'failed', 'another error: it fails');
like(run_row($node, $job)->{error}, qr/^no count now\. It is P0001\. Wait for it\.$/, 'another error: with that one');
is(job_row($job), 'failed|no count now. It is P0001. Wait for it.', 'another error: as says the job');

# Locked by others for long
sql('DELETE FROM faults');
$campaign = create_campaign($node, users => 300);
my $session = Session->open($node);
$session->query('BEGIN; SELECT FROM ac_list_users WHERE id = (SELECT max(id) FROM ac_list_users) FOR UPDATE');
$job = start_campaign($node, $campaign);
my $locked = qr/^trying again, as others have locked list users for long: what became of their messages is recorded once they are free$/;
ok(poll(sub { run_row($node, $job)->{error} =~ $locked }), 'a lock: the run says so') or diag explain run_row($node, $job);
ok(poll(sub { my ($s, $error) = split /\|/, job_row($job), 2; $s eq 'running' && $error =~ $locked }), 'a lock: and so does the job');
is(run_row($node, $job)->{sent}, 299, 'a lock: the others are recorded');
$session->query('COMMIT');
sent_once($node, $twilio, $campaign, $job, 'no lock', total => 300);
is(run_row($node, $job)->{error} . job_row($job), 'completed|', 'no lock: nothing is wrong');

# The job is locked, and the run can be told only.
$campaign = create_campaign($node, users => 300);
$job = sql('SET ROLE app; INSERT INTO ac_background_jobs (progress) VALUES (5) RETURNING id');
$session->query("BEGIN; SELECT FROM ac_background_jobs WHERE id = $job FOR UPDATE");
start_campaign($node, $campaign, job => $job);
says($job, qr/lock timeout$/, 'a locked job');
is(job_row($job), '|', 'a locked job: it says nothing');
$session->query('COMMIT');
sent_once($node, $twilio, $campaign, $job, 'the job is free', total => 300);
is(run_row($node, $job)->{error} . job_row($job), 'completed|', 'the job is free: nothing is wrong');
$session->close;

is(worker_errors($node), '', 'no errors in the log');
$node->stop;
done_testing();
