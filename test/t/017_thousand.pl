# A thousand campaigns in one statement: one worker starts, and all are sent.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../perl";
use Campaign;
use LocalTwilio;
use PostgreSQL::Test::Utils;
use Test::More;

my $twilio = LocalTwilio->start;
my $node = new_cluster('thousand', $twilio, conf => "log_min_messages = debug1\n");
my $first = create_campaign($node, users => 1);
sql($node, <<~'SQL', role => 'app');
	INSERT INTO ac_lists (id, group_id)
	SELECT i + 1000, l.group_id FROM generate_series(1, 1000) i, ac_lists l;

	INSERT INTO ac_list_users (ac_list_id, data)
	SELECT i + 1000, jsonb_build_object('sms', '+1556' || lpad(i::text, 7, '0'))
	FROM generate_series(1, 1000) i;

	INSERT INTO ac_campaigns (id, ac_list_id, data)
	SELECT i + 1000, i + 1000, '{"message": "of many"}' FROM generate_series(1, 1000) i;
	SQL

my $offset = -s $node->logfile;
my $jobs = sql($node, <<~'SQL', role => 'app');
	SELECT count(DISTINCT send_campaign(id)) FROM ac_campaigns WHERE id > 1000
	SQL
is($jobs, 1000, 'there are a thousand jobs');
wait_until($node, <<~'SQL') or diag('not all are completed');
	SELECT count(*) = 1000 FROM sendcampaign.run WHERE state = 'completed'
	SQL
wait_for_no_worker($node);

my $count = $twilio->count_by_phone;
is(scalar(keys %$count), 1000, 'each recipient was sent to');
is((grep { $_ != 1 } values %$count), 0, 'once');
is(sql($node, <<~'SQL'), 1000, 'each job is complete');
	SELECT count(*) FROM ac_background_jobs WHERE progress = 100 AND error IS NULL
	SQL
is(sql($node, <<~"SQL"), 1000, 'each recipient is counted');
	SELECT count(*) FROM ac_list_users
	WHERE data->>'sentCount' = '1' AND data->>'sms' IS DISTINCT FROM '$LocalTwilio::COMPANION'
	SQL
my $log = slurp_file($node->logfile, $offset);
my @started = $log =~ /starting background worker process "sendcampaign worker/g;
is(scalar @started, 1, 'one worker was started');

$node->stop;
done_testing();
