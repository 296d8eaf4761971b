# Sweeps beside others: callbacks that have brought everything, transactions that
# hold what is to be stored, the kill switch; campaigns, lists and groups that
# have changed since the messages were sent; Twilio away at the last sweep.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../perl";
use Campaign;
use LocalTwilio;
use Receipts;
use Session;
use Sweeps;
use Test::More;

my $twilio = LocalTwilio->start;
my $node = new_cluster('sweep_pairs', $twilio);
$twilio->set('sent-after' => 0, 'deliver-after' => 0);
install_receipts($node);

# Sends to so many; returns campaign and job, which no worker has any more.
sub send_to
{
	my ($users, %arg) = @_;
	my $campaign = create_campaign($node, users => $users, %arg);
	my $job = run_campaign($node, $campaign)->{job};
	wait_for_no_worker($node);
	return ($campaign, $job);
}

# What the job says was delivered, and when it was written.
sub told
{
	my $job = shift;
	return job_row($node, $job, q(data->>'delivered', updated_at));
}

sub num_opt_outs
{
	my ($phone, $campaign) = @_;
	my $group = group_of($campaign);
	return sql($node, <<~"SQL");
		SELECT count(*) FROM sendcampaign.opt_out WHERE phone = '$phone' AND group_id = $group
		SQL
}

# Callbacks have brought everything before the first sweep.
{
	my (undef, $job) = send_to(3);
	report($node, $job, map { "$_ delivered" } sids($node, $job));
	is(receipt_counts($node, $job), '3 3 0 0', 'callbacks: all are known');
	sweep_now($node, $job);
	my $told = told($job);
	like($told, qr/^3\|/, 'callbacks: the job is told by the next sweep');
	sweep_now($node, $job, after => '5 minutes');
	is(told($job), $told, 'callbacks: and not again');
}

# The last two come at once.
{
	my (undef, $job) = send_to(2);
	my ($listener, $one) = map { Session->open($node) } 1, 2;
	my @sid = sids($node, $job);
	$listener->query('LISTEN sendcampaign');
	$one->query("BEGIN; SELECT report($job, ${\Receipts::as_jsonb(\"$sid[0] delivered\")})");
	report($node, $job, "$sid[1] delivered");
	$one->query('COMMIT');
	is(receipt_counts($node, $job), '2 2 0 0', 'at once: both count');
	sweep_now($node, $job);
	my $heard = '';
	ok(poll(sub { ($heard .= $listener->query('SELECT 1')) =~ /"receipts" : "complete"/ }),
		'at once: the next sweep says that all are there');
	is(sql($node, 'SELECT count(*) FROM sendcampaign.receipt_count'),
		0, 'at once: and no note is left');
	$_->close for $listener, $one;
}

# A transaction has stored one receipt, a second one an opt-out, and they stay open.
{
	my ($campaign, $held) = send_to(30);
	my (undef, $job) = send_to(30);
	my @sid = sids($node, $held);
	my ($one, $two) = map { Session->open($node) } 1, 2;
	$twilio->inbound(from => "+1555000000$_", body => 'STOP') for 6 .. 8;
	sql($node, "UPDATE sendcampaign.run_data SET sweep_at = now() WHERE job_id IN ($held, $job)");
	$two->query("BEGIN; SET ROLE app;"
		  . " SELECT sendcampaign.opt_out('+15550000007', ${\group_of($campaign)})");
	$one->query("BEGIN; SELECT report($held, ${\Receipts::as_jsonb(\"$sid[3] delivered\")});"
		  . " SAVEPOINT s; SELECT FROM sendcampaign.run_data WHERE job_id = $held FOR UPDATE");
	$one->query('ROLLBACK TO s');
	wake($node);
	ok(wait_for_sweep($node, $job), 'open transactions: the sweep of the account ends');
	is(receipts_of($node, $job), 'delivered 30', 'open transactions: others have their receipts');
	$_->query('COMMIT') for $one, $two;
	wake($node);
	ok(wait_for_sweep($node, $held), 'open transactions: the run that was locked is swept');
	sweep_now($node, $held);
	is(receipts_of($node, $held), 'delivered 30', 'open transactions: later, all have receipts');
	is(num_opt_outs("+1555000000$_", $campaign), 1, "open transactions: STOP of $_") for 6 .. 8;
	wait_for_no_worker($node);
	$_->close for $one, $two;
}

