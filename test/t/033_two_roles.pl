# Several roles, and several runs at once.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../perl";
use Campaign;
use IPC::Run ();
use LocalTwilio;
use Test::More;

my $twilio = LocalTwilio->start;
my $node = new_cluster('two_roles', $twilio);
$node->safe_psql('postgres', q{
	CREATE ROLE shop LOGIN;
	GRANT USAGE ON SCHEMA sendcampaign TO shop;
	GRANT SELECT, INSERT, UPDATE ON ALL TABLES IN SCHEMA public TO shop;
	GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO shop;
});

# A worker for each role, and each run under its own.
my @campaigns = map { create_campaign($node, users => 40) } 1 .. 2;
$twilio->set(hold => 1);
my @jobs = (start_campaign($node, $campaigns[0]), start_campaign($node, $campaigns[1], role => 'shop'));
wait_for_flight($twilio, 40);
is($node->safe_psql('postgres', q{SELECT string_agg(usename, ' ' ORDER BY usename) FROM pg_stat_activity
	WHERE backend_type = 'sendcampaign worker'}), 'app shop', 'one worker for each role');
is($node->safe_psql('postgres', "SET ROLE shop; SELECT string_agg(job_id::text, ' ') FROM sendcampaign.run"),
	$jobs[1], 'a role sees its own run');
is($node->safe_psql('postgres', 'SET ROLE shop; SELECT sendcampaign.wake()'), 1, 'and wakes its own worker');
$twilio->set(hold => 0);
sent_once($node, $twilio, $campaigns[$_], $jobs[$_], "role $_", total => 40) for 0 .. 1;
wait_for_no_worker($node);

# Calls at the same time: one worker a role, whoever comes first.
@campaigns = map { create_campaign($node, users => 3) } 1 .. 100;
@jobs = split /\n/, $node->safe_psql('postgres', 'SET ROLE app; SELECT send_campaign(id) FROM unnest(ARRAY['
	  . join(',', @campaigns[0 .. 89]) . ']) id');
my @sessions = map {
	my $campaign = $_;
	my $out = '';
	{ out => \$out, run => IPC::Run::start([ 'psql', '-XAtq', '-d', $node->connstr('postgres'),
		'-c', "SET ROLE app", '-c', "SELECT send_campaign($campaign)" ], '>', \$out) }
} @campaigns[90 .. 99];
$_->{run}->finish for @sessions;
push @jobs, map { ${ $_->{out} } =~ /(\d+)/ } @sessions;
is(scalar @jobs, 100, 'a hundred runs');
wait_for_run($node, $_) for @jobs;
sent_once($node, $twilio, $campaigns[$_], $jobs[$_], "run $_ of 100", total => 3) for 0, 63, 64, 89, 90, 99;
is($node->safe_psql('postgres', q{SELECT count(*), sum(sent) FROM sendcampaign.run WHERE state = 'completed'}),
	'102|380', 'all are complete');
my %bodies = map { $_->{body} => 1 } $twilio->ledger;
is(scalar keys %bodies, 380, 'to each recipient');
is(scalar(() = $twilio->ledger), 380, 'once');

# A small run is not behind a large one.
my $large = create_campaign($node, users => 20000);
my $small = create_campaign($node, users => 10);
$twilio->set(latency => 20);
my $large_job = start_campaign($node, $large);
wait_for_flight($twilio, 20);
my $small_job = start_campaign($node, $small);
sent_once($node, $twilio, $small, $small_job, 'the small run', total => 10);
my $run = run_row($node, $large_job);
is($run->{state}, 'running', 'the large one goes on meanwhile');
cmp_ok($run->{sent}, '<', 10000, 'and was not finished first');
$twilio->set(latency => 0);
sent_once($node, $twilio, $large, $large_job, 'the large run', total => 20000);
wait_for_no_worker($node);
is(worker_errors($node), '', 'no worker met an error');

$node->stop;
done_testing();
