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
my $node = new_cluster('outage', $twilio, conf => <<~'CONF');
	sendcampaign.request_timeout = '1s'
	sendcampaign.lookup_delay = 0
	sendcampaign.max_concurrency = 10
	CONF

# User and system time of the workers, in clock ticks.
sub worker_ticks
{
	my $ticks = 0;
	for my $pid (worker_pids($node))
	{
		my ($stat) = slurp_file("/proc/$pid/stat") =~ /.*\) (.*)/;
		my ($user_time, $system_time) = (split / /, $stat)[ 11, 12 ];
		$ticks += $user_time + $system_time;
	}
	return $ticks;
}

# Waits until the run has an error like this.
sub wait_for_error
{
	my ($job, $pattern) = @_;
	return wait_until($node,
		"SELECT error ~ '$pattern' FROM sendcampaign.run WHERE job_id = $job");
}

# Twilio goes down in mid-run, with requests on their way.
my $campaign = create_campaign($node, users => 500);
$twilio->set('latency' => 100);
my $job = start_campaign($node, $campaign);
ok(poll(sub { $twilio->stats->{accepted} >= 50 }), 'messages are being sent');
$twilio->set('refuse' => 1, 'drop' => 1);
ok(wait_for_error($job, '^Twilio cannot be reached: .+; trying again'),
	'the run says that Twilio cannot be reached');
my $before = worker_ticks();
my $since = Time::HiRes::time();
poll(sub { Time::HiRes::time() > $since + 4 });
my $run = run_row($node, $job);
is($run->{state}, 'running', 'the run waits');
is($run->{in_doubt}, 0, 'and gives nothing up');
cmp_ok($run->{sent}, '<', 500, 'it is not complete');
cmp_ok((worker_ticks() - $before) / 4,
	'<', 10, 'the worker needs less than a tenth of a processor');
$twilio->set('refuse' => 0, 'latency' => 20);
sent_once($node, $twilio, $campaign, $job, 'Twilio was down');
my @lost = log_of($node) =~ /sendcampaign: job $job: Twilio cannot be reached: .*; trying again/g;
my @found = log_of($node) =~ /sendcampaign: job $job: Twilio can be reached again/g;
is(scalar @lost, 1, 'the log has it once');
unlike(
	"@lost",
	qr/ after \d+ m/,
	'without how long an attempt took, which would make each another');
is(scalar @found, 1, 'and its end once');

# Twilio goes down while only lookups are left.
$twilio->set(
	'reset' => 1,
	'fault:drop-after' => '#2',
	'fault:drop-before' => '#2',
	'fault:list-500' => 100);
$campaign = create_campaign($node, users => 4);
$job = start_campaign($node, $campaign);
ok(poll(sub { $twilio->stats->{create_requests} == 4 }), 'all are in doubt');
$twilio->set('refuse' => 1);
$twilio->set('drop' => 1);
ok( wait_for_error($job, '^Twilio cannot be reached'),
	'the run says that Twilio cannot be reached for a lookup');
$twilio->set('refuse' => 0, 'fault:list-500' => 0);
sent_once($node, $twilio, $campaign, $job, 'Twilio was down for lookups');

# It was never there.
$twilio->set('reset' => 1, 'refuse' => 1);
$twilio->set('drop' => 1);
$campaign = create_campaign($node, users => 10);
$job = start_campaign($node, $campaign);
ok(wait_for_error($job, '^Twilio cannot be reached'), 'Twilio is down from the start');
$twilio->set('refuse' => 0);
sent_once($node, $twilio, $campaign, $job, 'Twilio was down from the start');
is(sql($node, "SELECT max(attempts) FROM sendcampaign.message WHERE job_id = $job"),
	1, 'what never left is no attempt');

# A name that cannot be resolved, fixed by reload.
wait_for_no_worker($node);
set_and_reload($node, 'sendcampaign.api_url', 'https://twilio.invalid');
$twilio->set('reset' => 1);
$campaign = create_campaign($node, users => 10);
$job = start_campaign($node, $campaign);
ok(wait_for_error($job, '^Twilio cannot be reached: .*resolve'),
	'a name that cannot be resolved is shown')
  or diag(run_row($node, $job)->{error});
set_and_reload($node, 'sendcampaign.api_url', $twilio->url);
sent_once($node, $twilio, $campaign, $job, 'the name was wrong');
$node->stop;

done_testing();
