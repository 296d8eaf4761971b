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
my $duplicate = 'duplicate: another list user has the same phone number';

# The memory of a process is measured below: what is freed is given back at once.
$ENV{$_} = 128 * 1024 for qw(MALLOC_MMAP_THRESHOLD_ MALLOC_TRIM_THRESHOLD_);

my $twilio = LocalTwilio->start;
my $node = new_cluster('preview', $twilio,
	init => { extra => [ '--encoding=UTF8', '--locale=C' ], allows_streaming => 1 });

# Runs SQL as the application's role and returns what it prints.
sub as_app
{
	my $sql = shift;
	return sql($node, $sql, role => 'app');
}

# The message of the first error of some SQL, run by a role.
sub message_of_error
{
	my ($role, $sql) = @_;
	return sql_error($node, $sql, role => $role)->{message};
}

# Merges an SQL expression of type jsonb into the configuration of all groups.
sub add_to_configuration
{
	my $configuration = shift;
	sql($node, "UPDATE groups SET configuration = configuration || $configuration");
}

# A list with recipients of all kinds, by the number of the list user.
my $campaign = create_campaign(
	$node,
	users => $users,
	message => 'Hi {{name|you}}, {{must}}: {{link}}.');
my $in_list = "ac_list_id = (SELECT ac_list_id FROM ac_campaigns WHERE id = $campaign)";
sql($node, <<~SQL);
    UPDATE ac_list_users
    SET data = data || jsonb_build_object('must', id, 'name', CASE id % 4
        WHEN 0 THEN 'Ann'
        WHEN 1 THEN repeat('x', id::int)
        WHEN 2 THEN 'Þórdís 😀'
        ELSE '' END)
    WHERE $in_list;

    UPDATE ac_list_users SET data = data - 'must' WHERE $in_list AND id % 50 = 3;
    UPDATE ac_list_users SET data = data - 'sms' WHERE $in_list AND id % 50 = 4;
    UPDATE ac_list_users SET data = data || '{"sms": "555 1234"}'
    WHERE $in_list AND id % 50 = 5;
    UPDATE ac_list_users SET data = data || '{"sms": "+1 555-000-0001"}'
    WHERE $in_list AND id % 50 = 6;
SQL
add_to_configuration(<<~'SQL');
    '{"twilioFromSmsNumber": ["+15559990001", "+15559990002", " ", null],
        "twilioSegmentsPerSecond": 100}'
SQL
as_app(<<~SQL);
    SELECT sendcampaign.opt_out('+1555' || lpad(i::text, 7, '0'))
    FROM generate_series(7, $users, 50) i
SQL

my @columns = qw(list_user_id phone sender text encoding units segments skipped deferred_until);
my $columns = join ', ', map { qq{coalesce("$_"::text, '')} } @columns;
my $preview = "SELECT $columns FROM sendcampaign.preview($campaign, NULL)";
my $messages = "SELECT messages FROM sendcampaign.estimate($campaign)";
my $expected = as_app($preview);
my $estimate = as_app(<<~SQL);
    SELECT recipients, messages, deferred, duplicates, opted_out, without_phone,
        invalid_phone, without_value, expired, segments, segments_gsm7, segments_ucs2,
        messages_ucs2, ucs2_characters, cost
    FROM sendcampaign.estimate($campaign, 0.0075)
SQL
is(sql($node, <<~'SQL'), '0|0|1', 'nothing is queued');
    SELECT (SELECT count(*) FROM sendcampaign.run),
        (SELECT count(*) FROM ac_background_jobs),
        nextval('ac_background_jobs_id_seq')
SQL
is($twilio->stats->{create_requests}, 0, 'nothing is sent');
ok(!worker_pids($node), 'no worker is started');

# The result is the same where nothing may be written.
is(as_app("BEGIN READ ONLY; $preview"), $expected, 'preview in a read-only transaction');
is(sql($node, "BEGIN ISOLATION LEVEL SERIALIZABLE READ ONLY; $preview"),
	$expected, 'a superuser sees the same');
is(sql($node, "BEGIN READ ONLY; $messages"), 630, 'estimate in a read-only transaction');