# One of a run that is under way, whose row nobody has locked.
{
	my $campaign = create_campaign($node, users => 400);
	configure($node, $campaign, q(configuration || '{"twilioSegmentsPerSecond": 10}'));
	my $job = start_campaign($node, $campaign);
	wait_until($node, "SELECT sent > 30 FROM sendcampaign.run WHERE job_id = $job");
	my @sid = sids($node, $job);
	my $one = Session->open($node);
	$twilio->inbound(from => '+15550000009', body => 'STOP');
	$one->query("BEGIN; SELECT report($job, ${\Receipts::as_jsonb(\"$sid[3] delivered\")})");
	sql($node, "UPDATE sendcampaign.run_data SET sweep_at = now() WHERE job_id = $job");
	ok(wait_for_sweep($node, $job), 'under way: it is swept');
	is(num_opt_outs('+15550000009', $campaign), 1, 'under way: a STOP is there');
	is(sql($node, <<~"SQL"), 1, 'under way: but one receipt');
		SELECT count(*) FILTER (WHERE delivery IS NULL) FROM sendcampaign.message
		WHERE job_id = $job AND sid = ANY ('{${\join(',', @sid)}}')
		SQL
	$one->query('COMMIT');
	$one->close;
	$node->psql('postgres', "SET ROLE app; SELECT sendcampaign.cancel($job)");
	wait_for_run($node, $job);
	wait_for_no_worker($node);
}

# Jobs with a trigger that makes the commit fail, however carefully they are written.
{
	my @jobs = map { run_campaign($node, create_campaign($node, users => 1))->{job} } 1 .. 12;
	wait_for_no_worker($node);
	sql($node, <<~'SQL', role => 'app');
		CREATE TABLE side (n integer);
		CREATE FUNCTION late() RETURNS trigger LANGUAGE plpgsql AS $$
		BEGIN
			RAISE EXCEPTION 'too late';
		END $$;
		CREATE CONSTRAINT TRIGGER late AFTER INSERT ON side DEFERRABLE INITIALLY DEFERRED
			FOR EACH ROW EXECUTE FUNCTION late();
		CREATE FUNCTION defer() RETURNS trigger LANGUAGE plpgsql AS $$
		BEGIN
			SET CONSTRAINTS ALL DEFERRED;
			INSERT INTO side VALUES (1);
			RETURN NULL;
		END $$;
		CREATE CONSTRAINT TRIGGER defer AFTER UPDATE ON ac_background_jobs
			DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION defer();
		SQL
	my $list = join ', ', @jobs;
	sql($node, "UPDATE sendcampaign.run_data SET sweep_at = now() WHERE job_id IN ($list)");
	wake($node);
	ok(wait_until($node, <<~"SQL"), 'commits fail: the next sweeps are planned all the same');
		SELECT bool_and(sweep_at > now()) FROM sendcampaign.run_data WHERE job_id IN ($list)
		SQL
	like(log_of($node), qr/trying again: too late/, 'commits fail: the log says so');
	is(receipts_of($node, $_), 'delivered 1', 'commits fail: receipts are there')
	  for @jobs[ 0, 11 ];
	sql($node, 'DROP TABLE side; DROP FUNCTION defer() CASCADE', role => 'app');
	wait_for_no_worker($node);
}

