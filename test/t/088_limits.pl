# At the edges: odd rates and hours, a stuck sender, a run that is forgotten in
# flight.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";

use Campaign;
use LocalTwilio;
use PostgreSQL::Test::Utils;
use Test::More;

my $twilio = LocalTwilio->start;
my $node = new_cluster('limits', $twilio, conf => <<~CONF);
    restart_after_crash = on
    sendcampaign.request_timeout = '60s'
    sendcampaign.lookup_delay = '1s'
CONF

# CPU time of a process in hundredths of a second; nothing if it has ended.
sub cpu_time
{
	my $pid = shift;
	open my $file, '<', "/proc/$pid/stat" or return;
	my @fields = split ' ', <$file> // return;
	return $fields[13] + $fields[14];
}

# Merges JSON into the configuration of the campaign's group.
sub add_to_configuration
{
	my ($campaign, $json) = @_;
	my $group = group_of($campaign);
	sql($node, "UPDATE groups SET configuration = configuration || '$json' WHERE id = $group");
}

subtest 'small things' => sub {
	$twilio->set(reset => 1);
	my $campaign = create_campaign($node, users => 1);
	my $group = group_of($campaign);
	add_to_configuration($campaign, '{"quietHours": {"start": "00:00", "end": "23:59"}}');
	my $error = sql_error($node, "SELECT * FROM sendcampaign.preview($campaign)", role => 'app');
	isnt($error->{message}, '', 'misspelled quiet hours are an error');
	sql($node, "UPDATE groups SET configuration = configuration - 'quietHours' WHERE id = $group");

	my $send_test = "SELECT sendcampaign.send_test($campaign, '+15558888888')";
	sql($node, "SELECT sendcampaign.opt_out('+15558888888')", role => 'app');
	is( sql_error($node, $send_test, role => 'app')->{message},
		'cannot send a test message: opted out',
		'no test message to somebody who has opted out');
	sql($node, "SELECT sendcampaign.opt_in('+15558888888')", role => 'app');
	my $test = sql($node, $send_test, role => 'app');
	wait_for_run($node, $test);
	sql($node, "SELECT sendcampaign.forget_recipient('+15558888888')", role => 'app');
	is(sql($node, "SELECT test_phone FROM sendcampaign.run WHERE job_id = $test"),
		'', 'a number is forgotten in the run of a test, too');

	$campaign = create_campaign($node, users => 50);
	add_to_configuration($campaign, '{"twilioSegmentsPerSecond": 1e-14}');
	my $job = start_campaign($node, $campaign);
	poll(sub { sql($node, "SELECT total FROM sendcampaign.run WHERE job_id = $job") ne '' });
	sleep 2;
	cmp_ok(sent_with($twilio, 'Hello https://example.org/survey'),
		'<=', 1, 'hardly anything is sent at a rate of hardly anything')
	  or diag(run_row($node, $job)->{sent});
	call_error($node, "cancel($job)");
};

subtest 'one sender of two is stuck' => sub {
	$twilio->set(reset => 1);
	my $campaign = create_campaign($node, users => 2000);
	add_to_configuration($campaign, '{"twilioFromSmsNumber": ["+15005550006", "+15557770000"]}');
	my $preview = "sendcampaign.preview($campaign, NULL)";
	my @stuck = split /\n/, sql($node, <<~SQL, role => 'app');
	    SELECT phone FROM $preview WHERE sender = '+15557770000'
	SQL
	while (my @part = splice @stuck, 0, 100)
	{
		$twilio->set(map { ('to-fault' => "$_=code:21611") } @part);
	}
	my $others = sql($node, <<~SQL, role => 'app');
	    SELECT count(*) FROM $preview WHERE sender <> '+15557770000'
	SQL
	my $job = start_campaign($node, $campaign);
	my $accepted = 0;
	my $all_others_are_sent = sub {
		$accepted = () = $twilio->ledger;
		return $accepted >= $others;
	};
	ok(poll($all_others_are_sent), 'the other one goes on')
	  or diag("$accepted of $others after "
		  . sql($node, "SELECT now() - started_at FROM sendcampaign.run WHERE job_id = $job"));
	call_error($node, "cancel($job)");
};

subtest 'forgotten and sent again, with answers on their way' => sub {
	$twilio->set(fault => 'none');
	$twilio->set(
		reset => 1,
		slow => '50:3000',
		'to-fault' => '+15550000300=code:20003');
	my $campaign = create_campaign($node, users => 1000);
	my $job = start_campaign($node, $campaign);
	poll(sub { run_row($node, $job)->{state} eq 'failed' });
	my $run = run_row($node, $job);
	is($run->{state}, 'failed', 'the run fails') or diag(explain $run);

	$twilio->set(slow => '0:0', fault => 'none', 'to-fault' => '+15550000300=none');
	sql($node, <<~SQL);
	    BEGIN;
	    SET LOCAL ROLE app;
	    SELECT sendcampaign.forget(now() + '1 day');
	    SELECT send_campaign($campaign, $job);
	    COMMIT;
	SQL
	poll(sub { run_row($node, $job)->{state} =~ /completed|failed/ });
	$run = run_row($node, $job);
	is( "$run->{state} $run->{sent} of $run->{total}",
		'completed 1000 of 1000',
		'the counts are right') or diag(explain $run);

	my ($pid) = worker_pids($node);
	my $before = $pid ? cpu_time($pid) : undef;
	sleep 2;
	my $after = $pid ? cpu_time($pid) : undef;
	cmp_ok(($after // 0) - ($before // $after // 0), '<', 100, 'the worker does not spin');
};

$node->stop;
done_testing();