# How many rows are asked for.
for my $limit (0, 1, 255, 256, 257, 1000)
{
	my @lines = split /\n/, $expected;
	my $first = join "\n", grep { defined } @lines[ 0 .. $limit - 1 ];
	is(as_app("SELECT $columns FROM sendcampaign.preview($campaign, $limit)"),
		$first, "preview of the first $limit");
}
is(as_app("SELECT count(*) FROM sendcampaign.preview($campaign)"), 10, 'ten rows by default');
is(as_app("SELECT count(*) FROM sendcampaign.preview($campaign, -1)"),
	0, 'no rows for a negative number');
is(as_app('SELECT count(*) FROM sendcampaign.preview(NULL)'), 0, 'no rows for no campaign');
is(as_app('SELECT sendcampaign.estimate(NULL) IS NULL'), 't', 'no estimate for no campaign');
is(as_app(<<~SQL), 6, 'two previews in one statement');
    SELECT count(p.*)
    FROM unnest(ARRAY[$campaign, $campaign]) c, sendcampaign.preview(c, 3) p
SQL
is(as_app("SELECT list_user_id FROM sendcampaign.preview($campaign) LIMIT 2"),
	"1\n2", 'a preview that is not read to its end');

# On a standby.
$node->backup('standby');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($node, 'standby', has_streaming => 1);
$standby->start;
is(sql($standby, $preview, role => 'app'), $expected, 'preview on a standby');
is(sql($standby, $messages, role => 'app'), 630, 'estimate on a standby');
$standby->stop;

# What is really sent.
$twilio->set('sender' => '+15559990001', 'sender' => '+15559990002');
my $job = start_campaign($node, $campaign);
my $run = wait_for_run($node, $job);
my %sent = map { $_->{to} => $_ } $twilio->ledger;
my $rows = sql($node, <<~SQL);
    SELECT list_user_id, coalesce(segments::text, error_message)
    FROM sendcampaign.message
    WHERE job_id = $job
SQL
my %recorded = map { split /\|/ } split /\n/, $rows;

# Previewed recipients by the reason for which they are skipped ('' where they
# are not), and sums over those that are sent to.
my (@wrong, %sum);
for my $line (split /\n/, $expected)
{
	my %row;
	@row{@columns} = split /\|/, $line, -1;
	$sum{ $row{skipped} }++;
	push @wrong, $line
	  if ($row{skipped} || $row{segments}) ne $recorded{ $row{list_user_id} };
	next if $row{skipped} ne '';

	my $message = delete $sent{ $row{phone} };
	push @wrong, $line
	  if !$message || $message->{body} ne $row{text} || $message->{from} ne $row{sender};
	$sum{segments} += $row{segments};
	$sum{ $row{encoding} } += $row{segments};
	$sum{ucs2_messages} += $row{encoding} eq 'UCS-2';
}
my @estimated = (
	$users, $run->{sent},
	0, $sum{$duplicate},
	$sum{'opted out'}, $sum{'no phone number'},
	$sum{'phone number is not in E.164 form'}, $sum{'no value for "must"'},
	0, $sum{segments},
	$sum{'GSM-7'}, $sum{'UCS-2'},
	$sum{ucs2_messages}, 'Þóí😀',
	sprintf('%.4f', $sum{segments} * 0.0075));
is_deeply(\@wrong, [], 'what is previewed is what is sent');
is_deeply([ keys %sent ], [], 'nothing else is sent');
is($run->{sent}, $sum{''}, 'as many messages are sent as were previewed');
is($estimate, join('|', @estimated), 'the estimate is what is sent');
is(sql($node, "SELECT sum(segments) FROM sendcampaign.message WHERE job_id = $job"),
	$sum{segments}, 'the segments are those that Twilio counted');
is( as_app("SELECT duration FROM sendcampaign.estimate($campaign)"),
	sql($node, "SELECT make_interval(secs => $sum{segments} / 200.0)"),
	'the duration is what two senders of that rate need');

# Without a rate or a price, and with the lowest and the highest one.
add_to_configuration(q{'{"twilioSegmentsPerSecond": 0}'});
is(as_app("SELECT duration IS NULL, cost IS NULL FROM sendcampaign.estimate($campaign)"),
	't|t', 'no duration without a rate, no cost without a price');
is(as_app("SELECT cost FROM sendcampaign.estimate($campaign, 'NaN')"),
	'NaN', 'a price that is not a number');
for my $rate ('0.01', '100000')
{
	add_to_configuration(qq('{"twilioSegmentsPerSecond": "$rate"}'));
	is(as_app("SELECT duration >= interval '0' FROM sendcampaign.estimate($campaign)"),
		't', "a duration for a rate of $rate");
}
add_to_configuration(q{'{"twilioSegmentsPerSecond": 0}'});

