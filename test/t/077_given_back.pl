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
my $node = new_cluster('review', $twilio, conf => qq{
	restart_after_crash = on
	sendcampaign.request_timeout = '1s'
	sendcampaign.lookup_delay = '100ms'
});

# 1: more than two batches full are given back at once
{
	my $users = 3000;
	my $campaign = create_campaign($node, users => $users);
	$twilio->set('fault:429' => 100, 'retry-after' => 30);
	my $job = start_campaign($node, $campaign);
	ok(poll(sub { $twilio->stats->{create_requests} >= 1500 }, 30), 'many wait to be sent again')
	  or diag(explain $twilio->stats);
	$node->safe_psql('postgres', "SET ROLE app; SELECT sendcampaign.pause($job)");
	wait_for_no_worker($node);
	diag $node->safe_psql('postgres', "SELECT number, cardinality(list_user_ids) FROM sendcampaign.batch WHERE run_id = ${\ run_of($job)} AND cardinality(list_user_ids) > 240");
	is($node->safe_psql('postgres', "SELECT sum(cardinality(list_user_ids)) FROM sendcampaign.batch WHERE run_id = ${\ run_of($job)}"), $users, 'all are in batches');
	$twilio->set('fault:429' => 0);
	$node->safe_psql('postgres', "SET ROLE app; SELECT sendcampaign.resume($job)");
	sent_once($node, $twilio, $campaign, $job, 'paused with many waiting');
}

# 2: the worker dies after its first claim, of which some are skipped
{
	my $campaign = create_campaign($node, users => 60, base_url => 'https://example.org/two');
	$node->safe_psql('postgres', qq{UPDATE ac_list_users SET data = '{"sms": "nonsense"}'
		WHERE id % 6 = 0 AND ac_list_id = (SELECT ac_list_id FROM ac_campaigns WHERE id = $campaign)});
	my $session = Session->open($node);
	$session->query("SELECT pg_advisory_lock(5005, 1)");
	my $job = start_campaign($node, $campaign);
	$node->poll_query_until('postgres', q{SELECT count(*) > 0 FROM pg_locks
		WHERE locktype = 'advisory' AND classid = 5005 AND objid = 1 AND NOT granted});
	kill_worker($node);
	eval { $session->close };
	$node->safe_psql('postgres', 'SELECT sendcampaign.wake()');
	sent_once($node, $twilio, $campaign, $job, 'killed after its claim', skipped => 10);
}
$node->stop;
done_testing();
