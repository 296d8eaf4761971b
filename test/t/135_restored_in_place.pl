# An older state of the extension's tables comes back in the same database:
# what was sent meanwhile is read back from Twilio, and not sent again.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../perl";
use Campaign;
use LocalTwilio;
use PostgreSQL::Test::Utils;
use Test::More;

my $users = 600;
my $twilio = LocalTwilio->start(options => [ '--latency', 10 ]);
my $node = new_cluster('in_place', $twilio, conf => <<~CONF);
	sendcampaign.request_timeout = '1s'
	sendcampaign.lookup_delay = '200ms'
	sendcampaign.lookup_timeout = '1s'
	sendcampaign.max_concurrency = 20
	CONF
my $dump = PostgreSQL::Test::Utils::tempdir() . '/dump';
my @tables = qw(run_data message_data batch claim read_back_message);

# Restores something of the dump.
sub restore
{
	my ($name, @options) = @_;
	my $db = $node->connstr('postgres');
	$node->command_ok([ 'pg_restore', @options, '-d', $db, $dump ], $name);
}

# A run that is "paused" or "queued" goes on.
sub go_on
{
	my ($job, $state) = @_;
	my $call = $state eq 'paused' ? "resume($job)" : 'wake()';
	sql($node, "SELECT sendcampaign.$call");
}

# A campaign is dumped in mid-run, paused so that nothing is in doubt, or just
# queued; then it is sent.
sub dump_in_mid_run
{
	my $state = shift;
	my $campaign = create_campaign($node, users => $users);
	$twilio->set(reset => 1);
	set_and_reload($node, 'sendcampaign.enabled', 'off') if $state eq 'queued';
	$twilio->set(latency => 400) if $state eq 'paused';    # it cannot end before it is paused
	my $job = start_campaign($node, $campaign);
	if ($state eq 'paused')
	{
		wait_until($node, <<~SQL);
			SELECT sent BETWEEN 50 AND $users - 100 FROM sendcampaign.run WHERE job_id = $job
			SQL
		sql($node, "SELECT sendcampaign.pause($job)");
		wait_for_no_worker($node);
		$twilio->set(latency => 10);
	}
	$node->command_ok([ 'pg_dump', '-Fc', '-f', $dump, '-d', $node->connstr('postgres') ],
		"$state: dump");
	set_and_reload($node, 'sendcampaign.enabled', 'on') if $state eq 'queued';
	go_on($job, $state);
	is(wait_for_run($node, $job)->{sent}, $users, "$state: all messages are sent");
	wait_for_no_worker($node);
	return $job;
}

# It goes on from what the dump has: each recipient has one message.
sub all_once
{
	my ($job, $state, $name) = @_;
	go_on($job, $state);
	my $run = wait_for_run($node, $job);
	is($run->{state}, 'completed', "$name: the run is completed");
	is($run->{sent} + $run->{in_doubt}, $users, "$name: all have an outcome");
	is($twilio->stats->{accepted}, $users, "$name: nothing was sent again");
	wait_for_no_worker($node);
}

sub restore_clean
{
	restore('restore', '--clean');
}

sub restore_data_only
{
	sql($node, 'TRUNCATE ' . join ', ', map { "sendcampaign.$_" } @tables);
	restore('restore', '--data-only', map { ('-t', $_) } @tables);
}

# As a subscriber has them, and back again.
sub copy_there_and_back
{
	my $there = PostgreSQL::Test::Utils::tempdir();
	chmod 0777, $there;
	restore('restore', '--clean');
	for my $table (@tables)
	{
		sql($node, <<~SQL);
			COPY sendcampaign.$table TO '$there/$table';
			DELETE FROM sendcampaign.$table;
			COPY sendcampaign.$table FROM '$there/$table';
			SQL
	}
}

my %restore = (
	'clean' => \&restore_clean,
	'data only' => \&restore_data_only,
	'copied there and back' => \&copy_there_and_back);
for my $how (sort keys %restore)
{
	for my $state (qw(paused queued))
	{
		my $job = dump_in_mid_run($state);
		$restore{$how}->();
		all_once($job, $state, "$how, $state");
	}
}

# Only the batches come back: who is in them and has a message gets no other one.
my $job = dump_in_mid_run('paused');
sql($node, <<~SQL);
	UPDATE sendcampaign.run SET state = 'running', finished_at = NULL WHERE job_id = $job
	SQL
restore('batches only', '--data-only', '-t', 'batch');
sql($node, 'SELECT sendcampaign.wake()');
is(wait_for_run($node, $job)->{state}, 'completed', 'batches only: the run is completed');
is($twilio->stats->{accepted}, $users, 'batches only: nothing was sent again');

# A dump restored elsewhere waits for a person, and then reads back.
$job = dump_in_mid_run('queued');
sql($node, 'CREATE DATABASE elsewhere TEMPLATE template0');
$node->command_ok([ 'pg_restore', '-d', $node->connstr('elsewhere'), $dump ], 'restore elsewhere');
sql($node, 'SELECT sendcampaign.wake()', db => 'elsewhere');
my $run = wait_for_run($node, $job, db => 'elsewhere', state => 'paused');
is($run->{state}, 'paused', 'elsewhere: the run is paused');
sql($node, "SELECT sendcampaign.resume($job)", db => 'elsewhere');
wait_for_run($node, $job, db => 'elsewhere');
is($twilio->stats->{accepted}, $users, 'elsewhere: nothing was sent again');
is(worker_errors($node), '', 'no errors in the log');
$node->stop;
done_testing();
