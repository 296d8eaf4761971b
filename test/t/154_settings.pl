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
my $node = new_cluster('settings', $twilio);
sub sql { return $node->safe_psql('postgres', shift); }
sub ended { my $job = shift; return poll(sub { sql("SELECT finished_at IS NOT NULL FROM sendcampaign.run WHERE job_id = $job") eq 't' }, 30); }

# A list whose users, or job, have a trigger that does something
sql(q{SET ROLE app;
	CREATE FUNCTION act() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN EXECUTE OLD.data->>'act'; RETURN NEW; END$$;
	CREATE TRIGGER act BEFORE UPDATE ON ac_list_users FOR EACH ROW WHEN (OLD.data ? 'act') EXECUTE FUNCTION act();
	CREATE TABLE doomed (id bigint);
	CREATE FUNCTION doom() RETURNS trigger LANGUAGE plpgsql AS
		$$BEGIN IF EXISTS (SELECT FROM doomed WHERE doomed.id = NEW.id) THEN RAISE EXCEPTION 'job % is doomed', NEW.id; END IF; RETURN NULL; END$$;
	CREATE CONSTRAINT TRIGGER doom AFTER UPDATE ON ac_background_jobs DEFERRABLE INITIALLY DEFERRED
		FOR EACH ROW EXECUTE FUNCTION doom()});
my $refuse = q{DO $x$BEGIN RAISE EXCEPTION 'no update today'; END$x$};
sub acting_campaign
{
	my ($act, $text) = @_;
	my $campaign = create_campaign($node, users => 3, message => $text);
	$act =~ s/'/''/g;
	sql(qq{UPDATE ac_list_users SET data = data || jsonb_build_object('act', '$act')
		WHERE ac_list_id = (SELECT ac_list_id FROM ac_campaigns WHERE id = $campaign)});
	return $campaign;
}

# One run that fails and one that does not, both begun before either ends
sub one_fails
{
	my ($name, $act, $error) = @_;
	my $bad = acting_campaign($act, "Bad, $name");
	my $good = create_campaign($node, users => 3, message => "Good, $name");
	$twilio->set(hold => 1);
	my @jobs = map { start_campaign($node, $_) } $bad, $good;
	wait_for_flight($twilio, 6);
	$twilio->set(hold => 0);
	ok(ended($_), "$name: ended") for @jobs;
	my $run = run_row($node, $jobs[0]);
	is($run->{state}, 'failed', "$name: the run with the error has failed");
	like($run->{error}, $error, "$name: and says why");
	sent_once($node, $twilio, $good, $jobs[1], "$name, another run", total => 3);
}

one_fails('plain', $refuse, qr/^no update today/);
for my $setting ('exit_on_error = on', 'row_security = off', 'transform_null_equals = on', 'array_nulls = off',
	'backslash_quote = on', 'check_function_bodies = off', 'debug_print_parse = on', 'plan_cache_mode = force_generic_plan',
	'IntervalStyle = iso_8601', "default_toast_compression = 'pglz'", 'escape_string_warning = off')
{
	sql("ALTER ROLE app SET $setting");
	one_fails($setting, $refuse, qr/^no update today/);
	ok(worker_is_gone($node, 20), "$setting: the worker ends");
	sql('ALTER ROLE app RESET ALL');
}
sql('ALTER DATABASE postgres SET exit_on_error = on');
one_fails('exit_on_error = on for the database', $refuse, qr/^no update today/);
sql('ALTER DATABASE postgres RESET exit_on_error');
ok(worker_is_gone($node, 20), 'the worker ends');

# Row-level security is obeyed, not refused.
sql(q{ALTER TABLE ac_list_users ENABLE ROW LEVEL SECURITY; ALTER TABLE ac_list_users FORCE ROW LEVEL SECURITY;
	CREATE POLICY all_but_two ON ac_list_users USING (data->>'sms' <> '+15550000002');
	ALTER ROLE app SET row_security = off});
