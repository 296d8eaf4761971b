# Citus: runs that cannot be taken up, since somebody has locked their tables, keep no
# other tenant waiting.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../perl";
use Campaign;
use Citus;
use LocalTwilio;
use Session;
use Test::More;
use Time::HiRes qw(time);

need_citus();
my $twilio = LocalTwilio->start;
my $citus = Citus->new('stuck', $twilio, workers => 0);
my $node = $citus->node(0);

make_tenant($node, $_, role => 'app') for qw(one other);
set_and_reload($node, 'sendcampaign.enabled', 'off');
sql($node, <<~'SQL');
	SET client_min_messages = error;
	SET ROLE app;
	INSERT INTO one.ac_campaigns (ac_list_id, data)
	SELECT ac_list_id, data FROM one.ac_campaigns, generate_series(1, 39);
	SET sendcampaign.schema = one;
	SELECT send_campaign(id) FROM one.ac_campaigns;
	SET sendcampaign.schema = other;
	SELECT send_campaign(1);
	SQL
my $lock = Session->open($node);

# Locks all or some, and waits for the other tenant's run.
sub other_is_sent
{
	my ($sql, $name) = @_;
	my $begin = time;
	$lock->query("BEGIN; $sql");
	set_and_reload($node, 'sendcampaign.enabled', 'on');
	wake($node);
	ok(poll(sub { num_left('other') == 0 }, 60), "$name: another tenant's run is sent");
	cmp_ok(time - $begin, '<', seconds_here($node, 8), 'soon');
	is(num_left('one'), 40, 'these are in the queue');
	return;
}

sub num_left
{
	my $schema = shift;
	return sql($node, <<~"SQL");
		SELECT count(*) FROM sendcampaign.run
		WHERE schema = '$schema' AND state <> 'completed'
		SQL
}

other_is_sent('LOCK TABLE one.ac_campaigns IN ACCESS EXCLUSIVE MODE', 'a table is locked');
my $begin = time;
$lock->query('COMMIT');
$lock->close;
ok(poll(sub { num_left('one') == 0 }, 60), 'the lock has gone: all are sent');
cmp_ok(time - $begin, '<', seconds_here($node, 8), 'soon');
ok(worker_is_gone($node, 20), 'then the worker ends');

$citus->stop;
done_testing();
