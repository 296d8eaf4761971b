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

# Does the run end?
sub ends
{
	my $job = shift;
	my $ended = "SELECT finished_at IS NOT NULL FROM sendcampaign.run WHERE job_id = $job";
	return poll(sub { sql($node, $ended) eq 't' });
}

# Does the session that listens hear of the run's end?
my $listener = Session->open($node);
$listener->query('LISTEN sendcampaign');

sub is_heard
{
	my $job = shift;
	return poll(sub { $listener->query('SELECT 1') =~ /"job_id" ?: ?$job\b/ });
}

# A campaign whose list users notify when they are updated
sub noisy_campaign
{
	my $text = shift;
	my $campaign = create_campaign($node, users => 5, message => $text);
	sql($node, <<~SQL);
		UPDATE ac_list_users
		SET data = data || '{"noisy": 1}'
		WHERE ac_list_id = (SELECT ac_list_id FROM ac_campaigns WHERE id = $campaign)
		SQL
	return $campaign;
}
sql($node, <<~'SQL', role => 'app');
	CREATE FUNCTION tell() RETURNS trigger LANGUAGE plpgsql AS $$
	BEGIN
	    PERFORM pg_notify('noise', OLD.id::text);
	    RETURN NEW;
	END $$;
	CREATE TRIGGER tell BEFORE UPDATE ON ac_list_users
	    FOR EACH ROW WHEN (OLD.data ? 'noisy') EXECUTE FUNCTION tell();
	SQL

# The queue lets nobody in, as it is full or as some commit holds it, until
# $release is called.
sub none_can_notify
{
	my ($name, $error, $release) = @_;
	my $campaign = create_campaign($node, users => 5, message => "Quiet, $name");
	my $job = start_campaign($node, $campaign);
	ok(ends($job), "$name: the end is recorded");
	sent_once($node, $twilio, $campaign, $job, $name, total => 5);

	my $noisy = noisy_campaign("Noisy, $name");
	my $noisy_job = start_campaign($node, $noisy);
	my $waits = qr/^trying again, as the database has raised an error: .*\Q$error\E/;
	my $is_told = poll(sub { run_row($node, $noisy_job)->{error} =~ $waits });
	ok($is_told, "$name: where a trigger notifies, the run says what it waits for")
	  or diag explain run_row($node, $noisy_job);
	my $other = create_campaign($node, users => 5, message => "Beside, $name");
	my $other_job = start_campaign($node, $other);
	ok(ends($other_job), "$name: another run ends beside it");
	is(run_row($node, $noisy_job)->{state}, 'running', "$name: that one waits");
	$release->();
	ok(ends($noisy_job), "$name: it ends when it can");
	sent_once($node, $twilio, $noisy, $noisy_job, "noisy, $name", total => 5);
	is(run_row($node, $noisy_job)->{error}, '', "$name: with nothing wrong");
	ok(is_heard($noisy_job), "$name: and listeners hear of it");
}

# A commit that waits for a standby, with a notification in it
my $holder = Session->open($node);
$node->append_conf('postgresql.conf', <<~'CONF');
	synchronous_commit = local
	synchronous_standby_names = 'nobody'
	CONF
$node->reload;
$node->poll_query_until('postgres', 'SHOW synchronous_standby_names', 'nobody');
$holder->query('SET synchronous_commit = on');
$holder->query('BEGIN; CREATE TABLE noise (); NOTIFY noise');
$holder->start_query('COMMIT');
ok(wait_until($node, <<~'SQL'), 'a commit that notifies waits for a standby');
	SELECT count(*) = 1 FROM pg_stat_activity WHERE wait_event = 'SyncRep'
	SQL
my $one_given_up = qr/sendcampaign: 1 notification was given up: /;
my $many_given_up = qr/sendcampaign: \d+ notifications were given up: /;
my $where = qr/See sendcampaign\.run for the runs concerned\./;
none_can_notify(
	'held',
	'lock timeout',
	sub {
		$node->wait_for_log(
			qr/LOG:  sendcampaign: could not notify, trying again: .*lock timeout/);
		$node->wait_for_log(qr/LOG:  (?:$one_given_up|$many_given_up).*\n.*DETAIL:  $where/);
		$node->append_conf('postgresql.conf', "synchronous_standby_names = ''");
		$node->reload;
		$holder->finish_query;
	});
$holder->close;

# A queue that is full, as somebody listens and takes nothing
SKIP:
{
	skip 'max_notify_queue_pages is new in PostgreSQL 17', 1 if $node->pg_version->major < 17;
	$listener->close;
	$node->append_conf('postgresql.conf', 'max_notify_queue_pages = 64');
	$node->restart;
	my $deaf = Session->open($node);
	$deaf->query('LISTEN noise');
	$deaf->query('BEGIN; SELECT 1');
	my $notify = q{SELECT pg_notify('noise', repeat(i::text, 500)) FROM generate_series(1, 100) i};
	my $full = qr/too many notifications/;
	ok(poll(sub { sql_error($node, $notify)->{message} =~ $full }), 'the queue is full');
	$listener = Session->open($node);
	$listener->query('LISTEN sendcampaign');
	none_can_notify('full', 'too many notifications in the NOTIFY queue', sub { $deaf->close; });
}

$listener->close;
wait_for_no_worker($node);
$node->stop;
is(worker_errors($node) =~ s{^.*NOTIFY queue is.*\n?}{}mgr, '', 'no worker met an error');
done_testing();
