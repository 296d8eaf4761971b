# create_list() and the others have the caller's rights, on tables of any form:
# rights on columns, policies, triggers, views, columns that must have a value.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../perl";
use Campaign;
use LocalTwilio;
use Test::More;

my $twilio = LocalTwilio->start;
my $node = new_cluster('make_rights', $twilio);
create_campaign($node, users => 0);

# The error of a call in the schema of a test
sub error_in
{
	my ($schema, $call, $role) = @_;
	my $sql = "SET ROLE $role; SET sendcampaign.schema = '$schema'; SELECT sendcampaign.$call";
	return sql_error($node, $sql);
}

sub call_in
{
	my ($schema, $call, $role) = @_;
	return sql($node,
		"SET ROLE $role; SET sendcampaign.schema = '$schema'; SELECT sendcampaign.$call");
}

# Rights on some columns only
sql($node, <<~'SQL');
	CREATE ROLE clerk LOGIN;
	GRANT USAGE ON SCHEMA sendcampaign TO clerk;
	GRANT SELECT ON groups, ac_lists, ac_campaigns, ac_list_users, ac_background_jobs TO clerk;
	SQL
my $error = error_in('public', 'create_list(1)', 'clerk');
is( "$error->{sqlstate}: $error->{message}",
	'42501: permission denied for table ac_lists',
	'a role without the right to INSERT');
sql($node, <<~'SQL');
	GRANT INSERT (group_id) ON ac_lists TO clerk;
	GRANT INSERT (ac_list_id, data) ON ac_list_users, ac_campaigns TO clerk;
	GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO clerk;
	SQL
my $list = call_in('public', 'create_list(1)', 'clerk');
is( sql($node,
		"SELECT group_id, data IS NULL, created_at IS NOT NULL FROM ac_lists WHERE id = $list"),
	'1|t|t',
	'the right to INSERT one column is enough for a list');
is(call_in('public', "add_list_users($list, '{+15550000001}'::text[])", 'clerk'),
	'', '... two for its users');
like(call_in('public', "create_campaign($list, 'Hi')", 'clerk'),
	qr/^\d+$/, '... and for a campaign');

# Policies
sql($node, <<~'SQL');
	CREATE POLICY own ON ac_lists USING (group_id = 1);
	ALTER TABLE ac_lists ENABLE ROW LEVEL SECURITY;
	INSERT INTO groups (configuration) VALUES ('{}');
	INSERT INTO ac_lists (group_id) VALUES (2);
	SQL
like(
	error_in('public', 'create_list(2)', 'clerk')->{message},
	qr/^new row violates row-level security policy for table "ac_lists"/,
	'a policy is enforced');
my $hidden = sql($node, 'SELECT max(id) FROM ac_lists WHERE group_id = 2');
is( error_in('public', "add_list_users($hidden, '{+15550000001}'::text[])", 'clerk')->{message},
	"list $hidden does not exist",
	'... and hides the lists of others');
like(call_in('public', 'create_list(1)', 'clerk'), qr/^\d+$/, '... and allows what is allowed');

# Tables as Sequelize makes them, in camel case, with columns of their own
sql($node, <<~'SQL');
	CREATE SCHEMA camel AUTHORIZATION app;
	SET ROLE app;
	SET search_path = camel;
	CREATE TABLE groups (id bigserial PRIMARY KEY, configuration json);
	CREATE TABLE ac_lists (id bigserial PRIMARY KEY, name varchar(10) NOT NULL, group_id bigint,
	    "userId" integer NOT NULL,
	    "createdAt" timestamptz NOT NULL, "updatedAt" timestamptz NOT NULL);
	CREATE TABLE ac_campaigns (id bigserial PRIMARY KEY, message text, "baseUrl" text,
	    ac_list_id bigint, "userId" integer NOT NULL,
	    "createdAt" timestamptz NOT NULL, "updatedAt" timestamptz NOT NULL);
	CREATE TABLE ac_list_users (id bigserial PRIMARY KEY, sms varchar(20) NOT NULL, first_name text,
	    sent_count integer NOT NULL, "openCount" smallint NOT NULL, data json, tags jsonb,
	    ac_list_id bigint, "userId" integer NOT NULL,
	    "createdAt" timestamptz NOT NULL, "updatedAt" timestamptz NOT NULL);
	CREATE TABLE ac_background_jobs (
	    id bigserial PRIMARY KEY, progress integer, error text, data json);
	INSERT INTO groups (configuration) SELECT configuration FROM public.groups WHERE id = 1;
	SQL
