# Runs that cannot be taken up, since somebody has locked their tables, keep no other
# schema's runs waiting: neither many of one schema, nor many schemas.  They are sent
# soon after the lock has gone, and the worker stays until then.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../perl";
use Campaign;
use LocalTwilio;
use Session;
use Test::More;
use Time::HiRes qw(time);

my $twilio = LocalTwilio->start;
my $node = new_cluster('stuck', $twilio);

# How many runs are in the queue
sub num_queued
{
	my $schemas = shift;
	return sql($node,
			"SELECT count(*) FROM sendcampaign.run WHERE state <> 'completed'"
		  . " AND schema SIMILAR TO '$schemas'");
}

sub call
{
	my ($schema, $count) = @_;
	sql($node, <<~"SQL");
		SET client_min_messages = error;
		SET ROLE app;
		INSERT INTO $schema.ac_campaigns (ac_list_id, data)
		SELECT ac_list_id, data FROM $schema.ac_campaigns, generate_series(2, $count)
		WHERE id = 1;
		SET sendcampaign.schema = '$schema';
		SELECT send_campaign(id)
		FROM $schema.ac_campaigns c
		WHERE NOT EXISTS
			(SELECT FROM sendcampaign.run WHERE schema = '$schema' AND campaign_id = c.id);
		SQL
	return;
}

# How long it takes until the runs of these schemas have been sent
sub seconds_until_sent
{
	my ($schemas, $most) = @_;
	my $begin = time;
	my $sent = poll(sub { num_queued($schemas) == 0 }, $most);
	return $sent ? time - $begin : 1e9;
}

make_tenant($node, $_, role => 'app') for qw(one other);
set_and_reload($node, 'sendcampaign.enabled', 'off');
call('one', 300);
call('other', 1);

# Many runs of one schema
my $lock = Session->open($node);
$lock->query('BEGIN; LOCK TABLE one.ac_campaigns IN ACCESS EXCLUSIVE MODE');
set_and_reload($node, 'sendcampaign.enabled', 'on');
wake($node);
is_soon($node, seconds_until_sent('other', 60), 8,
	'many locked runs are in front: another schema');
is(num_queued('one'), 300, 'these are in the queue');
call('other', 2);
is_soon($node, seconds_until_sent('other', 60), 5, 'called later');
ok( poll(
		sub {
			sql($node,
					'SELECT count(*) FROM sendcampaign.run WHERE error LIKE '
				  . "'trying again, as the database has raised an error: %lock timeout'") > 1;
		},
		60),
	'runs say what they wait for');
is(scalar worker_pids($node), 1, 'the worker stays');
$lock->query('COMMIT');
is_soon($node, seconds_until_sent('one', 60), 8, 'the lock has gone');
ok(worker_is_gone($node, 20), 'then the worker ends');

# Many schemas, and one behind them
my @locked = map { "locked$_" } 1 .. 40;
make_tenant($node, $_, role => 'app') for @locked, 'last';
set_and_reload($node, 'sendcampaign.enabled', 'off');
call($_, 2) for @locked, 'last';
$lock->query('BEGIN');
$lock->query("LOCK TABLE $_.ac_campaigns IN ACCESS EXCLUSIVE MODE") for @locked;
set_and_reload($node, 'sendcampaign.enabled', 'on');
wake($node);
is_soon($node, seconds_until_sent('last', 60), 20, 'many locked schemas are in front');
call('last', 12);
is_soon($node, seconds_until_sent('last', 60), 5, 'called later');
is(num_queued('locked%'), 80, 'the others are in the queue');
$lock->query('COMMIT');
is_soon($node, seconds_until_sent('locked%', 120), 50, 'these locks have gone');
$lock->close;

done_testing();
