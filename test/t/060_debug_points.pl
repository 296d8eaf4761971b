# The worker is killed exactly where it matters, and the server starts anew:
# each recipient has the message once, and the tables say so.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../perl";
use Campaign;
use LocalTwilio;
use Session;
use Test::More;

plan skip_all => 'the library is built without debug points' if !$ENV{SENDCAMPAIGN_DEBUG_POINTS};

my $users = 30;    # as many as may be in flight before the first answer
my $twilio = LocalTwilio->start;
my $node = new_cluster('points', $twilio, conf => <<~'CONF');
	sendcampaign.receipts = off
	restart_after_crash = on
	sendcampaign.request_timeout = '1s'
	sendcampaign.lookup_delay = '100ms'
	CONF

# Wakes the worker that was killed, and tests that all recipients have their
# message.  Options: accepted (before the kill), lookups (after it).
sub finish
{
	my ($job, $what, %arg) = @_;
	is($twilio->stats->{accepted}, $arg{accepted}, "$what: so many were accepted until the kill")
	  if defined $arg{accepted};
	my $lists = $twilio->stats->{lists};
	ok(wait_until($node, 'SELECT sendcampaign.wake() >= 0'), "$what: the worker is woken");
	is(wait_for_run($node, $job)->{sent}, $users, "$what: all are sent");
	my $count = $twilio->count_by_phone;
	is(scalar(keys %$count), $users, "$what: nobody was left out");
	is((grep { $_ != 1 } values %$count), 0, "$what: nobody has it twice");
	is(sql($node, <<~"SQL"), "0|$users|$users", "$what: the tables are right");
		SELECT (SELECT count(*) FROM sendcampaign.claim WHERE run_id = ${\run_of($job)}),
			(SELECT count(*) FROM sendcampaign.message
				WHERE job_id = $job AND status = 'sent' AND sid IS NOT NULL),
			(SELECT count(*) FROM ac_list_users
				WHERE data->>'sentCount' = '1'
					AND ac_list_id = (SELECT list_id FROM sendcampaign.run WHERE job_id = $job))
		SQL
	# what was not taken is looked up until something later is shown
	cmp_ok($twilio->stats->{lists} - $lists, '>=', $arg{lookups}, "$what: there are lookups")
	  if defined $arg{lookups};
}

sub prepare_campaign
{
	$twilio->set('reset' => 1, 'hold' => 0, 'hold-after' => 0);
	return create_campaign($node, users => $users);
}

# the name and number of a debug point, what is accepted when the worker is
# killed there, and the lookups after that
my @points = (
	[ 'claimed', 1, 0, $users ],
	[ 'answered', 2, undef, undef ],
	[ 'recording', 3, $users, $users ],
	[ 'recorded', 4, $users, undef ]);
for my $case (@points)
{
	my ($what, $point, $accepted, $lookups) = @$case;
	my $campaign = prepare_campaign();
	my $session = Session->open($node);
	$session->query("SELECT pg_advisory_lock(5005, $point)");
	# the first outcomes may be recorded before the last request is sent
	$twilio->set('hold-after' => 1, 'hold' => 1) if $accepted;
	my $job = start_campaign($node, $campaign);
	if ($accepted)
	{
		poll(sub { $twilio->stats->{accepted} == $accepted });
		$twilio->set('hold' => 0);
	}
	ok(waits_at($node, $point), "$what: the worker waits there");
	ok(kill_worker($node), "$what: it is killed");
	eval { $session->close };
	finish($job, $what, accepted => $accepted, lookups => $lookups);
}

# after the request's bytes, before the answer; Twilio took it, or did not
for my $after (0, 1)
{
	my $what = $after ? 'taken, not answered' : 'neither taken nor answered';
	my $campaign = prepare_campaign();
	$twilio->set('hold-after' => $after, 'hold' => 1);
	my $job = start_campaign($node, $campaign);
	ok(poll(sub { $twilio->stats->{create_in_flight} > 0 }), "$what: requests are there");
	ok(kill_worker($node), "$what: the worker is killed");
	$twilio->set('hold' => 0);
	finish($job, $what, accepted => $after ? undef : 0);
}

$node->stop;
done_testing();
