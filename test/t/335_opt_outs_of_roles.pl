# Citus: opt-outs of one role keep nobody else's from being told: long reasons, rows that
# another node cannot take, very many of them; and an opt-in removes no other role's.
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
my $citus = Citus->new('roles', $twilio, workers => 2);
my ($coordinator, $first, $second) = $citus->nodes;
sql($coordinator, 'CREATE ROLE other');
sql($_, 'GRANT INSERT ON sendcampaign.opt_out TO other') for $citus->nodes;
sql($_, 'GRANT USAGE ON SCHEMA sendcampaign TO other') for $citus->nodes;
my $left = 'SELECT sendcampaign.opt_outs_left()';
ok(wait_until($_, $left, expected => 0), 'all nodes are known') for $citus->nodes;

sub opt_out
{
	my ($node, $phone, $role) = @_;
	return sql($node, "SELECT sendcampaign.opt_out('$phone')", role => $role // 'app');
}

# Without what administrators change on a node being handed on to others
sub change
{
	my ($node, $sql) = @_;
	return sql($node, "SET citus.enable_ddl_propagation = off; $sql");
}

# A query for how many opt-outs of a phone number there are.
sub count_of
{
	my $phone = shift;
	return "SELECT count(*) FROM sendcampaign.opt_out_data WHERE phone = '$phone'";
}

# A long reason stays where it was given, and others get its beginning
my $phone = '+15550000001';
my $length = "SELECT length(reason) FROM sendcampaign.opt_out_data WHERE phone = '$phone'";
sql($coordinator,
	"SELECT sendcampaign.opt_out('$phone', reason => repeat('é', 100000))",
	role => 'app');
ok(wait_until($_, $length, expected => 1000), 'a long reason is told') for $first, $second;
is(sql($coordinator, $length), 100000, 'it is kept');
ok(wait_until($coordinator, $left, expected => 0), 'all are told');

# One of a time when there was one server
sql($coordinator, 'DELETE FROM sendcampaign.opt_out_change');
sql($first, 'SELECT sendcampaign.share_opt_outs(everything => true)');
ok(wait_until($first, $left, expected => 0), 'told by others');
is(sql($coordinator, $length), 100000, 'it is kept, still');
sql($first, 'DELETE FROM sendcampaign.opt_out_data; DELETE FROM sendcampaign.opt_out_change');
sql($coordinator, 'DELETE FROM sendcampaign.opt_out_change');
sql($coordinator, 'SELECT sendcampaign.share_opt_outs(everything => true)');
ok(wait_until($first, $length, expected => 1000), 'its beginning is told from there');

# A node cannot take one of them
my ($bad, $good) = ('+15550000002', '+15550000003');
change($first, "ALTER TABLE sendcampaign.opt_out_data ADD CONSTRAINT bad CHECK (phone <> '$bad')");
opt_out($coordinator, $_) for $bad, $good;
ok(wait_until($_, count_of($good), expected => 1), 'an error of one') for $first, $second;
my $error = qr/LOG:  sendcampaign: could not take an opt-out that another node tells: new row /;
ok(poll(sub { log_of($first) =~ $error }), '... is logged');
is(sql($first, count_of($bad)), 0, '... which is not there');
change($first, 'ALTER TABLE sendcampaign.opt_out_data DROP CONSTRAINT bad');
ok(wait_until($first, count_of($bad), expected => 1), '... until it can be');

# What a node answers makes the whole step fail
change($first, <<~'SQL');
	ALTER FUNCTION sendcampaign.take_opt_outs(jsonb) RENAME TO away;
	CREATE FUNCTION sendcampaign.take_opt_outs(text) RETURNS text LANGUAGE sql RETURN 'done'
	SQL
opt_out($coordinator, '+15550000004');
ok(wait_until($second, count_of('+15550000004'), expected => 1), 'an error of a step');
ok(wait_until($coordinator, <<~'SQL', expected => 1), '... is noted for the node');
	SELECT node_group FROM sendcampaign.opt_out_node
	WHERE failures > 0 AND error LIKE 'invalid input syntax for type json%'
	SQL
change($first, <<~'SQL');
	DROP FUNCTION sendcampaign.take_opt_outs(text);
	ALTER FUNCTION sendcampaign.away(jsonb) RENAME TO take_opt_outs
	SQL
ok(wait_until($first, count_of('+15550000004'), expected => 1), '... which is told later');
ok(wait_until($coordinator, $left, expected => 0), 'all are told');

# A role has the name of one that was dropped
$phone = '+15550000005';
opt_out($first, $phone, 'other');
ok(wait_until($coordinator, count_of($phone), expected => 1), 'a role opts out');
change($first, 'DROP OWNED BY other');
change($_, 'DROP OWNED BY other') for $coordinator, $second;
sql($coordinator, 'DROP ROLE other; CREATE ROLE other');
sql($_, 'GRANT INSERT ON sendcampaign.opt_out TO other') for $citus->nodes;
sql($_, 'GRANT USAGE ON SCHEMA sendcampaign TO other') for $citus->nodes;
opt_out($first, $phone, 'other');
ok(wait_until($_, count_of($phone), expected => 2), 'another one has its name') for $citus->nodes;
is(sql($first, "SELECT sendcampaign.opt_in('$phone')", role => 'other'), 't', '... and opts in');
is(sql($first, count_of($phone)), 1, 'the opt-out of the former one stays');
ok(wait_until($first, $left, expected => 0), 'that is told');
cmp_ok(sql($_, count_of($phone)), '>', 0, '... and stays everywhere') for $coordinator, $second;
is(sql($first, "SELECT sendcampaign.opt_in('$phone')"), 't', 'a superuser opts in');
ok(wait_until($_, count_of($phone), expected => 0), '... everywhere') for $citus->nodes;

# Two such opt-outs are deleted at once
sql($first, <<~"SQL");
	INSERT INTO sendcampaign.opt_out_data (phone, role, role_oid)
	VALUES ('$phone', 'other', 1), ('$phone', 'other', 2)
	SQL
ok(wait_until($second, count_of($phone), expected => 1), 'two roles had one name');
my ($one, $two) = map { Session->open($first) } 1, 2;
my $delete = "DELETE FROM sendcampaign.opt_out_data WHERE phone = '$phone' AND role_oid =";
$one->query("BEGIN; $delete 1");
$two->start_query("$delete 2");
ok(waits_for_lock($first, 'DELETE FROM%'),
	'the opt-out of one is deleted while that of the other is');
$one->query('COMMIT');
$two->finish_query;
is($one->errors . $two->errors, '', '... without an error');
is(sql($first, "SELECT opted_out FROM sendcampaign.opt_out_change WHERE phone = '$phone'"),
	'f', '... and none is left');
ok(wait_until($second, count_of($phone), expected => 0), '... which is told');
$_->close for $one, $two;

# Very many of one role, and one of another; nobody tells them for now
my $lock = Session->open($coordinator);
$lock->query('BEGIN; SELECT FROM sendcampaign.opt_out_node FOR UPDATE');
sql($coordinator, <<~'SQL');
	INSERT INTO sendcampaign.opt_out_data (phone, role, role_oid)
	SELECT '+1444' || lpad(i::text, 7, '0'), 'other', 'other'::regrole
	FROM generate_series(1, 20000) i
	SQL
my $last = '+15550000006';
opt_out($coordinator, $last);
sql($coordinator, <<~'SQL');
	INSERT INTO sendcampaign.opt_out_data (phone, role, role_oid)
	SELECT '+1666' || lpad(i::text, 7, '0'), 'other', 'other'::regrole
	FROM generate_series(1, 20000) i
	SQL
my $step = <<~"SQL";
	BEGIN;
	SELECT count(*), count(*) FILTER (WHERE c->>'phone' = '$last'), bool_and(more)
	FROM sendcampaign.waiting_opt_outs(
		jsonb_populate_record(NULL::sendcampaign.opt_out_node, '{"node_group": 1}'),
		2000, 'infinity'), jsonb_array_elements(changes) c;
	SELECT sum(seq_tup_read + idx_tup_fetch) < 3000 FROM pg_stat_xact_user_tables
	WHERE relname = 'opt_out_change';
	COMMIT
	SQL
like(sql($coordinator, $step), qr/^(?:9\d\d|1001)\|1\|t\nt$/, 'each role has a share in a step');
is(sql($coordinator, "SELECT sendcampaign.tell_opt_outs(1, '1 hour')"),
	0, 'nothing of an hour ago is waited for');
is(sql($coordinator, 'SELECT sendcampaign.tell_opt_outs(1)'), 2, 'something of now is');
$lock->query('COMMIT');
$lock->close;
ok(wait_until($_, count_of($last), expected => 1), 'it is told') for $first, $second;
ok(wait_until($coordinator, $left, expected => 0), 'all are told');

# Locks of one role
$lock = Session->open($first);
my $many = <<~'SQL';
	SELECT count(sendcampaign.opt_out('+1777' || lpad(i::text, 7, '0')))
	FROM generate_series(1, 3000) i
	SQL
$lock->query("SET ROLE other; BEGIN; $many");
sql($coordinator, $many, role => 'other');
$last = '+15550000007';
opt_out($coordinator, $last);
ok(wait_until($first, count_of($last), expected => 1), 'beside what a role has locked');
$lock->query('ROLLBACK');
$lock->close;
ok(wait_until($coordinator, $left, expected => 0), 'all are told');

# A transaction goes on for long that has changed what waits
$lock = Session->open($coordinator);
$lock->query('BEGIN; SELECT FROM sendcampaign.opt_out_node FOR UPDATE');
sql($coordinator, $many =~ s/1777/1888/r, role => 'other');
my $changes = Session->open($coordinator);
$changes->query('BEGIN; ' . $many =~ s/1777/1888/r =~ s/opt_out/opt_in/r);
$lock->query('COMMIT');
$lock->close;
my $tell = "SELECT sendcampaign.tell_opt_outs(1, '0')";
ok(poll(sub { sql($coordinator, $tell) == 0 }), 'nobody waits for the end');
$changes->query('COMMIT');
$changes->close;
ok(wait_until($coordinator, $left, expected => 0), 'all are told');
$citus->stop;
done_testing();
