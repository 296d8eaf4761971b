# PREPARE TRANSACTION: nothing is sent before COMMIT PREPARED, in whichever
# session that is.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../perl";
use Campaign;
use LocalTwilio;
use Test::More;

my $twilio = LocalTwilio->start;
my $node = new_cluster('prepared', $twilio, conf => "max_prepared_transactions = 5\n");

# Prepares a transaction that sends a campaign; returns the job.
sub prepare_campaign
{
	my $name = shift;
	my $campaign = create_campaign($node, users => 3, message => $name);
	return sql($node, <<~"SQL", role => 'app');
		BEGIN;
		SELECT send_campaign($campaign);
		PREPARE TRANSACTION '$name';
		SQL
}

# Sends another campaign from start to end, in the meantime.
sub send_another
{
	my $name = shift;
	run_campaign($node, create_campaign($node, users => 2, message => $name));
	is(sent_with($twilio, $name), 2, "$name is sent");
}

my $committed = prepare_campaign('committed');
my $rolled_back = prepare_campaign('rolled back');
send_another('meanwhile');
is(sent_with($twilio, 'committed'), 0, 'nothing is sent of what is prepared');

sql($node, "COMMIT PREPARED 'committed'");
is(wait_for_run($node, $committed)->{sent}, 3, 'it is sent after COMMIT PREPARED');
is(sent_with($twilio, 'committed'), 3, 'once each');

sql($node, "ROLLBACK PREPARED 'rolled back'");
wait_for_no_worker($node);
send_another('afterwards');
is(sent_with($twilio, 'rolled back'), 0, 'nothing is sent after ROLLBACK PREPARED');
is(job_row($node, $rolled_back, 'count(*)'), 0, 'and there is no job');

# prepared and committed while a worker is busy with another run
$twilio->set(hold => 1);
my $busy = start_campaign($node, create_campaign($node, users => 2, message => 'busy'));
wait_for_flight($twilio, 2);
my $joined = prepare_campaign('joined');
sql($node, "COMMIT PREPARED 'joined'");
wait_for_flight($twilio, 5);
$twilio->set(hold => 0);
is(wait_for_run($node, $_)->{state}, 'completed', 'both runs are complete') for $busy, $joined;

# over a restart, without preload: the next call picks it up
my $kept = prepare_campaign('kept');
$node->restart;
sql($node, "COMMIT PREPARED 'kept'");
is(wake($node, role => 'app'), 1, 'wake() starts a worker');
is(wait_for_run($node, $kept)->{sent}, 3, 'it is sent after a restart and wake()');
is(sent_with($twilio, 'kept'), 3, 'once each');

wait_for_no_worker($node);
$node->stop;
done_testing();
