# A list that is made in the transaction that sends it, by many sessions while
# a worker is at work: each recipient is seen.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../perl";
use Campaign;
use LocalTwilio;
use PostgreSQL::Test::Utils;
use Test::More;

my $twilio = LocalTwilio->start;
my $node = new_cluster('snapshots', $twilio);
my $transactions = $ENV{TRANSACTIONS} || 250;
my $sessions = 6;
create_campaign($node, users => 1);
my $script = PostgreSQL::Test::Utils::tempdir() . '/welcome.sql';
append_to_file($script, <<~'SQL');
	BEGIN;
	WITH l AS (
	    INSERT INTO ac_lists (group_id) VALUES (1) RETURNING id
	), u AS (
	    INSERT INTO ac_list_users (ac_list_id, data)
	    SELECT l.id, jsonb_build_object('sms', '+1555' || lpad(i::text, 7, '0'))
	    FROM l, generate_series(1, 3) i
	)
	INSERT INTO ac_campaigns (ac_list_id, data)
	    SELECT id, '{"message": "Welcome", "baseUrl": "https://example.org"}'
	    FROM l
	    RETURNING id AS campaign
	\gset
	SELECT send_campaign(:campaign);
	COMMIT;
	SQL
my @pgbench = ('pgbench', '-n', '-U', 'app', '-c', $sessions, '-t', $transactions);
$node->command_ok([ @pgbench, '-f', $script, 'postgres' ], 'lists are made and sent at once');
ok(wait_until($node, q{SELECT bool_and(state = 'completed') FROM sendcampaign.run}),
	'all runs are completed');
is(sql($node, 'SELECT count(*) FROM sendcampaign.run WHERE total <> 3 OR sent <> 3'),
	0, '... with all recipients');
is($twilio->stats->{accepted}, 3 * $sessions * $transactions, '... each of whom has a message');
is(worker_errors($node), '', 'no errors in the log');
$node->stop;
done_testing();