my $campaign = create_campaign($node, users => 0, message => 'Row security');
sql(qq{INSERT INTO ac_list_users (ac_list_id, data) SELECT (SELECT ac_list_id FROM ac_campaigns WHERE id = $campaign),
	jsonb_build_object('sms', '+1555000000' || i) FROM generate_series(1, 3) i});
my $job = start_campaign($node, $campaign);
sent_once($node, $twilio, $campaign, $job, 'row security', total => 2);
sql(q{ALTER ROLE app RESET ALL; DROP POLICY all_but_two ON ac_list_users; ALTER TABLE ac_list_users DISABLE ROW LEVEL SECURITY});
ok(worker_is_gone($node, 20), 'the worker ends');

# What a trigger of one run leaves behind does not count for another one.
for my $left ("SET exit_on_error = on", "SET row_security = off", "SET lock_timeout = '1ms'",
	"SET default_transaction_read_only = on", "SET default_transaction_isolation = 'serializable'", 'RESET ALL')
{
	my $leaves = acting_campaign($left, "Leaves $left");
	my $bad = acting_campaign($refuse, "Bad after $left");
	my $good = create_campaign($node, users => 3, message => "Good after $left");
	$twilio->set(hold => 1);
	my @jobs = map { start_campaign($node, $_) } $leaves, $bad, $good;
	wait_for_flight($twilio, 9);
	$twilio->set(hold => 0);
	ok(ended($_), "$left: ended") for @jobs;
	sent_once($node, $twilio, $leaves, $jobs[0], "$left, itself", total => 3);
	is(run_row($node, $jobs[1])->{error} =~ s/\. .*//r, 'no update today', "$left: a run that fails has its own reason");
	sent_once($node, $twilio, $good, $jobs[2], "$left, another run", total => 3);
}

# A lock that a trigger lets us wait for without an end keeps that run only.
my $session = Session->open($node);
my $leaves = acting_campaign('SET lock_timeout = 0', 'Leaves none');
$campaign = create_campaign($node, users => 3, message => 'Job locked');
$twilio->set(hold => 1);
my @jobs = map { start_campaign($node, $_) } $leaves, $campaign;
wait_for_flight($twilio, 6);
$session->query("BEGIN; SELECT FROM ac_background_jobs WHERE id = $jobs[1] FOR UPDATE");
$twilio->set(hold => 0);
ok(ended($jobs[0]), 'no time-out left by a trigger: it ends');
my $third = create_campaign($node, users => 3, message => 'Third');
push @jobs, start_campaign($node, $third);
ok(ended($jobs[2]), 'as does another, while the job of one is locked');
$session->query('COMMIT');
ok(ended($jobs[1]), 'and that one, when it is free');
sent_once($node, $twilio, $campaign, $jobs[1], 'job locked', total => 3);
$session->close;

# A deferred trigger on the job that raises an error at the commit
$campaign = create_campaign($node, users => 3, message => 'Doomed');
my $good = create_campaign($node, users => 3, message => 'Beside the doomed');
$job = sql("SET ROLE app; INSERT INTO ac_background_jobs (progress) VALUES (5) RETURNING id");
sql("INSERT INTO doomed VALUES ($job)");
$twilio->set(hold => 1);
my $good_job = start_campaign($node, $good);
start_campaign($node, $campaign, job => $job);
wait_for_flight($twilio, 6);
$twilio->set(hold => 0);
ok(ended($good_job), 'deferred: another run ends');
sent_once($node, $twilio, $good, $good_job, 'beside the doomed', total => 3);
ok(ended($job), 'and so does the one whose job has a trigger that refuses');
like(run_row($node, $job)->{error}, qr/job $job is doomed/, 'which says why') or diag explain run_row($node, $job);

wait_for_no_worker($node);
$node->stop;
is(worker_errors($node), '', 'no worker met an error');
unlike(slurp_file($node->logfile), qr/\[\d+\] (FATAL|PANIC).*(?<!role "owner" does not exist)$/m, 'and none died');
done_testing();
