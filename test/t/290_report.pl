# report(): its numbers are those of the tables, whatever has been written into
# them; who may see what, and in which words and time zone.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../perl";
use Campaign;
use LocalTwilio;
use PostgreSQL::Test::Utils;
use Receipts;
use Test::More;

my $twilio = LocalTwilio->start;
$twilio->set('to-fault' => '+15550000002=code:21211');
my $node = new_cluster('report', $twilio);
install_receipts($node);

# The page of a job, or the overview; options as of sql(), and arguments
sub report_of
{
	my ($arguments, %arg) = @_;
	return sql(
		$node, ($arg{before} // '') . "SELECT sendcampaign.report($arguments)",
		role => 'app',
		%arg);
}

# The text of a page without its head, as a reader has it
sub words_of
{
	my $text = shift =~ s/.*<body>//sr =~ s/<[^>]*>/ /gr;
	$text =~ s/&nbsp;/ /g;
	$text =~ s/&ndash;/-/g;
	$text =~ s/&#(\d+);/chr $1/ge;
	$text =~ s/&(lt|gt|amp);/{ lt => '<', gt => '>', amp => '&' }->{$1}/ge;
	return $text =~ s/\s+/ /gr;
}

# The numbers behind a label: what programs read
sub number_of
{
	my ($page, $label) = @_;
	my ($number) = $page =~ m{>\Q$label\E(?:</dt>|</span>|: ).*?<data value="(\d+)"}s;
	return $number;
}

# Nothing has been sent yet
my $empty = report_of('');
like(words_of($empty), qr/There are no runs yet that you may see/, 'no runs: the page says so');
like($empty, qr/\A<!DOCTYPE html>.*<\/html>\s*\z/s, '... and is a page');
my $error = call_error($node, 'report(17)');
is($error->{sqlstate}, 'P0002', 'an unknown job is an error');
is($error->{message}, 'there is no run of background job 17 to report on', '... that names it');
is( $error->{detail},
	'Schema "public" has none that your role may see.',
	'... and says where it was looked for');
is( $error->{hint},
	'Call sendcampaign.report() without a job for an overview of those that you may see,'
	  . ' or set sendcampaign.schema to another schema.',
	'... and what to do');

# A campaign with whatever can be written into it
my $evil = q{</title></style><script>alert(1)</script><img src=x onerror=alert(2)>&"'`};
my $campaign = create_campaign($node, users => 10, message => 'Hello');
sql($node, <<~"SQL", role => 'app');
	UPDATE ac_campaigns SET data = data || jsonb_build_object(
	    'message', \$e\$$evil\$e\$ || E' {{sms}} \\u202e\\u0001 \\u00fe',
	    'baseUrl', 'https://example.org/<b>')
	WHERE id = $campaign;
	UPDATE ac_list_users SET data = '{}' WHERE id = 10
	SQL
my $job = run_campaign($node, $campaign, alone => 1)->{job};
my @sids = sids($node, $job);
report(
	$node,
	$job,
	"$sids[0] delivered price=1234.5 unit=USD segments=2",
	"$sids[2] delivered price=0.0075 unit=USD segments=2",
	"$sids[3] undelivered code=30003",
	"$sids[4] undelivered code=99999",
	"$sids[5] read price=2 unit=<i>");
sql($node, <<~"SQL");
	INSERT INTO sendcampaign.event_data (run_id, list_user_id, event, created_at)
	SELECT ${\run_of($job)}, n, e, '2027-01-31 22:50+00'
	FROM generate_series(1, 6) n, unnest('{open,complete}'::text[]) e
	WHERE e = 'open' OR n < 3;
	INSERT INTO sendcampaign.reply_data
	    (sid_hash, role_oid, schema, group_id, role, sid, phone, sender, body, word, received_at,
	    run_id)
	SELECT sha256(t.body::bytea), r.role_oid, r.schema, 1, r.role, 'SM' || t.n, '+1555000000' || t.n,
	    '+15005550006', t.body, t.word, '2027-01-31 23:10+00', r.id
	FROM sendcampaign.run_data r,
	    (VALUES (1, \$e\$$evil\$e\$, NULL), (3, 'STOP', 'stop'), (4, E'a\\nb', NULL)) t(n, body, word)
	WHERE r.job_id = $job;
	UPDATE sendcampaign.run_data SET senders = ARRAY['+15005550006', \$e\$$evil\$e\$]
	WHERE job_id = $job
	SQL

# No markup of theirs is markup of ours
for my $phones ('false', 'true')
{
	my $page = report_of("$job, $phones");
	unlike($page, qr/<script|<img|onerror=alert\(2\)>|<b>'|<i>/, "phones => $phones: no markup");
	is( scalar(() = $page =~ m{</(?:title|style)>}g),
		2 + 2 * ($page =~ /time-title/),
		'... nor an end of ours');
	unlike($page, qr/[^\x09\x0a\x20-\x7e]/, '... and nothing but ASCII');
	like(words_of($page), qr/\Q$evil\E/, '... but the texts are there');
}
my $page = report_of($job);
unlike($page, qr/1?555000000\d/, 'no phone number of a recipient is on it');
unlike(words_of($page), qr/STOP|a b/, '... nor what they have replied');
like(words_of($page), qr/phones => true/, '... but how to see it');
my $with_phones = report_of("$job, phones => true");
like(words_of($with_phones), qr/\+15550000003 STOP/, 'unless that is asked for');
unlike($with_phones, qr/phones =&gt; true/, '... and then it does not say how');
like($page, qr/Content-Security-Policy" content="default-src 'none'/, 'nothing is loaded');

# Its numbers are those of the tables
my @counts = split /\|/, sql($node, <<~"SQL", role => 'app');
	SELECT total, sent, delivered, undelivered, failed, skipped
	FROM sendcampaign.run
	WHERE job_id = $job
	SQL
is("@counts", '10 8 3 2 1 1', 'the tables have what was to be expected');
is(number_of($page, 'On the list'), $counts[0], 'the list');
is(number_of($page, 'Sent'), $counts[1], 'sent');
is(number_of($page, 'Delivered'), $counts[2], 'delivered');
is(number_of($page, 'Opened'), 6, 'opened');
is(number_of($page, 'Completed'), 2, 'completed');
is(number_of($page, 'Replies'), 3, 'replies');
is(number_of($page, 'Opt-outs by reply'), 1, 'opt-outs');
is(number_of($page, 'Refused by Twilio'), $counts[4], 'failed');
is(number_of($page, 'Sent, but not delivered'), $counts[3], 'not delivered');
is(number_of($page, 'Skipped'), $counts[5], 'skipped');
my $words = words_of($page);
my $advice = sql($node, 'SELECT what_to_do FROM sendcampaign.error_code WHERE code = 30003');
like($words, qr/handset unreachable 30003 1 \Q$advice\E/,
	'a code has its meaning, and what to do');
like($words, qr/No reason is known 99999 1/, 'one that is unknown is named');
like($words, qr/no phone number 1 Enter a phone number for these list users\./, 'a skip, too');
like($words, qr/Cost in USD 1,234\.5075 of 2 messages/, 'cost in a currency');
like($words, qr/Cost in <i> 2\.00 of 1 messages/, '... and in another one');
like($words, qr/United States and Canada 8 3 3/, 'countries');
my $segments = sql($node, "SELECT sum(segments) FROM sendcampaign.message WHERE job_id = $job");
is(number_of($page, 'Segments'), $segments, 'segments');
my ($table) = $page =~ m{Sent and delivered as a table(.*?)</table>}s;
my ($sent, $delivered) = (0, 0);

while ($table =~ m{</th><td><data value="(\d+)".*?</td><td><data value="(\d+)"}g)
{
	$sent += $1;
	$delivered += $2;
}
is("$sent $delivered", "$counts[1] $counts[2]", 'what was sent and delivered over time');

# Two senders: each phone number has the one that it gets its messages from
my ($senders) = $page =~ m{<h2 id="sender">(.*?)</table>}s;
my $sum = 0;
$sum += $1 while $senders =~ m{</th><td><data value="(\d+)"}g;
is($sum, $counts[1], 'senders');

# Time zones and formats
like($words, qr/Times are in the time zone /, 'the time zone is stated');
like($words, qr/22-23 0 6 2 23-24 3 0 0/, 'hours of answer')
  if sql($node, 'SHOW timezone') =~ /UTC|GMT/;
my $elsewhere = words_of(report_of($job, before => "SET timezone = 'Asia/Kathmandu'; "));
like($elsewhere, qr/4-5 3 6 2/, '... which are those of the session\'s time zone');
like($elsewhere, qr{Times are in the time zone Asia/Kathmandu}, '... as is stated');
my $german = sql($node, "SELECT collname FROM pg_collation WHERE collname = 'de_DE.utf8'");
SKIP:
{
	skip 'there is no German locale', 1 if $german eq '';
	like(words_of(report_of($job, before => "SET lc_numeric = 'de_DE.utf8'; ")),
		qr/1\.234,5075/, 'numbers are those of the session\'s language');
}

# Who sees what
sql($node, <<~'SQL');
	CREATE ROLE other LOGIN;
	CREATE ROLE boss LOGIN IN ROLE app;
	GRANT USAGE ON SCHEMA sendcampaign TO other, boss;
	SQL
my $of_other = sql_error($node, "SELECT sendcampaign.report($job)", role => 'other');
is($of_other->{sqlstate}, 'P0002', 'somebody else does not see it');
like(
	words_of(report_of('', role => 'other')),
	qr/There are no runs yet that you may see/,
	'... nor in the overview');
is(number_of(report_of($job, role => 'boss'), 'Sent'), $counts[1], 'a member of the role does');
sql($node, <<~'SQL');
	REVOKE EXECUTE ON ALL ROUTINES IN SCHEMA sendcampaign FROM PUBLIC;
	GRANT EXECUTE ON FUNCTION sendcampaign.report TO app, other;
	SQL
is(number_of(report_of($job), 'Sent'), $counts[1], 'the right to call report() is enough');

# A search path of others' functions does not matter
sql($node, <<~'SQL');
	CREATE SCHEMA trap AUTHORIZATION other;
	CREATE FUNCTION trap.to_char(bigint, text) RETURNS text LANGUAGE sql AS $$SELECT 'trapped'$$;
	CREATE FUNCTION trap.count() RETURNS bigint LANGUAGE sql AS 'SELECT 13::bigint';
	GRANT USAGE ON SCHEMA trap TO PUBLIC;
	SQL
unlike(report_of($job, before => 'SET search_path = trap, pg_catalog; '),
	qr/trapped/, 'nor does a search path');

# A run that has not started, and one loaded with times that there are not
sql($node, <<~"SQL");
	INSERT INTO sendcampaign.run_data (schema, job_id, campaign_id, role, role_oid, state, database,
	    queued_at, started_at)
	SELECT schema, 900, campaign_id, role, role_oid, 'paused', database, 'infinity', '-infinity'
	FROM sendcampaign.run_data WHERE job_id = $job;
	INSERT INTO sendcampaign.message_data (run_id, list_user_id, status, created_at)
	SELECT id, n, 'sent', CASE n WHEN 1 THEN 'infinity' WHEN 2 THEN '-infinity' ELSE now() END
	FROM sendcampaign.run_data, generate_series(1, 3) n WHERE job_id = 900;
	INSERT INTO sendcampaign.receipt_data (run_id, list_user_id, status, updated_at)
	SELECT id, n, 'delivered', CASE n WHEN 1 THEN 'infinity'::timestamptz ELSE '4714-11-24 BC' END
	FROM sendcampaign.run_data, generate_series(1, 3) n WHERE job_id = 900
	SQL
like(words_of(report_of(900)), qr/This run has not started yet/, 'one that has not started');

# The overview
my $overview = report_of('');
like(words_of($overview), qr/All 2 runs that you may see/, 'the overview says how many');
is(number_of($overview, 'Recipients'), $counts[0], 'its totals');
like($overview, qr{<td>$job</td>.*?<td><data value="10">10</data></td><td><data value="8">}s,
	'its rows');
sql($node, <<~"SQL");
	INSERT INTO sendcampaign.run_data (schema, job_id, campaign_id, role, role_oid, state, total,
	    database)
	SELECT schema, 1000 + n, 1000 + n, role, role_oid, 'completed', 2, database
	FROM sendcampaign.run_data, generate_series(1, 120) n WHERE job_id = $job
	SQL
$overview = report_of('');
like(words_of($overview), qr/The latest 100 of 122 runs that you may see/, 'the latest 100');
is(scalar(() = $overview =~ /<th scope="row">/g), 100, '... which are shown');
is(number_of($overview, 'Recipients'), $counts[0] + 240, '... with the totals of all');

# Without a job, phones or not
is(report_of('NULL, true') =~ s/As of.*//sr, $overview =~ s/As of.*//sr, 'no job is the overview');
is( sql($node, <<~'SQL'),
	SELECT string_agg(coalesce(sendcampaign.country(phone), '-'), ' ' ORDER BY n)
	FROM unnest('{+3545551234,+14155550000,+18765550000,+77015550000,+79015550000}'::text[]
	    || '{+999,+,44,""}'::text[]) WITH ORDINALITY t(phone, n)
	SQL
	'Iceland United States and Canada Jamaica Kazakhstan Russia - - - -',
	'countries of phone numbers');

# What to do about each reason for skipping
my %advice = (
	'no phone number' => 'Enter a phone number for these list users.',
	'phone number is not in E.164 form' =>
	  'Correct the phone numbers in the list, with their country code.',
	'duplicate: another list user has the same phone number' =>
	  'Nothing needs to be done: the phone number got the message once.',
	'opted out' => 'Leave these recipients alone: only they can opt in again.',
	'expired: it was to be sent before' =>
	  'Start earlier, send faster, or let sendUntil be later.',
	'the phone number cannot be reached by SMS' => 'Ask these recipients for another number.',
	'no value for "name"' =>
	  'Enter the value for these list users, or give the placeholder a default.',
	'the value of "name" has more than 1600 characters' => 'Shorten the value.',
	'a value is not valid UTF-8' => 'Correct the text of the value.',
	'the text is far longer than 1600 characters' => 'Shorten the text, or the values in it.',
	'the list user cannot be read: invalid input syntax: +15550009999' =>
	  "Correct the list user's row.",
	'list user is deleted' => 'Nothing needs to be done, unless they were removed by mistake.',
	'cancelled' => 'Send the campaign with a new job if these recipients should still get it.');
my $values = join ', ', map { "(\$e\$$_\$e\$)" } sort keys %advice;
sql($node, <<~"SQL");
	INSERT INTO sendcampaign.message_data (run_id, list_user_id, status, error_message)
	SELECT ${\run_of(900)}, 100 + row_number() OVER (), 'skipped', t.reason
	FROM (VALUES $values) t(reason)
	SQL
my $skipped = report_of(900);
unlike($skipped, qr/15550009999/, 'what PostgreSQL says of a list user is not on it');
$skipped = words_of($skipped);
for my $reason (sort keys %advice)
{
	my $shown = $reason =~ s/(cannot be read):.*/$1/r;
	like($skipped, qr/\Q$shown\E 1 \Q$advice{$reason}\E/, "what to do: $shown");
}
# Campaigns of one list are beside each other.
unlike($page, qr/Beside each other/, 'one campaign of a list has nothing beside it');
my $other = sql($node, <<~"SQL", role => 'app');
	INSERT INTO ac_campaigns (ac_list_id, data)
	SELECT ac_list_id, jsonb_build_object('message', '<b>Other</b>')
	FROM ac_campaigns WHERE id = $campaign
	RETURNING id
	SQL
my $other_job = run_campaign($node, $other)->{job};
$words = words_of(report_of($job));
like(
	$words,
	qr/Beside each other .* $other $other_job <b>Other<\/b> 8 0.0 % 0.0 % 0.0 % 0.0 % 0.0 %/,
	'two are beside each other, the later one first');
like(
	$words,
	qr/$campaign \(this one\) $job .* 8 37.5 % 75.0 % 25.0 % 37.5 % 12.5 %/,
	'... with shares of what was sent');
unlike(report_of($other_job), qr/<b>Other/, 'a text is no markup there, either');
$node->stop;
done_testing();
