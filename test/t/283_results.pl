# The view result and summary(): one row per recipient with all that is known,
# totals that agree with it, and a plan that looks nothing up row by row.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../perl";
use Campaign;
use LocalTwilio;
use Test::More;

my $twilio = LocalTwilio->start;
my $node = new_cluster('results', $twilio, conf => 'sendcampaign.receipts = off');
my $campaign = create_campaign($node, users => 8);
my $group = sql($node, 'SELECT ' . group_of($campaign));
sql($node, 'UPDATE ac_list_users SET data = \'{"sms": "=1+1"}\' WHERE id = 8');
$twilio->set('to-fault' => '+15550000006=code:21614', 'to-fault' => '+15550000007=code:21999');
my $job = run_campaign($node, $campaign)->{job};
my $run = sql($node, "SELECT id FROM sendcampaign.run WHERE job_id = $job");
my @sid = (
	'',
	split /\n/,
	sql($node, "SELECT sid FROM sendcampaign.message WHERE sid IS NOT NULL ORDER BY list_user_id")
);
sql($node, <<~"SQL");
	INSERT INTO sendcampaign.receipt_data (run_id, list_user_id, sid, status, error_code, segments,
		price, price_unit, updated_at)
	VALUES ($run, 1, '$sid[1]', 'delivered', NULL, 1, 0.01, 'USD', '2024-01-01 10:00+00'),
		($run, 2, '$sid[2]', 'read', NULL, 2, 0.02, 'USD', now()),
		($run, 3, '$sid[3]', 'undelivered', 30003, 1, 0.05, 'EUR', now()),
		($run, 4, 'SMother', 'delivered', NULL, 7, 9, 'USD', now());
	INSERT INTO sendcampaign.reply_data (sid_hash, role_oid, schema, group_id, role, sid, phone, body,
		received_at, run_id, list_user_id)
	SELECT sha256(i::text::bytea), 'app'::regrole, 'public', $group, 'app', 'SMreply' || i, '+15550000001',
		'x', '2024-01-02'::timestamptz + make_interval(days => i), $run, 1 + i / 3
	FROM generate_series(1, 3) i;
	SELECT sendcampaign.opt_out('+15550000002');
	SET ROLE app;
	SELECT sendcampaign.opt_out('+15550000003', $group), sendcampaign.opt_out('+15550000004', $group + 1000)
	WHERE false;
	SELECT sendcampaign.opt_out('+15550000003', $group);
	SELECT sendcampaign.track(1, $campaign, 'complete'), sendcampaign.track(2, $campaign, 'open'),
		sendcampaign.track(2, $campaign, 'share');
	SQL

is( sql($node, <<~"SQL", role => 'app'),
	SELECT list_user_id, phone, status, delivery, error_code, opened_at IS NOT NULL AS opened,
		completed_at IS NOT NULL AS completed, replies, opted_out, segments, price, price_unit
	FROM sendcampaign.result WHERE job_id = $job ORDER BY list_user_id
	SQL
	join("\n",
		'1|+15550000001|sent|delivered||t|t|2|f|1|0.01|USD',
		'2|+15550000002|sent|read||t|f|1|t|2|0.02|USD',
		'3|+15550000003|sent|undelivered|30003|f|f|0|t|1|0.05|EUR',
		'4|+15550000004|sent|||f|f|0|f|1||',
		'5|+15550000005|sent|||f|f|0|f|1||',
		'6|+15550000006|failed||21614|f|f|0|f|||',
		'7|+15550000007|failed||21999|f|f|0|f|||',
		'8|=1+1|skipped|||f|f|0|f|||'),
	'one row per recipient');
is( sql($node, "SELECT error, what_to_do FROM sendcampaign.result WHERE list_user_id = 3"),
	sql($node, 'SELECT description, what_to_do FROM sendcampaign.error_code WHERE code = 30003'),
	'a code has its meaning and what to do');
is( sql($node,
		'SELECT what_to_do IS NULL, error <> $$$$ FROM sendcampaign.result WHERE list_user_id = 7'
	),
	't|t',
	'an unknown one has what Twilio says');