$error = error_in('camel', "create_list(1, 'Members')", 'app');
is( "$error->{sqlstate}: $error->{message}",
	'23502: column "userId" of "camel.ac_lists" needs a value',
	'a column that must have a value');
is($error->{detail}, 'It is NOT NULL and has no default.', '... why');
is($error->{hint}, 'Pass the application\'s user as user_id => ...', '... the parameter');
is( error_in('camel', 'create_list(1, user_id => 3)', 'app')->{hint},
	q(Pass a value for it in columns => '{"name": ...}'.),
	'... of another column');
like(
	error_in('camel', "create_list(1, 'A name that is too long', 3)", 'app')->{message},
	qr/^value too long for type character varying\(10\)/,
	'what is too long is not cut');
is(call_in('camel', "create_list(1, 'Members', 3)", 'app'), 1, 'a list');
is(call_in('camel', "create_campaign(1, 'Hi {{firstName}}', 'https://example.org', 3)", 'app'),
	1, 'a campaign');
my $users = '[{"sms": "+15550000002", "firstName": "Ann", "tags": ["a"], "city": "Reykjavik"},'
  . ' {"sms": "+15550000003", "first_name": "Ben"}]';
$error = error_in('camel', "add_list_users(1, users => '$users', user_id => 3)", 'app');
like(
	$error->{message},
	qr/^users must not have the key "first_?[nN]ame"$/,
	'two spellings of a column are refused');
