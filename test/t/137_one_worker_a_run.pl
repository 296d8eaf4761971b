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
my $node = new_cluster('one_worker', $twilio, conf => <<~CONF);
	sendcampaign.request_timeout = '20s'
	sendcampaign.lookup_delay = '300ms'
	sendcampaign.max_concurrency = 20
	CONF
sql($node, <<~SQL);
	CREATE ROLE boss LOGIN;
	GRANT app TO boss;
	GRANT USAGE ON SCHEMA sendcampaign TO boss;
	GRANT SELECT, INSERT, UPDATE ON ALL TABLES IN SCHEMA public TO boss;
	GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO boss;
	SQL

# A run fails while answers are missing; another role takes it up at once.
my %fault_of = (
	'+15550000001' => 'never-after',
	'+15550000002' => 'never-after',
	'+15550000030' => 'code:20003');
my $campaign = create_campaign($node, users => 100);
$twilio->set(map { ('to-fault' => "$_=$fault_of{$_}") } keys %fault_of);
my $job = start_campaign($node, $campaign);
is(wait_for_run($node, $job, state => 'failed')->{state},
	'failed', 'a run fails with messages in doubt');
$twilio->set(map { ('to-fault' => "$_=none") } keys %fault_of);
is(scalar worker_pids($node), 1, 'its worker is still there');
start_campaign($node, $campaign, job => $job, role => 'boss');
sent_once($node, $twilio, $campaign, $job, 'taken up by another role', total => 100);
is(sql($node, "SELECT role FROM sendcampaign.run WHERE job_id = $job"),
	'boss', q{it is that role's run});
wait_for_no_worker($node);

# A campaign to 50 phone numbers, in the last group.
sub create_small_campaign
{
	return sql($node, <<~SQL);
		WITH l AS (
		    INSERT INTO ac_lists (group_id) SELECT max(id) FROM groups RETURNING id
		), u AS (
		    INSERT INTO ac_list_users (ac_list_id, data)
		    SELECT l.id, jsonb_build_object('sms', '+1777' || lpad(i::text, 7, '0'))
		    FROM l, generate_series(1, 50) i
		)
		INSERT INTO ac_campaigns (ac_list_id, data)
		    SELECT id, '{"message": "x", "baseUrl": "https://example.org"}'
		    FROM l
		    RETURNING id
		SQL
}

# Two roles swap their names in mid-run, and both are called upon.
$twilio->set(reset => 1);
my @campaigns = map { create_campaign($node, users => 400) } 1 .. 2;
$twilio->set(hold => 1);
my @jobs = (
	start_campaign($node, $campaigns[0], role => 'app'),
	start_campaign($node, $campaigns[1], role => 'boss'));
wait_for_flight($twilio, 30);
sql($node, <<~SQL);
	ALTER ROLE app RENAME TO other;
	ALTER ROLE boss RENAME TO app;
	ALTER ROLE other RENAME TO boss;
	SELECT sendcampaign.wake();
	SQL
$twilio->set(hold => 0);
# runs are queued under both names while the others are under way
push @campaigns, create_small_campaign(), create_small_campaign();
push @jobs,
  start_campaign($node, $campaigns[2], role => 'app'),
  start_campaign($node, $campaigns[3], role => 'boss');
for my $i (0 .. 3)
{
	my $total = $i < 2 ? 400 : 50;
	my $name = "names swapped, run $i";
	sent_once($node, $twilio, $campaigns[$i], $jobs[$i], $name, total => $total);
}
my $jobs = join ', ', @jobs;
my $roles = sql($node, <<~SQL);
	SELECT string_agg(role, ' ' ORDER BY id) FROM sendcampaign.run WHERE job_id IN ($jobs)
	SQL
is($roles, 'boss app app boss', 'runs are shown under the new names');
is(worker_errors($node), '', 'no errors in the log');
$node->stop;
done_testing();
