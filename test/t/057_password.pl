# The password changes in mid-run, at Twilio and in the group: the run goes on,
# at once or when it is called again; each recipient has the message once.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../perl";
use Campaign;
use LocalTwilio;
use Test::More;

my $twilio = LocalTwilio->start(
	options => [ '--latency', 20, '--fault', 'drop-before=3', '--fault', 'drop-after=3' ]);
my $node = new_cluster('password', $twilio, conf => <<~'CONF');
	sendcampaign.request_timeout = '1s'
	sendcampaign.lookup_delay = 0
	sendcampaign.max_concurrency = 10
	CONF

my $list_is_refused =
	'Twilio refuses the account: 20003 authentication failed.'
  . ' It was asked for its list of messages.'
  . " Fix the Twilio account or the group's configuration,"
  . ' and call send_campaign() with the same campaign and job.';
for my $first ('Twilio', 'the group')
{
	my $token = "a-new-secret-of-$first" =~ tr/ /-/r;
	my $campaign = create_campaign($node, users => 1500);
	$twilio->set('reset' => 1, 'account' => "$LocalTwilio::ACCOUNT:$LocalTwilio::TOKEN");
	my $job = start_campaign($node, $campaign);
	ok(poll(sub { $twilio->stats->{accepted} >= 200 }), "$first first: it changes in mid-run");
	my $change_at_twilio = sub {
		$twilio->set('account' => "$LocalTwilio::ACCOUNT:$token");
	};
	my $change_in_group = sub {
		configure($node, $campaign, qq{configuration || '{"twilioAuthToken": "$token"}'});
	};
	my @changes = ($change_at_twilio, $change_in_group);
	@changes = reverse @changes if $first eq 'the group';
	$_->() for @changes;

	my $run = wait_for_run($node, $job);
	is($run->{in_doubt}, 0, "$first first: nothing is left in doubt");
	if ($run->{state} eq 'failed')
	{
		like(
			$run->{error},
			qr/^Twilio refuses the account or sender: 20003 |^\Q$list_is_refused\E$/,
			"$first first: the run fails and says why");
		cmp_ok($run->{sent}, '<', 1500, "$first first: before its end");
		start_campaign($node, $campaign, job => $job);
		wait_for_run($node, $job, state => 'completed');
	}
	sent_once($node, $twilio, $campaign, $job, "$first first");
}

# the statements that the tests themselves make are in the log
my $log = log_of($node) =~ s/.*statement:.*\n(\t.*\n)*//gr;
unlike($log, qr/a-new-secret|\Q$LocalTwilio::TOKEN/, 'no password is in the log');
$node->stop;

done_testing();
