# The worker is killed exactly where it matters, and the server starts anew:
# each recipient has the message once, and the tables say so.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../perl";
use Campaign;
use LocalTwilio;
use PostgreSQL::Test::Utils;
use Session;
use Test::More;

plan skip_all => 'the library is built without debug points' if !$ENV{SENDCAMPAIGN_DEBUG_POINTS};

my $users = 60;
my $twilio = LocalTwilio->start;
my $node = new_cluster('points', $twilio, conf => qq{
	restart_after_crash = on
	sendcampaign.request_timeout = '1s'
	sendcampaign.lookup_delay = '100ms'
});

sub waits_at
{
	my $point = shift;
	return $node->poll_query_until('postgres', qq{SELECT count(*) > 0 FROM pg_locks
		WHERE locktype = 'advisory' AND classid = 5005 AND objid = $point AND NOT granted});
}

sub finish
{
	my ($job, $what, $accepted_before, $lookups) = @_;
	is($twilio->stats->{accepted}, $accepted_before, "$what: accepted until the kill") if defined $accepted_before;
	my $before = $twilio->stats->{lists};
	ok($node->poll_query_until('postgres', 'SELECT sendcampaign.wake() >= 0'), "$what: woken");
	is(wait_for_run($node, $job)->{sent}, $users, "$what: all are sent");
	my $count = $twilio->count_by_phone;
	is(scalar(keys %$count), $users, "$what: nobody was left out");
	is((grep { $_ != 1 } values %$count), 0, "$what: nobody has it twice");
	is($node->safe_psql('postgres', qq{SELECT (SELECT count(*) FROM sendcampaign.claim),
			(SELECT count(*) FROM sendcampaign.message WHERE job_id = $job AND status = 'sent' AND sid IS NOT NULL),
			(SELECT count(*) FROM ac_list_users WHERE data->>'sentCount' = '1'
				AND ac_list_id = (SELECT list_id FROM sendcampaign.run WHERE job_id = $job))}),
		"0|$users|$users", "$what: the tables are right");
	# what was not taken is looked up until something later is shown
	cmp_ok($twilio->stats->{lists} - $before, '>=', $lookups, "$what: look-ups") if defined $lookups;
}

sub prepare
{
	$twilio->set('reset' => 1, 'hold' => 0, 'hold-after' => 0);
	return create_campaign($node, users => $users);
}

# name, number, accepted when it is killed, look-ups after that
for my $case ([ 'claimed', 1, 0, $users ], [ 'answered', 2, undef, undef ],
	[ 'recording', 3, $users, $users ], [ 'recorded', 4, $users, undef ])
{
	my ($what, $point, $accepted, $lookups) = @$case;
	my $campaign = prepare();
	my $session = Session->open($node);
	$session->query("SELECT pg_advisory_lock(5005, $point)");
	my $job = $node->safe_psql('postgres', "SET ROLE app; SELECT send_campaign($campaign)");
	ok(waits_at($point), "$what: the worker waits there");
	ok(kill_worker($node), "$what: killed");
	eval { $session->close };
	finish($job, $what, $accepted, $lookups);
}

# after the request's bytes, before the answer; Twilio took it, or did not
for my $after (0, 1)
{
	my $what = $after ? 'taken, not answered' : 'neither taken nor answered';
	my $campaign = prepare();
	$twilio->set('hold-after' => $after, 'hold' => 1);
	my $job = $node->safe_psql('postgres', "SET ROLE app; SELECT send_campaign($campaign)");
	ok(poll(sub { $twilio->stats->{create_in_flight} > 0 }), "$what: requests are there");
	my $accepted = $twilio->stats->{accepted};
	ok(kill_worker($node), "$what: killed");
	$twilio->set('hold' => 0);
	finish($job, $what, $after ? undef : 0, undef);
}

$node->stop;
done_testing();
