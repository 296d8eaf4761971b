# Values of one recipient that no server can read are that recipient's trouble
# only: the run goes on, the recipient is skipped with the reason, and the row
# stays as it is.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../perl";
use Campaign;
use LocalTwilio;
use Test::More;

my $twilio = LocalTwilio->start;
my $node =
  new_cluster('values', $twilio, init => { extra => [ '--encoding=UTF8', '--locale=C' ] });

# Of ten users the fourth is changed so; that one is skipped for the reason, and
# the others are sent to.
sub is_skipped
{
	my ($name, $set, $reason, %arg) = @_;
	my $message = $arg{message} // 'Hi {{name|you}}';
	my $campaign = create_campaign($node, users => 10, message => $message);
	my $list = list_of($campaign);
	my $bad = sql($node, <<~SQL);
		SELECT id FROM ac_list_users WHERE ac_list_id = $list ORDER BY id OFFSET 3 LIMIT 1
		SQL
	sql($node, "UPDATE ac_list_users SET $set WHERE id = $bad");
	sql($node, <<~SQL);
		UPDATE ac_campaigns
		SET data = jsonb_build_object('message', data->>'message', 'baseUrl', data->>'baseUrl')
		WHERE id = $campaign
		SQL
	my $row = "SELECT md5(textsend(u::text)) FROM ac_list_users u WHERE id = $bad";
	my $before = sql($node, $row);
	$twilio->set(reset => 1);
	my $estimate = "SELECT messages, recipients FROM sendcampaign.estimate($campaign)";
	is(sql($node, $estimate, role => 'app'), '9|10', "$name: estimate() leaves out one");
	my $run = run_campaign($node, $campaign);
	my $outcome = "$run->{state}: $run->{sent} sent, $run->{skipped} skipped";
	is($outcome, 'completed: 9 sent, 1 skipped', "$name: the others are sent to")
	  or diag $run->{error};
	my $skipped = "FROM sendcampaign.message WHERE job_id = $run->{job} AND status = 'skipped'";
	is(sql($node, "SELECT list_user_id $skipped"), $bad, "$name: that one is not");
	like(sql($node, "SELECT error_message $skipped"), $reason, "$name: the reason is given");
	my @messages = grep { $_->{to} ne $LocalTwilio::COMPANION } $twilio->ledger;
	is(scalar(@messages), 9, "$name: nobody gets it twice");
	is(sql($node, $row), $before, "$name: the row is as it was");
}

# Bytes that are not UTF-8, in values longer than any that is sent
sql($node, <<~'SQL');
	CREATE CAST (bytea AS text) WITHOUT FUNCTION;
	ALTER TABLE ac_list_users ADD name text;
	SQL
my $bad_name =
  qr/^(a value is not valid UTF-8|the value of "name" has more than 1600 characters)$/;
my @bad_bytes = (
	[ 'a cut character behind 6,400 bytes', q{repeat('😀', 1600)::bytea || '\xf0'::bytea} ],
	[
		'a cut character behind 1,600 of one byte',
		q{repeat('x', 1600)::bytea || '\xf09f98'::bytea}
	],
	[ 'bytes all over', q{convert_to(repeat('þ', 5000), 'LATIN1')} ],
	[ 'a byte at the start', q{'\xff'::bytea || repeat('x', 7000)::bytea} ]);
for my $case (@bad_bytes)
{
	my ($name, $bytes) = @$case;
	is_skipped($name, "name = ($bytes)::text", $bad_name);
}

# The same in a phone number in a column of its own
sql($node, <<~'SQL');
	ALTER TABLE ac_list_users DROP name, ADD sms text;
	UPDATE ac_list_users SET sms = '+1';
	CREATE FUNCTION phone() RETURNS trigger LANGUAGE plpgsql AS $$
	BEGIN
	    NEW.sms := coalesce(NEW.sms, NEW.data->>'sms');
	    RETURN NEW;
	END $$;
	CREATE TRIGGER phone BEFORE INSERT ON ac_list_users
	    FOR EACH ROW EXECUTE FUNCTION phone();
	SQL
is_skipped(
	'a phone of 401 bytes, cut',
	q{sms = (repeat('😀', 100)::bytea || '\xf0'::bytea)::text},
	qr/phone number/,
	message => 'Hello');
