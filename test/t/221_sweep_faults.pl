# Twilio does not answer, or answers nonsense; or the credentials are of no use:
# a sweep is tried again, or put off, and runs are not affected.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../perl";
use Campaign;
use LocalTwilio;
use Session;
use Sweeps;
use Test::More;

my $twilio =
  LocalTwilio->start(options => [ '--account', 'AC00000000000000000000000000000002:other' ]);
my $node = new_cluster('faults', $twilio, conf => <<~'CONF');
	sendcampaign.request_timeout = '2s'
	log_min_messages = debug1
	CONF
$twilio->set('sent-after' => 0, 'deliver-after' => 0);

# So many messages, none of which has a receipt.
sub send_some
{
	my $users = shift;
	my $campaign = create_campaign($node, users => $users);
	return ($campaign, run_campaign($node, $campaign)->{job});
}

# What passes: a few failures, then an answer.  For lists, and for single messages.
for my $users (30, 5)
{
	for my $fault (qw(list-500 list-429 list-garbage list-drop list-never))
	{
		my (undef, $job) = send_some($users);
		$twilio->set("fault:$fault" => '#2');
		ok(sweep_now($node, $job), "$users messages, $fault: swept");
		is(receipts_of($node, $job), "delivered $users", "$users messages, $fault: delivered");
	}
}

# What lasts: the next sweep is planned, and no process waits for it.
for my $fault (qw(list-500 list-403 list-garbage list-endless))
{
	my (undef, $job) = send_some(30);
	$twilio->set("fault:$fault" => 100);
	ok(sweep_now($node, $job), "$fault: the sweep ends");
	wait_for_no_worker($node);
	like(next_sweep($node, $job), qr/^(?:1|5|15)$/, "$fault: the next one is planned");
	is(sql($node, <<~"SQL"), 'completed|30', "$fault: the run is as it was");
		SELECT state, sent FROM sendcampaign.run WHERE job_id = $job
		SQL
	$twilio->set(fault => 'none');
	sweep_now($node, $job);
	is(receipts_of($node, $job), 'delivered 30', "$fault: it brings the receipts");
}
like(
	log_of($node),
	qr/sendcampaign: account \w+: Twilio does not say what became of messages: HTTP status 403$/m,
	'the log says why');

# So it is with single messages.
{
	my (undef, $job) = send_some(5);
	$twilio->set('fault:list-garbage' => 100);
	ok(sweep_now($node, $job), 'single messages, garbage: the sweep ends');
	like(
		log_of($node),
		qr/what became of messages: (?:answer is not a message|answer is not a list of messages)/,
		'single messages, garbage: the log says why');
	$twilio->set(fault => 'none');
}

# It takes longer than anybody waits.
{
	my (undef, $job) = send_some(30);
	$twilio->set('retry-after' => 3600, 'fault:list-429' => 100);
	ok(sweep_now($node, $job), 'a long Retry-After: the sweep ends');
	wait_for_no_worker($node);
	$twilio->set(fault => 'none', 'retry-after' => 0);
}

# The token is another one: the group has it, or not.
{
	my ($campaign, $job) = send_some(30);
	$twilio->set(account => "$LocalTwilio::ACCOUNT:new-token");
	sweep_now($node, $job);
	is(receipts_of($node, $job), 'none 30', 'an old token: nothing is learned');
	configure($node, $campaign, q(configuration || '{"twilioAuthToken": "new-token"}'));
	sweep_now($node, $job);
	is(receipts_of($node, $job), 'delivered 30', 'the new one: everything is');
	$twilio->set(account => "$LocalTwilio::ACCOUNT:$LocalTwilio::TOKEN");
}

# The group has another account by now, whose list says nothing of these
# messages; then it has none, is gone, or may not be read.
my @losses = (
	[
		'another account', q(UPDATE groups SET configuration = configuration
		|| '{"twilioAccountSid": "AC00000000000000000000000000000002", "twilioAuthToken": "other"}'),
		qr/the\ group\ no\ longer\ has\ the\ Twilio\ account\ to\ which\ the\ messages\ were\ sent\.
		\ Nobody\ asks\ what\ became\ of\ them\ until\ it\ has\ that\ account\ again\./x
	],
	[
		'no token',
		q(UPDATE groups SET configuration = configuration - 'twilioAuthToken'),
		qr/sendcampaign: campaign \d+: could not ask Twilio what became of its messages: the group's/
	],
	[ 'no group', 'DELETE FROM groups', qr/list \d+ has no group/ ],
	[
		'no right',
		'ALTER TABLE groups OWNER TO postgres; REVOKE ALL ON groups FROM app',
		qr/permission denied for table groups/
	]);
