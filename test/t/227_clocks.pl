# Twilio's clock is hours behind ours: no receipt, reply or message is taken for
# one from before the run because of that.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../perl";
use Campaign;
use LocalTwilio;
use Sweeps;
use Test::More;

my $twilio = LocalTwilio->start;
my $node = new_cluster('clocks', $twilio, conf => <<~'CONF');
	sendcampaign.request_timeout = '1s'
	sendcampaign.lookup_delay = 0
	CONF
$twilio->set('sent-after' => 0, 'deliver-after' => 0, 'clock-skew' => -7200);

my $campaign = create_campaign($node, users => 2300);
my $job = run_campaign($node, $campaign)->{job};
wait_for_no_worker($node);
$twilio->inbound(from => '+15550000011', body => 'STOP');
sweep_now($node, $job);
is(counts_of($node, $job), '2300|2300|0|0', 'all pages of the list are read');
is(sql($node, <<~'SQL'), '+15550000011|t', 'a STOP is there, with its time by our clock');
	SELECT phone, created_at BETWEEN now() - interval '10 min' AND now() + interval '1 min' FROM sendcampaign.opt_out
	SQL

# START and STOP, in this order, mostly in one second, which the list shows.
$twilio->inbound(from => '+15550000012', body => $_) for 'START', 'STOP';
sweep_now($node, $job);
is(sql($node, <<~'SQL'), 1, 'of words of one second, STOP counts');
	SELECT count(*) FROM sendcampaign.opt_out WHERE phone = '+15550000012'
	SQL

# What was sent before commits were lost is not older than the run, either.
for my $base_url ('https://example.org/survey', undef)
{
	my $name = $base_url ? 'with a link' : 'without a link';
	my $lost = create_campaign($node, users => 3, message => $name, base_url => $base_url);
	my $lost_job = run_campaign($node, $lost)->{job};
	wait_for_no_worker($node);
	my $run = lose_commits($node, $lost_job, 3);
	is("$run->{state} $run->{sent}", 'completed 3', "$name: lost commits are read back");
	is(sent_with($twilio, $name), 3, "$name: nobody has it twice");
}

$node->stop;
done_testing();
