# The trigger function of the extension's tables on somebody else's.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../perl";
use Campaign;
use LocalTwilio;
use Test::More;

my $twilio = LocalTwilio->start;
my $node = new_cluster('trigger_function', $twilio, conf => "restart_after_crash = on\n");
$node->safe_psql('postgres', q{
	CREATE ROLE mallory LOGIN;
	CREATE SCHEMA m AUTHORIZATION mallory;
	GRANT USAGE ON SCHEMA sendcampaign TO mallory;
	GRANT EXECUTE ON ALL ROUTINES IN SCHEMA sendcampaign TO mallory});
my $pid = $node->safe_psql('postgres', q{SELECT pid FROM pg_stat_activity WHERE backend_type = 'checkpointer'});

# The table, its trigger, and what fires it.
my @cases = (
	[ 'a column of another type', 'written_in text', 'BEFORE INSERT ON m.t FOR EACH ROW', q{INSERT INTO m.t VALUES ('x')} ],
	[ 'a numeric one', 'written_in numeric', 'BEFORE INSERT ON m.t FOR EACH ROW', 'INSERT INTO m.t VALUES (1)' ],
	[ 'an update of another type', 'written_in text', 'BEFORE UPDATE ON m.t FOR EACH ROW', q{INSERT INTO m.t VALUES ('x'); UPDATE m.t SET written_in = 'y'} ],
	[ 'a statement', 'written_in xid', 'BEFORE INSERT ON m.t', q{INSERT INTO m.t VALUES ('1')} ],
	[ 'TRUNCATE', 'written_in xid', 'BEFORE TRUNCATE ON m.t', 'TRUNCATE m.t' ],
	[ 'DELETE', 'written_in xid', 'BEFORE DELETE ON m.t FOR EACH ROW', q{INSERT INTO m.t VALUES ('1'); DELETE FROM m.t} ],
	[ 'AFTER', 'written_in xid', 'AFTER INSERT OR UPDATE OR DELETE ON m.t FOR EACH ROW', q{INSERT INTO m.t VALUES ('1'); UPDATE m.t SET written_in = '2'} ]);
for my $case (@cases)
{
	my ($name, $column, $trigger, $sql) = @$case;
	my $error = sql_error($node, qq{
		SET ROLE mallory;
		DROP TABLE IF EXISTS m.t;
		CREATE TABLE m.t ($column);
		CREATE TRIGGER t $trigger EXECUTE FUNCTION sendcampaign.keep_xid();
		$sql});
	is($error->{sqlstate}, '39P01', "$name: an error");
	wait_until_up($node);
}
is($node->safe_psql('postgres', q{SELECT pid FROM pg_stat_activity WHERE backend_type = 'checkpointer'}), $pid, 'no server process has crashed');
$node->stop;
done_testing();
