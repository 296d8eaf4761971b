# A run is swept while it sends; lists that change while they are read, in any
# order; 20,000 messages.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../perl";
use Campaign;
use LocalTwilio;
use Sweeps;
use Test::More;

my $twilio = LocalTwilio->start;
my $node = new_cluster('meanwhile', $twilio);
$twilio->set('sent-after' => 0, 'deliver-after' => 0);

# While it sends: slowly, until it has been swept.
{
	my $campaign = create_campaign($node, users => 1000);
	configure($node, $campaign, q(configuration || '{"twilioSegmentsPerSecond": 20}'));
	my $job = start_campaign($node, $campaign);
	wait_until($node, "SELECT sent > 50 FROM sendcampaign.run WHERE job_id = $job");
	is(sql($node, <<~"SQL"), 't', 'the first sweep is a minute after the first message');
		SELECT sweep_at - started_at BETWEEN '50 s' AND '70 s' FROM sendcampaign.run_data
		WHERE job_id = $job
		SQL
	sql($node, "UPDATE sendcampaign.run_data SET sweep_at = now() WHERE job_id = $job");
	wait_for_sweep($node, $job);
	is(sql($node, <<~"SQL"), 't|t|t|t', 'it is swept while it sends');
		SELECT state = 'running', delivered > 0, delivered <= sent,
			(SELECT sweep_at - swept_at BETWEEN '10 s' AND '61 s'
				FROM sendcampaign.run_data WHERE job_id = $job)
		FROM sendcampaign.run
		WHERE job_id = $job
		SQL
	configure($node, $campaign, q(configuration || '{"twilioSegmentsPerSecond": 1000}'));
	sent_once($node, $twilio, $campaign, $job, 'meanwhile', total => 1000);
	sweep_now($node, $job);
	is(counts_of($node, $job), '1000|1000|0|0', 'the others are known afterwards');
	wait_for_no_worker($node);
}

# A paused run, and one that has failed.
{
	my $campaign = create_campaign($node, users => 2000);
	configure($node, $campaign, q(configuration || '{"twilioSegmentsPerSecond": 50}'));
	my $job = start_campaign($node, $campaign);
	wait_until($node, "SELECT sent > 20 FROM sendcampaign.run WHERE job_id = $job");
	sql($node, "SELECT sendcampaign.pause($job)", role => 'app');
	wait_for_no_worker($node);
	sweep_now($node, $job);
	is(sql($node, <<~"SQL"), 't|paused', 'a paused run is swept');
		SELECT delivered = sent, state FROM sendcampaign.run WHERE job_id = $job
		SQL
	sql($node, "SELECT sendcampaign.resume($job)", role => 'app');
	wait_until($node, "SELECT sent > 100 FROM sendcampaign.run WHERE job_id = $job");
	$twilio->set('fault:code:20003' => 100);
	wait_for_run($node, $job, state => 'failed', alone => 1);
	$twilio->set(fault => 'none');
	wait_for_no_worker($node);
	sweep_now($node, $job);
	is(sql($node, <<~"SQL"), 't|failed', 'so is one that has failed');
		SELECT delivered = sent, state FROM sendcampaign.run WHERE job_id = $job
		SQL
}

# Pages that change, and orders that are not the documented one.
my @lists = (
	[ 'messages come in between', 'list-insert' => 1 ],
	[ 'they shift the pages', 'list-insert' => 1, 'list-shift' => 1 ],
	[ 'by date sent', 'list-order' => 'sent', 'list-nulls' => 'last' ],
	[ 'in no order', 'list-order' => 'none' ],
	[ 'redacted', 'redact' => 1 ]);
for my $list (@lists)
{
	my ($what, @settings) = @$list;
	$twilio->set(
		'list-insert' => 0,
		'list-shift' => 0,
		'list-order' => 'created',
		redact => 0,
		reset => 1);
	my $job = run_campaign($node, create_campaign($node, users => 2300))->{job};
	$twilio->set(@settings);
	sweep_now($node, $job);
	is(counts_of($node, $job), '2300|2300|0|0', "$what: all are known");
}
$twilio->set(
	'list-insert' => 0,
	'list-shift' => 0,
	'list-order' => 'created',
	redact => 0,
	reset => 1);

# Many, of which some were never delivered.
{
	$twilio->set('delivery:undelivered:30003' => 3, 'delivery:never' => 5);
	my $job = run_campaign($node, create_campaign($node, users => 20000))->{job};
	wait_for_no_worker($node);
	my $lists = $twilio->stats->{lists};
	sweep_now($node, $job);
	cmp_ok($twilio->stats->{lists} - $lists, '<=', 22, '20,000 messages take 20 pages');
	is(sql($node, <<~"SQL"), '20000|t|t|0', 'most are known');
		SELECT sent, delivered BETWEEN 18000 AND 18900, undelivered BETWEEN 400 AND 800, unconfirmed
		FROM sendcampaign.run WHERE job_id = $job
		SQL
	sweep_now($node, $job, after => '72 hours');
	is(sql($node, <<~"SQL"), '20000|t', 'the others stay unknown');
		SELECT sent, sent = delivered + undelivered + unconfirmed
		FROM sendcampaign.run WHERE job_id = $job
		SQL
	wait_for_no_worker($node);
}

is(worker_errors($node), '', 'workers have no errors');
$node->stop;
done_testing();
