# A thousand recipients: each exactly one request, and everything in the tables.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../perl";
use Campaign;
use LocalTwilio;
use PostgreSQL::Test::Utils;
use Test::More;

my $twilio = LocalTwilio->start(tls => 1);
my $node = new_cluster('send', $twilio);
my $other = create_campaign($node, users => 5, message => 'not this one');
my $campaign = create_campaign($node, users => 1000, message => 'Hi');

my $job = $node->safe_psql('postgres', "SET ROLE app; SELECT send_campaign($campaign)");
my $run = wait_for_run($node, $job);
is_deeply($run, { state => 'completed', total => 1000, sent => 1000, failed => 0,
		skipped => 0, in_doubt => 0, error => '' }, 'the run');

my @ledger = $twilio->ledger;
is(scalar @ledger, 1000, 'a request for each recipient');
is(scalar(keys %{ $twilio->count_by_phone }), 1000, 'each to a phone of its own');
is((grep { $_->{from} ne $LocalTwilio::SENDER || $_->{account} ne $LocalTwilio::ACCOUNT } @ledger),
	0, 'right sender and account');

my %body = map { split /\|/, $_, 2 } split /\n/, $node->safe_psql('postgres', qq{
	SELECT data->>'sms', 'Hi https://example.org/survey?yu=' || id || '&yc=$campaign'
	FROM ac_list_users WHERE ac_list_id = (SELECT ac_list_id FROM ac_campaigns WHERE id = $campaign)});
is((grep { $_->{body} ne $body{ $_->{to} } } @ledger), 0, 'right texts');

my %sid = map { split /\|/ } split /\n/, $node->safe_psql('postgres',
	"SELECT phone, sid FROM sendcampaign.message WHERE job_id = $job AND status = 'sent' AND attempts = 1");
is((grep { ($sid{ $_->{to} } // '') ne $_->{sid} } @ledger), 0, 'right SIDs');
is($node->safe_psql('postgres', q{SELECT count(*) FROM ac_list_users WHERE data->>'sentCount' = '1' AND data->>'sms' IS DISTINCT FROM '+18885550000'}),
	1000, 'sentCount of each is 1');
is($node->safe_psql('postgres', qq{SELECT count(*) FROM ac_list_users WHERE data ? 'sentCount'
	AND ac_list_id = (SELECT ac_list_id FROM ac_campaigns WHERE id = $other)}), 0, 'another list is untouched');
is($node->safe_psql('postgres', "SELECT progress, error IS NULL, data->>'sent' FROM ac_background_jobs WHERE id = $job"),
	'100|t|1000', 'the job');
is($node->safe_psql('postgres', 'SELECT (SELECT count(*) FROM sendcampaign.claim), (SELECT count(*) FROM sendcampaign.batch)'),
	'0|0', 'nothing is claimed or left to claim');
wait_for_no_worker($node);
pass('the worker has ended');

$node->stop;
done_testing();
