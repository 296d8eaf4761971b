# A thousand recipients: one request for each, and everything is in the tables.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../perl";
use Campaign;
use LocalTwilio;
use Test::More;

my $twilio = LocalTwilio->start(tls => 1);
my $node = new_cluster('send', $twilio);
my $other = create_campaign($node, users => 5, message => 'not this one');
my $campaign = create_campaign($node, users => 1000, message => 'Hi');
my $list = list_of($campaign);
my $other_list = list_of($other);

my $run = run_campaign($node, $campaign);
my $job = delete $run->{job};
is_deeply(
	$run,
	{
		state => 'completed',
		total => 1000,
		sent => 1000,
		failed => 0,
		skipped => 0,
		in_doubt => 0,
		error => ''
	},
	'the run is complete');

my @ledger = $twilio->ledger;
is(scalar @ledger, 1000, 'there is one request per recipient');
is(scalar(keys %{ $twilio->count_by_phone }), 1000, 'each is to a phone of its own');
my @strange =
  grep { $_->{from} ne $LocalTwilio::SENDER || $_->{account} ne $LocalTwilio::ACCOUNT } @ledger;
is(scalar @strange, 0, 'all are from the right sender and account');

my %body = map { split /\|/, $_, 2 } split /\n/, sql($node, <<~"SQL");
	SELECT data->>'sms', 'Hi https://example.org/survey?yu=' || id || '&yc=$campaign'
	FROM ac_list_users
	WHERE ac_list_id = $list
	SQL
is((grep { $_->{body} ne $body{ $_->{to} } } @ledger), 0, 'all have the right text');

my %sid = map { split /\|/ } split /\n/, sql($node, <<~"SQL");
	SELECT phone, sid FROM sendcampaign.message
	WHERE job_id = $job AND status = 'sent' AND attempts = 1
	SQL
is((grep { ($sid{ $_->{to} } // '') ne $_->{sid} } @ledger), 0, 'the tables have the right SIDs');

is(sql($node, <<~"SQL"), 1000, 'sentCount of each recipient is 1');
	SELECT count(*) FROM ac_list_users
	WHERE data->>'sentCount' = '1' AND data->>'sms' IS DISTINCT FROM '$LocalTwilio::COMPANION'
	SQL
is(sql($node, <<~"SQL"), 0, 'another list is left alone');
	SELECT count(*) FROM ac_list_users
	WHERE data ? 'sentCount' AND ac_list_id = $other_list
	SQL
is(job_row($node, $job, "progress, error IS NULL, data->>'sent'"),
	'100|t|1000', 'the job is complete');
is(sql($node, <<~'SQL'), '0|0', 'nothing is claimed or left to claim');
	SELECT (SELECT count(*) FROM sendcampaign.claim), (SELECT count(*) FROM sendcampaign.batch)
	SQL
wait_for_no_worker($node);
pass('the worker has ended');

$node->stop;
done_testing();
