# Two runs send the same text to one phone, with the same link or without one.
# Commits of both are lost, and Twilio's list has one message: it is that of one
# of them.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../perl";
use Campaign;
use LocalTwilio;
use Test::More;

my $twilio = LocalTwilio->start;
my $node = new_cluster('read_back_once', $twilio, conf => <<~'CONF');
	sendcampaign.request_timeout = '2s'
	sendcampaign.lookup_delay = 0
	sendcampaign.lookup_timeout = '1s'
	CONF

# Sends the campaign of a schema, as a role; returns the id of its run.
sub send_in
{
	my ($schema, $role) = @_;
	sql($node, "SET sendcampaign.schema = $schema; SELECT send_campaign(1)", role => $role);
	return sql($node, "SELECT id FROM sendcampaign.run WHERE schema = '$schema'");
}

my @cases = (
	[ 'with a link', 'https://example.org', 0 ],
	[ 'without a link', undef, 0 ],
	[ 'with a link, of two roles', 'https://example.org', 1 ],
	[ 'without a link, of two roles', undef, 1 ]);
my $number = 0;
for my $case (@cases)
{
	my ($name, $base_url, $two_roles) = @$case;
	my ($first, $second) = map { 't' . ++$number } 1, 2;
	my %arg = (message => "Text $number", base_url => $base_url);
	make_tenant($node, $first, %arg);
	make_tenant($node, $second, %arg, $two_roles ? () : (role => $first));
	my $role = $two_roles ? $second : $first;

	# the second sleeps, and nothing of it is sent
	sql($node, <<~SQL);
		UPDATE $second.groups
		SET configuration = configuration || jsonb_build_object(
		    'timeZone', 'UTC',
		    'quietHours', jsonb_build_object(
		        'from', to_char(now() AT TIME ZONE 'UTC' - interval '1 hour', 'HH24:MI'),
		        'to', to_char(now() AT TIME ZONE 'UTC' + interval '2 hours', 'HH24:MI')))
		SQL
	my $sent_run = send_in($first, $first);
	my $asleep_run = send_in($second, $role);
	wait_until($node, "SELECT state = 'completed' FROM sendcampaign.run WHERE id = $sent_run");
	wait_until($node, "SELECT next_at IS NOT NULL FROM sendcampaign.run WHERE id = $asleep_run");
	wait_for_no_worker($node);
	is(sent_with($twilio, $arg{message}), 1, "$name: Twilio has one message");

	# what is known of both is lost
	sql($node, <<~SQL);
		INSERT INTO sendcampaign.batch (run_id, number, list_user_ids)
		SELECT run_id, 1, array_agg(list_user_id)
		FROM sendcampaign.message_data
		WHERE run_id = $sent_run
		GROUP BY 1;
		DELETE FROM sendcampaign.message_data WHERE run_id = $sent_run;
		UPDATE sendcampaign.run_data
		SET sent = 0, state = 'running', finished_at = NULL
		WHERE id = $sent_run;
		UPDATE sendcampaign.run_data
		SET timeline = '0/0', next_at = NULL
		WHERE id IN ($sent_run, $asleep_run);
		UPDATE sendcampaign.batch SET due = NULL WHERE run_id = $asleep_run;
		UPDATE $second.groups SET configuration = configuration - 'quietHours';
		SELECT sendcampaign.wake();
		SQL
	my $ended = <<~SQL;
		SELECT count(*)
		FROM sendcampaign.run
		WHERE id IN ($sent_run, $asleep_run) AND finished_at IS NOT NULL
		SQL
	my $are_through = sub {
		send_companion($node, $twilio, 'postgres');
		return sql($node, $ended) == 2;
	};
	ok(poll($are_through), "$name: both runs end");
	my $counts = sql($node, <<~SQL);
		SELECT count(*) FILTER (WHERE status = 'sent'),
		    count(*),
		    count(sid) - count(DISTINCT sid)
		FROM sendcampaign.message_data
		WHERE run_id IN ($sent_run, $asleep_run)
		SQL
	my ($sent, $all, $twice) = split /\|/, $counts;
	cmp_ok(
		$sent, '<=',
		sent_with($twilio, $arg{message}),
		"$name: no more are recorded as sent than Twilio has");
	is($twice, 0, "$name: a SID is that of one message");
	is($all, 2, "$name: each has an outcome");
	wait_for_no_worker($node);
}
$node->stop;
done_testing();
