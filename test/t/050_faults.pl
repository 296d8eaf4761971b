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

# attempts: the most that a message has; lookups: those of all messages
# together, where it is not one for each fault
my @faults = (
	{ name => '429', set => [ 'fault:429' => 20 ], lookups => 0 },
	{
		name => '429 with Retry-After',
		set => [ 'fault:429' => 20, 'retry-after' => 1 ],
		lookups => 0
	},
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
	{
		name => 'list lags',
		set => [ 'fault:drop-after' => 20, 'list-lag' => 700 ],
		attempts => 1
	});

# lookups that fail as well
for my $fault (qw(list-500 list-429 list-garbage list-drop list-never))
{
	push @faults,
	  {
		name => $fault =~ tr/-/ /r,
		set => [ 'fault:drop-after' => 20, "fault:$fault" => 20 ],
		attempts => 1,
		lookups => undef
	  };
}
push @faults,
  {
	name => 'drop before and after, and of lists',
	set => [ 'fault:drop-before' => 10, 'fault:drop-after' => 10, 'fault:list-drop' => 20 ],
	lookups => undef
  };

my $idle = LocalTwilio->start;
my $node = new_cluster('faults', $idle, conf => <<~'CONF');
	sendcampaign.receipts = off
	max_worker_processes = 40
	sendcampaign.request_timeout = '3s'
	sendcampaign.lookup_delay = '300ms'
	sendcampaign.lookup_timeout = '300s'
	fsync = off
	CONF
my $campaign = create_campaign($node, users => 200);
my $number = 0;
for my $fault (@faults)
{
	$number++;
	my $twilio = LocalTwilio->start(tls => $fault->{tls}, options => [ '--seed', $number ]);
	$fault->{twilio} = $twilio;
	$fault->{db} = "fault$number";
	$twilio->set(@{ $fault->{set} });
	clone_database($node, $fault->{db}, $twilio);
	# such an answer takes two seconds
	sql($node,
		"ALTER DATABASE $fault->{db} SET sendcampaign.request_timeout = '1500ms'",
		db => 'template1') if $fault->{name} eq 'slow';
}
$_->{job} = start_campaign($node, $campaign, db => $_->{db}) for @faults;

for my $fault (@faults)
{
	my ($name, $db, $twilio, $job) = @$fault{qw(name db twilio job)};
	sent_once($node, $twilio, $campaign, $job, $name, db => $db);
	my $stats = $twilio->stats;
	my %hits = %{ $stats->{faults} };
	my @never = grep { $hits{$_} == 0 } keys %hits;
	ok(!@never, "$name: the fault happened") or diag("never: @never");
	if (defined $fault->{attempts})
	{
		is(sql($node, 'SELECT max(attempts) FROM sendcampaign.message', db => $db),
			$fault->{attempts}, "$name: none was sent a second time");
	}

	# what was not taken is looked up until something later is shown
	my $doubts = exists $fault->{lookups} ? $fault->{lookups} : (values %hits)[0];
	if (defined $doubts)
	{
		my $compare = !$doubts || defined $fault->{attempts} ? '==' : '>=';
		cmp_ok($stats->{lists}, $compare, $doubts, "$name: each doubt is looked up");
	}
	$twilio->stop;
}
$node->stop;

done_testing();
