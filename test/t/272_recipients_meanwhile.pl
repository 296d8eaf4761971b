# A query that selects recipients may take long.  Others are sent meanwhile, and
# whatever happens, it counts once: recipients that have been selected stay.
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
my $node = new_cluster('meanwhile', $twilio, conf => <<~'CONF');
	sendcampaign.receipts = off
	sendcampaign.request_timeout = '2s'
	sendcampaign.lookup_delay = '200ms'
	sendcampaign.lookup_timeout = '60s'
	max_worker_processes = 16
	restart_after_crash = on
	CONF
# waits until the gate is open; it sees that, as it is volatile
sql($node, <<~'SQL', role => undef);
	CREATE SCHEMA app AUTHORIZATION app;
	SET ROLE app;
	CREATE TABLE app.gate (open boolean);
	INSERT INTO app.gate VALUES (false);
	CREATE FUNCTION app.passes() RETURNS boolean LANGUAGE plpgsql VOLATILE AS $$
	BEGIN
		WHILE NOT (SELECT open FROM app.gate) LOOP
			PERFORM pg_sleep(0.02);
		END LOOP;
		RETURN true;
	END $$;
	SQL

sub gate { sql($node, 'UPDATE app.gate SET open = ' . shift) }

sub list_workers { return scalar(my @pids = list_worker_pids($node)) }

# Starts a campaign whose query selects three of ten users once the gate is open.
sub start_waiting
{
	my $name = shift;
	gate('false');
	my $campaign = create_campaign($node, users => 10, message => $name);
	my $list = list_of($campaign) =~ s/ac_campaigns/public.ac_campaigns/r;
	my $query =
		"SELECT u.id FROM (SELECT app.passes() AS open OFFSET 0) g, public.ac_list_users u"
	  . " WHERE g.open AND u.ac_list_id = $list AND u.data->>'sms' LIKE '%000000_'"
	  . " AND right(u.data->>'sms', 1) IN ('2', '5', '7')";
	my $job = start_campaign($node, $campaign, recipients => $query);
	ok(poll(sub { list_workers() == 1 }), "$name: a list worker runs the query");
	return ($campaign, $job);
}

sub is_sent_once
{
	my ($campaign, $job, $name) = @_;
	gate('true');
	sent_once($node, $twilio, $campaign, $job, $name, total => 3);
	ok(poll(sub { list_workers() == 0 }), "$name: no list worker is left");
}

sub state_of
{
	my $job = shift;
	return sql($node, "SELECT state FROM sendcampaign.run WHERE job_id = $job");
}

# Others are sent meanwhile.
my $small = create_campaign($node, users => 2, message => 'small');
my ($campaign, $job) = start_waiting('beside others');
is(run_campaign($node, $small)->{sent}, 2, 'a small run is sent meanwhile');
is(state_of($job), 'queued', 'the one that waits has not begun');
is_sent_once($campaign, $job, 'beside others');

# The list worker is terminated.
($campaign, $job) = start_waiting('terminated');
my ($pid) = list_worker_pids($node);
sql($node, "SELECT pg_terminate_backend($pid)");
ok(poll(sub { my @pids = list_worker_pids($node); @pids && $pids[0] != $pid }),
	'terminated: another list worker runs the query');
is_sent_once($campaign, $job, 'terminated');
my $waits =
	"job $job waits for the database: no background process can select the recipients of"
  . " job $job now. If this lasts, raise \"max_worker_processes\", and see the server's log for the"
  . ' reason why a list worker has ended.';
like(log_of($node), qr/\Q$waits\E/, 'terminated: the log says that the run waits');

# Somebody cancels or pauses the run, or gives it another query.
($campaign, $job) = start_waiting('cancelled');
sql($node, "SELECT sendcampaign.cancel($job)", role => 'app');
is(state_of($job), 'cancelled', 'cancelled: at once');
ok(poll(sub { list_workers() == 0 }), 'cancelled: the query ends');
is(sent_with($twilio, 'cancelled'), 0, 'cancelled: nothing is sent');

($campaign, $job) = start_waiting('paused');
sql($node, "SELECT sendcampaign.pause($job)", role => 'app');
ok(poll(sub { list_workers() == 0 }), 'paused: the query ends');
sql($node, "SELECT sendcampaign.resume($job)", role => 'app');
ok(poll(sub { list_workers() == 1 }), 'resumed: it runs again');
is_sent_once($campaign, $job, 'resumed');

# The server crashes while it runs.
($campaign, $job) = start_waiting('crash');
$node->stop('immediate');
$node->start;
wake($node);
ok(poll(sub { list_workers() == 1 }), 'crash: it runs again');
is_sent_once($campaign, $job, 'crash');

# The server crashes after it: what it would select now does not matter.
($campaign, $job) = start_waiting('selected');
$twilio->set(hold => 1);
gate('true');
wait_for_flight($twilio, 3);
sql($node,
		'UPDATE ac_list_users SET data = data || $${"sms": "+15559999999"}$$ WHERE ac_list_id = '
	  . list_of($campaign)
	  . ' AND right(data->>$$sms$$, 1) IN ($$1$$, $$3$$)');
gate('false');
$node->stop('immediate');
$twilio->set(drop => 1, hold => 0);
$node->start;
wake($node);
sent_once($node, $twilio, $campaign, $job, 'selected before a crash', total => 3);

# Many, of whom it selects a part: all in one transaction
my $users = $ENV{RECIPIENTS} || 20_000;
$campaign = create_campaign($node, users => $users, message => 'many');
my $list = sql($node, 'SELECT ' . list_of($campaign));
my $run = run_campaign($node, $campaign,
	recipients => "SELECT id FROM public.ac_list_users WHERE ac_list_id = $list AND id % 4 > 0");
is($run->{sent},
	sql($node, "SELECT count(*) FROM ac_list_users WHERE ac_list_id = $list AND id % 4 > 0"),
	'many');
is("$run->{state} $run->{total}", "completed $run->{sent}", 'are all sent');

# DROP EXTENSION waits for the query.
($campaign, $job) = start_waiting('dropped');
my $session = Session->open($node);
$session->start_query('DROP EXTENSION sendcampaign CASCADE');
ok( wait_until(
		$node, q(SELECT count(*) > 0 FROM pg_stat_activity
	WHERE query LIKE 'DROP EXT%' AND wait_event_type = 'Lock')),
	'DROP EXTENSION waits');
gate('true');
$session->finish_query;
is(sql($node, q(SELECT count(*) FROM pg_extension WHERE extname = 'sendcampaign')),
	0, 'and succeeds');
is(sent_with($twilio, 'dropped'), 0, 'nothing is sent');
$session->close;
like(
	worker_errors($node),
	qr/^(.*(terminated by signal|server process|crash).*\n?)*$/,
	'there are no errors in the log');
$node->stop;
done_testing();
