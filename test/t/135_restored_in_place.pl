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
my $conf = "sendcampaign.request_timeout = '1s'\nsendcampaign.lookup_delay = '200ms'\nsendcampaign.lookup_timeout = '1s'\nsendcampaign.max_concurrency = 20\n";
my $node = new_cluster('in_place', $twilio, conf => $conf);
my $dump = PostgreSQL::Test::Utils::tempdir() . '/dump';
my @tables = map { "sendcampaign.$_" } qw(run_data message_data batch claim read_back_message);

# A campaign is dumped in mid-run, paused so that nothing is in doubt, or just queued.
sub dump_in_mid_run
{
	my $state = shift;
	my $campaign = create_campaign($node, users => $users);
	my $job;
	$twilio->set(reset => 1);
	set_and_reload($node, 'sendcampaign.enabled', 'off') if $state eq 'queued';
	$twilio->set(latency => 200) if $state eq 'paused';    # it cannot end before it is paused
	$job = start_campaign($node, $campaign);
	if ($state eq 'paused')
	{
		$node->poll_query_until('postgres', "SELECT sent BETWEEN 100 AND $users - 100 FROM sendcampaign.run WHERE job_id = $job");
		$node->safe_psql('postgres', "SELECT sendcampaign.pause($job)");
		wait_for_no_worker($node);
		$twilio->set(latency => 10);
	}
	$node->command_ok([ 'pg_dump', '-Fc', '-f', $dump, '-d', $node->connstr('postgres') ], "$state: dump");
	set_and_reload($node, 'sendcampaign.enabled', 'on') if $state eq 'queued';
	$node->safe_psql('postgres', $state eq 'paused' ? "SELECT sendcampaign.resume($job)" : 'SELECT sendcampaign.wake()');
	is(wait_for_run($node, $job)->{sent}, $users, "$state: sent");
	wait_for_no_worker($node);
	return ($campaign, $job);
}

# It goes on from what the dump has: each recipient has one message.
sub all_once
{
	my ($campaign, $job, $state, $name) = @_;
	$node->safe_psql('postgres', $state eq 'paused' ? "SELECT sendcampaign.resume($job)" : 'SELECT sendcampaign.wake()');
	my $run = wait_for_run($node, $job);
	is($run->{state}, 'completed', "$name: completed");
	is($run->{sent} + $run->{in_doubt}, $users, "$name: all have an outcome");
	is($twilio->stats->{accepted}, $users, "$name: nothing was sent again");
	wait_for_no_worker($node);
}

my %restore = (
	'clean' => sub { $node->command_ok([ 'pg_restore', '--clean', '-d', $node->connstr('postgres'), $dump ], 'restore') },
	'data only' => sub {
		$node->safe_psql('postgres', 'TRUNCATE ' . join ', ', @tables);
		$node->command_ok([ 'pg_restore', '--data-only', (map { ('-t', $_) } qw(run_data message_data batch claim read_back_message)),
				'-d', $node->connstr('postgres'), $dump ], 'restore');
	},
	# as a subscriber has them, and back again
	'copied there and back' => sub {
		my $there = PostgreSQL::Test::Utils::tempdir();
		chmod 0777, $there;
		$node->command_ok([ 'pg_restore', '--clean', '-d', $node->connstr('postgres'), $dump ], 'restore');
		for my $table (@tables)
		{
			$node->safe_psql('postgres', "COPY $table TO '$there/$table'; DELETE FROM $table; COPY $table FROM '$there/$table'");
		}
	});

for my $how (sort keys %restore)
{
	for my $state (qw(paused queued))
	{
		my ($campaign, $job) = dump_in_mid_run($state);
		$restore{$how}->();
		all_once($campaign, $job, $state, "$how, $state");
	}
}

# only the batches come back: who is in them and has a message gets no other one
my ($campaign, $job) = dump_in_mid_run('paused');
$node->safe_psql('postgres', "UPDATE sendcampaign.run SET state = 'running', finished_at = NULL WHERE job_id = $job");
$node->command_ok([ 'pg_restore', '--data-only', '-t', 'batch', '-d', $node->connstr('postgres'), $dump ], 'batches only');
$node->safe_psql('postgres', 'SELECT sendcampaign.wake()');
is(wait_for_run($node, $job)->{state}, 'completed', 'batches only: the run ends');
is($twilio->stats->{accepted}, $users, 'batches only: nothing was sent again');

# a dump restored elsewhere waits for a person, and then reads back
($campaign, $job) = dump_in_mid_run('queued');
$node->safe_psql('postgres', 'CREATE DATABASE elsewhere TEMPLATE template0');
$node->command_ok([ 'pg_restore', '-d', $node->connstr('elsewhere'), $dump ], 'restore elsewhere');
$node->safe_psql('elsewhere', 'SELECT sendcampaign.wake()');
is(wait_for_run($node, $job, db => 'elsewhere', state => 'paused')->{state}, 'paused', 'elsewhere: paused');
$node->safe_psql('elsewhere', "SELECT sendcampaign.resume($job)");
wait_for_run($node, $job, db => 'elsewhere');
is($twilio->stats->{accepted}, $users, 'elsewhere: nothing was sent again');
is(worker_errors($node), '', 'no errors in the log');
$node->stop;
done_testing();
