# Crashes with messages on their way, also where commits do not wait for the
# disk: each recipient has the message once.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../perl";
use Campaign;
use LocalTwilio;
use Test::More;

my $twilio = LocalTwilio->start(options => [ '--latency', 20 ]);
my $node = new_cluster('crash', $twilio, conf => <<~'CONF');
	sendcampaign.request_timeout = '500ms'
	sendcampaign.lookup_delay = 0
	sendcampaign.max_concurrency = 20
	restart_after_crash = on
	wal_writer_delay = '10s'
	CONF

# Waits until Twilio has accepted so many messages.
sub wait_for_accepted
{
	my $count = shift;
	return poll(sub { $twilio->stats->{accepted} >= $count });
}

# Commits that do not wait for the disk, as the role or the database is set.
for my $owner ('ROLE app', 'DATABASE postgres')
{
	sql($node, "ALTER $owner SET synchronous_commit = off");
	wait_for_no_worker($node);
	my $campaign = create_campaign($node, users => 2000);
	# so slowly that not all have been sent at the last kill
	$twilio->set('reset' => 1, latency => 60);
	my $job = start_campaign($node, $campaign);
	for my $kill (1 .. 4)
	{
		# at first with the claim, and the call, just committed
		my $count = $kill == 1 ? 1 : $twilio->stats->{accepted} + 100;
		ok(wait_for_accepted($count), "$owner: messages are being sent");
		if ($kill % 2)
		{
			kill_server($node);
		}
		else
		{
			$node->stop('immediate');
		}
		$node->start;
		wake($node);
	}
	$twilio->set(latency => 20);
	sent_once($node, $twilio, $campaign, $job, "synchronous_commit = off for $owner");
	cmp_ok(
		$twilio->stats->{create_requests} - $twilio->companions,
		'<=',
		2000 + 4 * 20,
		"$owner: there is no storm of requests");
	sql($node, "ALTER $owner RESET synchronous_commit");
}

# The end comes while requests wait for their answer; what was not sent yet is
# neither lost nor sent twice.  Twice in a row, the second time before anything
# could be looked up.
sub terminate_and_wait
{
	my %old = map { $_ => 1 } worker_pids($node);
	terminate_workers($node);
	poll(sub {
		!grep { $old{$_} } worker_pids($node);
	});
}

my %end = (
	'fast shutdown' => sub { $node->stop('fast'); $node->start },
	'immediate shutdown' => sub { $node->stop('immediate'); $node->start },
	'termination of the worker' => \&terminate_and_wait,
	'kill of the worker' => sub { kill_worker($node) });
for my $after (0, 1)
{
	for my $end (sort keys %end)
	{
		my $name = "$end with requests " . ($after ? 'taken' : 'not taken');
		wait_for_no_worker($node);
		my $campaign = create_campaign($node, users => 600);
		# so slowly that not all have been sent when requests are held
		$twilio->set('reset' => 1, 'hold-after' => $after, latency => 200);
		my $job = start_campaign($node, $campaign);
		ok(wait_for_accepted(50), "$name: messages are being sent");
		$twilio->set('hold' => 1);
		wait_for_flight($twilio, 5);

		for (1 .. 2)
		{
			$end{$end}->();
			wake($node);
			ok(poll(sub { worker_pids($node) }), "$name: a worker is there");
		}
		$twilio->set('hold' => 0, latency => 0);
		sent_once($node, $twilio, $campaign, $job, $name);
	}
}
$node->stop;

done_testing();
