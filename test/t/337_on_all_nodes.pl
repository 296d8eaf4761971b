# Citus: the tables of a tenant are created from any node; queries on all nodes, and on
# the home of a schema, run with the caller's rights, and a node that is down is named.
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
my $citus = Citus->new('all', $twilio);
my ($coordinator, $first, $second) = $citus->nodes;
my $tenant = $citus->add_tenant('t1', users => 10, on => 1);
my $other = $citus->add_tenant('t2', users => 10, on => 2);

# Tables
sql($coordinator, 'CREATE SCHEMA made AUTHORIZATION app');
sql($coordinator, "SELECT citus_schema_distribute('made')");
sql($second, "SELECT sendcampaign.create_tables('made')", role => 'app');
is(sql($coordinator, <<~'SQL'), '5|1|t', 'they are the tenant\'s');
	SELECT count(*), count(DISTINCT colocationid), bool_and(colocationid IN
		(SELECT colocationid FROM pg_dist_schema WHERE schemaid = 'made'::regnamespace))
	FROM pg_dist_partition WHERE logicalrelid::text LIKE 'made.%'
	SQL
sql($_, 'INSERT INTO made.groups (name) VALUES (current_setting($$port$$))', role => 'app')
  for $citus->nodes;
is(sql($first, 'SELECT count(DISTINCT id) FROM made.groups', role => 'app'),
	3, 'each node can insert rows');
sql($coordinator, 'DROP TABLE made.ac_lists', role => 'app');
sql($first, "SELECT sendcampaign.create_tables('made')", role => 'app');
is(sql($second, 'SELECT count(*) FROM made.ac_lists', role => 'app'),
	0, 'a table that is missing is created');
is(sql($coordinator, <<~'SQL'), 'bigint', 'tables that may be distributed later, too');
	SELECT format_type(atttypid, NULL) FROM pg_attribute
	WHERE attrelid = 't1.groups'::regclass AND attname = 'id'
	SQL
sql($coordinator, <<~'SQL');
	SET citus.enable_ddl_propagation = off;
	CREATE SCHEMA closed;
	INSERT INTO pg_dist_schema SELECT 'closed'::regnamespace, max(colocationid) + 100
	FROM pg_dist_colocation;
	SQL
my $error = call_error($coordinator, "create_tables('closed')");
like(
	$error->{message},
	qr/^could not create the tables of schema "closed" on the coordinator: ERROR:  permission denied/,
	'a schema in which the role may not create tables');
is( $error->{hint},
	'Call it again once that is mended; it creates those that are missing.',
	'and what to do');
sql($coordinator, "DELETE FROM pg_dist_schema WHERE schemaid = 'closed'::regnamespace");

# At home
my $name = sub { return '127.0.0.1:' . shift->port };
my $call = "SELECT r->>'send_campaign' FROM sendcampaign.at_home('t1',"
  . " 'SELECT send_campaign($tenant->{campaign}, $tenant->{job})') r";
is(sql($second, $call, role => 'app'), $tenant->{job}, 'send_campaign() at home, from elsewhere');
$citus->sent_once($tenant, 'from elsewhere');
$citus->call($second, $other);
$citus->sent_once($other, 'at home');
my $where = "current_user u, current_setting('sendcampaign.schema') s, current_setting('port') p";

for my $node ($citus->nodes)
{
	is( sql($node,
			"SELECT * FROM sendcampaign.at_home('t1', \$\$SELECT $where -- x\$\$)",
			role => 'app'),
		qq({"p": "${\ $first->port }", "s": "t1", "u": "app"}),
		'at home: from ' . $node->name);
	is(sql($node, "SELECT current_setting('sendcampaign.schema')", role => 'app'),
		'public', 'the setting is as before');
}
my $report = "SELECT length(r->>'report') > 1000 FROM sendcampaign.at_home('t1',"
  . " 'SELECT sendcampaign.report($tenant->{job})') r";
is(sql($coordinator, $report, role => 'app'), 't', 'report() at home');
my $proof = "SELECT count(*) FROM sendcampaign.at_home('t1',"
  . " 'SELECT * FROM sendcampaign.reconcile($tenant->{job})')";
is(sql($coordinator, $proof, role => 'app'), 0, 'reconcile() at home');
is( sql($first, "SELECT host, port, is_here FROM sendcampaign.home_node('public')"),
	"127.0.0.1|${\ $coordinator->port }|f",
	'the home of tables that are not distributed');
$error = call_error($first, "home_node('nosuch')");
is($error->{message}, 'schema "nosuch" does not exist', 'no such schema');
is($error->{hint}, "Pass the schema that has the application's tables.", 'and what to do');
$error = call_error($second, "at_home('t1', 'SELECT 1 / 0')");
like(
	$error->{message},
	qr/^the home of schema "t1", node \S+:\d+, reports: ERROR:  division by zero$/,
	'an error at home');
like($error->{message}, qr/\Q${\ $name->($first) }\E/, 'which is named');
is( $error->{hint},
	'See that the node is up and lets this role connect, or correct the query.',
	'and what to do');
$error = call_error($second, "at_home('t1', 'SELECT 1', true)");
is($error->{message}, 'schema "t1" is at home on another node', 'a schema that has moved');
is($error->{hint}, 'Call it again once the schema has moved.', 'and what to do');

# On all nodes, and only what the role may see
my $runs = "SELECT node, schema, state, sent FROM sendcampaign.all_runs"
  . " WHERE (schema, job_id) IN (('t1', $tenant->{job}), ('t2', $other->{job})) ORDER BY schema";
my $expected = $name->($first) . "|t1|completed|10\n" . $name->($second) . '|t2|completed|10';
is(sql($_, $runs, role => 'app'), $expected, 'all_runs: from ' . $_->name) for $citus->nodes;
is( sql($coordinator,
		q{SELECT count(DISTINCT schema) FILTER (WHERE schema IN ('t1', 't2')),}
		  . ' bool_and(node_error IS NULL) FROM sendcampaign.all_progress',
		role => 'app'),
	'2|t',
	'all_progress');
sql($coordinator, 'CREATE ROLE other LOGIN');
sql($_, <<~'SQL') for $citus->nodes;
	SET citus.enable_ddl_propagation = off;
	GRANT USAGE ON SCHEMA sendcampaign TO other;
	SQL
is(sql($coordinator, 'SELECT count(*) FROM sendcampaign.all_runs', role => 'other'),
	0, 'another role sees nothing of them');
$error = sql_error(
	$coordinator,
	"SELECT * FROM sendcampaign.on_all_nodes('SELECT * FROM sendcampaign.run_data')",
	role => 'other');
is($error->{sqlstate}, '42501', 'nor by a query of its own');
is(sql($coordinator, <<~'SQL', role => 'app'), 't', 'a query that ends in a comment');
	SELECT bool_and(result = '{"a": 1}') AND count(*) = 3
	FROM sendcampaign.on_all_nodes('SELECT 1 AS a -- one')
	SQL
$citus->kill_node($second);
is( sql($first,
		"SELECT DISTINCT node, schema, node_error <> '' FROM sendcampaign.all_runs"
		  . " WHERE schema IN ('t1', 't2') OR schema IS NULL ORDER BY schema",
		role => 'app'),
	$name->($first) . "|t1|\n" . $name->($second) . '||t',
	'a node that is down');
$citus->stop;
done_testing();
