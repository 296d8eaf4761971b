# ALTER EXTENSION UPDATE: 1.0 is what was released, an updated 1.0 is the same as a new
# 1.1, and what an administrator has granted stays.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../perl";
use Campaign;
use Digest::SHA;
use LocalTwilio;
use PostgreSQL::Test::Utils;
use Test::More;

my $released = '37625ee85cf52f5db0012664665824d3903e7e94ddfbb75352938e11b807ab28';

my $script = Digest::SHA->new(256)->addfile("$FindBin::RealBin/../../sendcampaign--1.0.sql");
is($script->hexdigest, $released, 'the script of 1.0 is the one that was released');

my $twilio = LocalTwilio->start;
my $node = new_cluster('update', $twilio, no_extension => 1);
sql($node, 'CREATE ROLE app LOGIN; CREATE ROLE reader LOGIN; CREATE ROLE boss SUPERUSER');

# What administrators do with the objects of the extension.
my $grants = <<~'SQL';
	GRANT CREATE ON SCHEMA public TO app;
	GRANT USAGE ON SCHEMA sendcampaign TO app, reader;
	GRANT EXECUTE ON FUNCTION sendcampaign.pause, sendcampaign.resume TO app;
	GRANT EXECUTE ON FUNCTION send_campaign, sendcampaign.version TO PUBLIC;
	GRANT EXECUTE ON FUNCTION sendcampaign.preview TO app WITH GRANT OPTION;
	REVOKE SELECT ON sendcampaign.message FROM PUBLIC;
	GRANT SELECT ON sendcampaign.message TO app;
	GRANT SELECT (job_id, state) ON sendcampaign.run TO reader;
	GRANT INSERT ON sendcampaign.opt_out TO app;
	ALTER VIEW sendcampaign.progress OWNER TO boss;
	SQL

# Creates a database with the extension; returns its name.
sub create
{
	my ($db, $version, $more) = @_;
	sql($node, "CREATE DATABASE $db");
	sql($node, "CREATE EXTENSION sendcampaign $version; $more", db => $db);
	return $db;
}

# A dump, without what differs from one dump to the next: OIDs, transactions, and a key.
sub dump_of
{
	my ($db, @options) = @_;
	my $dump = '';
	IPC::Run::run([ 'pg_dump', '-d', $node->connstr($db), @options ], '>', \$dump)
	  or die 'pg_dump failed';
	return join '', grep {
			 !/^SELECT pg_catalog.binary_upgrade_set_next|^\\(?:un)?restrict /
		  && !/relfrozenxid|^WHERE oid = |^SET default_t|^ALTER DATABASE|^\\connect/
	} split /^/, $dump =~ s/\b(?:fresh|updated)\b/DATABASE/gr =~ s/'\{\d+(?:,\d+)*\}'/OIDS/gr;
}

