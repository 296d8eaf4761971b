# What became of messages is read from Twilio's list, at intervals after the
# last one, and no process waits in between.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../perl";
use Campaign;
use LocalTwilio;
use Sweeps;
use Test::More;

my $twilio = LocalTwilio->start;
my $node = new_cluster('sweep', $twilio);

subtest 'a list of a hundred' => sub {
	$twilio->set(
		'sent-after' => 0,
		'deliver-after' => 0,
		'price-after' => 0,
		'to-delivery' => '+15550000001=undelivered:30007');
	$twilio->set('to-delivery' => "+1555000000$_=failed:30008") for 2 .. 6;
	my $campaign = create_campaign($node, users => 100);
	my $run = run_campaign($node, $campaign);
	is($run->{sent}, 100, 'all are sent');
	wait_for_no_worker($node);
	is(receipts_of($node, $run->{job}), 'none 100', 'nothing is known yet');
	is(next_sweep($node, $run->{job}), 1, 'the first sweep is a minute later');
	my $lists = $twilio->stats->{lists};
	ok(sweep_now($node, $run->{job}), 'it is swept');
	is($twilio->stats->{lists} - $lists, 1, 'which takes one request');
	like(
		receipts_of($node, $run->{job}),
		qr/^delivered 94, failed 5, undelivered 1$/,
		'it is known of each what became of it');
	is(sql($node, <<~"SQL"), 't', 'the counts say the same');
		SELECT (sent, delivered, undelivered, unconfirmed) = (
			SELECT count(*),
				count(*) FILTER (WHERE delivery = 'delivered'),
				count(*) FILTER (WHERE delivery IN ('undelivered', 'failed')),
				0
			FROM sendcampaign.message m
			WHERE m.run_id = r.id)
		FROM sendcampaign.run r
		WHERE job_id = $run->{job}
		SQL
	is(sql($node, <<~"SQL"), "30007|t\n30008|t", 'with the codes and what they mean');
		SELECT DISTINCT delivery_code, delivery_error IS NOT NULL
		FROM sendcampaign.message
		WHERE job_id = $run->{job} AND delivery <> 'delivered'
		ORDER BY 1
		SQL
	is(sql($node, <<~"SQL"), '95|0.00750|USD|1', 'with price and segments');
		SELECT count(*), min(price), min(price_unit), max(segments)
		FROM sendcampaign.message
		WHERE job_id = $run->{job} AND price > 0
		SQL
	wait_for_no_worker($node);
	pass('no process is left');
	sql($node, 'CREATE DATABASE copy TEMPLATE postgres', db => 'template1');
	sql($node, 'DROP DATABASE copy', db => 'template1');
	pass('the database can be copied');
};

