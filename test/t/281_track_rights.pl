# track(), result and summary() show and touch what the role may see, and nothing
# else: roles, tenants, policies, functions with their owner's rights.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../perl";
use Campaign;
use LocalTwilio;
use Test::More;

my $twilio = LocalTwilio->start;
my $node = new_cluster('track_rights', $twilio, conf => 'sendcampaign.receipts = off');
make_tenant($node, $_) for 'red', 'blue';
my %job;
for my $tenant ('red', 'blue')
{
	$job{$tenant} =
	  sql($node, "SET sendcampaign.schema = $tenant; SET ROLE $tenant; SELECT send_campaign(1)");
	wait_until($node, "SELECT state = 'completed' FROM sendcampaign.run WHERE schema = '$tenant'");
}

# Runs SQL as a role, with this schema.
sub as
{
	my ($role, $schema, $sql) = @_;
	return sql($node, "SET sendcampaign.schema = $schema;\nSET ROLE $role;\n$sql");
}

sub error_as
{
	my ($role, $schema, $sql) = @_;
	return sql_error($node, "SET sendcampaign.schema = $schema;\nSET ROLE $role;\n$sql");
}
my $click = "SELECT sendcampaign.track(1, 1, 'open')";

is(as('blue', 'red', $click), 'f', q{another role's link counts nothing});
is(as('red', 'red', $click), 't', q{one's own counts});
is(sql($node, 'SELECT string_agg(schema, chr(32)) FROM sendcampaign.event'),
	'red', '... in its own schema');
is( sql($node,
		"SELECT (SELECT data->>'openCount' FROM red.ac_list_users),"
		  . " coalesce((SELECT data->>'openCount' FROM blue.ac_list_users), '-')"),
	'1|-',
	'... and only there');
is(as('blue', 'blue', 'SELECT count(*) FROM sendcampaign.event'),
	0, q{another role's events are not shown});
is(as('red', 'red', 'SELECT count(*) FROM sendcampaign.event'), 1, q{one's own are});
is(as('blue', 'red', 'SELECT string_agg(schema, chr(32)) FROM sendcampaign.result'),
	'blue', 'nor are its results');
is( as('red', 'red', "SELECT value FROM sendcampaign.summary($job{red}) WHERE measure = 'opened'"),
	1,
	'a summary of one\'s own run');
is(error_as('blue', 'red', "SELECT sendcampaign.summary($job{red})")->{sqlstate},
	'P0002', q{there is none of another role's});

# A role for the web server
sql($node, <<~'SQL');
	CREATE ROLE web LOGIN;
	GRANT USAGE ON SCHEMA sendcampaign, red TO web;
	SQL
is(as('web', 'red', "SELECT sendcampaign.track(1, 1, 'complete')"),
	'f', 'a role that may not see the run counts nothing');
sql($node, 'GRANT red TO web WITH INHERIT FALSE') if $node->pg_version->major >= 16;
sql($node, 'GRANT red TO web; ALTER ROLE web NOINHERIT') if $node->pg_version->major < 16;
is(error_as('web', 'red', "SELECT sendcampaign.track(1, 1, 'complete')")->{sqlstate},
	'42501', 'one that may see it needs rights on the list users');
is(sql($node, 'SELECT count(*) FROM sendcampaign.event_data'),
	1, '... and records nothing without them');
sql($node, 'GRANT SELECT, UPDATE (data, updated_at) ON red.ac_list_users TO web');
is(as('web', 'red', "SELECT sendcampaign.track(1, 1, 'complete')"),
	't', '... with which it counts');
is(sql($node, "SELECT data->>'completeCount' FROM red.ac_list_users"), 1, '... once');

# A function with its owner's rights
sql($node, <<~'SQL');
	SET ROLE blue;
	SELECT sendcampaign.version();
	CREATE FUNCTION blue.click(yu bigint, yc bigint) RETURNS boolean
	LANGUAGE sql SECURITY DEFINER SET sendcampaign.schema = 'blue'
	BEGIN ATOMIC SELECT sendcampaign.track(yu, yc, 'open'); END;
	CREATE FUNCTION blue.careless(yu bigint, yc bigint) RETURNS boolean
	LANGUAGE sql SECURITY DEFINER
	BEGIN ATOMIC SELECT sendcampaign.track(yu, yc, 'open'); END;
	GRANT USAGE ON SCHEMA blue TO web;
	SQL
is(as('web', 'red', 'SELECT blue.click(1, 1)'),
	't', 'a function of the owner of the tables counts for others');
is(as('web', 'blue', 'SELECT blue.careless(1, 1)'), 'f', '... once');
sql($node, <<~'SQL');
	CREATE SCHEMA trap AUTHORIZATION web;
	GRANT CREATE, USAGE ON SCHEMA trap TO web;
	SET ROLE web;
	SELECT sendcampaign.create_tables('trap');
	SQL
is(as('web', 'trap', 'SELECT blue.careless(1, 1)'),
	'f', '... and nothing with tables of the caller\'s');

# Superusers, and those whom policies do not concern
is(sql($node, "SET sendcampaign.schema = blue; SELECT sendcampaign.track(1, 1, 'complete')"),
	't', 'a superuser counts with the rights of the owner of the tables');
is(sql($node, "SELECT data->>'completeCount' FROM blue.ac_list_users"),
	1, '... in the tables of the schema');

# Policies: one role for all tenants, who are told apart by a setting
sql($node, <<~'SQL');
	ALTER TABLE red.ac_list_users ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
	CREATE POLICY tenant ON red.ac_list_users
	USING (id = current_setting('app.tenant', true)::bigint);
	DELETE FROM sendcampaign.event_data;
	SQL
is(as('red', 'red', "SET app.tenant = 2; $click"),
	'f', 'a list user whom a policy hides counts nothing');
is(as('red', 'red', "SET app.tenant = 2; SELECT sendcampaign.track(1, 1, 'other')"),
	'f', '... and has no other events');
is(sql($node, 'SELECT count(*) FROM sendcampaign.event_data'), 0, '... which nobody records');
is(as('red', 'red', "SET app.tenant = 1; $click"), 't', '... but does for the right tenant');
my $code = as('red', 'red',
	"SET app.tenant = 1; SELECT count(*) FROM sendcampaign.event WHERE event = 'open'");
is($code, 1, '... who sees it');
is(sql_error($node, "SET ROLE red; SELECT * FROM sendcampaign.event_data")->{sqlstate},
	'42501', 'nobody reads the table itself');
is(sql_error($node, "SET ROLE red; SELECT * FROM sendcampaign.link_secret")->{sqlstate},
	'42501', 'nor the secret');
$node->stop;
done_testing();
