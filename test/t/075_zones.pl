# Ten thousand recipients all over the world: half of them sleep, and neither
# they nor the others take a transaction each.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../perl";
use Campaign;
use LocalTwilio;
use Test::More;

my $twilio = LocalTwilio->start;
my $node = new_cluster('zones', $twilio);
my $night = q{jsonb_build_object('quietHours', jsonb_build_object(
	'from', to_char((now() - interval '12 h' + interval '30 min') AT TIME ZONE 'UTC', 'HH24:MI:SS'),
	'to', to_char((now() + interval '30 min') AT TIME ZONE 'UTC', 'HH24:MI:SS')))};

sub sql { my $sql = shift; return $node->safe_psql('postgres', $sql); }
# Rows written to a table, once no worker is there that may not have told yet
sub written
{
	my $table = shift;
	wait_for_no_worker($node);
	return sql("SELECT n_tup_ins + n_tup_upd FROM pg_stat_user_tables WHERE relid = 'sendcampaign.$table'::regclass");
}
sub fall_asleep
{
	my $job = shift;
	$node->poll_query_until('postgres', "SELECT next_at > now() FROM sendcampaign.run WHERE job_id = $job")
	  or diag("job $job did not fall asleep");
	wait_for_no_worker($node);
}
sub wake_all
{
	my $job = shift;
	sql("UPDATE groups SET configuration = configuration - 'quietHours'; UPDATE sendcampaign.batch SET due = now();
		UPDATE sendcampaign.run SET next_at = now() WHERE job_id = $job; SELECT sendcampaign.wake()");
}

my $campaign = create_campaign($node, users => 10000);
sql("UPDATE ac_list_users SET data = data || jsonb_build_object('timeZone', to_char(id % 24 - 11, '\"Etc/GMT\"SGFM99'));
	UPDATE groups SET configuration = configuration || $night");
is(sql("SELECT count(DISTINCT data->>'timeZone'), min(data->>'timeZone' COLLATE \"C\") FROM ac_list_users"), '24|Etc/GMT+0', 'zones');
my $job = start_campaign($node, $campaign);
fall_asleep($job);
my $asleep = 10000 - run_row($node, $job)->{sent};
cmp_ok($asleep, '>', 4900, 'half of them sleep');
cmp_ok($asleep, '<', 5100, 'and half do not');
is(sql('SELECT sum(cardinality(list_user_ids)), count(DISTINCT due) FROM sendcampaign.batch'), "$asleep|12", 'put off until each zone\'s morning');
cmp_ok(sql('SELECT count(*) FROM sendcampaign.batch'), '<=', 12 * 3, 'in few batches');
is(sql('SELECT max(cardinality(list_user_ids)) <= 256 FROM sendcampaign.batch'), 't', 'none of them too large');
is(sql('SELECT count(*) - count(DISTINCT id) FROM (SELECT unnest(list_user_ids) FROM sendcampaign.batch) b(id)'), 0, 'everyone once');

my $claims = written('claim');
wake_all($job);
sent_once($node, $twilio, $campaign, $job, 'in the morning', total => 10000);
cmp_ok(written('claim') - $claims, '<=', 12 * 3 + 5, 'in few claims');
is($twilio->stats->{accepted}, 10000, 'each has it once');

# A slow sender does not put them off one by one.
$campaign = create_campaign($node, users => 1000);
sql("UPDATE groups SET configuration = configuration || '{\"twilioSegmentsPerSecond\": 1, \"timeZone\": \"UTC\"}' || $night");
my $batches = written('batch');
$job = start_campaign($node, $campaign);
fall_asleep($job);
cmp_ok(written('batch') - $batches, '<=', 30, 'a slow sender: put off in few batches');
is(sql("SELECT sum(cardinality(list_user_ids)) FROM sendcampaign.batch WHERE run_id = ${\ run_of($job)}"), 1000, 'a slow sender: all are put off');

$node->stop;
is(worker_errors($node), '', 'no worker complained');
done_testing();
