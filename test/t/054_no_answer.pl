# Look-ups that give no answer: the doubt stays, nothing is sent again, and the
# run ends and says so.  A database and a Twilio for each, all at the same time.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../perl";
use Campaign;
use LocalTwilio;
use Test::More;

# the error of the run
my %error = (
	'list-403' => qr/403/,
	'list-500' => qr/500/,
	'list-garbage' => qr/its lookup failed: answer is not a list of messages/,
	'list-endless' => qr/its lookup returned too many pages/,
	'list-drop' => qr/its lookup failed: /,
	'list-never' => qr/lookup failed.*(time|Operation)/i);
my @faults = sort keys %error;

my $node = new_cluster('no_answer', LocalTwilio->start, conf => <<~'CONF');
	sendcampaign.receipts = off
	max_worker_processes = 20
	sendcampaign.request_timeout = '2s'
	sendcampaign.lookup_delay = 0
	sendcampaign.lookup_timeout = '1s'
	fsync = off
	CONF
my $campaign = create_campaign($node, users => 20);
my $list = list_of($campaign);

# A database whose messages go to a Twilio of its own with these faults.
sub database_with_faults
{
	my ($db, %faults) = @_;
	my $twilio = LocalTwilio->start;
	$twilio->set(%faults);
	clone_database($node, $db, $twilio);
	return $twilio;
}

my (%db, %twilio, %job);
for my $fault (@faults)
{
	$db{$fault} = $fault =~ tr/-/_/r;
	$twilio{$fault} = database_with_faults(
		$db{$fault},
		"fault:$fault" => 100,
		'fault:drop-after' => '#1',
		'fault:drop-before' => '#1');
	$job{$fault} = start_campaign($node, $campaign, db => $db{$fault});
}

# One that fails for longer than a few tries take, but not for lookup_timeout.
my @failing = ('fault:list-500' => 100, 'fault:drop-after' => '#1', 'fault:drop-before' => '#2');
my $twilio = database_with_faults('passes', @failing);
sql($node, "ALTER DATABASE passes SET sendcampaign.lookup_timeout = '600s'");
my $job = start_campaign($node, $campaign, db => 'passes');
ok(poll(sub { $twilio->stats->{lists} >= 14 }, 180), 'a list that fails is asked for again');
$twilio->set('fault:list-500' => 0);
sent_once($node, $twilio, $campaign, $job, 'a list that fails for a while', db => 'passes');
$twilio->stop;

# One that still fails while the run is cancelled: that is not waited for.
$twilio = database_with_faults('cancelled', @failing);
sql($node, "ALTER DATABASE cancelled SET sendcampaign.lookup_timeout = '3600s'");
$job = start_campaign($node, $campaign, db => 'cancelled');
ok(poll(sub { $twilio->stats->{lists} >= 12 }, 180), 'a list that still fails is asked for again');
sql($node, "SELECT sendcampaign.cancel($job)", db => 'cancelled', role => 'app');
my $has_ended = "SELECT finished_at IS NOT NULL FROM sendcampaign.run WHERE job_id = $job";
ok(poll(sub { sql($node, $has_ended, db => 'cancelled') eq 't' }, 180),
	'when it is cancelled meanwhile, the run ends');
my $run = run_row($node, $job, 'cancelled');
is("$run->{total}|$run->{sent}|$run->{skipped}|$run->{in_doubt}",
	'20|17|0|3', 'and the doubt stays');
$twilio->stop;

for my $fault (@faults)
{
	my $db = $db{$fault};
	$twilio = $twilio{$fault};
	$run = wait_for_run($node, $job{$fault}, db => $db);
	is( "$run->{state} $run->{sent} $run->{in_doubt}",
		'completed 18 2',
		"$fault: the doubt stays, the run ends");
	like(
		$run->{error},
		qr/^2 of 20 messages in doubt: .*$error{$fault}/,
		"$fault: the run says so");
	my $columns = "progress, error ~ 'in doubt', data->>'inDoubt'";
	is(job_row($node, $job{$fault}, $columns, db => $db), '100|t|2', "$fault: so does the job");
	is($twilio->stats->{accepted}, 19, "$fault: nothing is sent again");
	cmp_ok($twilio->stats->{lists}, '<=', 40, "$fault: it is not looked up for ever");
	is(sql($node, <<~'SQL', db => $db), 2, "$fault: the rows say why");
		SELECT count(*) FROM sendcampaign.message
		WHERE status = 'in_doubt' AND error_message ~ 'lookup' AND sid IS NULL
		SQL
	is(sql($node, 'SELECT count(*) FROM sendcampaign.claim', db => $db),
		0, "$fault: nothing is claimed");
	is(sql($node, <<~"SQL", db => $db), 18, "$fault: what is in doubt is not counted as sent");
		SELECT count(*) FROM ac_list_users
		WHERE data->>'sentCount' = '1' AND ac_list_id = $list
		SQL
	$twilio->stop;
}
$node->stop;

done_testing();
