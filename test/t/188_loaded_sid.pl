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
my $node = new_cluster('loaded_sid', $twilio, no_extension => 1, conf => <<~'CONF');
	sendcampaign.request_timeout = '2s'
	sendcampaign.lookup_delay = 0
	CONF
sql($node, 'CREATE ROLE owner LOGIN; CREATE DATABASE one OWNER owner');
install_extension($node, 'one');
sql($node, 'GRANT USAGE ON SCHEMA sendcampaign TO owner', db => 'one');

# Loads a run of the owner's whose message has this SID, for the last list user.
sub load_sid
{
	my ($campaign, $sid) = @_;
	my $list_user = sql($node, 'SELECT max(id) FROM ac_list_users', db => 'one');
	sql($node, <<~SQL, db => 'one', role => 'owner');
		WITH r AS (
		    INSERT INTO sendcampaign.run_data (schema, job_id, campaign_id, role, role_oid,
		        database, timeline, state, finished_at)
		    VALUES ('elsewhere', 900000 + $campaign, $campaign, 'owner', 'owner'::regrole,
		        0, '', 'completed', now())
		    RETURNING id)
		INSERT INTO sendcampaign.message_data (run_id, list_user_id, phone, status, sid)
		SELECT id, $list_user, '+15550000001', 'sent', '$sid' FROM r
		SQL
}

my $same_sid =
  qr/Twilio's list has a message whose SID is also that of a message loaded into the tables/;
for my $case ([ 'with a link', 'https://example.org' ], [ 'without a link', undef ])
{
	my ($name, $url) = @$case;
	my $campaign =
	  create_campaign($node, db => 'one', users => 1, message => "Hello $name", base_url => $url);
	# the list lags, so that the message is not found before the rows are loaded
	$twilio->set(
		reset => 1,
		'list-lag' => 600000,
		'fault:drop-after' => '#1',
		'to-fault' => "$LocalTwilio::COMPANION=spared");
	my $job = start_campaign($node, $campaign, db => 'one');
	poll(sub { $twilio->stats->{accepted} == 1 });
	my ($message) = $twilio->ledger;
	load_sid($campaign, $message->{sid});
	$twilio->set('list-lag' => 0);
	my $run = wait_for_run($node, $job, db => 'one');
	is(sent_with($twilio, "Hello $name"), 1, "$name: nothing is sent again");
	is("$run->{sent} $run->{in_doubt}", '0 1', "$name: a person has to look");
	like(sql($node, <<~SQL, db => 'one'), $same_sid, "$name: ... and is told why");
		SELECT error_message
		FROM sendcampaign.message
		WHERE job_id = $job AND schema = 'public'
		SQL
}
wait_for_no_worker($node);
$node->stop;
done_testing();