# Quiet hours and the end of a campaign: messages are deferred, and expire.
add_to_configuration(<<~'SQL');
    jsonb_build_object(
        'timeZone', 'UTC',
        'quietHours', jsonb_build_object(
            'from', to_char(now() AT TIME ZONE 'UTC' - interval '1 hour', 'HH24:MI'),
            'to', to_char(now() AT TIME ZONE 'UTC' + interval '1 hour', 'HH24:MI')))
SQL
is(as_app("SELECT messages, deferred FROM sendcampaign.estimate($campaign)"),
	"$sum{''}|$sum{''}", 'at night all messages are deferred');
is(as_app(<<~SQL), "$sum{''}|t", 'the preview shows until when they are deferred');
    SELECT count(deferred_until),
        bool_and(deferred_until BETWEEN now() AND now() + interval '61 minutes')
    FROM sendcampaign.preview($campaign, NULL)
SQL
sql($node, <<~SQL);
    UPDATE ac_campaigns
    SET data = data || jsonb_build_object('sendUntil', now() - interval '1 minute')
    WHERE id = $campaign;

    UPDATE groups SET configuration = configuration - 'quietHours';
SQL
my $expired = $sum{''} + $sum{$duplicate};
is( as_app("SELECT messages, expired, without_phone FROM sendcampaign.estimate($campaign)"),
	"0|$expired|$sum{'no phone number'}",
	'after the end of the campaign all have expired');
is(as_app(<<~SQL), '0|expired: it was to be sent before', 'the preview says that they expired');
    SELECT count(sender), min(skipped) FILTER (WHERE list_user_id = 1)
    FROM sendcampaign.preview($campaign, NULL)
SQL
sql($node, "UPDATE ac_campaigns SET data = data - 'sendUntil' WHERE id = $campaign");

# An empty list, a campaign without a text, and no campaign.
my $empty = create_campaign($node, users => 0);
my $preview_of_empty = "SELECT * FROM sendcampaign.preview($empty)";
is(as_app("SELECT count(*) FROM sendcampaign.preview($empty)"),
	0, 'the preview of an empty list has no rows');
is(as_app(<<~SQL), '0|0|0||0', 'an empty list costs nothing');
    SELECT recipients, messages, segments, ucs2_characters, cost
    FROM sendcampaign.estimate($empty, 1)
SQL
sql($node, "UPDATE ac_campaigns SET data = '{}' WHERE id = $empty");
like(
	message_of_error('app', $preview_of_empty),
	qr/campaign $empty has no message/,
	'a campaign without a message is refused');
like(
	message_of_error('app', 'SELECT * FROM sendcampaign.estimate(4242)'),
	qr/campaign 4242 does not exist/,
	'a campaign that does not exist is refused');

# Rights: stranger may read no table, blind not the groups, reader all of them.
sql($node, <<~'SQL');
    CREATE ROLE stranger LOGIN;
    CREATE ROLE reader LOGIN;
    CREATE ROLE blind LOGIN;
    GRANT USAGE ON SCHEMA sendcampaign TO stranger, reader, blind;
    GRANT SELECT ON ALL TABLES IN SCHEMA public TO reader;
    GRANT SELECT ON ac_lists, ac_campaigns, ac_list_users TO blind;

    CREATE TABLE seen (who text);
    GRANT ALL ON seen TO PUBLIC;
    CREATE FUNCTION spy(text) RETURNS boolean LANGUAGE plpgsql COST 0.0001 AS $$
    BEGIN
        RAISE NOTICE 'spied % %', current_user, $1;
        RETURN true;
    END $$;
SQL
for my $call ("preview($campaign)", "estimate($campaign)")
{
	my $error = sql_error($node, "SELECT * FROM sendcampaign.$call", role => 'stranger');
	is( "$error->{sqlstate} $error->{message}",
		'42501 permission denied for table ac_campaigns',
		"$call without rights gives PostgreSQL's own error");
	$error = sql_error($node, "SELECT * FROM sendcampaign.$call", role => 'blind');
	is( "$error->{sqlstate} $error->{message}",
		'42501 permission denied for table groups',
		"$call without the right to read the groups is refused");
	unlike(join(' ', %$error), qr/$LocalTwilio::TOKEN/, 'the error has no secret in it');
}
is(sql($node, $preview, role => 'reader'),
	$expected, 'the right to read the tables is enough for a preview');