subtest 'intervals' => sub {
	$twilio->set('to-delivery' => "+1555000000$_=none") for 1 .. 6;
	$twilio->set('deliver-after' => -1, reset => 1);
	my $run = run_campaign($node, create_campaign($node, users => 30));
	my @minutes = (1, 5, 15, 60, 240, 720, 1440, 4320);
	my $last = 0;

	for my $i (0 .. $#minutes - 1)
	{
		my $passed = $minutes[$i] - $last;
		ok(sweep_now($node, $run->{job}, after => "$passed minutes"), "after $minutes[$i] min");
		is(next_sweep($node, $run->{job}), $minutes[ $i + 1 ], "next one at $minutes[$i + 1] min");
		$last = $minutes[$i];
	}
	is(receipts_of($node, $run->{job}), 'sent 30', 'they are still on their way');
	sweep_now($node, $run->{job}, after => '2880 minutes');
	is(receipts_of($node, $run->{job}), 'unknown 30', 'after 72 hours, it stays unknown');
	is(counts_of($node, $run->{job}), '30|0|0|30', 'which is counted');
	is(next_sweep($node, $run->{job}), 'never', 'and nobody asks again');
	wait_for_no_worker($node);
};

subtest 'few open' => sub {
	$twilio->set('deliver-after' => -1, reset => 1);
	my $run = run_campaign($node, create_campaign($node, users => 20));
	my %before = %{ $twilio->stats };
	sweep_now($node, $run->{job});
	my %after = %{ $twilio->stats };
	is($after{fetches} - $before{fetches}, 20, 'each is asked for by its SID');
	is($after{lists} - $before{lists}, 1, 'and one list is read, for replies');
	is(receipts_of($node, $run->{job}), 'sent 20', 'they are on their way');
	$twilio->set('deliver-after' => 0);
	sweep_now($node, $run->{job});
	is(receipts_of($node, $run->{job}), 'delivered 20', 'they are delivered');
	is(counts_of($node, $run->{job}), '20|20|0|0', 'and counted');
	%before = %{ $twilio->stats };
	sweep_now($node, $run->{job});
	%after = %{ $twilio->stats };
	is($after{fetches} - $before{fetches}, 0, 'what is known is not asked for again');
};

subtest 'messages that Twilio no longer has' => sub {
	my $run = run_campaign($node, create_campaign($node, users => 3));
	$twilio->set(reset => 1);
	ok(sweep_now($node, $run->{job}), 'they are asked for');
	is(receipts_of($node, $run->{job}), 'none 3', 'in vain');
	sweep_now($node, $run->{job}, after => '73 hours');
	is(receipts_of($node, $run->{job}), 'unknown 3', 'their fate stays unknown');
};

subtest 'a test message' => sub {
	my $campaign = create_campaign($node, users => 1);
	my $test = sql($node, <<~SQL, role => 'app');
	    SELECT sendcampaign.send_test($campaign, '+15559999999')
	SQL
	wait_for_run($node, $test);
	sweep_now($node, $test);
	is(receipts_of($node, $test), 'delivered 1', 'has a receipt, too');
};

subtest 'settled and forgotten' => sub {
	my $campaign = create_campaign($node, users => 2);
	my $run = run_campaign($node, $campaign);
	sweep_now($node, $run->{job}, after => '73 hours');
	is(next_sweep($node, $run->{job}), 'never', 'its last sweep is over');
	sql($node, <<~"SQL");
		UPDATE sendcampaign.message_data SET status = 'in_doubt', sid = NULL
		WHERE run_id = @{[ run_of($run->{job}) ]};
		DELETE FROM sendcampaign.receipt_data WHERE run_id = @{[ run_of($run->{job}) ]};
		UPDATE sendcampaign.run_data SET sent = 0, delivered = 0, in_doubt = 2
		WHERE job_id = $run->{job}
		SQL
	my $ids = sql($node, <<~"SQL");
		SELECT string_agg(list_user_id::text, ' ')
		FROM sendcampaign.message WHERE job_id = $run->{job}
		SQL
	sql($node, "SELECT sendcampaign.settle($run->{job}, $_, true)", role => 'app')
	  for split / /, $ids;
	sweep_now($node, $run->{job});
	is(counts_of($node, $run->{job}), '2|0|0|2', 'what is settled as sent stays unknown');
	sql($node, "UPDATE sendcampaign.run_data SET sweep_at = now()");
	sql($node, "SELECT sendcampaign.forget(now() + interval '1 day')");
	wake($node);
	wait_for_no_worker($node);
	is(sql($node, 'SELECT count(*) FROM sendcampaign.run_data'),
		0, 'what is forgotten is not swept');
};

subtest 'receipts off' => sub {
	my $before = run_campaign($node, create_campaign($node, users => 3));
	set_and_reload($node, 'sendcampaign.receipts', 'off');
	my $after = run_campaign($node, create_campaign($node, users => 3));
	is(next_sweep($node, $after->{job}), 'never', 'no sweep is planned');
	my %stats = %{ $twilio->stats };
	sweep_now($node, $before->{job});
	is(next_sweep($node, $before->{job}), 'never', 'one that was is given up');
	is($twilio->stats->{fetches}, $stats{fetches}, 'and nothing is asked');
	wait_for_no_worker($node);
	set_and_reload($node, 'sendcampaign.receipts', 'on');
};

is(worker_errors($node), '', 'workers have no errors');
$node->stop;
done_testing();
