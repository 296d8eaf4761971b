# Citus: a node that hangs, so that connections to it are neither made nor refused, stops
# no campaign of another node, and puts none of its messages in doubt.  What waits for it
# is sent when it is back.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../perl";
use Campaign;
use Citus;
use LocalTwilio;
use Test::More;
use Time::HiRes qw(time);

need_citus();
my $twilio = LocalTwilio->start;
my $citus = Citus->new('hung', $twilio, conf => "citus.max_cached_conns_per_worker = 0\n");
my ($coordinator, $first, $second) = $citus->nodes;
my @moved = map { $citus->add_tenant("moved$_", users => 5, on => 1) } 1 .. 4;
my $here = $citus->add_tenant('here', users => 200, on => 1);
my $postmaster;

sub hang
{
	($postmaster) = slurp($second->data_dir . '/postmaster.pid') =~ /^(\d+)/;
	kill 'STOP', $postmaster;
	return;
}

sub wake_up
{
	kill 'CONT', $postmaster if $postmaster;
	undef $postmaster;
	return;
}
END { local $?; wake_up() }

sub slurp
{
	my $name = shift;
	open my $file, '<', $name or die "$name: $!";
	local $/;
	return <$file>;
}

# Campaigns that are queued here, whose tables move to the node before it hangs
set_and_reload($first, 'sendcampaign.enabled', 'off');
$citus->call($first, $_) for @moved;
$citus->move($_, 2) for @moved;
hang();
$twilio->set(latency => 500);
set_and_reload($first, 'sendcampaign.enabled', 'on');
$citus->call($first, $here);
my $begin = time;
ok( poll(
		sub {
			grep { / completed / } run_here($here);
		},
		100),
	'a campaign of another node is sent');
diag(sprintf '%.1f s', time - $begin) if $ENV{SHOW_TIMES};
cmp_ok(time - $begin, '<', seconds_here($first, 40), 'soon');
like(join(' ', run_here($here)), qr{ completed 200/200 0$}, 'none of its messages is in doubt');
my $reason = 'the node that has the tables in schema "moved\d" could not be reached';
my $hint = 'See to it that the nodes of Citus can reach each other.';
my $errors = q{SELECT string_agg(error, ' ') FROM sendcampaign.run WHERE state = 'queued'};
ok( poll(
		sub {
			sql($first, $errors) =~
			  /trying again, as the database has raised an error: $reason\. \Q$hint\E/;
		},
		60),
	'runs say what they wait for');
is(scalar worker_pids($first), 1, 'the worker stays');
my $again = $citus->add_campaign($here);
$begin = time;
$twilio->set(latency => 5);
$citus->call($first, $again);
ok( poll(
		sub {
			grep { / completed / } run_here($again);
		},
		100),
	'called later');
diag(sprintf '%.1f s', time - $begin) if $ENV{SHOW_TIMES};
cmp_ok(time - $begin, '<', seconds_here($first, 15), 'soon');

sub run_here
{
	my $tenant = shift;
	return sql($first, <<~"SQL");
		SELECT format('x %s %s/%s %s', state, sent, total, in_doubt) FROM sendcampaign.run
		WHERE schema = '$tenant->{schema}' AND job_id = $tenant->{job}
		SQL
}

wake_up();
$begin = time;
$citus->sent_once($_, "$_->{schema}, after the node is back") for @moved;
diag(sprintf '%.1f s', time - $begin) if $ENV{SHOW_TIMES};
cmp_ok(time - $begin, '<', seconds_here($first, 60), 'within a minute');

# A campaign that is under way when its tables move there
my $running = $citus->add_tenant('running', users => 600, on => 1);
$citus->call_slowly($first, $running);
$citus->move($running, 2);
hang();
$twilio->set(latency => 100);
my $meanwhile = $citus->add_campaign($here);
$begin = time;
$citus->call($first, $meanwhile);
ok( poll(
		sub {
			grep { / completed / } run_here($meanwhile);
		},
		100),
	'beside one whose tables have moved');
diag(sprintf '%.1f s', time - $begin) if $ENV{SHOW_TIMES};
cmp_ok(time - $begin, '<', seconds_here($first, 40), 'soon');
like(run_here($meanwhile), qr{ completed 200/200 0$}, 'none of its messages is in doubt');
unlike(run_here($running), qr/completed/, 'the other one waits');
wake_up();
$citus->sent_once($running, 'it was under way, and the node is back');
$citus->stop;
done_testing();
