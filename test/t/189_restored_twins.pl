# Two list users have one phone.  The first, who was to get the message, was
# skipped before a dump was loaded into the database: the second still gets it.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../perl";
use Campaign;
use LocalTwilio;
use Test::More;

my $twilio = LocalTwilio->start;
my $node = new_cluster('restored_twins', $twilio, conf => <<~'CONF');
	sendcampaign.request_timeout = '1s'
	sendcampaign.lookup_delay = 0
	sendcampaign.lookup_timeout = '1s'
	CONF

for my $case ([ 'with links', 'https://example.org/a' ], [ 'without links', undef ])
{
	my ($name, $base_url) = @$case;
	my $campaign = create_campaign($node, users => 300, base_url => $base_url);
	my $group = group_of($campaign);
	my $ids = sql($node, <<~SQL);
		SELECT min(id), max(id)
		FROM ac_list_users
		WHERE ac_list_id = (SELECT ac_list_id FROM ac_campaigns WHERE id = $campaign)
		SQL
	my ($first, $second) = split /\|/, $ids;

	# it is night for the first, who is put off; the second is in a later batch
	sql($node, <<~SQL);
		UPDATE ac_list_users
		SET data = data || '{"sms": "+15550001111"}'
		WHERE id IN ($first, $second);
		UPDATE ac_list_users SET data = data || '{"timeZone": "UTC"}' WHERE id = $first;
		UPDATE groups
		SET configuration = configuration || jsonb_build_object(
		    'timeZone', 'Etc/GMT+12',
		    'quietHours', jsonb_build_object(
		        'from', to_char(now() AT TIME ZONE 'UTC' - interval '1 hour', 'HH24:MI'),
		        'to', to_char(now() AT TIME ZONE 'UTC' + interval '2 hours', 'HH24:MI')))
		WHERE id = $group;
		SQL
	set_and_reload($node, 'sendcampaign.request_timeout', '60s');
	$twilio->set(reset => 1, hold => 1);
	my $job = start_campaign($node, $campaign);
	wait_for_flight($twilio, 5);
	sql($node, "SELECT sendcampaign.pause($job)");
	$twilio->set(hold => 0);
	wait_for_no_worker($node);
	set_and_reload($node, 'sendcampaign.request_timeout', '1s');
	my $run = run_of($job);
	is(sql($node, "SELECT list_user_id FROM sendcampaign.chosen WHERE run_id = $run"),
		$first, "$name: the first is chosen");

	# the first was skipped, as rows say that were loaded
	sql($node, <<~SQL);
		INSERT INTO sendcampaign.message_data (run_id, list_user_id, status, error_message,
		    written_in)
		SELECT $run, $first, 'skipped', 'no phone number', '3';
		UPDATE sendcampaign.batch
		SET list_user_ids = array_remove(list_user_ids, ${first}::bigint)
		WHERE run_id = $run;
		UPDATE sendcampaign.run_data
		SET skipped = skipped + 1, timeline = '0/0'
		WHERE id = $run;
		UPDATE groups SET configuration = configuration - 'quietHours' WHERE id = $group;
		SELECT sendcampaign.resume($job);
		SQL
	my $state = "SELECT state FROM sendcampaign.run WHERE job_id = $job";
	my $is_completed = sub {
		send_companion($node, $twilio, 'postgres');
		return sql($node, $state) eq 'completed';
	};
	ok(poll($is_completed), "$name: the run completes");
	is(sql($node, <<~SQL), 'sent', "$name: the second gets it");
		SELECT status
		FROM sendcampaign.message
		WHERE job_id = $job AND list_user_id = $second
		SQL
	is(scalar(grep { $_->{to} eq '+15550001111' } $twilio->ledger), 1, "$name: once");
	wait_for_no_worker($node);
}
$node->stop;
done_testing();
