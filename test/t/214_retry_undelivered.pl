# retry_failed() also sends again, once, what did not reach the phone (30003) some
# hours ago.  Exactly once: the message before does not count for the new one.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../perl";
use Campaign;
use LocalTwilio;
use Receipts;
use Test::More;

my $twilio = LocalTwilio->start;
my $node = new_cluster('retry_undelivered', $twilio, conf => <<~'CONF');
	sendcampaign.request_timeout = '1s'
	sendcampaign.lookup_delay = 0
	sendcampaign.receipts = off
	CONF
install_receipts($node);

# How many messages of a job are sent again.
sub retry
{
	my $job = shift;
	return sql($node, "SELECT sendcampaign.retry_failed($job)", role => 'app');
}

# The same, with that role's settings.
sub retry_as_app
{
	my $job = shift;
	return sql($node, "SELECT sendcampaign.retry_failed($job)", user => 'app');
}

# Times, by Twilio: five hours ago, and three.
my $old = sql($node, q{SELECT translate((now() - interval '5 hours')::text, ' ', '_')});
my $new = sql($node, q{SELECT translate((now() - interval '3 hours')::text, ' ', '_')});

my $job = run_campaign($node, create_campaign($node, users => 8))->{job};
wait_for_no_worker($node);
my @sid = sids($node, $job);
report(
	$node,
	$job,
	"$sid[0] undelivered code=30003 at=$old",
	"$sid[1] undelivered code=30003 at=$new",
	"$sid[2] undelivered code=30007 at=$old",
	"$sid[3] delivered at=$old",
	"$sid[4] undelivered code=30005 at=$old",
	"$sid[5] undelivered code=30003 at=$old",
	"$sid[6] undelivered code=30003 at=$old",
	"$sid[7] failed code=30003 at=$old");

# Rows that the extension has not written prove nothing.
sql($node, <<~"SQL");
	UPDATE sendcampaign.receipt_data SET written_in = '1' WHERE sid = '$sid[5]';
	ALTER TABLE sendcampaign.message_data DISABLE TRIGGER ALL;
	UPDATE sendcampaign.message_data SET written_in = '1' WHERE sid = '$sid[6]';
	ALTER TABLE sendcampaign.message_data ENABLE TRIGGER ALL;
	SQL
sql($node, <<~"SQL");
	ALTER TABLE sendcampaign.receipt_data DISABLE TRIGGER ALL;
	UPDATE sendcampaign.receipt_data SET written_in = '1' WHERE sid = '$sid[5]';
	ALTER TABLE sendcampaign.receipt_data ENABLE TRIGGER ALL;
	SQL
is(receipt_counts($node, $job), '8 1 7 0', 'eight are sent, one is delivered');
sql($node, "BEGIN; SELECT sendcampaign.retry_failed($job); ROLLBACK", role => 'app');
is(receipt_counts($node, $job), '8 1 7 0', 'rolled back, it changes nothing');
$twilio->set(reset => 1, hold => 1);
is(retry($job), 2, 'two are sent again: unreachable for more than four hours');
is(receipt_counts($node, $job), '6 1 5 0', 'they do not count meanwhile');
is(job_row($node, $job, "data->>'state', data->>'sent', data->>'undelivered'"),
	'running|6|5', 'nor for the job');
is(report($node, $job, "$sid[0] undelivered code=30003 price=0.01"),
	0, 'nobody asks for the messages before');
$twilio->set(hold => 0);
is(wait_for_run($node, $job)->{state}, 'completed', 'they are sent');
is_deeply(
	[ sort map { $_->{to} } $twilio->ledger ],
	[ '+15550000001', '+15550000008' ],
	'to these two');
my @again = sids($node, $job);
isnt("$again[0] $again[7]", "$sid[0] $sid[7]", 'under other SIDs');
is( deliveries($node, $job) =~ s/undelivered \d+/-/gr,
	'-, -, -, delivered, -, -, -, -',
	'of which nothing is known yet');
is(deliveries($node, $job) =~ /^-, .*, -$/, 1, 'as the reports before were not theirs');
is(sql($node, <<~"SQL"), '2,1,1,1,1,1,1,2', 'they are other messages, and counted');
	SELECT string_agg(data->>'sentCount', ',' ORDER BY id) FROM ac_list_users
	WHERE ac_list_id = (SELECT list_id FROM sendcampaign.run WHERE job_id = $job)
	SQL
is(report($node, $job, "$sid[0] delivered"), 0, 'a late report of the one before is none of it');
report($node, $job, "$again[0] delivered at=$old", "$again[7] undelivered code=30003 at=$old");
is(receipt_counts($node, $job), '8 2 6 0', 'theirs are counted');
is(retry($job), 0, 'once is enough');
sql($node, q{ALTER ROLE app SET sendcampaign.retry_undelivered_after = '2h'});
is(retry_as_app($job), 1, 'the time can be set');
wait_for_run($node, $job);
wait_for_no_worker($node);

# The second message falls into doubt: that Twilio's list has the first one says
# nothing about it.
sql($node, q{ALTER ROLE app SET sendcampaign.retry_undelivered_after = 0});
for my $base_url ('https://example.org/survey', undef)
{
	my $with = $base_url ? 'with a link' : 'without a link';
	for my $fault ('drop-before', 'drop-after')
	{
		$twilio->set(reset => 1);
		my $campaign = create_campaign(
			$node,
			users => 1,
			message => "Again $with, $fault",
			base_url => $base_url);
		$job = run_campaign($node, $campaign)->{job};
		my ($first) = sids($node, $job);
		report($node, $job, "$first undelivered code=30003");
		$twilio->set("fault:$fault" => '#1');
		is(retry_as_app($job), 1, "$with, $fault: it is sent again");
		my $run = wait_for_run($node, $job);
		is("$run->{state} $run->{sent}", 'completed 1', "$with, $fault: it is looked up");
		my @accepted = grep { $_->{body} =~ /^Again/ } $twilio->ledger;
		is(scalar @accepted, 2, "$with, $fault: the recipient has it twice");
		my ($second) = sids($node, $job);
		is($second, $accepted[1]{sid}, "$with, $fault: the second one is recorded");
	}
}

# After lost commits, what is read back is not the first one either.
$twilio->set(reset => 1);
my $campaign = create_campaign($node, users => 3, message => 'Read back');
$job = run_campaign($node, $campaign)->{job};
wait_for_no_worker($node);
@sid = sids($node, $job);
report($node, $job, "$sid[0] undelivered code=30003");
is(sql($node, <<~"SQL", user => 'app'), 1, 'read back: one is to be sent again');
	BEGIN;
	SELECT sendcampaign.retry_failed($job);
	SELECT FROM sendcampaign.pause($job);
	COMMIT
	SQL
sql($node, <<~"SQL");
	UPDATE sendcampaign.run_data SET timeline = '9/lost' WHERE job_id = $job
	SQL
sql($node, "SELECT sendcampaign.resume($job)", role => 'app');
is(wait_for_run($node, $job)->{state}, 'completed', 'read back: the run ends');
is(scalar(grep { $_->{to} eq '+15550000001' && $_->{body} =~ /^Read/ } $twilio->ledger),
	2, 'read back: the recipient has it twice');
@again = sids($node, $job);
isnt($again[0], $sid[0], 'read back: the second one is recorded');

$node->stop;
done_testing();
