# Look-ups that give no answer: the doubt stays, nothing is sent again, and the
# run ends and says so.  A database and a Twilio for each, all at the same time.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../perl";
use Campaign;
use LocalTwilio;
use Test::More;

my %error = (
	'list-403' => qr/403/,
	'list-500' => qr/500/,
	'list-garbage' => qr/no list of messages/,
	'list-endless' => qr/does not end/,
	'list-drop' => qr/look-up failed/,
	'list-never' => qr/look-up failed.*(time|Operation)/i);

my $node = new_cluster('no_answer', LocalTwilio->start, conf => qq{
	max_worker_processes = 20
	sendcampaign.request_timeout = '1s'
	sendcampaign.lookup_delay = 0
	sendcampaign.lookup_timeout = '1s'
	fsync = off
});
my $campaign = create_campaign($node, users => 20);
my (%twilio, %job);
for my $fault (sort keys %error)
{
	my $twilio = $twilio{$fault} = LocalTwilio->start;
	my $db = $fault =~ tr/-/_/r;
	$twilio->set("fault:$fault" => 100, 'fault:drop-after' => '#1', 'fault:drop-before' => '#1');
	clone_database($node, $db, $twilio);
	$job{$fault} = start_campaign($node, $campaign, db => $db);
}
# One that fails for longer than a few tries take, but not for lookup_timeout.
$twilio{passes} = LocalTwilio->start;
$twilio{passes}->set('fault:list-500' => 100, 'fault:drop-after' => '#1', 'fault:drop-before' => '#2');
clone_database($node, 'passes', $twilio{passes});
$node->safe_psql('postgres', q{ALTER DATABASE passes SET sendcampaign.lookup_timeout = '600s'});
my $passes = start_campaign($node, $campaign, db => 'passes');
ok(poll(sub { $twilio{passes}->stats->{lists} >= 14 }, 180), 'a list that fails is asked for again');
$twilio{passes}->set('fault:list-500' => 0);
sent_once($node, $twilio{passes}, $campaign, $passes, 'a list that fails for a while', db => 'passes');
$twilio{passes}->stop;

# One that fails on, and the run is cancelled meanwhile: that is not waited for.
$twilio{cancelled} = LocalTwilio->start;
$twilio{cancelled}->set('fault:list-500' => 100, 'fault:drop-after' => '#1', 'fault:drop-before' => '#2');
clone_database($node, 'cancelled', $twilio{cancelled});
$node->safe_psql('postgres', q{ALTER DATABASE cancelled SET sendcampaign.lookup_timeout = '3600s'});
my $cancelled = start_campaign($node, $campaign, db => 'cancelled');
ok(poll(sub { $twilio{cancelled}->stats->{lists} >= 12 }, 180), 'a list that fails on is asked for again');
$node->safe_psql('cancelled', "SET ROLE app; SELECT sendcampaign.cancel($cancelled)");
ok(poll(sub { $node->safe_psql('cancelled', "SELECT finished_at IS NOT NULL FROM sendcampaign.run WHERE job_id = $cancelled") eq 't' }, 180), 'cancelled meanwhile, the run ends');
is($node->safe_psql('cancelled', "SELECT total, sent, skipped, in_doubt FROM sendcampaign.run WHERE job_id = $cancelled"), '20|17|0|3', 'and the doubt stays');
$twilio{cancelled}->stop;

for my $fault (sort keys %error)
{
	my $db = $fault =~ tr/-/_/r;
	my $run = wait_for_run($node, $job{$fault}, db => $db);
	is("$run->{state} $run->{sent} $run->{in_doubt}", 'completed 18 2', "$fault: the doubt stays, the run ends");
	like($run->{error}, qr/2 of 20 .*in doubt.*$error{$fault}/, "$fault: the run says so");
	is($node->safe_psql($db, q{SELECT progress, error ~ 'in doubt', data->>'inDoubt' FROM ac_background_jobs WHERE id = } . $job{$fault}),
		'100|t|2', "$fault: so does the job");
	is($twilio{$fault}->stats->{accepted}, 19, "$fault: nothing is sent again");
	cmp_ok($twilio{$fault}->stats->{lists}, '<=', 40, "$fault: not looked up for ever");
	is($node->safe_psql($db, q{SELECT count(*) FROM sendcampaign.message
		WHERE status = 'in_doubt' AND error_message ~ 'look-up' AND sid IS NULL}), 2, "$fault: the rows say why");
	is($node->safe_psql($db, 'SELECT count(*) FROM sendcampaign.claim'), 0, "$fault: nothing is claimed");
	is($node->safe_psql($db, "SELECT count(*) FROM ac_list_users WHERE data->>'sentCount' = '1' AND ac_list_id = (SELECT ac_list_id FROM ac_campaigns WHERE id = $campaign)"), 18,
		"$fault: what is in doubt is not counted as sent");
	$twilio{$fault}->stop;
}
$node->stop;

done_testing();
