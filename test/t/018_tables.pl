# The application's tables as installations have them: values in columns of
# their own or in data, further columns, another schema.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../perl";
use Campaign;
use LocalTwilio;
use PostgreSQL::Test::Utils;
use Test::More;

my $twilio = LocalTwilio->start;
my $node = new_cluster('tables', $twilio);

# A database of its own whose tables are changed by $changes.
sub new_database
{
	my ($db, $changes) = @_;
	$node->safe_psql('postgres', "CREATE DATABASE $db");
	install_extension($node, $db);
	$node->safe_psql($db, "SET ROLE app; $changes");
}

sub texts { return join '|', sort map { "$_->{to} $_->{body}" } grep { $_->{body} =~ $_[0] } $twilio->ledger; }

# columns in camel case; they win over data
new_database('camel', q{
	ALTER TABLE ac_list_users ADD sms text, ADD "sentCount" integer;
	ALTER TABLE ac_campaigns ADD message text, ADD "baseUrl" text});
my $campaign = create_campaign($node, db => 'camel', users => 3, message => 'of data', base_url => 'https://data/');
$node->safe_psql('camel', q{
	UPDATE ac_list_users SET sms = '+4420000000' || id, "sentCount" = nullif(id, 2);
	UPDATE ac_campaigns SET message = 'of the column', "baseUrl" = 'https://column/'});
my $run = wait_for_run($node, start_campaign($node, $campaign, db => 'camel'), db => 'camel');
is($run->{sent}, 3, 'columns in camel case: sent');
is(texts(qr/^of the column/), join('|', map { "+4420000000$_ of the column https://column/?yu=$_&yc=$campaign" } 1 .. 3),
	'with the phones, the text and the link of the columns');
is($node->safe_psql('camel', q{SELECT string_agg("sentCount"::text, ' ' ORDER BY id), bool_or(data ? 'sentCount') FROM ac_list_users}),
	'2 1 4|f', 'counted in the column alone');

# columns in snake case, no data at all
new_database('snake', q{
	ALTER TABLE ac_list_users ADD sms text, ADD sent_count smallint NOT NULL DEFAULT 0;
	ALTER TABLE ac_campaigns ADD message text, ADD base_url text});
$campaign = create_campaign($node, db => 'snake', users => 2);
$node->safe_psql('snake', q{
	UPDATE ac_list_users SET sms = '+4430000000' || id;
	UPDATE ac_campaigns SET message = 'snake', base_url = 'https://snake/';
	ALTER TABLE ac_list_users DROP data;
	ALTER TABLE ac_campaigns DROP data;
	ALTER TABLE ac_background_jobs DROP data, DROP created_at, DROP updated_at;
	ALTER TABLE ac_list_users DROP updated_at});
my $job = start_campaign($node, $campaign, db => 'snake');
is(wait_for_run($node, $job, db => 'snake')->{sent}, 2, 'columns in snake case, no data: sent');
is(texts(qr/^snake/), join('|', map { "+4430000000$_ snake https://snake/?yu=$_&yc=$campaign" } 1 .. 2), 'with the right texts');
is($node->safe_psql('snake', q{SELECT string_agg(sent_count::text, ' ') FROM ac_list_users}), '1 1', 'counted in the column');
is($node->safe_psql('snake', "SELECT progress FROM ac_background_jobs WHERE id = $job"), 100, 'the job is through');

# json instead of jsonb, and more columns
new_database('plain_json', q{
	ALTER TABLE ac_list_users ALTER data TYPE json, ADD open_count integer NOT NULL DEFAULT 0, ADD extra text NOT NULL DEFAULT 'x';
	ALTER TABLE ac_campaigns ALTER data TYPE json, ADD extra text NOT NULL DEFAULT 'x';
	ALTER TABLE ac_background_jobs ALTER data TYPE json, ADD extra text NOT NULL DEFAULT 'x';
	ALTER TABLE groups ALTER configuration TYPE json, ADD extra text NOT NULL DEFAULT 'x';
	ALTER TABLE ac_lists ADD extra text NOT NULL DEFAULT 'x'});
$campaign = create_campaign($node, db => 'plain_json', users => 2, message => 'plain json');
$job = start_campaign($node, $campaign, db => 'plain_json');
is(wait_for_run($node, $job, db => 'plain_json')->{sent}, 2, 'json: sent');
is($node->safe_psql('plain_json', q{SELECT string_agg(data->>'sentCount', ' ') FROM ac_list_users}), '1 1', 'json: counted');
is($node->safe_psql('plain_json', "SELECT progress, data->>'sent' FROM ac_background_jobs WHERE id = $job"), '100|2', 'json: the job');

# The same tables in two schemas; a name that needs quotes.
my $schema = 'Your "Priorities"';
(my $quoted = $schema) =~ s/"/""/g;
$node->safe_psql('postgres', 'CREATE DATABASE schemas');
install_extension($node, 'schemas');
$node->safe_psql('schemas', qq{
	CREATE SCHEMA "$quoted" AUTHORIZATION app;
	SET ROLE app;
	SELECT sendcampaign.create_tables('$schema');
	ALTER SEQUENCE "$quoted".ac_background_jobs_id_seq RESTART 1000});
create_campaign($node, db => 'schemas', users => 1, message => 'public');
$node->safe_psql('postgres', qq{ALTER DATABASE schemas SET search_path = "$quoted", public});
$campaign = create_campaign($node, db => 'schemas', users => 2, message => 'other schema');
is($campaign, 1, 'both schemas have a campaign 1');

$job = $node->safe_psql('schemas', qq{SET ROLE app; SET sendcampaign.schema = '$schema'; SELECT send_campaign(1)});
is(wait_for_run($node, $job, db => 'schemas')->{sent}, 2, 'the schema set in the session: sent');
is(sent_with($twilio, 'other schema'), 2, 'that schema\'s campaign');
is($node->safe_psql('schemas', qq{SELECT progress FROM "$quoted".ac_background_jobs WHERE id = $job}), 100, 'its job is through');
is(wait_for_run($node, start_campaign($node, 1, db => 'schemas'), db => 'schemas')->{sent}, 1, 'the default: public');
is(sent_with($twilio, 'public'), 1, 'whatever the search_path');

$node->safe_psql('postgres', qq{ALTER DATABASE schemas SET sendcampaign.schema = '$schema'});
is(wait_for_run($node, start_campaign($node, 1, db => 'schemas'), db => 'schemas')->{sent}, 2, 'ALTER DATABASE SET: sent');
is(sent_with($twilio, 'other schema'), 4, 'that schema\'s campaign');

wait_for_no_worker($node);
$node->stop;
done_testing();
