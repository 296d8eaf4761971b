# The owner of the database may load messages with any SID.  That does not make
# somebody else's message, which is in doubt, another one's: it is not sent again.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../perl";
use Campaign;
use LocalTwilio;
use Test::More;

my $twilio = LocalTwilio->start;
my $node = new_cluster('loaded_sid', $twilio, no_extension => 1, conf => qq{
	sendcampaign.request_timeout = '2s'
	sendcampaign.lookup_delay = 0
});
$node->safe_psql('postgres', 'CREATE ROLE owner LOGIN; CREATE DATABASE one OWNER owner');
install_extension($node, 'one');
$node->safe_psql('one', 'GRANT USAGE ON SCHEMA sendcampaign TO owner');
sub sql { return $node->safe_psql('one', $_[0]); }

for my $case ([ 'with a link', 'https://example.org' ], [ 'without a link', undef ])
{
	my ($name, $url) = @$case;
	my $campaign = create_campaign($node, db => 'one', users => 1, message => "Hello $name", base_url => $url);
	$twilio->set(reset => 1, 'fault:drop-after' => '#1', 'to-fault' => "$LocalTwilio::COMPANION=spared");
	my $job = start_campaign($node, $campaign, db => 'one');
	poll(sub { $twilio->stats->{accepted} == 1 });
	my ($message) = $twilio->ledger;
	my $id = sql(qq{SELECT id FROM ac_list_users ORDER BY id DESC LIMIT 1});
	my $run = sql(qq{SET ROLE owner; INSERT INTO sendcampaign.run_data (schema, job_id, campaign_id, role, role_oid, database, timeline, state, finished_at)
		VALUES ('elsewhere', 900000 + $campaign, $campaign, 'owner', 'owner'::regrole, 0, '', 'completed', now()) RETURNING id});
	sql("SET ROLE owner; INSERT INTO sendcampaign.message_data (run_id, list_user_id, phone, status, sid)
		VALUES ($run, $id, '+15550000001', 'sent', '$message->{sid}')");
	my $row = wait_for_run($node, $job, db => 'one');
	is(sent_with($twilio, "Hello $name"), 1, "$name: nothing is sent again");
	is("$row->{sent} $row->{in_doubt}", '0 1', "$name: a person has to look");
	like(sql("SELECT error_message FROM sendcampaign.message WHERE job_id = $job AND schema = 'public'"), qr/loaded/, "$name: ... and is told why");
}
wait_for_no_worker($node);
$node->stop;
done_testing();
