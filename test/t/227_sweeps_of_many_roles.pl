# The runs of many roles are due to be swept at once: few workers do that, one
# role after the other, and leave slots for those that send.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../perl";
use Campaign;
use LocalTwilio;
use Session;
use Test::More;

my $twilio = LocalTwilio->start;
my $node = new_cluster('many_roles', $twilio, conf => <<~'CONF');
	max_worker_processes = 8
	log_min_messages = debug1
	CONF
$twilio->set('sent-after' => 0, 'deliver-after' => 0);

my @tenants = map { "tenant$_" } 1 .. 12;
for my $tenant (@tenants)
{
	make_tenant($node, $tenant);
	sql($node, <<~"SQL", user => $tenant);
		SET sendcampaign.schema = '$tenant';
		SELECT send_campaign(1)
		SQL
	wait_until($node, <<~"SQL");
		SELECT state = 'completed' FROM sendcampaign.run WHERE id = ${\run_of_tenant($tenant)}
		SQL
}
wait_for_no_worker($node);

my $all_are_due = 'UPDATE sendcampaign.run_data SET sweep_at = now() WHERE sweep_at IS NOT NULL';
my $due = 'SELECT count(*) FROM sendcampaign.run_data WHERE sweep_at <= now()';

# How many workers have work: one that has handed it on may be about to exit.
sub num_working
{
	return sql($node, <<~'SQL');
		SELECT count(*) FROM pg_locks
		WHERE locktype = 'object' AND classid = 'pg_authid'::regclass AND objsubid = 1
			AND mode = 'ExclusiveLock' AND granted
		SQL
}

# Sees how many work until the query gives true; returns the most.
sub most_until
{
	my $query = shift;
	my $most = 0;
	poll(sub {
		my $workers = num_working();
		$most = $workers if $workers > $most;
		return sql($node, $query) eq 't';
	});
	return $most;
}

# None of them can be swept: each is tried once, and that is all.
{
	sql($node, $all_are_due);
	my $holder = Session->open($node);
	$holder->query('BEGIN; SELECT FROM sendcampaign.run_data FOR UPDATE');
	ok(wake($node) > 0 && no_worker_is_to_come($node), 'runs that are locked: workers try them');
	is(sql($node, $due), 12, 'runs that are locked stay due, and nobody waits for them');
	$holder->close;
}

# Each answer takes a while, and somebody sends meanwhile.
$twilio->set('latency' => 300);
my $campaign = create_campaign($node, users => 3);
sql($node, $all_are_due);
sql($node, 'SELECT sendcampaign.wake()');
my $job = start_campaign($node, $campaign);
my $most = most_until("SELECT count(*) = 0 FROM ($due) d WHERE count > 0");
is(sql($node, $due), 0, 'all are swept');
cmp_ok($most, '<=', 3, 'by two at a time, and one that sends');
wait_until($node, <<~"SQL");
	SELECT state = 'completed' FROM sendcampaign.run WHERE id = ${\run_of($job)}
	SQL
pass('what was queued meanwhile is sent');
is(sql($node, <<~'SQL'), '12|12', 'it is known what became of each message');
	SELECT sum(sent), sum(delivered) FROM sendcampaign.run WHERE schema LIKE 'tenant%'
	SQL
unlike(log_of($node), qr/could not start a sendcampaign worker/, 'slots were left');

is(worker_errors($node), '', 'workers have no errors');
$node->stop;
done_testing();
