# PREPARE TRANSACTION: nothing before COMMIT PREPARED, in whichever session.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../perl";
use Campaign;
use LocalTwilio;
use PostgreSQL::Test::Utils;
use Test::More;

my $twilio = LocalTwilio->start;
my $node = new_cluster('prepared', $twilio, conf => "max_prepared_transactions = 5\n");

sub prepare_campaign
{
	my $name = shift;
	my $campaign = create_campaign($node, users => 3, message => $name);
	return $node->safe_psql('postgres',
		"SET ROLE app; BEGIN; SELECT send_campaign($campaign); PREPARE TRANSACTION '$name'");
}

# Another campaign sent from start to end, in the meantime.
sub send_another
{
	my $name = shift;
	wait_for_run($node, start_campaign($node, create_campaign($node, users => 2, message => $name)));
	is(sent_with($twilio, $name), 2, "$name is sent");
}

my $committed = prepare_campaign('committed');
my $rolled_back = prepare_campaign('rolled back');
send_another('meanwhile');
is(sent_with($twilio, 'committed'), 0, 'nothing is sent of what is prepared');

$node->safe_psql('postgres', "COMMIT PREPARED 'committed'");
is(wait_for_run($node, $committed)->{sent}, 3, 'sent after COMMIT PREPARED');
is(sent_with($twilio, 'committed'), 3, 'once each');

$node->safe_psql('postgres', "ROLLBACK PREPARED 'rolled back'");
wait_for_no_worker($node);
send_another('afterwards');
is(sent_with($twilio, 'rolled back'), 0, 'nothing is sent after ROLLBACK PREPARED');
is($node->safe_psql('postgres', "SELECT count(*) FROM ac_background_jobs WHERE id = $rolled_back"),
	0, 'and there is no job');

# prepared and committed while a worker is busy with another run
$twilio->set(hold => 1);
my $busy = start_campaign($node, create_campaign($node, users => 2, message => 'busy'));
wait_for_flight($twilio, 2);
my $joined = prepare_campaign('joined');
$node->safe_psql('postgres', "COMMIT PREPARED 'joined'");
wait_for_flight($twilio, 5);
$twilio->set(hold => 0);
is(wait_for_run($node, $_)->{state}, 'completed', 'completed beside another run') for $busy, $joined;

# over a restart, without preload: the next call picks it up
my $kept = prepare_campaign('kept');
$node->restart;
$node->safe_psql('postgres', "COMMIT PREPARED 'kept'");
is($node->safe_psql('postgres', 'SET ROLE app; SELECT sendcampaign.wake()'), 1, 'wake() starts a worker');
is(wait_for_run($node, $kept)->{sent}, 3, 'sent after a restart and wake()');
is(sent_with($twilio, 'kept'), 3, 'once each');

wait_for_no_worker($node);
$node->stop;
done_testing();
