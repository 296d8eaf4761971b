# Whatever roles take up a run, one after the other or under each other's
# names: one worker at a time has it, and each message is sent once.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../perl";
use Campaign;
use LocalTwilio;
use Test::More;

my $twilio = LocalTwilio->start(options => [ '--latency', 10 ]);
my $node = new_cluster('one_worker', $twilio, conf => q{
	sendcampaign.request_timeout = '2s'
	sendcampaign.lookup_delay = '300ms'
	sendcampaign.max_concurrency = 20
});
$node->safe_psql('postgres', q{
	CREATE ROLE boss LOGIN;
	GRANT app TO boss;
	GRANT USAGE ON SCHEMA sendcampaign TO boss;
	GRANT SELECT, INSERT, UPDATE ON ALL TABLES IN SCHEMA public TO boss;
	GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO boss;
});

sub phone { return sprintf '+1555%07d', shift; }

# A run fails while answers are missing; another role takes it up at once.
my $campaign = create_campaign($node, users => 100);
$twilio->set('to-fault' => phone(1) . '=never-after', 'to-fault' => phone(2) . '=never-after',
	'to-fault' => phone(30) . '=code:20003');
my $job = start_campaign($node, $campaign);
is(wait_for_run($node, $job, state => 'failed')->{state}, 'failed', 'a run fails with messages in doubt');
$twilio->set('to-fault' => phone(30) . '=none', 'to-fault' => phone(1) . '=none', 'to-fault' => phone(2) . '=none');
is(scalar worker_pids($node), 1, 'its worker is still there');
start_campaign($node, $campaign, job => $job, role => 'boss');
sent_once($node, $twilio, $campaign, $job, 'taken up by another role', total => 100);
is($node->safe_psql('postgres', "SELECT role FROM sendcampaign.run WHERE job_id = $job"), 'boss', 'it is that role\'s run');
wait_for_no_worker($node);

# Two roles swap their names in mid-run, and both are called upon.
$twilio->set(reset => 1);
my @campaigns = map { create_campaign($node, users => 400) } 1 .. 2;
$twilio->set(hold => 1);
my @jobs = (start_campaign($node, $campaigns[0]), start_campaign($node, $campaigns[1], role => 'boss'));
wait_for_flight($twilio, 30);
$node->safe_psql('postgres', q{
	ALTER ROLE app RENAME TO other; ALTER ROLE boss RENAME TO app; ALTER ROLE other RENAME TO boss;
	SELECT sendcampaign.wake();
});
$twilio->set(hold => 0);
# runs are queued under both names while the others are under way
push @campaigns, map { $node->safe_psql('postgres', qq{
	WITH l AS (INSERT INTO ac_lists (group_id) SELECT max(id) FROM groups RETURNING id),
	u AS (INSERT INTO ac_list_users (ac_list_id, data) SELECT l.id, jsonb_build_object('sms', '+1777' || lpad(i::text, 7, '0'))
		FROM l, generate_series(1, 50) i)
	INSERT INTO ac_campaigns (ac_list_id, data) SELECT id, '{"message": "x", "baseUrl": "https://example.org"}' FROM l RETURNING id}) } 1 .. 2;
push @jobs, start_campaign($node, $campaigns[2], role => 'app'), start_campaign($node, $campaigns[3], role => 'boss');
sent_once($node, $twilio, $campaigns[$_], $jobs[$_], "names swapped, run $_", total => $_ < 2 ? 400 : 50) for 0 .. 3;
is($node->safe_psql('postgres', "SELECT string_agg(role, ' ' ORDER BY id) FROM sendcampaign.run WHERE job_id IN (" . join(',', @jobs) . ')'),
	'boss app app boss', 'runs are shown under the new names');
is(worker_errors($node), '', 'no errors in the log');
$node->stop;
done_testing();
