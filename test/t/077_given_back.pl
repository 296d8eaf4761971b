# Recipients given back, or skipped, before a crash are in one place each.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";

use Campaign;
use LocalTwilio;
use PostgreSQL::Test::Utils;
use Session;
use Test::More;

my $twilio = LocalTwilio->start;
my $node = new_cluster('review', $twilio, conf => <<~CONF);
    restart_after_crash = on
    sendcampaign.request_timeout = '1s'
    sendcampaign.lookup_delay = '100ms'
CONF

# More than two batches full are given back at once.
my $users = 3000;
my $campaign = create_campaign($node, users => $users);
$twilio->set('fault:429' => 100, 'retry-after' => 30);
my $job = start_campaign($node, $campaign);
my $run_id = run_of($job);
ok(poll(sub { $twilio->stats->{create_requests} >= 1500 }), 'many wait to be sent again')
  or diag(explain $twilio->stats);
sql($node, "SELECT sendcampaign.pause($job)", role => 'app');
wait_for_no_worker($node);
diag(sql($node, <<~SQL));
    SELECT number, cardinality(list_user_ids)
    FROM sendcampaign.batch
    WHERE run_id = $run_id AND cardinality(list_user_ids) > 240
SQL
is(sql($node, <<~SQL), $users, 'all are in batches');
    SELECT sum(cardinality(list_user_ids)) FROM sendcampaign.batch WHERE run_id = $run_id
SQL
$twilio->set('fault:429' => 0);
sql($node, "SELECT sendcampaign.resume($job)", role => 'app');
sent_once($node, $twilio, $campaign, $job, 'paused with many waiting');

# The worker dies after its first claim, of which some are skipped.
$campaign = create_campaign($node, users => 60, base_url => 'https://example.org/two');
sql($node, <<~SQL);
    UPDATE ac_list_users
    SET data = '{"sms": "nonsense"}'
    WHERE id % 6 = 0
        AND ac_list_id = (SELECT ac_list_id FROM ac_campaigns WHERE id = $campaign)
SQL
my $session = Session->open($node);
$session->query('SELECT pg_advisory_lock(5005, 1)');
$job = start_campaign($node, $campaign);
wait_until($node, <<~'SQL');
    SELECT count(*) > 0
    FROM pg_locks
    WHERE locktype = 'advisory' AND classid = 5005 AND objid = 1 AND NOT granted
SQL
kill_worker($node);
eval { $session->close };
sql($node, 'SELECT sendcampaign.wake()');
sent_once($node, $twilio, $campaign, $job, 'killed after its claim', skipped => 10);
$node->stop;
done_testing();