my $error = call_error($node, "send_test($campaign, '+15550001234')", role => 'reader');
is($error->{sqlstate}, '42501', 'the right to read is not enough for a test message');

# Row-level security.
my $count = "SELECT count(*) FROM sendcampaign.preview($campaign, NULL)";
sql($node, <<~SQL);
    ALTER TABLE ac_campaigns ENABLE ROW LEVEL SECURITY;
    ALTER TABLE ac_list_users ENABLE ROW LEVEL SECURITY;
    CREATE POLICY p ON ac_list_users FOR SELECT TO reader USING (id <= 3);
    CREATE POLICY o ON ac_campaigns FOR SELECT TO reader USING (id <> $empty);
SQL
is( sql($node, "SELECT list_user_id FROM sendcampaign.preview($campaign, NULL)", role => 'reader'),
	"1\n2\n3",
	'a policy hides list users');
like(
	message_of_error('reader', $preview_of_empty),
	qr/campaign $empty does not exist/,
	'a policy hides campaigns');
is(sql($node, $count), $users, 'the owner sees all, and so does a superuser');
sql($node, <<~'SQL');
    ALTER TABLE ac_list_users FORCE ROW LEVEL SECURITY;
    CREATE POLICY q ON ac_list_users TO app USING (id <= 5 AND spy(data::text));
SQL
is(sql($node, $count), 5, 'what the owner may not see, a superuser does not see either');
my (undef, undef, $notices) = $node->psql('postgres', $count);
like($notices, qr/spied app/, 'functions of a policy run as the owner');
unlike($notices, qr/spied (?!app)/, 'functions of a policy run as nobody else');
sql($node, <<~'SQL');
    DROP POLICY q ON ac_list_users;
    ALTER TABLE ac_list_users NO FORCE ROW LEVEL SECURITY;
SQL
my $superuser = sql($node, 'SELECT current_user');
is(sql($node, "SELECT count(*) FROM sendcampaign.preview($campaign, 1); SELECT current_user"),
	"1\n$superuser", 'a superuser is a superuser again afterwards');
my $owner = Session->open($node);
$owner->query('SELECT * FROM sendcampaign.preview(4242)');
isnt($owner->query('SELECT current_user'), 'app', 'also after an error');
$owner->close;

# A long list: the memory of a process, in kB, does not grow with it.
sub anonymous_memory
{
	my $pid = shift;
	slurp_file("/proc/$pid/status") =~ /RssAnon:\s+(\d+)/;
	return $1;
}

my $long = create_campaign(
	$node,
	users => 100_000,
	message => 'Hi {{name|}} ' . 'é' x 60);
sql($node, 'VACUUM ANALYZE ac_list_users');
my $session = Session->open($node);
my $pid = $session->query('SET work_mem = 1024; SELECT pg_backend_pid()');
$session->query("$count; SELECT * FROM sendcampaign.estimate($campaign)");
my $before = anonymous_memory($pid);
is($session->query(<<~SQL), '100000|100000|100000', 'a long list has a row for each list user');
    SELECT count(*), count(text), sum(segments)
    FROM sendcampaign.preview($long, NULL)
SQL
is( $session->query("SELECT messages FROM sendcampaign.estimate($long)"),
	100_000 - $sum{'opted out'},
	'a long list has an estimate');
cmp_ok(anonymous_memory($pid) - $before,
	'<', 6 * 1024, 'memory does not grow with the length of the list');
diag(sprintf 'kB: %d, then %d', $before, anonymous_memory($pid));
$session->close;

# It can be cancelled.
$session = Session->open($node);
$pid = $session->query('SELECT pg_backend_pid()');
$session->start_query(
	"SELECT count(*) FROM generate_series(1, 1000), sendcampaign.estimate($long)");
wait_until($node, "SELECT state = 'active' FROM pg_stat_activity WHERE pid = $pid");
sql($node, "SELECT pg_cancel_backend($pid)");
$session->finish_query;
like($session->errors, qr/canceling statement/, 'an estimate can be cancelled');
$session->close;

is($twilio->stats->{accepted}, $run->{sent}, 'nothing more is sent');
is(worker_errors($node), '', 'no worker complains');
$node->stop;
done_testing();
