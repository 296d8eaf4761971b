# One recipient's values that no server can read are its own trouble: the run
# goes on, its recipient is skipped with the reason, and its row stays as it is.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../perl";
use Campaign;
use LocalTwilio;
use Test::More;

my $twilio = LocalTwilio->start;
my $node = new_cluster('values', $twilio, init => { extra => [ '--encoding=UTF8', '--locale=C' ] });
sub sql { return $node->safe_psql('postgres', $_[0]); }
sub list_of { return "(SELECT ac_list_id FROM ac_campaigns WHERE id = $_[0])"; }

# Of ten users the fourth has this; that one is skipped for the reason, and the
# others are sent to.
sub is_skipped
{
	my ($name, $set, $reason, %arg) = @_;
	my $campaign = create_campaign($node, users => 10, message => $arg{message} // 'Hi {{name|you}}');
	my $bad = sql('SELECT id FROM ac_list_users WHERE ac_list_id = ' . list_of($campaign) . ' ORDER BY id OFFSET 3 LIMIT 1');
	sql("UPDATE ac_list_users SET $set WHERE id = $bad");
	sql("UPDATE ac_campaigns SET data = jsonb_build_object('message', data->>'message', 'baseUrl', data->>'baseUrl') WHERE id = $campaign");
	my $before = sql("SELECT md5(textsend(u::text)) FROM ac_list_users u WHERE id = $bad");
	$twilio->set(reset => 1);
	is(sql("SET ROLE app; SELECT messages, recipients FROM sendcampaign.estimate($campaign)"), '9|10', "$name: estimate");
	my $job = start_campaign($node, $campaign);
	my $run = wait_for_run($node, $job);
	is("$run->{state}: $run->{sent} sent, $run->{skipped} skipped", 'completed: 9 sent, 1 skipped', "$name: the others are sent to") or diag $run->{error};
	is(sql("SELECT list_user_id FROM sendcampaign.message WHERE job_id = $job AND status = 'skipped'"), $bad, "$name: that one is not");
	like(sql("SELECT error_message FROM sendcampaign.message WHERE job_id = $job AND status = 'skipped'"), $reason, "$name: the reason");
	is(scalar(grep { $_->{to} ne $LocalTwilio::COMPANION } $twilio->ledger), 9, "$name: nobody gets it twice");
	is(sql("SELECT md5(textsend(u::text)) FROM ac_list_users u WHERE id = $bad"), $before, "$name: the row is as it was");
}

# Bytes that are no UTF-8, in values longer than any that is sent
sql('CREATE CAST (bytea AS text) WITHOUT FUNCTION; ALTER TABLE ac_list_users ADD name text');
for my $case ([ 'a cut character behind 6,400 bytes', q{repeat('😀', 1600)::bytea || '\xf0'::bytea} ], [ 'a cut character behind 1,600 of one byte', q{repeat('x', 1600)::bytea || '\xf09f98'::bytea} ],
	[ 'bytes all over', q{convert_to(repeat('þ', 5000), 'LATIN1')} ], [ 'a byte at the start', q{'\xff'::bytea || repeat('x', 7000)::bytea} ])
{
	is_skipped($case->[0], "name = (${\ $case->[1]})::text", qr/^(a value is not valid UTF-8|the value of "name" has more than 1600 characters)$/);
}
sql('ALTER TABLE ac_list_users DROP name, ADD sms text; UPDATE ac_list_users SET sms = $$+1$$');
is_skipped('a phone of 401 bytes, cut', q{sms = (repeat('😀', 100)::bytea || '\xf0'::bytea)::text}, qr/phone number/,
	message => 'Hello') if sql(q{CREATE FUNCTION phone() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN NEW.sms := coalesce(NEW.sms, NEW.data->>''sms''); RETURN NEW; END';
		CREATE TRIGGER phone BEFORE INSERT ON ac_list_users FOR EACH ROW EXECUTE FUNCTION phone(); SELECT 1});
sql('DROP TRIGGER phone ON ac_list_users; ALTER TABLE ac_list_users DROP sms');

# What "json" takes and "jsonb" does not, in the phone, in a value, in a key that
# nobody asks for, beside a number of the phone in a column
sql('ALTER TABLE ac_list_users ALTER data TYPE json USING data::json');
my $sms = q{"sms": "+15550000004"};
my $unreadable = qr/^the list user cannot be read: (unsupported Unicode escape sequence|invalid input syntax for type json|value overflows numeric format)/;
is_skipped("json: $_->[0]", "data = '$_->[1]'", $unreadable) for
  [ 'a zero in the phone', '{"sms": "+15550000004\u0000"}' ], [ 'in a value', "{$sms, \"name\": \"a\\u0000b\"}" ], [ 'elsewhere', "{$sms, \"x\": \"\\u0000\"}" ],
  [ 'in a key', "{$sms, \"\\u0000\": 1}" ], [ 'half of a pair', "{$sms, \"x\": \"\\ud83d!\"}" ], [ 'the other half', "{$sms, \"name\": \"\\ude00\"}" ],
  [ 'a huge number', "{$sms, \"x\": 1e999999}" ], [ 'deep inside', "{$sms, \"x\": [[{\"y\": \"\\u0000\"}]]}" ];
for my $case ([ 'a pair' => '\ud83d\ude00' => '😀' ], [ 'a backslash' => 'a\\\\u0000' => 'a\u0000' ], [ 'two' => '\\\\\\\\ud83d' => '\\\\ud83d' ], [ 'a letter' => '\u00e9\u0041' => 'éA' ])
{
	my ($name, $json, $text) = @$case;
	my $campaign = create_campaign($node, users => 2, message => '{{name|-}}', base_url => undef);
	sql("UPDATE ac_list_users SET data = '{$sms, \"name\": \"$json\"}' WHERE id = (SELECT min(id) FROM ac_list_users WHERE ac_list_id = ${\ list_of($campaign)})");
	$twilio->set(reset => 1);
	wait_for_run($node, start_campaign($node, $campaign));
	is((grep { $_->{to} eq '+15550000004' } $twilio->ledger)[0]{body}, $text, "json: $name is a text");
}

# With phone and count in columns of their own nobody has to read it, but for
# a value.
sql('ALTER TABLE ac_list_users ADD sms text, ADD "sentCount" integer');
my $campaign = create_campaign($node, users => 3, message => 'Hello', base_url => undef);
sql(q{UPDATE ac_list_users SET sms = '+1555000' || id, data = '{"x": "\u0000"}' WHERE ac_list_id = } . list_of($campaign));
my $job = start_campaign($node, $campaign);
is(wait_for_run($node, $job)->{sent}, 3, 'json, phone and count in columns: all are sent to');
is(sql('SELECT min("sentCount") || data::text FROM ac_list_users WHERE ac_list_id = ' . list_of($campaign) . ' GROUP BY data::text'), '1{"x": "\u0000"}', 'and counted');

# The job's data are the application's, too.
sql('ALTER TABLE ac_background_jobs ALTER data TYPE json USING data::json');
$job = sql(q{SET ROLE app; INSERT INTO ac_background_jobs (progress, data) VALUES (5, '{"x": "\u0000"}') RETURNING id});
start_campaign($node, $campaign, job => $job);
is(wait_for_run($node, $job)->{state}, 'completed', 'json, the job: completed');
is(sql("SELECT progress, data FROM ac_background_jobs WHERE id = $job"), '100|{"x": "\u0000"}', 'json, the job: what it has is kept');

is(worker_errors($node), '', 'no worker complained');
$node->stop;
done_testing();
