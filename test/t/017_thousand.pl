# A thousand campaigns in one statement: one worker, and all are sent.
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
$node->safe_psql('postgres', qq{
	SET ROLE app;
	INSERT INTO ac_lists (id, group_id) SELECT i + 1000, l.group_id
		FROM generate_series(1, 1000) i, ac_lists l;
	INSERT INTO ac_list_users (ac_list_id, data)
		SELECT i + 1000, jsonb_build_object('sms', '+1556' || lpad(i::text, 7, '0')) FROM generate_series(1, 1000) i;
	INSERT INTO ac_campaigns (id, ac_list_id, data)
		SELECT i + 1000, i + 1000, '{"message": "of many"}' FROM generate_series(1, 1000) i});

my $offset = -s $node->logfile;
my $jobs = $node->safe_psql('postgres',
	'SET ROLE app; SELECT count(DISTINCT send_campaign(id)) FROM ac_campaigns WHERE id > 1000');
is($jobs, 1000, 'a thousand jobs');
$node->poll_query_until('postgres', q{SELECT count(*) = 1000 FROM sendcampaign.run WHERE state = 'completed'})
  or diag('not all are completed');
wait_for_no_worker($node);

my $count = $twilio->count_by_phone;
is(scalar(keys %$count), 1000, 'each recipient was sent to');
is((grep { $_ != 1 } values %$count), 0, 'once');
is($node->safe_psql('postgres', q{SELECT count(*) FROM ac_background_jobs WHERE progress = 100 AND error IS NULL}),
	1000, 'each job is through');
is($node->safe_psql('postgres', q{SELECT count(*) FROM ac_list_users WHERE data->>'sentCount' = '1' AND data->>'sms' IS DISTINCT FROM '+18885550000'}),
	1000, 'each recipient is counted');
my $log = slurp_file($node->logfile, $offset);
is(() = $log =~ /starting background worker process "sendcampaign worker/g, 1, 'one worker was started');

$node->stop;
done_testing();
