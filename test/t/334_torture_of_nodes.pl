# Torture over three nodes: tenants send their campaigns from all of them to a Twilio
# with faults, while nodes are killed, schemas move and jobs are called again anywhere.
# In the end each recipient has each campaign once, and all tables say so.
#
# SEED chooses what happens (within what timing lets be repeated), COUNT how many
# attacks there are.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";

use Campaign;
use Citus;
use LocalTwilio;
use Session;
use Test::More;

need_citus();
my $seed = $ENV{SEED} || time ^ $$ << 8;
my $count = $ENV{COUNT} || 8;
diag("torture of nodes: SEED=$seed COUNT=$count");
srand($seed);

# How often each fault of Twilio comes, in percent of the requests.
my %percent = (
	'429' => 2,
	'503' => 1,
	'500-before' => 1,
	'500-after' => 1,
	'drop-before' => 1,
	'drop-after' => 1,
	'never-after' => 0.5,
	'truncated' => 0.5,
	'list-500' => 2,
	'list-drop' => 1);
my @faults = map { ('--fault', "$_=$percent{$_}") } sort keys %percent;
my $twilio = LocalTwilio->start(options => [ '--seed', $seed, '--list-lag', 200, @faults ]);
my $citus = Citus->new('torture', $twilio, linger => (0, 300)[ rand 2 ], conf => <<~'CONF');
	sendcampaign.max_concurrency = 10
	sendcampaign.request_timeout = '1s'
	sendcampaign.lookup_timeout = '600s'
	log_statement = 'none'
	CONF
my @tenants = map { $citus->add_tenant("tenant$_", users => 300, on => $_) } 0 .. 2;
my @runs;

sub any_node { return ($citus->nodes)[ rand 3 ]; }

# What is done to them: how often, and by which function.
my %attack = (
	kill_worker => [ 4, sub { $citus->kill_worker(any_node()) } ],
	power_failure => [ 3, \&power_failure ],
	stop_immediately => [ 2, sub { restart('immediate') } ],
	stop_fast => [ 2, sub { restart('fast') } ],
	move => [ 5, sub { move('block_writes') } ],
	move_logically => [ 1, sub { move('force_logical') } ],
	call_again => [ 4, \&call_again ],
	drop_connections => [ 2, sub { $twilio->set('drop' => 1) } ],
	lock_rows => [ 2, \&lock_rows ]);
my @attacks = map { ($_) x $attack{$_}[0] } sort keys %attack;
my @plan = map { $attacks[ rand @attacks ] } 1 .. $count;

# Waits for a random number of messages, or for so many seconds.
sub advance
{
	my $seconds = shift;
	my $accepted = $twilio->stats->{accepted} + int rand 100;
	poll(sub { $twilio->stats->{accepted} >= $accepted }, $seconds);
	return;
}

sub restart
{
	my $mode = shift;
	my $node = any_node();
	$node->stop($mode);
	$node->start;
	return;
}

sub power_failure
{
	my $node = any_node();
	$citus->kill_node($node);
	advance(0.5);
	$node->start;
	return;
}

# A schema moves; that may fail where its tables are in use.
sub move
{
	my $mode = shift;
	my $tenant = $tenants[ rand @tenants ];
	eval { $citus->move($tenant, int(rand 3), mode => $mode); 1 }
	  or note("$tenant->{schema} did not move: $@");
	return;
}

# Somebody calls a job once more, on all nodes.
sub call_again
{
	my $run = $runs[ rand @runs ];
	for my $node ($citus->nodes)
	{
		my $error = $citus->call_error($node, $run);
		note("$run->{schema} on " . $node->name . ": $error->{message}") if $error->{message};
	}
	return;
}

# Rows of recipients are locked for a moment, through any node.
sub lock_rows
{
	my $tenant = $tenants[ rand @tenants ];
	my $session = Session->open(any_node());
	$session->query('BEGIN');
	$session->query("UPDATE $tenant->{schema}.ac_list_users SET user_id = 1");
	advance(1);
	$session->query('ROLLBACK');
	return;
}

my (%done, $accepted);
for (my ($attacks, $round) = (0, 1); $attacks < $count; $round++)
{
	@runs = $round == 1 ? @tenants : map { $citus->add_campaign($_) } @tenants;
	# so slow that there is time for attacks: sent_once() ends that
	$twilio->set('latency' => 500, 'latency-spread' => 400);
	$citus->call($citus->home($_), $_) for @runs;
	while ($attacks < $count)
	{
		advance(rand 2);
		last if @runs == grep { $citus->accepted($_) >= $_->{users} } @runs;
		my $attack = $plan[ $attacks++ ];
		note(sprintf '%s after %d messages', $attack, $twilio->stats->{accepted});
		$attack{$attack}[1]->();
		$done{$attack}++;
	}
	$citus->sent_once($_, "round $round, $_->{schema}", times => $round) for @runs;
	$accepted += $twilio->stats->{accepted};
	$twilio->set('reset' => 1);
	last if !Test::More->builder->is_passing;
}

my $accident = qr/PANIC|TRAP|terminated by signal (?!9\b)\d+|gives up|already held/;
unlike(log_of($_), $accident, 'no other accidents on ' . $_->name) for $citus->nodes;
my $attacks_done = join ', ', map { "$_ $done{$_}" } sort keys %done;
diag("torture of nodes: SEED=$seed: $accepted messages; $attacks_done");
$citus->stop;
done_testing();
