# The password changes in mid-run, at Twilio and in the group: the run goes on,
# at once or when it is called again; each recipient has the message once.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../perl";
use Campaign;
use LocalTwilio;
use PostgreSQL::Test::Utils;
use Test::More;

my $twilio = LocalTwilio->start(options => [ '--latency', 20, '--fault', 'drop-before=3', '--fault', 'drop-after=3' ]);
my $node = new_cluster('password', $twilio, conf => qq{
	sendcampaign.request_timeout = '1s'
	sendcampaign.lookup_delay = 0
	sendcampaign.max_concurrency = 10
});

for my $first ('Twilio', 'the group')
{
	my $token = "a-new-secret-of-$first" =~ tr/ /-/r;
	my $campaign = create_campaign($node, users => 1500);
	$twilio->set('reset' => 1, 'account' => "$LocalTwilio::ACCOUNT:$LocalTwilio::TOKEN");
	my $job = start_campaign($node, $campaign);
	ok(poll(sub { $twilio->stats->{accepted} >= 200 }), "changed in mid-run, $first first");
	my $at_twilio = sub { $twilio->set('account' => "$LocalTwilio::ACCOUNT:$token") };
	my $in_group = sub {
		$node->safe_psql('postgres', qq{UPDATE groups SET configuration = configuration || '{"twilioAuthToken": "$token"}'
			WHERE id = (SELECT group_id FROM ac_lists JOIN ac_campaigns c ON c.ac_list_id = ac_lists.id WHERE c.id = $campaign)});
	};
	$_->() for $first eq 'Twilio' ? ($at_twilio, $in_group) : ($in_group, $at_twilio);

	my $run = wait_for_run($node, $job);
	is($run->{in_doubt}, 0, "$first first: nothing is left in doubt");
	if ($run->{state} eq 'failed')
	{
		like($run->{error}, qr/Twilio refuses the account/, "$first first: it fails and says why");
		cmp_ok($run->{sent}, '<', 1500, "$first first: before its end");
		start_campaign($node, $campaign, job => $job);
		wait_for_run($node, $job, state => 'completed');
	}
	sent_once($node, $twilio, $campaign, $job, "$first first");
}
unlike(slurp_file($node->logfile) =~ s/.*statement:.*\n(\t.*\n)*//gr, qr/a-new-secret|\Q$LocalTwilio::TOKEN/, 'no password in the log');
$node->stop;

done_testing();
