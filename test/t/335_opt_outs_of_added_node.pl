# Citus: a node that is added has all opt-outs before it sends, however many there are,
# and one that was disabled learns what it has missed.
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
my $steps = 4;
my $others = 2000 * ($steps - 1);
my $twilio = LocalTwilio->start;
my $citus = Citus->new('added', $twilio, workers => 0);
my ($coordinator) = $citus->nodes;
my $here = $citus->add_tenant('here', users => 20);
my ($last, $open, $missed) = map { "$here->{prefix}0000$_" } 1 .. 3;

# All phone numbers of this tenant come after those
sql($coordinator, <<~"SQL");
	INSERT INTO sendcampaign.opt_out_data (phone, role, role_oid)
	SELECT '+1444' || lpad(i::text, 7, '0'), 'app', 'app'::regrole
	FROM generate_series(1, $others) i;
	SET ROLE app;
	SELECT sendcampaign.opt_out('$last')
	SQL

sub has
{
	my ($node, $phone) = @_;
	return sql($node, "SELECT count(*) FROM sendcampaign.opt_out_data WHERE phone = '$phone'");
}

# How many are skipped of those to whom a campaign is sent from there.
sub skipped
{
	my ($node, $campaign) = @_;
	$citus->call($node, $campaign);
	my $of_run = "WHERE job_id = $campaign->{job}";
	wait_until($node, "SELECT state FROM sendcampaign.run $of_run", expected => 'completed');
	return sql($node, "SELECT skipped FROM sendcampaign.run $of_run");
}

# One more is being opted out, and also by somebody who does not see what others commit
my $read_committed = Session->open($coordinator);
$read_committed->query("SET ROLE app; BEGIN; SELECT sendcampaign.opt_out('$open')");
my $repeatable_read = Session->open($coordinator);
$repeatable_read->query('SET ROLE app; BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1');
my $number = $citus->add_node;
my $added = $citus->node($number);
$citus->move($here, $number);

# As if it had been told nothing yet, and nobody told it before it asks
my $told = 'SELECT has_all OR last_phone IS NULL FROM sendcampaign.opt_out_node';
ok(wait_until($coordinator, $told), 'it is told all');
sql($coordinator, <<~'SQL');
	UPDATE sendcampaign.opt_out_node
	SET has_all = false, last_phone = '', failures = 1, retry_at = 'infinity'
	SQL
sql($added, 'TRUNCATE sendcampaign.opt_out_data, sendcampaign.opt_out_change');
is(skipped($added, $here), 1, 'a node that is added has all opt-outs before it sends');
is((scalar grep { $_->{to} eq $last } $twilio->ledger), 0, 'also the last one');

# All of them have been told; nothing that was opted out meanwhile waits for those
# transactions
my $later = '+14440000000';
sql($coordinator, "SELECT sendcampaign.opt_out('$later')", role => 'app');
ok(poll(sub { has($added, $later) == 1 }), 'what is opted out then is told at once');
is( sql($coordinator, 'SELECT last_phone IS NULL AND NOT has_all FROM sendcampaign.opt_out_node'),
	't',
	'it has to be told all once more');
my $snapshot = '+15550001111';
$repeatable_read->query("SELECT sendcampaign.opt_out('$snapshot')");
$read_committed->query('COMMIT');
$read_committed->close;
$repeatable_read->query('COMMIT');
$repeatable_read->close;
ok(poll(sub { has($added, $open) == 1 }), 'what was under way when it was added is told');
ok(poll(sub { has($added, $snapshot) == 1 }), 'also of a transaction that did not see it');
my $left = 'SELECT sendcampaign.opt_outs_left()';
ok(wait_until($coordinator, $left, expected => 0), 'then it has all');
is( sql($added, 'SELECT count(*) FROM sendcampaign.opt_out_data'),
	sql($coordinator, 'SELECT count(*) FROM sendcampaign.opt_out_data'),
	'as many as there are');

my $couriers = <<~'SQL';
	SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'sendcampaign courier'
	SQL
ok(wait_until($coordinator, $couriers, expected => 0), 'no process stays');

# A step reads what it tells, and not all
my $read = sql($coordinator, <<~'SQL');
	BEGIN;
	SELECT jsonb_array_length(changes), last FROM sendcampaign.known_opt_outs(
		jsonb_populate_record(NULL::sendcampaign.opt_out_node,
			'{"node_group": 1, "last_phone": "+14440003000"}'), 100);
	SELECT sum(seq_tup_read + idx_tup_fetch) < 1500 FROM pg_stat_xact_user_tables
	WHERE relname IN ('opt_out_data', 'opt_out_change');
	COMMIT
	SQL
is($read, "100|+14440003100\nt", 'a step reads what it tells');

# Everything once more, in as many steps
sql($coordinator, 'SELECT sendcampaign.share_opt_outs(everything => true)');
ok(wait_until($coordinator, $left, expected => 0), 'everything, again');

# A node that is disabled
$citus->move($here, 0);
my $address = "'127.0.0.1', " . $added->port;
sql($coordinator, "SELECT citus_disable_node($address, true)");
sql($coordinator, "SELECT sendcampaign.opt_out('$missed')", role => 'app');
is(sql($coordinator, $left), 1, 'what it misses is left');
ok(wait_until($coordinator, $couriers, expected => 0), 'no process stays for a disabled node');
my $next = $citus->add_campaign($here);
is(skipped($coordinator, $next), 3, 'meanwhile, campaigns are sent');
is(has($added, $missed), 0, 'it is not told');
sql($coordinator, "SELECT citus_activate_node($address)");
ok(poll(sub { has($added, $missed) == 1 }), 'it is told when it is active again');
ok(wait_until($coordinator, $left, expected => 0), 'nothing is left');
$citus->move($here, $number);
$next = $citus->add_campaign($here);
is(skipped($added, $next), 3, 'it skips them');
$citus->stop;
done_testing();