# The first lines in which two dumps differ
sub difference
{
	my @left = split /\n/, shift, -1;
	my @right = split /\n/, shift, -1;
	for my $i (0 .. ($#left > $#right ? $#left : $#right))
	{
		my ($left, $right) = map { $_ // 'the end' } $left[$i], $right[$i];
		return "line $i: $left\n$right" if $left ne $right;
	}
	return '';
}

# All members of the extension, with their definitions, comments and rights, as pg_upgrade
# creates them.
sub members_of
{
	return dump_of(shift, '--binary-upgrade', '--schema-only');
}

# Rows that the extension brings with it, and the tables of which it has rows dumped.
sub rows_of
{
	return sql($node, <<~'SQL', db => shift);
		SELECT * FROM sendcampaign.error_code ORDER BY code;
		SELECT extconfig::regclass[], extcondition FROM pg_extension
		WHERE extname = 'sendcampaign'
		SQL
}

sub objects_of
{
	return sql($node, <<~'SQL', db => shift);
		SELECT pg_catalog.pg_describe_object(classid, objid, objsubid) AS object
		FROM pg_catalog.pg_depend
		WHERE deptype = 'e' AND refclassid = 'pg_catalog.pg_extension'::regclass
		    AND refobjid = (SELECT oid FROM pg_catalog.pg_extension
		                    WHERE extname = 'sendcampaign')
		ORDER BY object
		SQL
}

# Both in the same way, but for the way to 1.1
create('fresh', '', '');
create('updated', "VERSION '1.0'", '');
my $of_1_0 = objects_of('updated');
sql($node, 'ALTER EXTENSION sendcampaign UPDATE', db => 'updated');
is( sql($node,
		'SELECT extversion FROM pg_extension WHERE extname = $$sendcampaign$$',
		db => 'updated'),
	'1.1',
	'the default version is 1.1');
is(objects_of('updated'), objects_of('fresh'), 'an updated 1.0 has the objects of a new 1.1');
my %in_1_1 = map { $_ => 1 } split /\n/, objects_of('fresh');
is(join("\n", grep { !$in_1_1{$_} } split /\n/, $of_1_0), '', 'and all those of 1.0');
my $fresh = members_of('fresh');
cmp_ok(() = $fresh =~ /^CREATE/mg, '>=', 80, 'the dump has the members of the extension');
is(difference($fresh, members_of('updated')),
	'', 'their definitions, comments and rights are the same');
is(rows_of('updated'), rows_of('fresh'),
	'and so are the rows that it brings with it, and those that it has dumped');
my $of_everybody = sql($node, <<~'SQL', db => 'updated');
	SELECT string_agg(p.oid::regprocedure::text, ', ')
	FROM pg_catalog.pg_depend d JOIN pg_catalog.pg_proc p ON p.oid = d.objid
	    AND d.classid = 'pg_catalog.pg_proc'::regclass AND d.deptype = 'e'
	    AND d.refobjid = (SELECT oid FROM pg_catalog.pg_extension WHERE extname = 'sendcampaign')
	WHERE has_function_privilege('public', p.oid, 'EXECUTE')
	SQL
# the view opt_out calls it as its reader; it tells what is in public catalogs
is( $of_everybody,
	'sendcampaign.name_is_common(oid)',
	'nobody may call another function before that is granted');
ok(!sql($node, <<~'SQL', db => 'updated'), 'every object has a comment');
	SELECT string_agg(pg_catalog.pg_describe_object(d.classid, d.objid, 0), ', ')
	FROM pg_catalog.pg_depend d
	WHERE d.deptype = 'e' AND d.classid IN ('pg_proc'::regclass, 'pg_class'::regclass)
	    AND d.refobjid = (SELECT oid FROM pg_catalog.pg_extension WHERE extname = 'sendcampaign')
	    AND obj_description(d.objid, d.classid::regclass::name) IS NULL
	SQL

# Rights
create('granted', "VERSION '1.0'", $grants);
# In a dump, their order depends on which views read which others.
sub rights_of
{
	return join '', sort grep { /^(?:GRANT|REVOKE|ALTER) / } split /^/, dump_of(shift);
}
my $before = rights_of('granted');
cmp_ok(() = $before =~ /^(?:GRANT|REVOKE) /mg, '>=', 10, 'a dump has what was granted');
sql($node, 'ALTER EXTENSION sendcampaign UPDATE', db => 'granted');
is(difference($before, rights_of('granted')), '', 'the update leaves it as it is');
is(sql($node, <<~'SQL', db => 'granted', role => 'app'), 't', 'and it counts');
	SELECT has_function_privilege('sendcampaign.pause(bigint)', 'EXECUTE')
	    AND NOT has_function_privilege('sendcampaign.cancel(bigint)', 'EXECUTE')
	SQL
sql($node, 'DROP EXTENSION sendcampaign', db => 'updated');
is( sql($node, "SELECT count(*) FROM pg_namespace WHERE nspname = 'sendcampaign'", db => 'updated'
	),
	0,
	'an updated extension can be dropped');

$node->stop;
done_testing();
