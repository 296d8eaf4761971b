# preview() and estimate() say what is then really sent, and send nothing.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../perl";
use Campaign;
use LocalTwilio;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Session;
use Test::More;

my $users = 700;
# what is freed is given back at once, as the memory of a process is measured
$ENV{$_} = 128 * 1024 for qw(MALLOC_MMAP_THRESHOLD_ MALLOC_TRIM_THRESHOLD_);

my $twilio = LocalTwilio->start;
my $node = new_cluster('preview', $twilio, init => { extra => [ '--encoding=UTF8', '--locale=C' ], allows_streaming => 1 });

sub as_app { return $node->safe_psql('postgres', "SET ROLE app; $_[0]"); }

# all kinds of recipients: by the list user's number in the list
my $campaign = create_campaign($node, users => $users, message => 'Hi {{name|you}}, {{must}}: {{link}}.');
my $list = "ac_list_id = (SELECT ac_list_id FROM ac_campaigns WHERE id = $campaign)";
$node->safe_psql('postgres', qq{
	UPDATE ac_list_users SET data = data || jsonb_build_object('must', id, 'name', CASE id % 4
		WHEN 0 THEN 'Ann' WHEN 1 THEN repeat('x', id::int) WHEN 2 THEN 'Þórdís 😀' ELSE '' END) WHERE $list;
	UPDATE ac_list_users SET data = data - 'must' WHERE $list AND id % 50 = 3;
	UPDATE ac_list_users SET data = data - 'sms' WHERE $list AND id % 50 = 4;
	UPDATE ac_list_users SET data = data || '{"sms": "555 1234"}' WHERE $list AND id % 50 = 5;
	UPDATE ac_list_users SET data = data || '{"sms": "+1 555-000-0001"}' WHERE $list AND id % 50 = 6;
	UPDATE groups SET configuration = configuration || '{"twilioFromSmsNumber": ["+15559990001", "+15559990002", " ", null], "twilioSegmentsPerSecond": 100}';
	SET ROLE app;
	SELECT sendcampaign.opt_out('+1555' || lpad(i::text, 7, '0')) FROM generate_series(7, $users, 50) i});
