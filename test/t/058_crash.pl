# Crashes with messages on their way, also where commits do not wait for the
# disk: each recipient has the message once.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../perl";
use Campaign;
use LocalTwilio;
use PostgreSQL::Test::Utils;
use Test::More;

my $twilio = LocalTwilio->start(options => [ '--latency', 20 ]);
my $node = new_cluster('crash', $twilio, conf => qq{
	sendcampaign.request_timeout = '500ms'
	sendcampaign.lookup_delay = 0
	sendcampaign.max_concurrency = 20
	restart_after_crash = on
	wal_writer_delay = '10s'
});

# All processes of the server end at once, as if the power failed.
sub kill_all
{
	my @pids = split /\n/, $node->safe_psql('postgres', 'SELECT pid FROM pg_stat_activity WHERE pid <> pg_backend_pid()');
	$node->kill9;
	kill 'KILL', @pids;
	poll(sub { !kill 0, @pids }) or diag('processes of the server are left');
}

sub accepted_at_least { my $count = shift; return poll(sub { $twilio->stats->{accepted} >= $count }); }

# Commits that do not wait for the disk, by the role's or the database's wish.
for my $wish ('ROLE app', 'DATABASE postgres')
{
	$node->safe_psql('postgres', "ALTER $wish SET synchronous_commit = off");
	wait_for_no_worker($node);
	my $campaign = create_campaign($node, users => 2000);
	$twilio->set('reset' => 1);
	my $job = start_campaign($node, $campaign);
	for my $kill (1 .. 4)
	{
		# at first with the claim, and the call, just committed
		ok(accepted_at_least($kill == 1 ? 1 : $twilio->stats->{accepted} + 100), "$wish: the run is on");
		$kill % 2 ? kill_all() : $node->stop('immediate');
		$node->start;
		$node->safe_psql('postgres', 'SELECT sendcampaign.wake()');
	}
	sent_once($node, $twilio, $campaign, $job, "synchronous_commit = off for $wish");
	cmp_ok($twilio->stats->{create_requests}, '<=', 2000 + 4 * 20, "$wish: no storm of requests");
	$node->safe_psql('postgres', "ALTER $wish RESET synchronous_commit");
}

# The end comes while requests wait for their answer; what was not sent yet is
# neither lost nor sent twice.  Twice in a row, the second time before anything
# could be looked up.
my %end = (
	'fast shutdown' => sub { $node->stop('fast'); $node->start },
	'immediate shutdown' => sub { $node->stop('immediate'); $node->start },
	'termination of the worker' => sub {
		my @pids = worker_pids($node);
		$node->safe_psql('postgres', "SELECT pg_terminate_backend($_)") for @pids;
		poll(sub { !grep { my $pid = $_; grep { $_ == $pid } @pids } worker_pids($node) });
	},
	'kill of the worker' => sub { kill_worker($node) });
for my $after (0, 1)
{
	for my $end (sort keys %end)
	{
		my $name = "$end with requests " . ($after ? 'taken' : 'not taken');
		wait_for_no_worker($node);
		my $campaign = create_campaign($node, users => 200);
		$twilio->set('reset' => 1, 'hold-after' => $after);
		my $job = start_campaign($node, $campaign);
		ok(accepted_at_least(50), "$name: the run is on");
		$twilio->set('hold' => 1);
		wait_for_flight($twilio, 5);
		for (1 .. 2)
		{
			$end{$end}->();
			$node->safe_psql('postgres', 'SELECT sendcampaign.wake()');
			ok(poll(sub { worker_pids($node) }), "$name: a worker is there");
		}
		$twilio->set('hold' => 0);
		sent_once($node, $twilio, $campaign, $job, $name);
	}
}
$node->stop;

done_testing();