# The kill switch, while Twilio is being asked.
{
	my (undef, $job) = send_to(30);
	$twilio->set('fault:list-never' => 100);
	sql($node, "UPDATE sendcampaign.run_data SET sweep_at = now() WHERE job_id = $job");
	my $lists = $twilio->stats->{lists};
	wake($node);
	poll(sub { $twilio->stats->{lists} > $lists });
	set_and_reload($node, 'sendcampaign.request_timeout', '2s');
	set_and_reload($node, 'sendcampaign.enabled', 'off');
	wait_for_no_worker($node);
	pass('switched off: no process waits');
	$twilio->set(fault => 'none');
	set_and_reload($node, 'sendcampaign.enabled', 'on');
	wake($node);
	wait_for_sweep($node, $job);
	is(receipts_of($node, $job), 'delivered 30', 'switched on: it is swept');
	wait_for_no_worker($node);
}

# The campaign and its list are deleted; the list belongs to another group, and
# the newest campaign of a group is no longer one of its own.
{
	my ($campaign, $job) = send_to(30);
	my $group = group_of($campaign);
	my $other = create_campaign($node, users => 30, message => 'Other');
	my $lists = list_of($other);
	sql($node, "UPDATE ac_lists SET group_id = $group WHERE id = $lists", role => 'app');
	my $second = run_campaign($node, $other)->{job};
	wait_for_no_worker($node);
	my $third = create_campaign($node, users => 1);
	configure($node, $third, q(configuration || '{"twilioFromSmsNumber": "+15550099999"}'));
	sql($node, <<~"SQL", role => 'app');
		UPDATE ac_lists SET group_id = ${\group_of($third)} WHERE id = $lists
		SQL
	$twilio->inbound(from => '+15550000012', body => 'STOP');
	sql($node, <<~"SQL");
		UPDATE sendcampaign.run_data SET sweep_at = now() WHERE job_id IN ($job, $second)
		SQL
	wake($node);
	wait_for_sweep($node, $_) for $job, $second;
	is(num_opt_outs('+15550000012', $campaign), 1, 'another group: a STOP counts for the sender');
	is(receipts_of($node, $_), 'delivered 30', 'another group: receipts') for $job, $second;

	($campaign, $job) = send_to(30);
	sql($node, <<~"SQL", role => 'app');
		DELETE FROM ac_campaigns WHERE id = $campaign;
		DELETE FROM ac_lists WHERE group_id = (SELECT group_id FROM sendcampaign.run
		    WHERE job_id = $job)
		SQL
	sweep_now($node, $job);
	is(receipts_of($node, $job), 'delivered 30', 'a campaign that is deleted has its receipts');
	wait_for_no_worker($node);
}

# Twilio is away when it would be asked for the last time.
{
	my (undef, $job) = send_to(30);
	$twilio->set('fault:list-500' => 100);
	ok(sweep_now($node, $job, after => '73 hours'), 'away: the sweep ends');
	is(receipts_of($node, $job), 'none 30', 'away: nothing is given up');
	is(sql($node, <<~"SQL"), 't', 'away: it is asked again within the hour');
		SELECT sweep_at BETWEEN now() + interval '50 min' AND now() + interval '1 hour' FROM sendcampaign.run
		WHERE job_id = $job
		SQL
	$twilio->set(fault => 'none');
	sweep_now($node, $job, after => '1 hour');
	is(receipts_of($node, $job), 'delivered 30', 'away: the receipts come then');
	is(next_sweep($node, $job), 'never', 'away: and that was the last one');

	(undef, $job) = send_to(30);
	$twilio->set('fault:list-500' => 100);
	sweep_now($node, $job, after => '97 hours');
	is(receipts_of($node, $job), 'unknown 30', 'away for a day: they stay unknown');
	is(next_sweep($node, $job), 'never', 'away for a day: and nobody asks again');
	$twilio->set(fault => 'none');
}

is(worker_errors($node), '', 'workers have no errors');
$node->stop;
done_testing();