my @columns = qw(list_user_id phone sender text encoding units segments skipped deferred_until);
my $columns = join ', ', map { qq{coalesce("$_"::text, '')} } @columns;
my $expected = as_app("SELECT $columns FROM sendcampaign.preview($campaign, NULL)");
my $estimate = as_app("SELECT recipients, messages, deferred, duplicates, opted_out, without_phone, invalid_phone, without_value, expired,
	segments, segments_gsm7, segments_ucs2, messages_ucs2, ucs2_characters, cost FROM sendcampaign.estimate($campaign, 0.0075)");
is($node->safe_psql('postgres', 'SELECT (SELECT count(*) FROM sendcampaign.run), (SELECT count(*) FROM ac_background_jobs), (SELECT nextval(\'ac_background_jobs_id_seq\'))'),
	'0|0|1', 'nothing is queued');
is($twilio->stats->{create_requests}, 0, 'nothing is sent');
ok(!worker_pids($node), 'no worker was started');

# the same again, where nothing may be written
is($node->safe_psql('postgres', "SET ROLE app; BEGIN READ ONLY; SELECT $columns FROM sendcampaign.preview($campaign, NULL)"), $expected, 'preview in a read-only transaction');
is($node->safe_psql('postgres', "BEGIN ISOLATION LEVEL SERIALIZABLE READ ONLY; SELECT $columns FROM sendcampaign.preview($campaign, NULL)"), $expected, 'a superuser sees the same');
is($node->safe_psql('postgres', "BEGIN READ ONLY; SELECT messages FROM sendcampaign.estimate($campaign)"), 630, 'so does estimate');
for my $limit (0, 1, 255, 256, 257, 1000)
{
	my @lines = split /\n/, $expected;
	is(as_app("SELECT $columns FROM sendcampaign.preview($campaign, $limit)"),
		join("\n", grep { defined } @lines[0 .. $limit - 1]), "the first $limit");
}
is(as_app("SELECT count(*) FROM sendcampaign.preview($campaign)"), 10, 'ten where nothing is said');
is(as_app("SELECT count(*) FROM sendcampaign.preview($campaign, -1)"), 0, 'less than none: none');
is(as_app('SELECT count(*) FROM sendcampaign.preview(NULL)'), 0, 'of no campaign: none');
is(as_app('SELECT sendcampaign.estimate(NULL) IS NULL'), 't', 'nor an estimate');
is(as_app("SELECT count(p.*) FROM unnest(ARRAY[$campaign, $campaign]) c, sendcampaign.preview(c, 3) p"), 6, 'twice in one statement');
is(as_app("SELECT list_user_id FROM sendcampaign.preview($campaign) LIMIT 2"), "1\n2", 'cut short');

# on a standby
$node->backup('standby');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($node, 'standby', has_streaming => 1);
$standby->start;
is($standby->safe_psql('postgres', "SET ROLE app; SELECT $columns FROM sendcampaign.preview($campaign, NULL)"), $expected, 'preview on a standby');
is($standby->safe_psql('postgres', "SET ROLE app; SELECT messages FROM sendcampaign.estimate($campaign)"), 630, 'and estimate');
$standby->stop;

# what is really sent
$twilio->set('sender' => '+15559990001', 'sender' => '+15559990002');
my $job = start_campaign($node, $campaign);
my $run = wait_for_run($node, $job);
my %sent = map { $_->{to} => $_ } $twilio->ledger;
my %segments = map { split /\|/ } split /\n/, $node->safe_psql('postgres',
	"SELECT list_user_id, coalesce(segments::text, error_message) FROM sendcampaign.message WHERE job_id = $job");
my (@wrong, %sum);
for (split /\n/, $expected)
{
	my %row;
	@row{@columns} = split /\|/, $_, -1;
	my $message = $row{skipped} eq '' ? delete $sent{ $row{phone} } : undef;
	push @wrong, $_ if $row{skipped} eq '' && (!$message || $message->{body} ne $row{text} || $message->{from} ne $row{sender})
	  || ($row{skipped} || $row{segments}) ne $segments{ $row{list_user_id} };
	$sum{ $row{skipped} }++;
	next if $row{skipped} ne '';
	$sum{segments} += $row{segments};
	$sum{ $row{encoding} } += $row{segments};
	$sum{ucs2_messages} += $row{encoding} eq 'UCS-2';
}
is_deeply(\@wrong, [], 'what is previewed is what is sent');
is_deeply([ keys %sent ], [], 'and nothing else is');
is($run->{sent}, $sum{''}, 'as many as that');
is($estimate, join('|', $users, $run->{sent}, 0, $sum{'duplicate: an earlier list user has the same phone'}, $sum{'opted out'},
	$sum{'no phone number'}, $sum{'phone number is not in E.164 form'}, $sum{'no value for "must"'}, 0,
	@sum{qw(segments GSM-7 UCS-2 ucs2_messages)}, 'Þóí😀', sprintf('%.4f', $sum{segments} * 0.0075)), 'so says the estimate');
is($node->safe_psql('postgres', "SELECT sum(segments) FROM sendcampaign.message WHERE job_id = $job"), $sum{segments}, 'segments are those that Twilio counted');
is(as_app("SELECT duration FROM sendcampaign.estimate($campaign)"),
	$node->safe_psql('postgres', "SELECT make_interval(secs => $sum{segments} / 200.0)"), 'how long two senders of that rate need');

# no rate, no price; the lowest and the highest one
$node->safe_psql('postgres', q{UPDATE groups SET configuration = configuration || '{"twilioSegmentsPerSecond": 0}'});
is(as_app("SELECT duration IS NULL, cost IS NULL FROM sendcampaign.estimate($campaign)"), 't|t', 'no rate and no price');
is(as_app("SELECT cost FROM sendcampaign.estimate($campaign, 'NaN')"), 'NaN', 'a price that is no number');
for my $rate ('0.01', '100000')
{
	$node->safe_psql('postgres', qq{UPDATE groups SET configuration = configuration || '{"twilioSegmentsPerSecond": "$rate"}'});
	is(as_app("SELECT duration >= interval '0' FROM sendcampaign.estimate($campaign)"), 't', "a rate of $rate");
}
$node->safe_psql('postgres', q{UPDATE groups SET configuration = configuration || '{"twilioSegmentsPerSecond": 0}'});

# quiet hours and an end: deferred and expired
$node->safe_psql('postgres', q{UPDATE groups SET configuration = configuration || jsonb_build_object('timeZone', 'UTC', 'quietHours', jsonb_build_object(
	'from', to_char(now() AT TIME ZONE 'UTC' - interval '1 hour', 'HH24:MI'), 'to', to_char(now() AT TIME ZONE 'UTC' + interval '1 hour', 'HH24:MI')))});
is(as_app("SELECT messages, deferred FROM sendcampaign.estimate($campaign)"), "$sum{''}|$sum{''}", 'at night all are deferred');
is(as_app("SELECT count(deferred_until), bool_and(deferred_until BETWEEN now() AND now() + interval '61 minutes') FROM sendcampaign.preview($campaign, NULL)"),
	"$sum{''}|t", 'and until when');
$node->safe_psql('postgres', "UPDATE ac_campaigns SET data = data || jsonb_build_object('sendUntil', now() - interval '1 minute') WHERE id = $campaign;
	UPDATE groups SET configuration = configuration - 'quietHours'");
is(as_app("SELECT messages, expired, without_phone FROM sendcampaign.estimate($campaign)"), join('|', 0, $sum{''} + $sum{'duplicate: an earlier list user has the same phone'},
	$sum{'no phone number'}), 'too late: expired');
is(as_app("SELECT count(sender), min(skipped) FILTER (WHERE list_user_id = 1) FROM sendcampaign.preview($campaign, NULL)"), '0|expired: it was to be sent before', 'and says so');
$node->safe_psql('postgres', "UPDATE ac_campaigns SET data = data - 'sendUntil' WHERE id = $campaign");

# an empty list, a list without senders, a campaign without a text
my $empty = create_campaign($node, users => 0);
is(as_app("SELECT count(*) FROM sendcampaign.preview($empty)"), 0, 'an empty list: nobody');
is(as_app("SELECT recipients, messages, segments, ucs2_characters, cost FROM sendcampaign.estimate($empty, 1)"), '0|0|0||0', 'which costs nothing');
$node->safe_psql('postgres', "UPDATE ac_campaigns SET data = '{}' WHERE id = $empty");
like(sql_error($node, "SET ROLE app; SELECT * FROM sendcampaign.preview($empty)")->{message}, qr/campaign $empty has no message/, 'no message');
like(sql_error($node, "SET ROLE app; SELECT * FROM sendcampaign.estimate(4242)")->{message}, qr/campaign 4242 does not exist/, 'no campaign');

# rights
$node->safe_psql('postgres', q{
	CREATE ROLE stranger LOGIN; GRANT USAGE ON SCHEMA sendcampaign TO stranger;
	CREATE ROLE reader LOGIN; GRANT USAGE ON SCHEMA sendcampaign TO reader; GRANT SELECT ON ALL TABLES IN SCHEMA public TO reader;
	CREATE ROLE blind LOGIN; GRANT USAGE ON SCHEMA sendcampaign TO blind; GRANT SELECT ON ac_lists, ac_campaigns, ac_list_users TO blind;
	CREATE TABLE seen (who text); GRANT ALL ON seen TO PUBLIC;
	CREATE FUNCTION spy(text) RETURNS boolean LANGUAGE plpgsql COST 0.0001 AS 'BEGIN RAISE NOTICE ''spied % %'', current_user, $1; RETURN true; END'});
for my $call ("preview($campaign)", "estimate($campaign)")
{
	my $error = sql_error($node, "SET ROLE stranger; SELECT * FROM sendcampaign.$call");
	is("$error->{sqlstate} $error->{message}", '42501 permission denied for table ac_campaigns', "$call without rights: PostgreSQL's own error");
	$error = sql_error($node, "SET ROLE blind; SELECT * FROM sendcampaign.$call");
	is("$error->{sqlstate} $error->{message}", '42501 permission denied for table groups', "$call without a right to the groups");
	unlike(join(' ', %$error), qr/$LocalTwilio::TOKEN/, 'which has no secret in it');
}
is($node->safe_psql('postgres', "SET ROLE reader; SELECT $columns FROM sendcampaign.preview($campaign, NULL)"), $expected, 'to read is enough');
my $error = sql_error($node, "SET ROLE reader; SELECT sendcampaign.send_test($campaign, '+15550001234')");
is($error->{sqlstate}, '42501', 'but not for a test message');
$node->safe_psql('postgres', q{
	ALTER TABLE ac_campaigns ENABLE ROW LEVEL SECURITY; ALTER TABLE ac_list_users ENABLE ROW LEVEL SECURITY;
	CREATE POLICY p ON ac_list_users FOR SELECT TO reader USING (id <= 3);
	CREATE POLICY o ON ac_campaigns FOR SELECT TO reader USING (id <> } . $empty . ')');
is($node->safe_psql('postgres', "SET ROLE reader; SELECT list_user_id FROM sendcampaign.preview($campaign, NULL)"), "1\n2\n3", 'a policy hides list users');
like(sql_error($node, "SET ROLE reader; SELECT * FROM sendcampaign.preview($empty)")->{message}, qr/campaign $empty does not exist/, 'and campaigns');
is($node->safe_psql('postgres', "SELECT count(*) FROM sendcampaign.preview($campaign, NULL)"), $users, 'the owner sees all, so does a superuser');
$node->safe_psql('postgres', 'ALTER TABLE ac_list_users FORCE ROW LEVEL SECURITY; CREATE POLICY q ON ac_list_users TO app USING (id <= 5 AND spy(data::text))');
is($node->safe_psql('postgres', "SELECT count(*) FROM sendcampaign.preview($campaign, NULL)"), 5, 'what the owner may not see, a superuser does not see either');
my ($stdout, $stderr);
$node->psql('postgres', "SELECT count(*) FROM sendcampaign.preview($campaign, NULL)", stderr => \$stderr);
like($stderr, qr/spied app/, 'functions of a policy run as the owner');
unlike($stderr, qr/spied (?!app)/, 'and as nobody else');
$node->safe_psql('postgres', 'DROP POLICY q ON ac_list_users; ALTER TABLE ac_list_users NO FORCE ROW LEVEL SECURITY');
is($node->safe_psql('postgres', "SELECT count(*) FROM sendcampaign.preview($campaign, 1); SELECT current_user"), "1\n" . $node->safe_psql('postgres', 'SELECT current_user'), 'a superuser is one again');
my $owner = Session->open($node);
$owner->query("SELECT * FROM sendcampaign.preview(4242)");
isnt($owner->query('SELECT current_user'), 'app', 'also after an error');
$owner->close;

# a long list: memory does not grow with it
my $long = create_campaign($node, users => 100_000, message => 'Hi {{name|}} ' . 'é' x 60);
$node->safe_psql('postgres', 'VACUUM ANALYZE ac_list_users');
my $session = Session->open($node);
sub anonymous { my ($pid) = @_; slurp_file("/proc/$pid/status") =~ /RssAnon:\s+(\d+)/; return $1; }
my $pid = $session->query('SET work_mem = 1024; SELECT pg_backend_pid()');
$session->query("SELECT count(*) FROM sendcampaign.preview($campaign, NULL); SELECT * FROM sendcampaign.estimate($campaign)");
my $before = anonymous($pid);
is($session->query("SELECT count(*), count(text), sum(segments) FROM sendcampaign.preview($long, NULL)"), '100000|100000|100000', 'a long list: a row for each');
is($session->query("SELECT messages FROM sendcampaign.estimate($long)"), 100_000 - $sum{'opted out'}, 'and an estimate');
cmp_ok(anonymous($pid) - $before, '<', 6 * 1024, 'memory does not grow with the list');
diag(sprintf 'kB: %d, then %d', $before, anonymous($pid));
$session->close;

# cancelled
$session = Session->open($node);
$pid = $session->query('SELECT pg_backend_pid()');
$session->start_query("SELECT count(*) FROM generate_series(1, 1000), sendcampaign.estimate($long)");
$node->poll_query_until('postgres', "SELECT state = 'active' FROM pg_stat_activity WHERE pid = $pid");
$node->safe_psql('postgres', "SELECT pg_cancel_backend($pid)");
$session->finish_query;
like($session->errors, qr/canceling statement/, 'it can be cancelled');
$session->close;
is($twilio->stats->{accepted}, $run->{sent}, 'nothing more was sent');
is(worker_errors($node), '', 'no worker complained');
$node->stop;
done_testing();
