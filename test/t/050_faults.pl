# Each fault of Twilio alone, at one request in five: each recipient has the
# message once, and the tables say so.  A database and a Twilio for each fault,
# all at the same time, as most of it is waiting.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../perl";
use Campaign;
use LocalTwilio;
use Test::More;

# attempts: the most of a message; lookups: of all together, where it is not one
# for each fault
my @faults = (
	{ name => '429', set => [ 'fault:429' => 20 ], lookups => 0 },
	{ name => '429 with Retry-After', set => [ 'fault:429' => 20, 'retry-after' => 1 ], lookups => 0 },
	{ name => '503', set => [ 'fault:503' => 20 ], lookups => 0 },
	{ name => '500 before', set => [ 'fault:500-before' => 20 ] },
	{ name => '500 after', set => [ 'fault:500-after' => 20 ], attempts => 1 },
	{ name => 'plain 502', set => [ 'fault:5xx-plain' => 20 ] },
	{ name => 'drop before', set => [ 'fault:drop-before' => 20 ] },
	{ name => 'drop after', set => [ 'fault:drop-after' => 20 ], attempts => 1 },
	{ name => 'drop before, TLS', set => [ 'fault:drop-before' => 20 ], tls => 1 },
	{ name => 'drop after, TLS', set => [ 'fault:drop-after' => 20 ], tls => 1, attempts => 1 },
	{ name => 'never before', set => [ 'fault:never-before' => 20 ] },
	{ name => 'never after', set => [ 'fault:never-after' => 20 ], attempts => 1 },
	{ name => 'slow', set => [ 'fault:slow' => 20 ], attempts => 1 },
	{ name => 'truncated', set => [ 'fault:truncated' => 20 ], attempts => 1 },
	{ name => 'garbage', set => [ 'fault:garbage' => 20 ], attempts => 1 },
	{ name => 'no sid', set => [ 'fault:no-sid' => 20 ], attempts => 1 },
	{ name => 'huge', set => [ 'fault:huge' => 20 ], attempts => 1 },
	{ name => 'concurrency limit', set => [ 'concurrency' => 5, 'latency' => 10 ], lookups => 0 },
	{ name => 'list lags', set => [ 'fault:drop-after' => 20, 'list-lag' => 700 ], attempts => 1 },
	{ name => 'list 500', set => [ 'fault:drop-after' => 20, 'fault:list-500' => 20 ], attempts => 1, lookups => undef },
	{ name => 'list 429', set => [ 'fault:drop-after' => 20, 'fault:list-429' => 20 ], attempts => 1, lookups => undef },
	{ name => 'list garbage', set => [ 'fault:drop-after' => 20, 'fault:list-garbage' => 20 ], attempts => 1, lookups => undef },
	{ name => 'list drop', set => [ 'fault:drop-after' => 20, 'fault:list-drop' => 20 ], attempts => 1, lookups => undef },
	{ name => 'list never', set => [ 'fault:drop-after' => 20, 'fault:list-never' => 20 ], attempts => 1, lookups => undef },
	{ name => 'drop before and after, and of lists',
		set => [ 'fault:drop-before' => 10, 'fault:drop-after' => 10, 'fault:list-drop' => 20 ], lookups => undef });

my $idle = LocalTwilio->start;
my $node = new_cluster('faults', $idle, conf => qq{
	max_worker_processes = 40
	sendcampaign.request_timeout = '1500ms'
	sendcampaign.lookup_delay = '300ms'
	sendcampaign.lookup_timeout = '300s'
	fsync = off
});
my $campaign = create_campaign($node, users => 200);
my $number = 0;
for my $fault (@faults)
{
	my $db = $fault->{db} = 'fault' . ++$number;
	my $twilio = $fault->{twilio} = LocalTwilio->start(tls => $fault->{tls}, options => [ '--seed', $number ]);
	$twilio->set(@{ $fault->{set} });
	clone_database($node, $db, $twilio);
}
$_->{job} = start_campaign($node, $campaign, db => $_->{db}) for @faults;

for my $fault (@faults)
{
	my ($name, $db, $twilio, $job) = @$fault{qw(name db twilio job)};
	sent_once($node, $twilio, $campaign, $job, $name, db => $db);
	my $stats = $twilio->stats;
	my @never = grep { $stats->{faults}{$_} == 0 } keys %{ $stats->{faults} };
	ok(!@never, "$name: it happened") or diag("never: @never");
	is($node->safe_psql($db, 'SELECT max(attempts) FROM sendcampaign.message'), $fault->{attempts},
		"$name: none was sent a second time") if defined $fault->{attempts};
	my $doubts = exists $fault->{lookups} ? $fault->{lookups} : (values %{ $stats->{faults} })[0];
	# what was not taken is looked up until something later is shown
	cmp_ok($stats->{lists}, !$doubts || defined $fault->{attempts} ? '==' : '>=', $doubts,
		"$name: look-ups for each doubt") if defined $doubts;
	$twilio->stop;
}
$node->stop;

done_testing();
