# The application's tables as installations have them: values in columns of
# their own or in data, further columns, another schema.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../perl";
use Campaign;
use LocalTwilio;
use Test::More;

my $twilio = LocalTwilio->start;
my $node = new_cluster('tables', $twilio);

# A database of its own whose tables are changed by this SQL.
sub new_database
{
	my ($db, $changes) = @_;
	sql($node, "CREATE DATABASE $db");
	install_extension($node, $db);
	sql($node, $changes, db => $db, role => 'app');
}

# The phones and texts of messages that were accepted and have such a text.
sub texts
{
	my $pattern = shift;
	return [ sort map { "$_->{to} $_->{body}" } grep { $_->{body} =~ $pattern } $twilio->ledger ];
}

# columns in camel case, which take precedence over data
new_database('camel', <<~'SQL');
	ALTER TABLE ac_list_users ADD sms text, ADD "sentCount" integer;
	ALTER TABLE ac_campaigns ADD message text, ADD "baseUrl" text;
	SQL
my $campaign = create_campaign(
	$node,
	db => 'camel',
	users => 3,
	message => 'of data',
	base_url => 'https://data/');
sql($node, <<~'SQL', db => 'camel');
	UPDATE ac_list_users SET sms = '+4420000000' || id, "sentCount" = nullif(id, 2);
	UPDATE ac_campaigns SET message = 'of the column', "baseUrl" = 'https://column/';
	SQL
my $run = run_campaign($node, $campaign, db => 'camel', alone => 1);
is($run->{sent}, 3, 'columns in camel case: it is sent');
my @expected =
  map { "+4420000000$_ of the column https://column/?yu=$_&yc=$campaign" } 1 .. 3;
is_deeply(texts(qr/^of the column/),
	\@expected, 'with the phones, the text and the link of the columns');
is(sql($node, <<~'SQL', db => 'camel'), '2 1 4|f', 'and counted in the column alone');
	SELECT string_agg("sentCount"::text, ' ' ORDER BY id), bool_or(data ? 'sentCount')
	FROM ac_list_users
	SQL

# columns in snake case, and no data at all
new_database('snake', <<~'SQL');
	ALTER TABLE ac_list_users ADD sms text, ADD sent_count smallint NOT NULL DEFAULT 0;
	ALTER TABLE ac_campaigns ADD message text, ADD base_url text;
	SQL
$campaign = create_campaign($node, db => 'snake', users => 2);
sql($node, <<~'SQL', db => 'snake');
	UPDATE ac_list_users SET sms = '+4430000000' || id;
	UPDATE ac_campaigns SET message = 'snake', base_url = 'https://snake/';
	ALTER TABLE ac_list_users DROP data;
	ALTER TABLE ac_campaigns DROP data;
	ALTER TABLE ac_background_jobs DROP data, DROP created_at, DROP updated_at;
	ALTER TABLE ac_list_users DROP updated_at;
	SQL
$run = run_campaign($node, $campaign, db => 'snake', alone => 1);
is($run->{sent}, 2, 'columns in snake case, no data: it is sent');
@expected = map { "+4430000000$_ snake https://snake/?yu=$_&yc=$campaign" } 1 .. 2;
is_deeply(texts(qr/^snake/), \@expected, 'with the right texts');
is(sql($node, q{SELECT string_agg(sent_count::text, ' ') FROM ac_list_users}, db => 'snake'),
	'1 1', 'and counted in the column');
is(job_row($node, $run->{job}, 'progress', db => 'snake'), 100, 'the job is complete');

# json instead of jsonb, and more columns
new_database('plain_json', <<~'SQL');
	ALTER TABLE ac_list_users
		ALTER data TYPE json,
		ADD open_count integer NOT NULL DEFAULT 0,
		ADD extra text NOT NULL DEFAULT 'x';
	ALTER TABLE ac_campaigns ALTER data TYPE json, ADD extra text NOT NULL DEFAULT 'x';
	ALTER TABLE ac_background_jobs ALTER data TYPE json, ADD extra text NOT NULL DEFAULT 'x';
	ALTER TABLE groups ALTER configuration TYPE json, ADD extra text NOT NULL DEFAULT 'x';
	ALTER TABLE ac_lists ADD extra text NOT NULL DEFAULT 'x';
	SQL
$campaign = create_campaign($node, db => 'plain_json', users => 2, message => 'plain json');
$run = run_campaign($node, $campaign, db => 'plain_json', alone => 1);
is($run->{sent}, 2, 'json: it is sent');
is(sql($node, <<~'SQL', db => 'plain_json'), '1 1', 'json: it is counted');
	SELECT string_agg(data->>'sentCount', ' ') FROM ac_list_users
	SQL
is(job_row($node, $run->{job}, "progress, data->>'sent'", db => 'plain_json'),
	'100|2', 'json: the job is complete');

# the same tables in two schemas, one with a name that needs quotes
my $schema = 'Your "Priorities"';
my $quoted = '"' . ($schema =~ s/"/""/gr) . '"';
sql($node, 'CREATE DATABASE schemas');
install_extension($node, 'schemas');
sql($node, <<~"SQL", db => 'schemas');
	CREATE SCHEMA $quoted AUTHORIZATION app;
	SET ROLE app;
	SELECT sendcampaign.create_tables('$schema');
	ALTER SEQUENCE $quoted.ac_background_jobs_id_seq RESTART 1000;
	SQL
create_campaign($node, db => 'schemas', users => 1, message => 'public');
sql($node, "ALTER DATABASE schemas SET search_path = $quoted, public");
$campaign = create_campaign($node, db => 'schemas', users => 2, message => 'other schema');
is($campaign, 1, 'both schemas have a campaign 1');

my $job = sql($node, <<~"SQL", db => 'schemas', role => 'app');
	SET sendcampaign.schema = '$schema';
	SELECT send_campaign(1);
	SQL
is(wait_for_run($node, $job, db => 'schemas')->{sent},
	2, 'a schema that is set in the session: it is sent');
is(sent_with($twilio, 'other schema'), 2, 'it is the campaign of that schema');
my $progress = "SELECT progress FROM $quoted.ac_background_jobs WHERE id = $job";
is(sql($node, $progress, db => 'schemas'), 100, 'its job is complete');

is(run_campaign($node, 1, db => 'schemas')->{sent}, 1, 'the schema is public by default');
is(sent_with($twilio, 'public'), 1, 'whatever the search_path');

sql($node, "ALTER DATABASE schemas SET sendcampaign.schema = '$schema'");
is(run_campaign($node, 1, db => 'schemas')->{sent}, 2, 'ALTER DATABASE SET: it is sent');
is(sent_with($twilio, 'other schema'), 4, 'it is the campaign of that schema');

wait_for_no_worker($node);
$node->stop;
done_testing();
