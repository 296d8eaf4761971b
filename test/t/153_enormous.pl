# Texts, phones, values and errors of many megabytes: a named failure of that
# run or that recipient, and nothing to the role's other runs.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../perl";
use Campaign;
use LocalTwilio;
use PostgreSQL::Test::Utils;
use Test::More;

my $twilio = LocalTwilio->start;
my $node = new_cluster('enormous', $twilio);
my $long = "repeat('0123456789', 3000000)";

# The beginning of a run's error
sub error_of
{
	my $job = shift;
	return sql($node, "SELECT left(error, 2000) FROM sendcampaign.run WHERE job_id = $job");
}

# A run's state and counts: sent, failed, skipped, in doubt
sub state_of
{
	my $job = shift;
	return sql($node,
		"SELECT state, sent, failed, skipped, in_doubt FROM sendcampaign.run WHERE job_id = $job");
}

sub wait_for_end
{
	my $job = shift;
	return wait_until($node,
		"SELECT finished_at IS NOT NULL FROM sendcampaign.run WHERE job_id = $job");
}

# Of the campaign
for my $key ('message', 'baseUrl')
{
	my $campaign = create_campaign($node, users => 3);
	sql($node, <<~SQL);
		UPDATE ac_campaigns
		SET data = data || jsonb_build_object('$key', $long)
		WHERE id = $campaign
		SQL
	my $other = create_campaign($node, users => 3, message => "Beside a long $key");
	my $job = start_campaign($node, $campaign);
	my $other_job = start_campaign($node, $other);
	wait_for_end($job);
	like(state_of($job), qr/^failed/, "a $key of 30 MB: the run fails");
	like(error_of($job), qr/^"$key" of campaign $campaign has more than 16000 characters\b/,
		'and says why');
	sent_once($node, $twilio, $other, $other_job, "beside a $key of 30 MB", total => 3);
	my $size =
	  sql($node, "SELECT pg_column_size(r.*) FROM sendcampaign.run r WHERE job_id = $job");
	cmp_ok($size, '<', 10000, 'it is stored nowhere');
}
my $placeholders = join '', map { sprintf "{{%x}}", $_ } 1 .. 2001;
my $campaign = create_campaign($node, users => 3, message => $placeholders);
is( run_campaign($node, $campaign)->{error},
	"the message of campaign $campaign has more than 2000 different keys."
	  . ' Use fewer placeholders.',
	'too many keys are refused');

# Of recipients
$campaign = create_campaign($node, users => 8, message => 'Dear {{name|friend}},');
my $list = list_of($campaign);
sql($node, <<~SQL);
	CREATE TEMP TABLE change (n integer, data jsonb);
	INSERT INTO change VALUES
	    (2, jsonb_build_object('sms', $long)),
	    (3, jsonb_build_object('sms', $long)),
	    (4, jsonb_build_object('sms', '+1555000' || repeat(' ', 200) || '0001')),
	    (5, jsonb_build_object('name', $long)),
	    (6, jsonb_build_object('name', repeat('x', 1601))),
	    (7, jsonb_build_object('timeZone', $long, 'other', $long));
	UPDATE ac_list_users l
	SET data = l.data || change.data
	FROM change
	JOIN (
	    SELECT id, row_number() OVER (ORDER BY id) AS n
	    FROM ac_list_users
	    WHERE ac_list_id = $list) u USING (n)
	WHERE u.id = l.id;
	SQL
my $other = create_campaign($node, users => 3, message => 'Beside long values');
my $job = start_campaign($node, $campaign);
my $other_job = start_campaign($node, $other);
wait_for_end($job);
is(state_of($job), 'completed|3|0|5|0', 'values of 30 MB: the others are sent');
my $no_phone = 'phone number is not in E.164 form';
my $long_name = 'the value of "name" has more than 1600 characters';
my $reasons = sql($node, <<~SQL);
	SELECT string_agg(error_message, '; ' ORDER BY list_user_id)
	FROM sendcampaign.message
	WHERE job_id = $job AND status = 'skipped'
	SQL
is($reasons, join('; ', ($no_phone) x 3, ($long_name) x 2), 'each with its reason')
  or diag(sql($node, <<~SQL));
	SELECT left(m::text, 500) FROM sendcampaign.message m WHERE job_id = $job
	SQL
is(scalar(grep { $_->{to} eq '+1555000' } $twilio->ledger), 0, 'no phone is cut short');
is(sql($node, 'SELECT max(length(phone)) FROM sendcampaign.message'),
	101, 'and none is stored whole');
sent_once($node, $twilio, $other, $other_job, 'beside values of 30 MB', total => 3);
my $preview = sql($node, <<~SQL, role => 'app');
	SELECT string_agg(coalesce(skipped, '-'), '; ') FROM sendcampaign.preview($campaign, 5)
	SQL
is($preview, join('; ', '-', ($no_phone) x 3, $long_name), 'preview() says so');

# Of the group
$campaign = create_campaign($node, users => 2);
my $group = group_of($campaign);
sql($node, <<~SQL);
	UPDATE groups
	SET configuration = configuration || jsonb_build_object('twilioAuthToken', $long)
	WHERE id = $group
	SQL
is( run_campaign($node, $campaign)->{error},
	q{the group's configuration has a value of more than 1000 bytes.}
	  . ' Shorten "twilioAuthToken".',
	'a token of 30 MB is refused');

# What a trigger raises
sql($node, <<~'SQL', role => 'app');
	CREATE FUNCTION roar() RETURNS trigger LANGUAGE plpgsql AS $$
	BEGIN
	    RAISE EXCEPTION '%', repeat('äöü ', 3000000)
	        USING DETAIL = repeat('0123456789', 3000000);
	END $$;
	CREATE TRIGGER roar BEFORE UPDATE ON ac_list_users
	    FOR EACH ROW WHEN (OLD.data ? 'roars') EXECUTE FUNCTION roar();
	SQL
$campaign = create_campaign($node, users => 3);
$list = list_of($campaign);
sql($node, <<~SQL);
	UPDATE ac_list_users
	SET data = data || '{"roars": 1}'
	WHERE id = (SELECT min(id) FROM ac_list_users WHERE ac_list_id = $list)
	SQL
$other = create_campaign($node, users => 3, message => 'Beside a roar');
$job = start_campaign($node, $campaign);
$other_job = start_campaign($node, $other);
wait_for_end($job);
like(state_of($job), qr/^failed/, 'an error of 100 MB: the run fails');
like(error_of($job), qr/^(äöü )+.*\.\.\. (0123456789)+\.\.\.$/, 'with what it begins with');
sent_once($node, $twilio, $other, $other_job, 'beside an error of 100 MB', total => 3);
cmp_ok(sql($node, 'SELECT max(length(error)) FROM sendcampaign.run'),
	'<', 2100, 'no more is kept');

wait_for_no_worker($node);
$node->stop;
is(worker_errors($node), '', 'no worker met an error');
done_testing();
