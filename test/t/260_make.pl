# create_list(), create_campaign() and add_list_users(): what they write, whom
# they refuse and why, and that it can be sent.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../perl";
use Campaign;
use LocalTwilio;
use Session;
use Test::More;

my $twilio = LocalTwilio->start;
my $node = new_cluster('make', $twilio);
my $template = create_campaign($node, users => 0);
my $group = sql($node, 'SELECT max(id) FROM groups');

# What SQL prints, as the role "app"
sub as_app
{
	my $sql = shift;
	return sql($node, $sql, role => 'app');
}

# The error of a call
sub error_of
{
	my $call = shift;
	return call_error($node, $call);
}

# Lists
my $list = as_app("SELECT sendcampaign.create_list($group, 'Members')");
is(as_app(<<~SQL), "$group|{\"name\": \"Members\"}|t", 'a list has its group and name');
	SELECT group_id, data, created_at = updated_at FROM ac_lists WHERE id = $list
	SQL
is(as_app("SELECT sendcampaign.create_list($group)") - $list, 1, 'a list without a name');
is(as_app('SELECT data FROM ac_lists ORDER BY id DESC LIMIT 1'), '{}', '... has empty data');

# Users by their phones
my $phones = "ARRAY['+1 555 000 0001', '+15550000002', '001-555-000-0001', NULL, '', '12345',"
  . " '+15550000003']";
my ($refused, $notice) = sql_output($node, <<~SQL, role => 'app');
	SELECT position, coalesce(phone, '(null)'), refused
	FROM sendcampaign.add_list_users($list, $phones)
	SQL
