# Twilio cannot be reached for a while: the run says so, waits, and goes on by
# itself; each recipient has the message once.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../perl";
use Campaign;
use LocalTwilio;
use PostgreSQL::Test::Utils;
use Test::More;

my $twilio = LocalTwilio->start(options => [ '--latency', 20 ]);
my $node = new_cluster('outage', $twilio, conf => qq{
	sendcampaign.request_timeout = '1s'
	sendcampaign.lookup_delay = 0
	sendcampaign.max_concurrency = 10
});

# User and system time of the workers, in clock ticks.
sub worker_ticks
{
	my $ticks = 0;
	for my $pid (worker_pids($node))
	{
		my ($stat) = slurp_file("/proc/$pid/stat") =~ /.*\) (.*)/;
		$ticks += (split / /, $stat)[11] + (split / /, $stat)[12];
	}
	return $ticks;
}

# Twilio goes down in mid-run, with requests on their way.
my $campaign = create_campaign($node, users => 500);
my $job = start_campaign($node, $campaign);
ok(poll(sub { $twilio->stats->{accepted} >= 100 }), 'the run is on');
$twilio->set('refuse' => 1, 'drop' => 1);
ok($node->poll_query_until('postgres',
		"SELECT error ~ '^Twilio cannot be reached: .+; trying again' FROM sendcampaign.run WHERE job_id = $job"),
	'the run says that Twilio cannot be reached');
my $before = worker_ticks();
my $since = Time::HiRes::time();
poll(sub { Time::HiRes::time() > $since + 4 });
my $run = run_row($node, $job);
is($run->{state}, 'running', 'it waits');
is($run->{in_doubt}, 0, 'and gives nothing up');
cmp_ok($run->{sent}, '<', 500, 'it is not through');
cmp_ok((worker_ticks() - $before) / 4, '<', 10, 'the worker needs less than a tenth of a processor');
$twilio->set('refuse' => 0);
sent_once($node, $twilio, $campaign, $job, 'Twilio was down');
my $log = slurp_file($node->logfile);
is(scalar(() = $log =~ /job $job: Twilio cannot be reached/g), 1, 'the log has it once');
is(scalar(() = $log =~ /job $job: Twilio can be reached again/g), 1, 'and its end once');

# Twilio goes down while all that is left are look-ups.
$twilio->set('reset' => 1, 'fault:drop-after' => '#2', 'fault:drop-before' => '#2');
$campaign = create_campaign($node, users => 4);
$job = start_campaign($node, $campaign);
ok(poll(sub { $twilio->stats->{create_requests} == 4 }), 'all are in doubt');
$twilio->set('refuse' => 1);
$twilio->set('drop' => 1);
ok($node->poll_query_until('postgres',
		"SELECT error ~ '^Twilio cannot be reached' FROM sendcampaign.run WHERE job_id = $job"),
	'the run says that Twilio cannot be reached for a look-up');
$twilio->set('refuse' => 0);
sent_once($node, $twilio, $campaign, $job, 'Twilio was down for look-ups');

# It was never there.
$twilio->set('reset' => 1, 'refuse' => 1);
$twilio->set('drop' => 1);
$campaign = create_campaign($node, users => 10);
$job = start_campaign($node, $campaign);
ok($node->poll_query_until('postgres',
		"SELECT error ~ '^Twilio cannot be reached' FROM sendcampaign.run WHERE job_id = $job"),
	'Twilio is down from the start');
$twilio->set('refuse' => 0);
sent_once($node, $twilio, $campaign, $job, 'Twilio was down from the start');
is($node->safe_psql('postgres', "SELECT max(attempts) FROM sendcampaign.message WHERE job_id = $job"), 1,
	'what never left is no attempt');

# A name that cannot be resolved, mended by reload.
sub reload
{
	change_conf($node, $_[0]);
}
wait_for_no_worker($node);
reload("sendcampaign.api_url = 'https://twilio.invalid'");
$twilio->set('reset' => 1);
$campaign = create_campaign($node, users => 10);
$job = start_campaign($node, $campaign);
ok($node->poll_query_until('postgres',
		"SELECT error ~ '^Twilio cannot be reached: .*resolve' FROM sendcampaign.run WHERE job_id = $job"),
	'a name that cannot be resolved is shown') or diag(run_row($node, $job)->{error});
reload("sendcampaign.api_url = '" . $twilio->url . "'");
sent_once($node, $twilio, $campaign, $job, 'the name was wrong');
$node->stop;

done_testing();
