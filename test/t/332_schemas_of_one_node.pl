# Citus: a schema that somebody has created on one node alone, with the name of a
# schema that is not distributed, and so is the coordinator's.  It shows nothing of the
# other one's opt-outs, and adds none.  create_tables() in such schemas.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../perl";
use Campaign;
use Citus;
use LocalTwilio;
use Test::More;

need_citus();
my $twilio = LocalTwilio->start;
my $citus = Citus->new('names', $twilio, workers => 1);
my ($coordinator, $worker) = $citus->nodes;

my $shop = $citus->add_tenant('shop', layout => 'local', users => 3);
my $tenant = $citus->add_tenant('tenant', users => 3);
my ($group) = map { sql($coordinator, "SELECT id FROM $_->{schema}.groups") } $shop;
sql($coordinator, 'CREATE ROLE mallory LOGIN');
# as a schema that is older than Citus
sql($worker, 'SET citus.enable_ddl_propagation = off; DROP SCHEMA shop');
sql($_, <<~'SQL') for $coordinator, $worker;
	SET citus.enable_ddl_propagation = off;
	GRANT USAGE ON SCHEMA sendcampaign TO mallory;
	GRANT CREATE ON DATABASE postgres TO mallory;
	SQL
sql($worker, <<~"SQL", role => 'mallory');
	SET citus.enable_ddl_propagation = off;
	CREATE SCHEMA shop;
	CREATE TABLE shop.groups (id bigint, configuration jsonb);
	INSERT INTO shop.groups VALUES ($group, '{}');
	SQL

# Calls a function with the tables of a schema
sub call_sql
{
	my ($schema, $call) = @_;
	return "SET sendcampaign.schema = '$schema'; SELECT $call";
}
my $number = '+15550007777';
sql($coordinator, call_sql('shop', "sendcampaign.opt_out('$number', $group)"), role => 'app');
wait_until(
	$worker,
	"SELECT count(*) FROM sendcampaign.opt_out_data WHERE schema = 'shop'",
	expected => 1);

# What she sees and does there
is(sql($worker, 'SELECT count(*) FROM sendcampaign.opt_out', role => 'mallory'),
	0, 'her schema shows nothing of the opt-outs of the other one');
my $refused = {
	sqlstate => '55000',
	message => 'table "shop.groups" is on this node of Citus alone',
	detail => "On other nodes, the schema's name may be that of somebody else's tables.",
	hint => 'Connect to the coordinator, which has the tables that are not distributed, and call'
	  . ' the function there.'
};
for my $call (
	"sendcampaign.opt_out('+15550008888', $group)",
	"count(*) FROM sendcampaign.opt_outs($group)")
{
	is_deeply(sql_error($worker, call_sql('shop', $call), role => 'mallory'),
		$refused, "refused: $call");
}
is(sql($worker, q{SELECT count(*) FROM sendcampaign.opt_out_data WHERE phone = '+15550008888'}),
	0, 'nothing is written');
is(sql($coordinator, 'SELECT count(*) FROM sendcampaign.opt_out', role => 'app'),
	1, 'the other one is shown where it is');

# A tenant's schema has one name on all nodes, also if the groups are a view
my ($of_tenant) = sql($coordinator, 'SELECT id FROM tenant.groups');
for my $how ('table', 'view')
{
	sql($coordinator, <<~'SQL', role => 'app') if $how eq 'view';
		ALTER TABLE tenant.groups RENAME TO all_groups;
		CREATE VIEW tenant.groups AS SELECT * FROM tenant.all_groups;
		SQL
	for my $node ($coordinator, $worker)
	{
		my $name = "a tenant's $how, on " . $node->name;
		my $phone = '+1555001' . ($how eq 'view' ? '1' : '0') . '00' . ($node == $worker ? 1 : 2);
		is( sql($node,
				call_sql('tenant', "sendcampaign.opt_out('$phone', $of_tenant)"),
				role => 'app'),
			't',
			"$name: opt_out()");
		is( sql($node,
				"SELECT count(*) FROM sendcampaign.opt_out WHERE phone = '$phone'",
				role => 'app'),
			1,
			"$name: the view shows it");
	}
}

# create_tables()
sql($worker, <<~'SQL', role => 'mallory');
	SET citus.enable_ddl_propagation = off;
	CREATE SCHEMA hers;
	SQL
is_deeply(
	sql_error($worker, "SELECT sendcampaign.create_tables('hers')", role => 'mallory'),
	{
		sqlstate => '55000',
		message => 'schema "hers" is not distributed, and this node is not the coordinator',
		detail => 'No campaign is sent from tables that Citus does not know of on this node.',
		hint => 'Call the function on the coordinator, or distribute the schema there with'
		  . ' citus_schema_distribute().'
	},
	'create_tables() on a node that will never send from these tables');
sql($coordinator, 'CREATE SCHEMA "x_id integer" AUTHORIZATION app');
sql($coordinator, q{SELECT sendcampaign.create_tables('x_id integer')}, role => 'app');
is(sql($coordinator, <<~'SQL'), '5|bigint', 'a schema whose name is like the type of a column');
	SELECT count(DISTINCT c.oid), string_agg(DISTINCT format_type(a.atttypid, NULL), ' ')
	FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname LIKE '%id'
	WHERE c.relnamespace = '"x_id integer"'::regnamespace AND c.relkind = 'r' AND a.attnum > 0
	SQL
$citus->stop;
done_testing();
