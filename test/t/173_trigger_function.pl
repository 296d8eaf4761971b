# The trigger function of the extension's tables on somebody else's table
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../perl";
use Campaign;
use LocalTwilio;
use Test::More;

my $twilio = LocalTwilio->start;
my $node = new_cluster('trigger_function', $twilio, conf => "restart_after_crash = on\n");
sql($node, <<~'SQL');
	CREATE ROLE mallory LOGIN;
	CREATE SCHEMA m AUTHORIZATION mallory;
	GRANT USAGE ON SCHEMA sendcampaign TO mallory;
	GRANT EXECUTE ON ALL ROUTINES IN SCHEMA sendcampaign TO mallory;
	SQL
my $checkpointer = q{SELECT pid FROM pg_stat_activity WHERE backend_type = 'checkpointer'};
my $pid = sql($node, $checkpointer);

# A column of the table m.t, its trigger, and what fires it
my @cases = (
	{
		name => 'a column of another type',
		column => 'written_in text',
		trigger => 'BEFORE INSERT ON m.t FOR EACH ROW',
		sql => q{INSERT INTO m.t VALUES ('x')}
	},
	{
		name => 'a numeric column',
		column => 'written_in numeric',
		trigger => 'BEFORE INSERT ON m.t FOR EACH ROW',
		sql => 'INSERT INTO m.t VALUES (1)'
	},
	{
		name => 'an update of another type',
		column => 'written_in text',
		trigger => 'BEFORE UPDATE ON m.t FOR EACH ROW',
		sql => q{INSERT INTO m.t VALUES ('x'); UPDATE m.t SET written_in = 'y'}
	},
	{
		name => 'a trigger for each statement',
		column => 'written_in xid',
		trigger => 'BEFORE INSERT ON m.t',
		sql => q{INSERT INTO m.t VALUES ('1')}
	},
	{
		name => 'TRUNCATE',
		column => 'written_in xid',
		trigger => 'BEFORE TRUNCATE ON m.t',
		sql => 'TRUNCATE m.t'
	},
	{
		name => 'DELETE',
		column => 'written_in xid',
		trigger => 'BEFORE DELETE ON m.t FOR EACH ROW',
		sql => q{INSERT INTO m.t VALUES ('1'); DELETE FROM m.t}
	},
	{
		name => 'AFTER',
		column => 'written_in xid',
		trigger => 'AFTER INSERT OR UPDATE OR DELETE ON m.t FOR EACH ROW',
		sql => q{INSERT INTO m.t VALUES ('1'); UPDATE m.t SET written_in = '2'}
	});
for my $case (@cases)
{
	my $error = sql_error($node, <<~SQL, role => 'mallory');
		DROP TABLE IF EXISTS m.t;
		CREATE TABLE m.t ($case->{column});
		CREATE TRIGGER t $case->{trigger} EXECUTE FUNCTION sendcampaign.keep_xid();
		$case->{sql};
		SQL
	is($error->{sqlstate}, '39P01', "$case->{name} is an error");
	wait_until_up($node);
}
is(sql($node, $checkpointer), $pid, 'no server process has crashed');
$node->stop;
done_testing();