is( sql($node, 'SELECT error FROM sendcampaign.result WHERE list_user_id = 8'),
	'phone number is not in E.164 form',
	'who was skipped has the reason');
is( sql($node,
		'SELECT delivery_at = $$2024-01-01 10:00+00$$, replied_at = $$2024-01-04$$::timestamptz, sent_at IS NOT NULL FROM sendcampaign.result WHERE list_user_id = 1'
	),
	't|t|t', 'times');
is( sql($node,
		"SELECT count(*) FILTER (WHERE what_to_do ~ '^[A-Z].*[.]\$'), count(*), count(*) > 90 FROM sendcampaign.error_code"
	),
	sql($node, 'SELECT count(*), count(*), true FROM sendcampaign.error_code'),
	'what to do is a sentence for each code');

is( sql($node, "SELECT * FROM sendcampaign.summary($job)", role => 'app'),
	join("\n",
		'recipients|8|||', 'sent|5||62.5|recipients',
		'failed|2||25.0|recipients', 'skipped|1||12.5|recipients',
		'in doubt|0||0.0|recipients', 'remaining|0||0.0|recipients',
		'delivered|2||40.0|sent', 'undelivered|1||20.0|sent',
		'opened|2||40.0|sent', 'completed|1||50.0|opened',
		'replied|2||40.0|sent', 'opted out|2||40.0|sent',
		'segments|6|||', 'price|0.05|EUR||',
		'price|0.03|USD||'),
	'the totals');
my $error = call_error($node, 'summary(4711)');
is($error->{sqlstate}, 'P0002', 'a job without a run');
is($error->{message}, 'there is no run of background job 4711', '... is an error');
is($error->{hint}, 'See sendcampaign.run for the runs that your role may see.', '... with a hint');
my $empty = create_campaign($node, users => 0);
my $nobody = run_campaign($node, $empty)->{job};
is( sql($node,
		"SELECT value, percent FROM sendcampaign.summary($nobody) WHERE measure = 'sent'",
		role => 'app'),
	'0|',
	'without recipients, there are no percentages');

# Large: 100,000 recipients, of several runs
sql($node, <<~'SQL');
	INSERT INTO sendcampaign.run_data (id, schema, job_id, campaign_id, role, role_oid, database, state, total, finished_at)
	SELECT 1000 + i, 'public', 1000 + i, 1, 'app', 'app'::regrole, 1, 'completed', 50000, now() FROM generate_series(1, 4) i;
	INSERT INTO sendcampaign.message_data (run_id, list_user_id, phone, status, sid, segments)
	SELECT 1000 + r, i, '+1555' || lpad(i::text, 7, '0'), 'sent', 'SM' || r || 'x' || i, 1
	FROM generate_series(1, 4) r, generate_series(1, 50000) i;
	INSERT INTO sendcampaign.receipt_data (run_id, list_user_id, sid, status, updated_at)
	SELECT run_id, list_user_id, sid, 'delivered', now() FROM sendcampaign.message_data WHERE run_id > 1000;
	INSERT INTO sendcampaign.event_data (run_id, list_user_id, event)
	SELECT run_id, list_user_id, e FROM sendcampaign.message_data, unnest(ARRAY['open', 'complete']) e WHERE run_id > 1000;
	ANALYZE;
	SQL
my $plan = sql($node,
	'EXPLAIN (ANALYZE, TIMING OFF) SELECT count(opened_at), count(error), count(replied_at), bool_or(opted_out) FROM sendcampaign.result WHERE job_id = 1001'
);
my @slow = grep { /loops=(\d+)/ && $1 > 1000 && /Seq Scan|Aggregate|Unique|SubPlan/ } split /\n/,
  $plan;
is(join("\n", @slow), '', 'no row is looked for in a whole table') or diag($plan);
is(sql($node, "SELECT value FROM sendcampaign.summary(1001) WHERE measure = 'completed'"),
	50000, 'the totals of a large run');
$node->stop;
done_testing();