sql($node, 'DROP TRIGGER phone ON ac_list_users; ALTER TABLE ac_list_users DROP sms');

# What "json" takes and "jsonb" does not, in the phone, in a value, in a key that
# nobody asks for, beside a number of the phone in a column
sql($node, 'ALTER TABLE ac_list_users ALTER data TYPE json USING data::json');
my $sms = q{"sms": "+15550000004"};
my @json_errors = (
	'unsupported Unicode escape sequence',
	'invalid input syntax for type json',
	'value overflows numeric format');
my $json_errors = join '|', @json_errors;
my $unreadable = qr/^the list user cannot be read: ($json_errors)/;
my @bad_json = (
	[ 'a zero in the phone', '{"sms": "+15550000004\u0000"}' ],
	[ 'in a value', "{$sms, \"name\": \"a\\u0000b\"}" ],
	[ 'elsewhere', "{$sms, \"x\": \"\\u0000\"}" ],
	[ 'in a key', "{$sms, \"\\u0000\": 1}" ],
	[ 'half of a pair', "{$sms, \"x\": \"\\ud83d!\"}" ],
	[ 'the other half', "{$sms, \"name\": \"\\ude00\"}" ],
	[ 'a huge number', "{$sms, \"x\": 1e999999}" ],
	[ 'deep inside', "{$sms, \"x\": [[{\"y\": \"\\u0000\"}]]}" ]);
for my $case (@bad_json)
{
	my ($name, $json) = @$case;
	is_skipped("json, $name", "data = '$json'", $unreadable);
}

# What both take
my @good_json = (
	[ 'a pair', '\ud83d\ude00', '😀' ],
	[ 'a backslash', 'a\\\\u0000', 'a\u0000' ],
	[ 'two backslashes', '\\\\\\\\ud83d', '\\\\ud83d' ],
	[ 'a letter', '\u00e9\u0041', 'éA' ]);
for my $case (@good_json)
{
	my ($name, $json, $text) = @$case;
	my $campaign = create_campaign($node, users => 2, message => '{{name|-}}', base_url => undef);
	my $list = list_of($campaign);
	sql($node, <<~SQL);
		UPDATE ac_list_users
		SET data = '{$sms, "name": "$json"}'
		WHERE id = (SELECT min(id) FROM ac_list_users WHERE ac_list_id = $list)
		SQL
	$twilio->set(reset => 1);
	run_campaign($node, $campaign);
	my ($message) = grep { $_->{to} eq '+15550000004' } $twilio->ledger;
	is($message->{body}, $text, "json, $name: it is a text");
}

# With the phone and the count in columns of their own nobody has to read the
# rest, except for a value.
sql($node, 'ALTER TABLE ac_list_users ADD sms text, ADD "sentCount" integer');
my $campaign = create_campaign($node, users => 3, message => 'Hello', base_url => undef);
my $list = list_of($campaign);
sql($node, <<~SQL);
	UPDATE ac_list_users
	SET sms = '+1555000' || id, data = '{"x": "\\u0000"}'
	WHERE ac_list_id = $list
	SQL
is(run_campaign($node, $campaign)->{sent},
	3, 'with phone and count in columns, all are sent to whatever the json is');
is(sql($node, <<~SQL), '1{"x": "\u0000"}', 'and counted');
	SELECT min("sentCount") || data::text
	FROM ac_list_users
	WHERE ac_list_id = $list
	GROUP BY data::text
	SQL

# The data of the job are the application's, too.
sql($node, 'ALTER TABLE ac_background_jobs ALTER data TYPE json USING data::json');
my $job = sql($node, <<~'SQL', role => 'app');
	INSERT INTO ac_background_jobs (progress, data) VALUES (5, '{"x": "\u0000"}') RETURNING id
	SQL
is(run_campaign($node, $campaign, job => $job)->{state},
	'completed', 'a run completes whatever the json of its job is');
is( sql($node, "SELECT progress, data FROM ac_background_jobs WHERE id = $job"),
	'100|{"x": "\u0000"}',
	'what the job has is kept');

is(worker_errors($node), '', 'no worker complained');
$node->stop;
done_testing();