for my $loss (@losses)
{
	my ($what, $sql, $reason) = @$loss;
	my ($campaign, $job) = send_some(30);
	my $stats = $twilio->stats;
	sql($node, $sql);
	ok(sweep_now($node, $job), "$what: the sweep is put off");
	is(next_sweep($node, $job), 1, "$what: to the next interval");
	is(receipts_of($node, $job), 'none 30', "$what: nothing is known");
	is($twilio->stats->{lists}, $stats->{lists}, "$what: nobody was asked");
	like(log_of($node), $reason, "$what: the log says why");
	sweep_now($node, $job, after => '72 hours');
	is(counts_of($node, $job), '30|0|0|30', "$what: in the end, it stays unknown");
	wait_for_no_worker($node);
}
sql($node, 'ALTER TABLE groups OWNER TO app');

# A run that somebody has locked is left for later, and keeps nobody.
{
	my (undef, $job) = send_some(30);
	my $session = Session->open($node);
	sql($node, "UPDATE sendcampaign.run_data SET sweep_at = now() WHERE job_id = $job");
	$session->query("BEGIN; SELECT FROM sendcampaign.run_data WHERE job_id = $job FOR UPDATE");
	ok(wake($node) > 0 && no_worker_is_to_come($node), 'a locked run: a worker tries it');
	is(receipts_of($node, $job), 'none 30', 'a locked run is not swept');
	$session->query('COMMIT');
	$session->close;
	wake($node);
	wait_for_sweep($node, $job);
	is(receipts_of($node, $job), 'delivered 30', 'it is later');
}

# So is one whose group is locked; it is swept once that is over.
{
	my (undef, $job) = send_some(30);
	my $session = Session->open($node);
	$session->query('BEGIN; LOCK TABLE groups');
	sql($node, "UPDATE sendcampaign.run_data SET sweep_at = now() WHERE job_id = $job");
	wake($node);
	ok( poll(sub {
			log_of($node) =~
			  /sendcampaign: could not look for messages to ask Twilio about, trying again: \w/;
		}),
		'a locked group: the log says so');
	$session->query('COMMIT');
	$session->close;
	ok(wait_for_sweep($node, $job), 'it is swept later');
	is(receipts_of($node, $job), 'delivered 30', 'and has its receipts');
}

# What has come cannot be stored for a while.
{
	my (undef, $job) = send_some(30);
	my $session = Session->open($node);
	$session->query('BEGIN; LOCK TABLE sendcampaign.receipt_data IN SHARE MODE');
	sql($node, "UPDATE sendcampaign.run_data SET sweep_at = now() WHERE job_id = $job");
	wake($node);
	ok( poll(sub {
			log_of($node) =~
			  /sendcampaign: could not store what became of messages, trying again: \w/;
		}),
		'a locked table: the log says so');
	$session->query('COMMIT');
	$session->close;
	ok(wait_for_sweep($node, $job), 'it is swept');
	is(receipts_of($node, $job), 'delivered 30', 'and has its receipts');
}

# Other applications' messages in the same account, and a neighbor's runs.
{
	my ($campaign, $job) = send_some(30);
	make_tenant($node, 'other');
	sql($node, "SET sendcampaign.schema = 'other'; SELECT send_campaign(1)", role => 'other');
	wait_until($node, "SELECT state = 'completed' FROM sendcampaign.run WHERE schema = 'other'");
	wait_for_no_worker($node);
	sweep_now($node, $job);
	is(sql($node, <<~'SQL'), 1, "another role's message is not this sweep's matter");
		SELECT count(*) FROM sendcampaign.message
		WHERE schema = 'other' AND status = 'sent' AND delivery IS NULL
		SQL
	is(receipts_of($node, "$job AND schema = 'public'"), 'delivered 30', 'its own are');
}

is(worker_errors($node), '', 'workers have no errors');
$node->stop;
done_testing();
