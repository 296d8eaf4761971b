# Where tables are locked, the runs of their schema that are under way, perhaps many,
# keep no other schema's runs waiting.  They go on soon after the lock has gone.
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
my $node = new_cluster('locked', $twilio);
my $num_called = 0;
my $num_accepted = 0;

# Calls new campaigns of a schema, as many.
sub call
{
	my ($schema, $count) = @_;
	my $first = $num_called + 2;
	$num_called += $count;
	my $last = $num_called + 1;
	sql($node, <<~"SQL");
		SET client_min_messages = error;
		SET ROLE app;
		SET sendcampaign.schema = '$schema';
		INSERT INTO $schema.ac_campaigns (id, ac_list_id, data)
		SELECT i, ac_list_id, data FROM $schema.ac_campaigns, generate_series($first, $last) i
		WHERE id = 1;
		SELECT send_campaign(i) FROM generate_series($first, $last) i;
		SQL
	return;
}

sub num_runs
{
	my ($schema, $condition) = @_;
	return sql($node,
		"SELECT count(*) FROM sendcampaign.run WHERE schema = '$schema' AND $condition");
}

# How long it takes until all runs of a schema have been sent
sub seconds_until_sent
{
	my ($schema, $most) = @_;
	my $begin = time;
	my $sent = poll(sub { num_runs($schema, "state <> 'completed'") == 0 }, $most);
	return $sent ? time - $begin : 1e9;
}

sub is_soon
{
	my ($seconds, $soon, $name) = @_;
	cmp_ok($seconds, '<', seconds_here($node, $soon), $name);
	diag(sprintf '%s: %.1f s', $name, $seconds) if $ENV{SHOW_TIMES};
	return;
}

make_tenant($node, $_, role => 'app') for qw(one other);
for my $lock (
	'TABLE one.ac_list_users IN ACCESS EXCLUSIVE MODE',
	'TABLE one.ac_list_users IN SHARE MODE',
	'TABLE one.ac_background_jobs IN ACCESS EXCLUSIVE MODE',
	'TABLE one.groups IN ACCESS EXCLUSIVE MODE',
	'rows of one.ac_background_jobs')
{
	# under way: messages of all runs are at Twilio, or waiting to be sent
	$twilio->set(reset => 1, hold => 1);
	call('one', 100);
	ok(poll(sub { num_runs('one', "state = 'running'") == 100 }, 60), "$lock: runs are under way");
	my $session = Session->open($node);
	$session->query('BEGIN');
	$session->query(
		$lock =~ /^TABLE/
		? "LOCK $lock"
		: 'SELECT FROM one.ac_background_jobs FOR UPDATE');
	$twilio->set(hold => 0);

	for my $time (qw(first second third))
	{
		call('other', 3);
		is_soon(seconds_until_sent('other', 90), 8, "$lock: another schema, $time time");
	}
	ok( poll(
			sub {
				num_runs('one',
					"error LIKE 'trying again, as the database has raised an error: %lock timeout'"
				) > 0;
			},
			60),
		"$lock: a run says what it waits for") if $lock !~ /SHARE|groups/;
	$session->query('COMMIT');
	$session->close;
	is_soon(seconds_until_sent('one', 90), 8, "$lock has gone");
	$num_accepted += $twilio->stats->{accepted};
}
is($num_accepted, $num_called, 'each message was sent once');
ok(worker_is_gone($node, 20), 'the worker ends');

done_testing();
