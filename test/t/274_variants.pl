# bucket(): a stable hash by which list users are divided, and the campaigns for
# which that is useful: a control group, variants, a follow-up.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../perl";
use Campaign;
use Document;
use LocalTwilio;
use PostgreSQL::Test::Utils;
use Test::More;

my $twilio = LocalTwilio->start;
my $node = new_cluster('variants', $twilio, conf => 'sendcampaign.receipts = off');

# It never changes, and can be computed elsewhere.
is( sql($node, q(SELECT string_agg(sendcampaign.bucket(i, 'spring', 10)::text, ' ')
		FROM generate_series(1, 12) i)),
	'3 1 8 8 4 5 5 7 1 9 8 2',
	'known values');
is(sql($node, <<~'SQL'), 't', 'as documented');
	SELECT bool_and(sendcampaign.bucket(i, salt, n) =
		(SELECT sum(get_byte(h, b) * 256::numeric ^ (7 - b)) % n
		 FROM sha256(convert_to(salt || ':' || i, 'UTF8')) h, generate_series(0, 7) b))
	FROM unnest(ARRAY[0, 1, -1, 9223372036854775807, -9223372036854775808]) i,
		unnest(ARRAY['', 'é', 'x:1']) salt, unnest(ARRAY[1, 2, 7, 2147483647]) n
	SQL
is(sql($node, q(SELECT sendcampaign.bucket(NULL, 'a', 2) IS NULL)), 't', 'null');
is_deeply(
	call_error($node, q(bucket(1, 'a', 0))),
	{
		sqlstate => '22023',
		message => 'the number of buckets must be at least 1',
		detail => '',
		hint => 'Pass the number of parts into which list users are to be divided.'
	},
	'no buckets');
is(sql($node, <<~'SQL'), 't|t', 'evenly, and independently by salt');
	SELECT bool_and(n BETWEEN 9600 AND 10400), count(*) = 10
	FROM (SELECT sendcampaign.bucket(i, 'a', 2) * 5 + sendcampaign.bucket(i, 'b', 5) AS cell,
			count(*) AS n
		FROM generate_series(1, 100000) i GROUP BY 1) c
	SQL
is(sql($node, q(SELECT concat(provolatile, proparallel) FROM pg_proc WHERE proname = 'bucket')),
	'is', 'it may be in an index');

# What docs/audience.md shows: its campaigns 1 and 2 have list 1.
my $first = create_campaign($node, users => 100, message => 'first');
my $second = sql($node,
		"INSERT INTO ac_campaigns (ac_list_id, data) SELECT ac_list_id,"
	  . " data || '{\"message\": \"second\"}' FROM ac_campaigns WHERE id = $first RETURNING id");
sql($node, q(UPDATE ac_list_users SET data = data || '{"country": "IS"}' WHERE id % 2 = 0));
for my $block (grep { $_->{language} eq 'sql' } blocks_of('docs/audience.md'))
{
	$block->{text} =~ s/DATABASE shop/DATABASE postgres/;
	my (undef, $errors) = run_block($node, 'postgres', $block, 'app');
	is($errors, '', "$block->{name}: no error");
	wait_until($node, "SELECT bool_and(state = 'completed') FROM sendcampaign.run");
}
is( sql($node, 'SELECT string_agg(sent::text, $$ $$ ORDER BY id) FROM sendcampaign.run'),
	sql($node, <<~'SQL'), 'they select what they say');
	SELECT concat_ws(' ', 50, 50, count(*) FILTER (WHERE sendcampaign.bucket(id, 'holdback', 10) > 0),
		count(*) FILTER (WHERE sendcampaign.bucket(id, 'variant', 10) = 0),
		count(*) FILTER (WHERE sendcampaign.bucket(id, 'variant', 10) = 1),
		count(*) FILTER (WHERE sendcampaign.bucket(id, 'variant', 10) > 1))
	FROM ac_list_users
	SQL

# A control group and two variants, each campaign with the same list
my $a = create_campaign($node, users => 200, message => 'A');
my $b = sql($node,
		"INSERT INTO ac_campaigns (ac_list_id, data) SELECT ac_list_id,"
	  . " data || '{\"message\": \"B\"}' FROM ac_campaigns WHERE id = $a RETURNING id");
my $list = sql($node, 'SELECT ' . list_of($a));

sub part
{
	my $condition = shift;
	return "SELECT u.id FROM public.ac_list_users u WHERE u.ac_list_id = $list"
	  . " AND sendcampaign.bucket(u.id, 'holdback', 10) > 0 AND $condition";
}
my $variant = q(sendcampaign.bucket(u.id, 'variant', 10));
my $job_a = run_campaign($node, $a, recipients => part("$variant = 0"))->{job};
my $job_b = run_campaign($node, $b, recipients => part("$variant = 1"))->{job};
my ($sent_a, $sent_b) = (sent_of($twilio, $a), sent_of($twilio, $b));
cmp_ok($sent_a, '>', 0, 'variant A is sent to some');
cmp_ok($sent_b, '>', 0, 'variant B to others');

# The winner goes to the rest, once.
sql($node,
		"UPDATE ac_list_users SET data = data || '{\"openCount\": 1}' WHERE id IN"
	  . " (SELECT list_user_id FROM sendcampaign.message WHERE job_id = $job_b)");
run_campaign($node, $b, recipients => part("$variant > 1"));
is( sql($node, <<~"SQL"),
	SELECT count(*) = count(DISTINCT list_user_id) AND count(*) =
		(SELECT count(*) FROM ac_list_users
		 WHERE ac_list_id = $list AND sendcampaign.bucket(id, 'holdback', 10) > 0)
	FROM sendcampaign.message
	WHERE list_user_id IN (SELECT id FROM ac_list_users WHERE ac_list_id = $list)
	SQL
	't', 'everybody but the control group gets one message');

# A follow-up to those of the first job who have not opened and not answered
is( sql($node, <<~"SQL", role => 'app'),
	SELECT sendcampaign.track(min(list_user_id), $a, 'open')
	FROM sendcampaign.message
	WHERE job_id = $job_a
	SQL
	't', 'one of them opens the link');
my $follow = sql($node,
		"INSERT INTO ac_campaigns (ac_list_id, data) SELECT ac_list_id,"
	  . " data || '{\"message\": \"Did you see it?\"}' FROM ac_campaigns WHERE id = $a RETURNING id"
);
my $run = run_campaign($node, $follow, recipients => <<~"SQL");
	SELECT r.list_user_id
	FROM sendcampaign.result r
	WHERE r.schema = 'public' AND r.job_id = $job_a AND r.status = 'sent'
	  AND r.opened_at IS NULL AND r.replies = 0
	SQL
is($run->{sent}, $sent_a - 1, 'a follow-up goes to those who have not opened');
is(worker_errors($node), '', 'there are no errors in the log');
$node->stop;
done_testing();