$users =~ s/first_name/firstName/;
is(call_in('camel', "add_list_users(1, users => '$users', user_id => 3)", 'app'), '', 'users');
is(sql($node, <<~'SQL'), <<~'ROWS' =~ s/\n\z//r, '... in columns where there are some');
	SELECT sms, first_name, sent_count, "openCount", data, tags, "userId", "createdAt" = "updatedAt"
	FROM camel.ac_list_users ORDER BY id
	SQL
	+15550000002|Ann|0|0|{"city": "Reykjavik", "completeCount": 0}|["a"]|3|t
	+15550000003|Ben|0|0|{"completeCount": 0}||3|t
	ROWS
is( call_in('camel', "add_list_users(1, '{+1-555-000-0002}'::text[], 3)", 'app'),
	'(1,+1-555-000-0002,"already in the list")',
	'phones in a column are compared');
is( call_in('camel', 'preview(1)', 'app') =~ s/.*?(Hi Ann https[^,"]*).*/$1/sr,
	'Hi Ann https://example.org?yu=1&yc=1',
	'the text has the column');

# What has no place, and a parameter that is not needed
sql($node, <<~'SQL', role => 'app');
	ALTER TABLE camel.ac_list_users DROP data;
	ALTER TABLE camel.ac_campaigns DROP "userId";
	SQL
$error = error_in('camel',
	qq(add_list_users(1, users => '[{"sms": "+15550000004", "city": "x"}]', user_id => 3)), 'app');
is( "$error->{message}; $error->{detail}; $error->{hint}",
	'table "camel.ac_list_users" has no place for "city"; It has neither a column of that name nor a'
	  . ' column "data".; Add one of them, or leave out the value.',
	'a key without a place');
$error = error_in('camel', "create_campaign(1, 'Hi', user_id => 3)", 'app');
is( "$error->{message}; $error->{hint}",
	'table "camel.ac_campaigns" has no column "user_id"; Leave user_id out.',
	'a user without a column');
is( call_in(
		'camel',
		"send_message(1, 'Hi', '{+15550000005}'::text[], user_id => 3, columns => '{\"name\": \"L\"}')",
		'app'),
	1,
	'send_message() sets columns where they are');

# A trigger may set what nobody else does
sql($node, <<~'SQL', role => 'app');
	CREATE FUNCTION camel.set_user() RETURNS trigger LANGUAGE plpgsql AS $$
	BEGIN
	    NEW."userId" := 9;
	    RETURN NEW;
	END $$;
	CREATE TRIGGER set_user BEFORE INSERT ON camel.ac_lists
	    FOR EACH ROW EXECUTE FUNCTION camel.set_user();
	SQL
like(call_in('camel', "create_list(1, 'T')", 'app'), qr/^\d+$/, 'a trigger sets the user');

# Rows that triggers suppress
sql($node, <<~'SQL', role => 'app');
	CREATE FUNCTION suppress() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
	CREATE TRIGGER suppress BEFORE INSERT ON ac_lists FOR EACH ROW EXECUTE FUNCTION suppress();
	CREATE TRIGGER suppress BEFORE INSERT ON ac_list_users FOR EACH ROW
	    WHEN (NEW.data->>'sms' = '+15550000012') EXECUTE FUNCTION suppress();
	SQL
$error = error_in('public', 'create_list(1)', 'app');
is( "$error->{message}; $error->{detail}; $error->{hint}",
	'could not insert a row into "public.ac_lists"; The INSERT was suppressed by a trigger or rule.;'
	  . ' Change the trigger or rule, or insert the row yourself.',
	'a list that is suppressed');
my (undef, $warning) = sql_output(
	$node,
	"SELECT sendcampaign.add_list_users($list, '{+15550000011,+15550000012}'::text[])",
	role => 'app');
like(
	$warning,
	qr/WARNING:  of 2 users, 1 were inserted into "public\.ac_list_users"/,
	'users that are suppressed');
like($warning, qr/DETAIL:  The others were suppressed by a trigger or rule\./, '... why');
like(
	$warning,
	qr/HINT:  Change the trigger or rule if it was not meant to do so\./,
	'... with a hint');
like($warning, qr/NOTICE:  1 user was added/, '... and the count is that of the rows');

# Views that lie about ids
sql($node, <<~'SQL', role => 'app');
	DROP TRIGGER suppress ON ac_lists;
	CREATE FUNCTION another() RETURNS trigger LANGUAGE plpgsql AS $$
	BEGIN
	    NEW.id := CASE WHEN current_setting('test.id', true) > '' THEN current_setting('test.id') END;
	    RETURN NEW;
	END $$;
	ALTER TABLE ac_lists RENAME TO real_lists;
	CREATE VIEW ac_lists WITH (security_invoker = false) AS SELECT * FROM real_lists;
	CREATE TRIGGER another INSTEAD OF INSERT ON ac_lists FOR EACH ROW EXECUTE FUNCTION another();
	SQL
is( error_in('public', 'create_list(1)', 'app')->{message},
	'could not insert a row into "public.ac_lists"',
	'a view that returns no id');
$error =
  sql_error($node, "SET ROLE app; SET test.id = '$hidden'; SELECT sendcampaign.create_list(1)");
is( "$error->{sqlstate}: $error->{message}",
	'27000: the row that was inserted into "public.ac_lists" cannot be found',
	"a view that returns another group's list");
is( $error->{detail},
	"The INSERT returned id $hidden, but role \"app\" sees no row, or more than one,"
	  . ' that has this id and whose "group_id" is 1.',
	'... why');
is($error->{hint}, 'Check the triggers, rules and policies of the table.', '... with a hint');
$error = sql_error($node, <<~SQL);
	SET ROLE app;
	SET test.id = '$list';
	SELECT sendcampaign.send_message(1, 'x', '{+15550000020}'::text[])
	SQL
is( $error->{message},
	"the new list $list has users already",
	'a view that returns a list with users: nothing is sent to them');
is( $error->{hint},
	'Check the triggers and rules of "public.ac_lists", and that no list users are left of a list'
	  . ' that had this id before.',
	'... with a hint');
$node->stop;
done_testing();
