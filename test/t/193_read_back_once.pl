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
my $node = new_cluster('read_back_once', $twilio, conf => qq{
	sendcampaign.request_timeout = '2s'
	sendcampaign.lookup_delay = 0
	sendcampaign.lookup_timeout = '1s'
});
sub sql { return $node->safe_psql('postgres', $_[0]); }
sub id_in { return "(SELECT id FROM sendcampaign.run WHERE schema = '$_[0]')"; }
sub send_in { my ($schema, $role) = @_; return sql("SET ROLE $role; SET sendcampaign.schema = $schema; SELECT send_campaign(1)"); }

my $night = q{jsonb_build_object('from', to_char(now() AT TIME ZONE 'UTC' - interval '1 hour', 'HH24:MI'),
	'to', to_char(now() AT TIME ZONE 'UTC' + interval '2 hours', 'HH24:MI'))};
my $number = 0;
for my $case ([ 'with a link', 'https://example.org', 0 ], [ 'without a link', undef, 0 ],
	[ 'with a link, of two roles', 'https://example.org', 1 ], [ 'without a link, of two roles', undef, 1 ])
{
	my ($name, $base_url, $two_roles) = @$case;
	my ($first, $second) = map { 't' . ++$number } 1, 2;
	my %arg = (message => "Text $number", base_url => $base_url);
	make_tenant($node, $first, %arg);
	make_tenant($node, $second, %arg, $two_roles ? () : (role => $first));
	my $role = $two_roles ? $second : $first;
	my ($a, $b) = map { id_in($_) } $first, $second;

	# the second sleeps, and nothing of it is sent
	sql("UPDATE $second.groups SET configuration = configuration || jsonb_build_object('timeZone', 'UTC', 'quietHours', $night)");
	send_in($first, $first);
	send_in($second, $role);
	$node->poll_query_until('postgres', "SELECT state = 'completed' FROM sendcampaign.run WHERE id = $a");
	$node->poll_query_until('postgres', "SELECT next_at IS NOT NULL FROM sendcampaign.run WHERE id = $b");
	wait_for_no_worker($node);
	is(sent_with($twilio, $arg{message}), 1, "$name: Twilio has one message");

	# what is known of both is lost
	sql(qq{INSERT INTO sendcampaign.batch (run_id, number, list_user_ids)
			SELECT run_id, 1, array_agg(list_user_id) FROM sendcampaign.message_data WHERE run_id = $a GROUP BY 1;
		DELETE FROM sendcampaign.message_data WHERE run_id = $a;
		UPDATE sendcampaign.run_data SET sent = 0, state = 'running', finished_at = NULL WHERE id = $a;
		UPDATE sendcampaign.run_data SET timeline = '0/0', next_at = NULL WHERE id IN ($a, $b);
		UPDATE sendcampaign.batch SET due = NULL WHERE run_id = $b;
		UPDATE $second.groups SET configuration = configuration - 'quietHours';
		SELECT sendcampaign.wake()});
	ok(poll(sub
		{
			send_companion($node, $twilio, 'postgres');
			return sql("SELECT count(*) FROM sendcampaign.run WHERE id IN ($a, $b) AND finished_at IS NOT NULL") == 2;
		}, 60), "$name: both runs end");
	my ($sent, $all, $twice) = split /\|/, sql(qq{SELECT count(*) FILTER (WHERE status = 'sent'), count(*), count(sid) - count(DISTINCT sid)
		FROM sendcampaign.message_data WHERE run_id IN ($a, $b)});
	cmp_ok($sent, '<=', sent_with($twilio, $arg{message}), "$name: no more are recorded as sent than Twilio has");
	is($twice, 0, "$name: a SID is that of one message");
	is($all, 2, "$name: each has an outcome");
	wait_for_no_worker($node);
}
$node->stop;
done_testing();
