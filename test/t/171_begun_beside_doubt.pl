# A run that goes on with messages in doubt is taken up in the transaction in
# which a long list begins, and that transaction is rolled back: none of its
# lookups is under way for what is no longer in memory.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../perl";
use Campaign;
use LocalTwilio;
use PostgreSQL::Test::Utils;
use Test::More;

my $twilio = LocalTwilio->start;
my $node = new_cluster('begun_beside_doubt', $twilio, conf => <<~'CONF');
	sendcampaign.request_timeout = '2s'
	sendcampaign.lookup_delay = 0
	restart_after_crash = on
	CONF

# A slow list of another schema, whose group loses its configuration
sql($node, 'CREATE SCHEMA slow AUTHORIZATION app');
my $slow = sql($node, <<~SQL, role => 'app');
	SELECT sendcampaign.create_tables('slow');
	ALTER TABLE slow.ac_list_users RENAME TO list_users;
	CREATE VIEW slow.ac_list_users AS
	    SELECT * FROM slow.list_users WHERE pg_sleep(0.012) IS NOT NULL;
	INSERT INTO slow.groups (configuration) VALUES (jsonb_build_object(
	    'twilioAccountSid', '$LocalTwilio::ACCOUNT',
	    'twilioAuthToken', '$LocalTwilio::TOKEN',
	    'twilioFromSmsNumber', '$LocalTwilio::SENDER'));
	INSERT INTO slow.ac_lists (group_id) VALUES (1);
	INSERT INTO slow.list_users (ac_list_id, data)
	SELECT 1, jsonb_build_object('sms', '+1777' || lpad(i::text, 7, '0'))
	FROM generate_series(1, 300) i;
	INSERT INTO slow.ac_campaigns (ac_list_id, data)
	VALUES (1, '{"message": "slow", "baseUrl": "https://example.com"}')
	RETURNING id;
	SQL
$slow =~ s/.*\n//s;

# Twenty in doubt, which stay claimed while their run is paused
my ($campaign, $job) = hold_campaign($node, $twilio, users => 40);
sql($node, "SELECT sendcampaign.pause($job)");
wait_for_no_worker($node);
cmp_ok(sql($node, 'SELECT sum(cardinality(list_user_ids)) FROM sendcampaign.claim'),
	'>=', 20, 'some are in doubt');
$twilio->set(hold => 0);
my $offset = -s $node->logfile;
sql($node, <<~SQL);
	BEGIN;
	SET LOCAL ROLE app;
	SELECT sendcampaign.resume($job);
	SET LOCAL sendcampaign.schema = slow;
	SELECT send_campaign($slow);
	UPDATE slow.groups SET configuration = '{}';
	COMMIT;
	SQL
wait_until($node, "SELECT state = 'failed' FROM sendcampaign.run WHERE schema = 'slow'");
my $run = wait_for_run($node, "$job AND schema = 'public'");
is( "$run->{state} $run->{sent} $run->{in_doubt}",
	'completed 40 0',
	'the run that goes on completes');
my $phones = $twilio->count_by_phone;
is(scalar(grep { $phones->{$_} > 1 } keys %$phones), 0, 'nobody got it twice');
unlike(
	slurp_file($node->logfile, $offset),
	qr/terminated by signal|TRAP|no context/,
	'no worker has crashed');
$node->stop;
done_testing();
