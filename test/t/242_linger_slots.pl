# Workers that stay after their last run keep no slot from anybody.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../perl";
use Campaign;
use LocalTwilio;
use PostgreSQL::Test::Utils;
use Session;
use Test::More;

my $twilio = LocalTwilio->start;
my $node = new_cluster('slots', $twilio, linger => 600000, conf => <<~'CONF');
	max_worker_processes = 8
	max_logical_replication_workers = 0
	sendcampaign.receipts = off
	CONF
my @roles = map { "tenant$_" } 1 .. 10;
make_tenant($node, $_, base_url => undef) for @roles;

sub workers
{
	return sql($node, <<~'SQL');
		SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'sendcampaign worker'
		SQL
}


# One after another: each role's run is sent, less than half of the slots are
# kept, and nobody is warned.
my $warnings = '';
for my $role (@roles)
{
	my (undef, $stderr) = sql_output(
		$node,
		"SET sendcampaign.schema = $role; SELECT send_campaign(1, NULL)",
		user => $role);
	$warnings .= $stderr;
	ok(poll(sub { sent_with($twilio, "From $role") == 1 }), "$role: its message is sent");
	ok(poll(sub { workers() <= 3 }), "$role: enough slots are free");
}
is($warnings, '', 'nobody is warned');

# All at once, while as many linger as may
my @sessions = map { Session->open($node) } @roles[ 0 .. 6 ];
$sessions[$_]->query("SET ROLE $roles[$_]; SET sendcampaign.schema = $roles[$_]") for 0 .. 6;
my $warned;
for (1 .. 5)
{
	$twilio->set(reset => 1, hold => 1);
	$sessions[$_]->start_query('SELECT send_campaign(1, NULL)') for 0 .. 6;
	$_->finish_query for @sessions;
	$warned = join '', map { $_->take_errors } @sessions;
	last if $warned eq '';

	# on a busy machine, those that linger may leave later than callers wait
	$twilio->set(hold => 0);
	poll(sub { wake($node); scalar $twilio->ledger == 7 });
	poll(sub { workers() <= 3 });
}
is($warned, '', 'seven at once are not warned');
ok(poll(sub { $twilio->stats->{create_in_flight} == 7 }), 'all of them are sending');
$twilio->set(hold => 0);
ok(poll(sub { scalar $twilio->ledger == 7 }), 'their messages are sent');
ok(poll(sub { workers() <= 3 }), 'and enough slots are free again');
$_->close for @sessions;

# A role's workers that linger do not count against its share.  Slots are taken
# by others while they do.
clone_database($node, $_, $twilio) for map { "shop$_" } 1 .. 6;
$twilio->set(reset => 1);
for my $db (map { "shop$_" } 1 .. 6)
{
	my $campaign = create_campaign($node, db => $db, users => 1, message => "In $db");
	my (undef, $stderr) =
	  sql_output($node, "SELECT send_campaign($campaign)", db => $db, role => 'app');
	is($stderr, '', "$db: nobody is warned");
	ok(poll(sub { sent_with($twilio, "In $db") == 1 }), "$db: it is sent");
	wait_until($node, <<~'SQL');
		SELECT count(*) = 0 FROM pg_stat_activity
		WHERE backend_type = 'sendcampaign worker' AND query <> 'waiting for the next campaign'
		SQL
}
ok(poll(sub { scalar $twilio->ledger == 6 }), 'a role sends in many databases');
ok(poll(sub { workers() <= 3 }), 'and leaves slots free');

# Few slots: nobody lingers.
$node->append_conf('postgresql.conf', 'max_worker_processes = 1');
$node->restart;
my $campaign = create_campaign($node, users => 1, message => 'Few');
for my $count (1, 2)
{
	start_campaign($node, $campaign);
	ok(poll(sub { sent_with($twilio, 'Few') == $count }), 'with one slot, a run is sent');
	ok(worker_is_gone($node, 10), 'and no worker stays');
}

$node->stop;
is(worker_errors($node), '', 'no worker met an error');
done_testing();
