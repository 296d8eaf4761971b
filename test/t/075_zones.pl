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

# As SQL: twelve hours that end in half an hour, in UTC.
my $night = <<~'SQL';
    jsonb_build_object('quietHours', jsonb_build_object(
        'from', to_char(
            (now() - interval '12 h' + interval '30 min') AT TIME ZONE 'UTC', 'HH24:MI:SS'),
        'to', to_char((now() + interval '30 min') AT TIME ZONE 'UTC', 'HH24:MI:SS')))
SQL

# How many rows were written to a table, once no worker is there that may not have
# told yet.
sub written
{
	my $table = shift;
	wait_for_no_worker($node);
	return sql($node, <<~SQL);
	    SELECT n_tup_ins + n_tup_upd
	    FROM pg_stat_user_tables
	    WHERE relid = 'sendcampaign.$table'::regclass
	SQL
}

# Waits until a run has nothing to do before some later time, and its worker has
# left.
sub fall_asleep
{
	my $job = shift;
	wait_until($node, "SELECT next_at > now() FROM sendcampaign.run WHERE job_id = $job")
	  or diag("job $job did not fall asleep");
	wait_for_no_worker($node);
}

# Ends the quiet hours, and makes due what was put off.
sub wake_all
{
	my $job = shift;
	sql($node, <<~SQL);
	    UPDATE groups SET configuration = configuration - 'quietHours';
	    UPDATE sendcampaign.batch SET due = now();
	    UPDATE sendcampaign.run SET next_at = now() WHERE job_id = $job;
	    SELECT sendcampaign.wake();
	SQL
}

my $campaign = create_campaign($node, users => 10000);
sql($node, <<~SQL);
    UPDATE ac_list_users
    SET data = data || jsonb_build_object('timeZone', to_char(id % 24 - 11, '"Etc/GMT"SGFM99'));
    UPDATE groups SET configuration = configuration || $night;
SQL
is(sql($node, <<~'SQL'), '24|Etc/GMT+0', 'there are recipients in 24 zones');
    SELECT count(DISTINCT data->>'timeZone'), min(data->>'timeZone' COLLATE "C")
    FROM ac_list_users
SQL
my $job = start_campaign($node, $campaign);
fall_asleep($job);
my $asleep = 10000 - run_row($node, $job)->{sent};
cmp_ok($asleep, '>', 4900, 'half of them sleep');
cmp_ok($asleep, '<', 5100, 'and half do not');
is(sql($node, <<~'SQL'), "$asleep|12", "they are put off until each zone's morning");
    SELECT sum(cardinality(list_user_ids)), count(DISTINCT due) FROM sendcampaign.batch
SQL
cmp_ok(sql($node, 'SELECT count(*) FROM sendcampaign.batch'), '<=', 12 * 3, 'in few batches');
is(sql($node, 'SELECT max(cardinality(list_user_ids)) <= 256 FROM sendcampaign.batch'),
	't', 'none of the batches is too large');
is(sql($node, <<~'SQL'), 0, 'everyone is in one batch');
    SELECT count(*) - count(DISTINCT id)
    FROM (SELECT unnest(list_user_ids) FROM sendcampaign.batch) b(id)
SQL

my $claims = written('claim');
wake_all($job);
sent_once($node, $twilio, $campaign, $job, 'in the morning', total => 10000);
cmp_ok(written('claim') - $claims, '<=', 12 * 3 + 5, 'in few claims');
is($twilio->stats->{accepted}, 10000, 'each has it once');

# A slow sender does not put them off one by one.
$campaign = create_campaign($node, users => 1000);
sql($node, <<~SQL);
    UPDATE groups
    SET configuration = configuration
        || '{"twilioSegmentsPerSecond": 1, "timeZone": "UTC"}'
        || $night
SQL
my $batches = written('batch');
$job = start_campaign($node, $campaign);
my $run_id = run_of($job);
fall_asleep($job);
cmp_ok(written('batch') - $batches, '<=', 30, 'a slow sender: they are put off in few batches');
is(sql($node, <<~SQL), 1000, 'a slow sender: all are put off');
    SELECT sum(cardinality(list_user_ids)) FROM sendcampaign.batch WHERE run_id = $run_id
SQL

$node->stop;
is(worker_errors($node), '', 'no worker complains');
done_testing();
