# A notification that cannot be made undoes nothing: neither ours when a run
# ends, nor, for other runs, one of the application's triggers.
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
my $node = new_cluster('notifications', $twilio, init => { allows_streaming => 1 });
sub sql { return $node->safe_psql('postgres', shift); }
sub ended { my $job = shift; return poll(sub { sql("SELECT finished_at IS NOT NULL FROM sendcampaign.run WHERE job_id = $job") eq 't' }, 30); }

my $listener = Session->open($node);
$listener->query('LISTEN sendcampaign');
sub is_heard
{
	my $job = shift;
	return poll(sub { $listener->query('SELECT 1') =~ /"job_id" ?: ?$job\b/ }, 30);
}

# Those of one list notify, as triggers do.
sub noisy_campaign
{
	my $text = shift;
	my $campaign = create_campaign($node, users => 5, message => $text);
	sql(qq{UPDATE ac_list_users SET data = data || '{"noisy": 1}'
		WHERE ac_list_id = (SELECT ac_list_id FROM ac_campaigns WHERE id = $campaign)});
	return $campaign;
}
sql(q{SET ROLE app;
	CREATE FUNCTION tell() RETURNS trigger LANGUAGE plpgsql AS
		$$BEGIN PERFORM pg_notify('noise', OLD.id::text); RETURN NEW; END$$;
	CREATE TRIGGER tell BEFORE UPDATE ON ac_list_users FOR EACH ROW WHEN (OLD.data ? 'noisy') EXECUTE FUNCTION tell()});

# While the queue lets nobody in, as it is full or as some commit holds it
sub none_can_notify
{
	my ($name, $error, $release) = @_;
	my $campaign = create_campaign($node, users => 5, message => "Quiet, $name");
	my $job = start_campaign($node, $campaign);
	ok(ended($job), "$name: the end is recorded");
	sent_once($node, $twilio, $campaign, $job, $name, total => 5);

	my $noisy = noisy_campaign("Noisy, $name");
	my $noisy_job = start_campaign($node, $noisy);
	ok(poll(sub { (run_row($node, $noisy_job)->{error} // '') =~ /^trying again, as the database has raised an error: .*\Q$error\E/ }, 30),
		"$name: where a trigger notifies, the run says what it waits for") or diag explain run_row($node, $noisy_job);
	my $other = create_campaign($node, users => 5, message => "Beside, $name");
	my $other_job = start_campaign($node, $other);
	ok(ended($other_job), "$name: another run ends beside it");
	is(run_row($node, $noisy_job)->{state}, 'running', "$name: that one waits");
	$release->();
	ok(ended($noisy_job), "$name: it ends when it can");
	sent_once($node, $twilio, $noisy, $noisy_job, "noisy, $name", total => 5);
	is(run_row($node, $noisy_job)->{error}, '', "$name: with nothing wrong");
	ok(is_heard($noisy_job), "$name: and listeners hear of it");
}

# A commit that waits for a standby, with a notification in it
my $holder = Session->open($node);
$node->append_conf('postgresql.conf', "synchronous_commit = local\nsynchronous_standby_names = 'nobody'");
$node->reload;
$node->poll_query_until('postgres', 'SHOW synchronous_standby_names', 'nobody');
$holder->query('SET synchronous_commit = on');
$holder->query('BEGIN; CREATE TABLE noise (); NOTIFY noise');
$holder->start_query('COMMIT');
ok($node->poll_query_until('postgres', q{SELECT count(*) = 1 FROM pg_stat_activity WHERE wait_event = 'SyncRep'}),
	'a commit that notifies waits for a standby');
none_can_notify('held', 'lock timeout', sub {
	$node->append_conf('postgresql.conf', "synchronous_standby_names = ''");
	$node->reload;
	$holder->finish_query;
});
$holder->close;

# A queue that is full, as somebody listens and does not listen
SKIP: {
	skip 'max_notify_queue_pages is new in PostgreSQL 17', 1 if $node->pg_version < 17;
	$listener->close;
	$node->append_conf('postgresql.conf', 'max_notify_queue_pages = 64');
	$node->restart;
	my $deaf = Session->open($node);
	$deaf->query('LISTEN noise');
	$deaf->query('BEGIN; SELECT 1');
	my $full = sub { sql_error($node, q{SELECT pg_notify('noise', repeat(i::text, 500)) FROM generate_series(1, 100) i})->{message} };
	ok(poll(sub { $full->() =~ /too many notifications/ }, 60), 'the queue is full');
	$listener = Session->open($node);
	$listener->query('LISTEN sendcampaign');
	none_can_notify('full', 'too many notifications in the NOTIFY queue', sub { $deaf->close; });
}

$listener->close;
wait_for_no_worker($node);
$node->stop;
is(worker_errors($node) =~ s{^.*NOTIFY queue is.*\n?}{}mgr, '', 'no worker met an error');
done_testing();
