# At the edges: odd rates and hours, a stuck sender, a run that is forgotten in flight.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../perl";
use Campaign;
use HTTP::Tiny;
use LocalTwilio;
use PostgreSQL::Test::Utils;
use Test::More;

my $twilio = LocalTwilio->start;
my $node = new_cluster('limits', $twilio, conf => qq{
	restart_after_crash = on
	sendcampaign.request_timeout = '6s'
	sendcampaign.lookup_delay = '1s'
});
# CPU time of a process, in hundredths of a second; none where it has ended
sub cpu
{
	open my $file, '<', "/proc/$_[0]/stat" or return;
	my @fields = split ' ', <$file> // return;
	return $fields[13] + $fields[14];
}
sub sql { return $node->safe_psql($_[1] || 'postgres', $_[0]); }


subtest 'small things' => sub {
	$twilio->set(reset => 1);
	my $campaign = create_campaign($node, users => 1);
	sql(qq{UPDATE groups SET configuration = configuration || '{"quietHours": {"start": "00:00", "end": "23:59"}}' WHERE id = ${\ group_of($campaign)}});
	isnt(sql_error($node, "SET ROLE app; SELECT * FROM sendcampaign.preview($campaign)")->{message}, '', 'misspelled quiet hours are an error');
	sql(qq{UPDATE groups SET configuration = configuration - 'quietHours' WHERE id = ${\ group_of($campaign)}});
	sql("SET ROLE app; SELECT sendcampaign.opt_out('+15558888888')");
	is(sql_error($node, "SET ROLE app; SELECT sendcampaign.send_test($campaign, '+15558888888')")->{message},
		'there is no test message: opted out', 'no test message to somebody who has opted out');
	sql("SET ROLE app; SELECT sendcampaign.opt_in('+15558888888')");
	my $test = sql("SET ROLE app; SELECT sendcampaign.send_test($campaign, '+15558888888')");
	wait_for_run($node, $test);
	sql("SET ROLE app; SELECT sendcampaign.forget_recipient('+15558888888')");
	is(sql("SELECT test_phone FROM sendcampaign.run WHERE job_id = $test"), '', 'forgotten in the run, too');

	$campaign = create_campaign($node, users => 50);
	sql(qq{UPDATE groups SET configuration = configuration || '{"twilioSegmentsPerSecond": 1e-14}' WHERE id = ${\ group_of($campaign)}});
	my $job = start_campaign($node, $campaign);
	sleep 2;
	cmp_ok(sent_with($twilio, 'Hello https://example.org/survey') , '<=', 1, 'a rate that is hardly any') or diag run_row($node, $job)->{sent};
	sql_error($node, "SET ROLE app; SELECT sendcampaign.cancel($job)");
};

subtest 'one sender of two is stuck' => sub {
	$twilio->set(reset => 1);
	my $campaign = create_campaign($node, users => 2000);
	sql(qq{UPDATE groups SET configuration = configuration || '{"twilioFromSmsNumber": ["+15005550006", "+15557770000"]}' WHERE id = ${\ group_of($campaign)}});
	my @stuck = split /\n/, sql("SET ROLE app; SELECT phone FROM sendcampaign.preview($campaign, NULL) WHERE sender = '+15557770000'");
	while (my @part = splice @stuck, 0, 100) { $twilio->set(map { ('to-fault' => "$_=code:21611") } @part); }
	my ($good) = sql("SET ROLE app; SELECT count(*) FROM sendcampaign.preview($campaign, NULL) WHERE sender <> '+15557770000'");
	my $job = start_campaign($node, $campaign);
	ok(poll(sub { scalar(my @l = $twilio->ledger) >= $good }, 20), 'the other one goes on') or diag scalar(my @l = $twilio->ledger), " of $good after 20 s, ", sql("SELECT now() - started_at FROM sendcampaign.run WHERE job_id = $job");
	sql_error($node, "SET ROLE app; SELECT sendcampaign.cancel($job)");
};
subtest 'forgotten and sent again, with answers on their way' => sub {
	$twilio->set(fault => 'none'); $twilio->set(reset => 1, slow => '50:3000', 'to-fault' => '+15550000300=code:20003');
	my $campaign = create_campaign($node, users => 1000);
	my $job = start_campaign($node, $campaign);
	poll(sub { run_row($node, $job)->{state} eq 'failed' }, 15);
	my $run = run_row($node, $job);
	is("$run->{state}", 'failed', 'failed') or diag explain $run;
	$twilio->set(slow => '0:0', fault => 'none', 'to-fault' => '+15550000300=none');
	sql("BEGIN; SET LOCAL ROLE app; SELECT sendcampaign.forget(now() + '1 day'); SELECT send_campaign($campaign, $job); COMMIT");
	poll(sub { run_row($node, $job)->{state} =~ /completed|failed/ }, 20);
	$run = run_row($node, $job);
	is("$run->{state} $run->{sent} of $run->{total}", 'completed 1000 of 1000', 'counts') or diag explain $run;
	my ($pid) = worker_pids($node);
	my $before = $pid ? cpu($pid) : undef;
	poll(sub { 0 }, 2);
	my $after = $pid ? cpu($pid) : undef;
	cmp_ok(($after // 0) - ($before // $after // 0), '<', 100, 'the worker does not spin');
};

$node->stop;
done_testing();