is($refused, <<~'ROWS' =~ s/\n\z//r, 'those who are refused are returned, with the reason');
	3|001-555-000-0001|duplicate: position 1 has the same phone number
	4|(null)|no phone number
	5||no phone number
	6|12345|phone number is not in E.164 form
	ROWS
like($notice, qr/NOTICE:  3 users were added to list $list\b/,
	'a notice says how many were added');
like(
	$notice,
	qr/DETAIL:  4 were refused: they are in the result, with the reasons\./,
	'... and how many were not');
is(as_app(<<~SQL), <<~'ROWS' =~ s/\n\z//r, 'the others are in the list, in their order');
	SELECT data->>'sms', data - 'sms', user_id, created_at = updated_at
	FROM ac_list_users WHERE ac_list_id = $list ORDER BY id
	SQL
	+15550000001|{"openCount": 0, "sentCount": 0, "completeCount": 0}||t
	+15550000002|{"openCount": 0, "sentCount": 0, "completeCount": 0}||t
	+15550000003|{"openCount": 0, "sentCount": 0, "completeCount": 0}||t
	ROWS
($refused, $notice) = sql_output($node, <<~SQL, role => 'app');
	SELECT * FROM sendcampaign.add_list_users($list, '{+15550000004,+1-555-000-0002}'::text[])
	SQL
is($refused, '2|+1-555-000-0002|already in the list', 'nobody is added twice');
like(
	$notice,
	qr/NOTICE:  1 user was added .*\n.*DETAIL:  1 was refused: it is in the result, with the reason/,
	'one has its singular');

# Users by objects
my $users = <<~'JSON' =~ s/\n//gr;
	[{"sms": "+15550000005", "name": "Ann", "sentCount": 9, "sms2": null},
	{"sms": "+15550000005", "name": "Ann again"},
	"+15550000006", {"name": "Nobody"}, {"sms": "5550000007"},
	{"name": "Ben", "age": 7, "sms": "+15550000008"}]
	JSON
is( as_app("SELECT * FROM sendcampaign.add_list_users($list, users => '$users')"),
	<<~'ROWS' =~ s/\n\z//r, 'objects that are refused');
	2|+15550000005|duplicate: position 1 has the same phone number
	3||not a JSON object
	4||no phone number
	5|5550000007|phone number is not in E.164 form
	ROWS
is(as_app(<<~SQL), <<~'ROWS' =~ s/\n\z//r, 'keys are kept, but for what the application counts');
	SELECT data - '{sentCount,openCount,completeCount}'::text[],
	    data->'sentCount', data->'openCount', data->'completeCount'
	FROM ac_list_users WHERE ac_list_id = $list ORDER BY id DESC LIMIT 2
	SQL
	{"age": 7, "sms": "+15550000008", "name": "Ben"}|0|0|0
	{"sms": "+15550000005", "name": "Ann", "sms2": null}|0|0|0
	ROWS

# Columns
as_app(<<~SQL);
	SELECT sendcampaign.create_list($group, 'L', 7,
	    '{"post_id": 3, "data": {"a": 1, "name": "other"}}')
	SQL
is( as_app('SELECT user_id, post_id, data FROM ac_lists ORDER BY id DESC LIMIT 1'),
	'7|3|{"a": 1, "name": "L"}',
	'user_id and further columns');
my $other = as_app("SELECT sendcampaign.create_list($group)");
as_app( "SELECT sendcampaign.add_list_users($other, '{+15550000009}'::text[], 8,"
	  . q{ '{"data": {"from": "web"}}')});
is( as_app(
		"SELECT user_id, data->>'from', data->>'sms' FROM ac_list_users WHERE ac_list_id = $other"
	),
	'8|web|+15550000009',
	'... of list users');

# Campaigns
my $campaign = as_app(
	"SELECT sendcampaign.create_campaign($list, 'Hi {{name|you}}', 'https://example.org/s', 5)");
is( as_app("SELECT ac_list_id, user_id, data FROM ac_campaigns WHERE id = $campaign"),
	qq($list|5|{"baseUrl": "https://example.org/s", "message": "Hi {{name|you}}"}),
	'a campaign has its list, text and link');
like(
	as_app(
		"SELECT string_agg(text, ', ' ORDER BY list_user_id) FROM sendcampaign.preview($campaign)"
	),
	qr{^Hi you https://example\.org/s\?yu=\d+&yc=$campaign, .*Hi Ann https.*Hi Ben https},
	'the texts are as expected');
my $content = as_app("SELECT sendcampaign.create_campaign($list, NULL,"
	  . q{ columns => '{"data": {"contentSid": "HX1"}}')});
is( as_app("SELECT data FROM ac_campaigns WHERE id = $content"),
	'{"contentSid": "HX1"}',
	'a campaign without a message has a content template');
my $job = start_campaign($node, $campaign);
sent_once($node, $twilio, $campaign, $job, 'what was made is sent');

# Errors
my @errors = (
	[ 'create_list(NULL)' => '22004', 'group_id must not be null' ],
	[ 'create_list(999)' => 'P0002', 'group 999 does not exist' ],
	[ "create_campaign(999, 'x')" => 'P0002', 'list 999 does not exist' ],
	[ "create_campaign(NULL, 'x')" => '22004', 'list_id must not be null' ],
	[ "create_campaign($list, NULL)" => '22004', 'message must not be null' ],
	[ "add_list_users(999, '{}'::text[])" => 'P0002', 'list 999 does not exist' ],
	[ "add_list_users(NULL, '{}'::text[])" => '22004', 'list_id must not be null' ],
	[ "add_list_users($list, NULL::text[])" => '22004', 'phones must not be null' ],
	[ "add_list_users($list, NULL::jsonb)" => '22004', 'users must not be null' ],
	[ "add_list_users($list, '{}'::jsonb)" => '22023', '"users" is not a JSON array' ],
	[
		qq(add_list_users($list, users => '[{"sms": "+15550000011", "id": 1}]')) => '22023',
		'users must not have the key "id"'
	],
	[
		qq(add_list_users($list, users => '[{"sms": "+15550000011", "acListId": 1}]')) => '22023',
		'users must not have the key "acListId"'
	],
	[ "create_list($group, columns => '[]')" => '22023', '"columns" is not a JSON object' ],
	[
		qq(create_list($group, columns => '{"nothing": 1}')) => '42703',
		'column "nothing" of "public.ac_lists" does not exist'
	],
	[
		qq(create_list($group, columns => '{"id": 1}')) => '22023',
		'"columns" must not contain "id"'
	],
	[
		qq(create_list($group, columns => '{"group_id": 1}')) => '22023',
		'"columns" must not contain "group_id"'
	],
	[
		qq(create_list($group, user_id => 1, columns => '{"user_id": 1}')) => '22023',
		'"columns" must not contain "user_id"'
	]);
for my $case (@errors)
{
	my ($call, $sqlstate, $message) = @$case;
	my $error = error_of($call);
	is("$error->{sqlstate}: $error->{message}", "$sqlstate: $message", "$call: the error");
	like($error->{hint}, qr/^[A-Z].*\.$/, '... has a hint');
}
is( error_of(qq(create_list($group, columns => '{"nothing": 1}')))->{hint},
	'Remove it from "columns". Values that have no column of their own belong into its "data",'
	  . ' if there is such a column.',
	'the hint of a column that does not exist');
is( error_of(qq(create_list($group, columns => '{"id": 1}')))->{detail},
	'The function sets this column of "public.ac_lists" itself.',
	'why a column is refused');
is(error_of("create_list(NULL)")->{hint}, 'Pass a value for it.', 'the hint of a null');
is( error_of("create_list($group, columns => '[]')")->{hint},
	'Write it as {"user_id": 1}, with the names of columns.',
	'how columns are written');
is( error_of("add_list_users($list, '{}'::jsonb)")->{hint},
	'Write it as [{"sms": "+15550000001", "name": "Ann"}], with an object for each user.',
	'how users are written');
is( error_of(qq(add_list_users($list, users => '[{"sms": "+15550000011", "id": 1}]')))->{hint},
	'Give it another name.',
	'... with a hint');
is( error_of(qq(add_list_users($list, users => '[{"sms": "+15550000011", "id": 1}]')))->{detail},
	'It names column "id" of "public.ac_list_users", which is the same for all of them or set by'
	  . ' the function.',
	'why a key is refused');
is( error_of("create_campaign(999, 'x')")->{hint},
	'Check that it is in "public.ac_lists" and that your role may see it.',
	'where a list is');
my $keys = "(SELECT jsonb_agg(jsonb_build_object('k' || i, 1)) FROM generate_series(1, 1601) i)";
is( error_of("add_list_users($list, $keys)")->{message},
	'the users have more than 1600 different keys',
	'too many keys');
is( error_of("add_list_users($list, $keys)")->{hint},
	'Give all of them the same keys.',
	'... with a hint');
as_app(
	"ALTER TABLE ac_lists ADD deleted boolean; UPDATE ac_lists SET deleted = true WHERE id = $other"
);
my $deleted = error_of("add_list_users($other, '{+15550000012}'::text[])");
is("$deleted->{sqlstate}: $deleted->{message}", "55000: list $other is deleted", 'a deleted list');
is($deleted->{hint}, 'Use another list, or remove that mark.', '... with a hint');
like(
	sql_error($node, "BEGIN READ ONLY; SELECT sendcampaign.create_list($group)")->{message},
	qr/^cannot execute sendcampaign\.create_list\(\) in a read-only transaction/,
	'a read-only transaction');

# Two at once add a phone once
my $third = as_app("SELECT sendcampaign.create_list($group)");
my $add =
  "SELECT count(*) FROM sendcampaign.add_list_users($third, '{+15550021,+15550022}'::text[])";
my ($first, $second) = map { Session->open($node) } 1 .. 2;
$_->query('SET ROLE app') for $first, $second;
is($first->query("BEGIN; $add"), 0, 'one adds phones');
$second->start_query($add);
wait_until($node, "SELECT count(*) > 0 FROM pg_locks WHERE NOT granted AND locktype = 'object'");
$first->query('COMMIT');
is($second->finish_query, 2, '... and another one, who waits, is told that they are there');
is(as_app("SELECT count(*) FROM ac_list_users WHERE ac_list_id = $third"), 2, '... once each');
$_->close for $first, $second;

# A hundred thousand, with few statements
my $begin = time;
is(as_app(<<~SQL), 1000, 'a hundred thousand phones, of which a thousand are twice in them');
	SELECT count(*) FROM sendcampaign.add_list_users($third,
	    (SELECT array_agg('+1556' || lpad((i % 99000)::text, 7, '0'))
	     FROM generate_series(1, 100000) i))
	SQL
note('it took ' . (time - $begin) . ' s');
is( as_app(
		"SELECT count(*) FROM ac_list_users WHERE ac_list_id = $third AND data->>'sms' ~ '^.1556'"
	),
	99000,
	'... the others are added');
$node->stop;
done_testing();
