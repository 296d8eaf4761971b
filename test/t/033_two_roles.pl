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
sql($node, <<~'SQL');
	CREATE ROLE shop LOGIN;
	GRANT USAGE ON SCHEMA sendcampaign TO shop;
	GRANT SELECT, INSERT, UPDATE ON ALL TABLES IN SCHEMA public TO shop;
	GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO shop;
	SQL

# A worker for each role, and each run under its own.
my @campaigns = map { create_campaign($node, users => 40) } 1 .. 2;
$twilio->set(hold => 1);
my @jobs =
  (start_campaign($node, $campaigns[0]), start_campaign($node, $campaigns[1], role => 'shop'));
wait_for_flight($twilio, 40);
is(sql($node, <<~'SQL'), 'app shop', 'there is one worker per role');
	SELECT string_agg(usename, ' ' ORDER BY usename) FROM pg_stat_activity
	WHERE backend_type = 'sendcampaign worker'
	SQL
my $runs = "SELECT string_agg(job_id::text, ' ') FROM sendcampaign.run";
is(sql($node, $runs, role => 'shop'), $jobs[1], 'a role sees its own run');
is(wake($node, role => 'shop'), 1, 'and wakes its own worker');
$twilio->set(hold => 0);
sent_once($node, $twilio, $campaigns[$_], $jobs[$_], "role $_", total => 40) for 0 .. 1;
wait_for_no_worker($node);

# Calls at the same time: one worker per role, whoever comes first.
@campaigns = map { create_campaign($node, users => 3) } 1 .. 100;
my $first_campaigns = join ',', @campaigns[ 0 .. 89 ];
my $started = sql($node, <<~"SQL", role => 'app');
	SELECT send_campaign(id) FROM unnest(ARRAY[$first_campaigns]) id
	SQL
@jobs = split /\n/, $started;
my @sessions;
for my $campaign (@campaigns[ 90 .. 99 ])
{
	my $out = '';
	my @command = (
		'psql', '-XAtq', '-d', $node->connstr('postgres'),
		'-c', 'SET ROLE app', '-c', "SELECT send_campaign($campaign)");
	push @sessions, { out => \$out, run => IPC::Run::start(\@command, '>', \$out) };
}
for my $session (@sessions)
{
	$session->{run}->finish;
	push @jobs, ${ $session->{out} } =~ /(\d+)/;
}
is(scalar @jobs, 100, 'there are a hundred runs');
wait_for_run($node, $_) for @jobs;
for my $i (0, 63, 64, 89, 90, 99)
{
	sent_once($node, $twilio, $campaigns[$i], $jobs[$i], "run $i of 100", total => 3);
}
is(sql($node, <<~'SQL'), '102|380', 'all are complete');
	SELECT count(*), sum(r.sent)
	FROM sendcampaign.run r
	JOIN ac_campaigns c ON c.id = r.campaign_id
	WHERE r.state = 'completed' AND c.data->>'message' <> 'Companion'
	SQL
my @ledger = $twilio->ledger;
my %bodies = map { $_->{body} => 1 } @ledger;
is(scalar keys %bodies, 380, 'each recipient has its message');
is(scalar @ledger, 380, 'once');

# A small run does not wait for a large one.
my $large = create_campaign($node, users => 20000);
my $small = create_campaign($node, users => 10);
$twilio->set(latency => 100);
my $large_job = start_campaign($node, $large);
wait_for_flight($twilio, 20);
my $small_job = start_campaign($node, $small);
wait_for_run($node, $small_job);
is(run_row($node, $large_job)->{state}, 'running', 'the large run goes on meanwhile');
sent_once($node, $twilio, $small, $small_job, 'the small run', total => 10);
my @by_time = sort { $a->{time} <=> $b->{time} } $twilio->ledger;
my ($last) = grep { $by_time[$_]{body} =~ /yc=$small$/ } reverse 0 .. $#by_time;
my @of_large = grep { $_->{body} =~ /yc=$large$/ } @by_time[ 0 .. $last ];
cmp_ok(scalar @of_large, '<', 10000, 'and was not finished first');
$twilio->set(latency => 0);
sent_once($node, $twilio, $large, $large_job, 'the large run', total => 20000);
wait_for_no_worker($node);
is(worker_errors($node), '', 'no worker met an error');

$node->stop;
done_testing();
