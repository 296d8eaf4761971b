# Citus: a node whose commits hang keeps opt-outs from no other node; opt-outs are told
# while sending is switched off; a worker that waits for them keeps nobody waiting.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../perl";
use Campaign;
use Session;
use Citus;
use LocalTwilio;
use Test::More;

need_citus();
my $twilio = LocalTwilio->start;
my $citus = Citus->new('hangs', $twilio, workers => 2);
my ($coordinator, $first, $second) = $citus->nodes;
my $there = $citus->add_tenant('there', users => 20, on => 2);
my $next = $citus->add_campaign($there);

# Enough for several steps
sql($coordinator, <<~'SQL');
	INSERT INTO sendcampaign.opt_out_data (phone, role, role_oid)
	SELECT '+1444' || lpad(i::text, 7, '0'), 'app', 'app'::regrole
	FROM generate_series(1, 2500) i
	SQL
my $left = 'SELECT sendcampaign.opt_outs_left()';
ok(wait_until($_, $left, expected => 0), 'all are told') for $citus->nodes;

sub opt_out
{
	my $phone = shift;
	return sql($coordinator, "SELECT sendcampaign.opt_out('$phone')", role => 'app');
}

sub has
{
	my ($node, $phone) = @_;
	my $count = "SELECT count(*) FROM sendcampaign.opt_out_data WHERE phone = '$phone'";
	return wait_until($node, $count, expected => 1);
}

# Which nodes are known not to have it.
sub waiting
{
	my $phone = shift;
	return "SELECT waiting FROM sendcampaign.opt_out_change WHERE phone = '$phone'";
}

# A worker waits, since the other node does not answer; a checkpoint has nothing to do then
sql($second, 'CREATE DATABASE dropped');
sql($second, 'CHECKPOINT');
my $lock = Session->open($coordinator);
$lock->query('BEGIN; LOCK TABLE sendcampaign.opt_out_node');
$citus->call($second, $there);
my $processes = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'sendcampaign %s'";
ok(wait_until($second, sprintf($processes, 'courier'), expected => 1), 'a worker asks');
{
	local $ENV{PGOPTIONS} = '-c statement_timeout=6s';
	is(sql($second, 'DROP DATABASE dropped'), '', 'nobody waits for it');
}
is(sql($second, 'SELECT sent FROM sendcampaign.run'), 0, 'it sends nothing before');
$lock->query('COMMIT');
$lock->close;
$citus->sent_once($there, 'after it has been told');

# Commits of a node hang
set_and_reload($first, 'synchronous_standby_names', 'nobody');
opt_out('+15550000001');
ok(wait_until($coordinator, waiting('+15550000001'), expected => '{1}'), 'others are told');
ok(wait_until($coordinator, <<~'SQL', expected => 't'), 'that node is tried later');
	SELECT failures > 0 AND error IN ('it takes too long', 'all of it is locked there')
	FROM sendcampaign.opt_out_node
	WHERE node_group = 1
	SQL
like(
	log_of($coordinator),
	qr/could not share opt-outs with other nodes: it takes too long/,
	'... as it takes too long');
opt_out('+15550000002');
ok(wait_until($coordinator, waiting('+15550000002'), expected => '{1}'), 'others, and at once');
ok(has($second, "+1555000000$_"), 'they have it') for 1 .. 2;
sql($coordinator, 'SELECT sendcampaign.share_opt_outs(everything => true)');
ok(wait_until($coordinator, <<~'SQL', expected => 't'), 'others are told everything, again');
	SELECT has_all FROM sendcampaign.opt_out_node WHERE node_group = 2
	SQL
$citus->call($second, $next);
my $sent = "SELECT sent FROM sendcampaign.run WHERE job_id = $next->{job}";
ok(wait_until($second, $sent, expected => 20), 'meanwhile, campaigns are sent');
set_and_reload($first, 'synchronous_standby_names', '');
my $at_once = "UPDATE sendcampaign.opt_out_node SET retry_at = '-infinity'";
ok(poll(sub { sql($coordinator, $at_once); sql($coordinator, $left) == 0 }), 'nothing is left');
ok(has($first, "+1555000000$_"), 'it has what it has missed') for 1 .. 2;

# Sending is switched off
$citus->kill_node($first);
opt_out('+15550000003');
ok(wait_until($coordinator, <<~'SQL', expected => 't'), 'a node is down');
	SELECT failures > 0 FROM sendcampaign.opt_out_node WHERE node_group = 1
	SQL
set_and_reload($coordinator, 'sendcampaign.enabled', 'off');
$coordinator->restart;
ok(wait_until($coordinator, sprintf($processes, 'courier'), expected => 1),
	'opt-outs are told while sending is switched off');
$first->start;
sql($coordinator, $at_once);
ok(has($first, '+15550000003'), 'also to a node that is back');
$citus->stop;
done_testing();
