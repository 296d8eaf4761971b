# Whose messages an opt-out stops takes a right, and nobody has a say in what
# others have written down.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../perl";
use Campaign;
use LocalTwilio;
use Test::More;

my $twilio = LocalTwilio->start;
my $node = new_cluster('opt_out_rights', $twilio);
my $super = $node->safe_psql('postgres', 'SELECT current_user');
my $campaign = create_campaign($node, users => 6);
my $group = $node->safe_psql('postgres', 'SELECT ' . group_of($campaign));
my $other_group = $node->safe_psql('postgres', 'INSERT INTO groups DEFAULT VALUES RETURNING id');
$node->safe_psql('postgres', q{
	REVOKE INSERT ON sendcampaign.opt_out FROM app;
	CREATE ROLE hook LOGIN;
	CREATE ROLE mallory LOGIN;
	CREATE ROLE boss LOGIN IN ROLE hook;
	GRANT USAGE ON SCHEMA sendcampaign TO hook, mallory, boss;
	CREATE SCHEMA m AUTHORIZATION mallory;
	GRANT USAGE ON SCHEMA m TO PUBLIC;
	GRANT SELECT ON groups TO hook});

sub as { my ($role, $sql) = @_; return $node->safe_psql('postgres', "SET ROLE $role; $sql"); }
sub error_as { my ($role, $sql) = @_; return sql_error($node, "SET ROLE $role; $sql"); }
sub rows { return $node->safe_psql('postgres', 'SELECT right(phone, 1), group_id, role FROM sendcampaign.opt_out ORDER BY 1, 2, 3'); }
sub forget { $node->safe_psql('postgres', 'DELETE FROM sendcampaign.opt_out'); }
sub skipped
{
	return $node->safe_psql('postgres', qq{SET ROLE app; SELECT coalesce(string_agg(right(phone, 1), ' ' ORDER BY phone), '')
		FROM sendcampaign.preview($campaign) WHERE skipped = 'opted out'});
}

# Of a group: who sees its row.
is(as('hook', "SELECT sendcampaign.opt_out('+15550000001', $group, 'STOP')"), 't', 'a role that may see the group');
is(error_as('mallory', "SELECT sendcampaign.opt_out('+15550000002', $group)")->{sqlstate}, '42501', 'one that may not');
is(skipped(), '1', 'counts for all who send to the group');
my $error = error_as('hook', q{SELECT sendcampaign.opt_out('+15550000002', 123456)});
is("$error->{sqlstate} $error->{message}", 'P0002 group 123456 does not exist', 'a group that does not exist');
like($error->{hint}, qr/"public\.groups".*your role may see it/, 'with a hint');
$node->safe_psql('postgres', 'GRANT SELECT (id) ON groups TO mallory');
is(as('mallory', "SELECT sendcampaign.opt_out('+15550000002', $group)"), 't', 'one that may see its id');
$node->safe_psql('postgres', qq{ALTER TABLE groups ENABLE ROW LEVEL SECURITY;
	CREATE POLICY not_for_all ON groups TO mallory USING (id <> $group)});
$error = error_as('mallory', "SELECT sendcampaign.opt_out('+15550000003', $group)");
is("$error->{sqlstate} $error->{message}", "P0002 group $group does not exist", 'one that a policy keeps from it');
is(as('mallory', "SELECT sendcampaign.opt_out('+15550000003', $other_group)"), 't', 'another group');
$node->safe_psql('postgres', 'DROP POLICY not_for_all ON groups; ALTER TABLE groups DISABLE ROW LEVEL SECURITY; REVOKE ALL (id) ON groups FROM mallory');
is($node->safe_psql('postgres', "SELECT sendcampaign.opt_out('+15550000004', $group)"), 't', 'a superuser');
is(skipped(), '1 2 4', 'whoever has written it down');

# A group of the same number, in tables of her own
as('mallory', q{SELECT sendcampaign.create_tables('m')});
as('mallory', "INSERT INTO m.groups (id) VALUES ($group); SET sendcampaign.schema = 'm'; SELECT sendcampaign.opt_out('+15550000005', $group)");
is(skipped(), '1 2 4', 'a group of another schema is another group');
forget();

# Of all groups: what an administrator grants.
for my $role (qw(app hook mallory))
{
	$error = error_as($role, q{SELECT sendcampaign.opt_out('+15550000001')});
	is("$error->{sqlstate} $error->{message}", '42501 permission denied to opt a phone out of all groups', "of all groups, by $role");
	like($error->{hint}, qr/GRANT INSERT ON sendcampaign\.opt_out TO $role;/, 'with a hint');
}
is($node->safe_psql('postgres', q{SELECT sendcampaign.opt_out('+15550000001')}), 't', 'a superuser may');
$node->safe_psql('postgres', 'GRANT INSERT ON sendcampaign.opt_out TO hook');
is(as('hook', q{SELECT sendcampaign.opt_out('+15550000002', NULL, 'STOP')}), 't', 'so may whom it is granted to');
is(as('boss', q{SELECT sendcampaign.opt_out('+15550000003')}), 't', 'and members');
isnt(error_as('hook', qq{INSERT INTO sendcampaign.opt_out (phone, schema, group_id, role) VALUES ('+15550000004', 'public', $group, 'app')})->{sqlstate},
	'', 'nobody writes there directly');
is(skipped(), '1 2 3', 'they count');
forget();

# Each role's is its own: she is first, and takes hers back.
$node->safe_psql('postgres', 'GRANT SELECT ON groups TO mallory');
is(as('mallory', "SELECT sendcampaign.opt_out('+15550000001', $group)"), 't', 'she is first');
is(as('hook', "SELECT sendcampaign.opt_out('+15550000001', $group, 'STOP')"), 't', 'it is stored all the same');
is(as('hook', "SELECT sendcampaign.opt_out('+15550000001', $group)"), 'f', 'once a role');
is(as('mallory', "SELECT sendcampaign.opt_in('+15550000001', $group)"), 't', 'she takes hers back');
is(rows(), "1|$group|hook", 'the other one stays');
is(skipped(), '1', 'and counts');
$error = error_as('mallory', "SELECT sendcampaign.opt_in('+15550000001', $group)");
is("$error->{sqlstate} $error->{message}", '42501 another role has written down that this phone opted out', 'she cannot take it back');
is(error_as('mallory', q{SELECT sendcampaign.opt_in('+15550000001')})->{sqlstate}, '42501', 'nor all that there is');
is(rows(), "1|$group|hook", 'it stays');

# What is left is told, to those who may see it.
as('mallory', "SELECT sendcampaign.opt_out('+15550000001', $group)");
my ($rc, $out, $notice) = $node->psql('postgres', "SET ROLE mallory; SELECT sendcampaign.opt_in('+15550000001', $group)");
is($out, 't', 'hers is gone');
like($notice, qr/NOTICE:  the phone is still opted out.*Role "hook" has written that down as well/s, 'it is still opted out');
as('hook', q{SELECT sendcampaign.opt_out('+15550000002')});
as('mallory', "SELECT sendcampaign.opt_out('+15550000002', $group)");
($rc, $out, $notice) = $node->psql('postgres', "SET ROLE mallory; SELECT sendcampaign.opt_in('+15550000002', $group)");
like($notice, qr/NOTICE:  the phone is still opted out.*Role "hook" has written that down for all groups/s, 'of all groups');
$node->safe_psql('postgres', 'REVOKE SELECT ON groups FROM mallory');
is(as('mallory', "SELECT sendcampaign.opt_in('+15550000001', $group)"), 'f', 'who may not see it is told nothing');
is(as('boss', "SELECT sendcampaign.opt_in('+15550000001', $group)"), 't', 'a member takes it back');
is(skipped(), '2', 'it is gone');
is($node->safe_psql('postgres', q{SELECT sendcampaign.opt_in('+15550000002')}), 't', 'a superuser takes back what others have written');
is(rows(), '', 'all of it');

# Twilio's own answer is the run's role's.
$twilio->set('to-fault' => '+15550000006=code:21610');
as('mallory', 'SELECT 1');
my $job = start_campaign($node, $campaign);
is(wait_for_run($node, $job)->{failed}, 1, 'Twilio refuses one');
is(rows(), "6|$group|app", 'it is written down for the role of the run');
wait_for_no_worker($node);
forget();

# Whom they stop sees them.
$node->safe_psql('postgres', 'CREATE ROLE tenant LOGIN; CREATE ROLE blind LOGIN; GRANT USAGE ON SCHEMA sendcampaign TO tenant, blind;
	GRANT SELECT ON groups TO tenant; GRANT INSERT ON sendcampaign.opt_out TO hook;
	REVOKE EXECUTE ON FUNCTION send_campaign FROM PUBLIC; GRANT EXECUTE ON FUNCTION send_campaign TO app, tenant');
as('hook', "SELECT sendcampaign.opt_out('+15550000001', $group), sendcampaign.opt_out('+15550000002')");
sub seen { return as($_[0], q{SELECT coalesce(string_agg(right(phone, 1), ' ' ORDER BY phone), '') FROM sendcampaign.opt_out}); }
is(seen($_), '1 2', "$_ sees them") for $super, qw(app hook boss tenant);
is(seen('blind'), '', 'who neither sends nor sees the groups does not');
is(seen('mallory'), '', 'nor does she');
$node->safe_psql('postgres', 'GRANT SELECT ON groups TO mallory; ALTER TABLE groups ENABLE ROW LEVEL SECURITY');
is(seen('mallory'), '', 'nor where policies say what she sees');
is(seen('app'), '1 2', 'the owner does');

# With policies: those of a group whose row it may see.
$node->safe_psql('postgres', "CREATE POLICY not_hers ON groups TO mallory USING (id <> $group);
	GRANT EXECUTE ON FUNCTION sendcampaign.opt_outs TO blind");
sub listed { return as($_[0], qq{SELECT string_agg(right(phone, 1) || "all", ' ') FROM sendcampaign.opt_outs($_[1])}); }
is(listed($_, $group), '1false 2true', "opt_outs() by $_") for $super, 'app';
is(listed('mallory', $other_group), '2true', 'of another group, by her');
$error = error_as('mallory', "SELECT * FROM sendcampaign.opt_outs($group)");
is("$error->{sqlstate} $error->{message}", "P0002 group $group does not exist", 'of this group');
is(error_as('blind', "SELECT * FROM sendcampaign.opt_outs($group)")->{sqlstate}, '42501', 'by who sees no groups');
$node->safe_psql('postgres', 'DROP POLICY not_hers ON groups');
$node->safe_psql('postgres', 'ALTER TABLE groups DISABLE ROW LEVEL SECURITY');

# To look runs nobody's code, and a SECURITY DEFINER function is led nowhere.
$node->safe_psql('postgres', q{
	SET ROLE mallory;
	CREATE TABLE m.ran (who name);
	GRANT INSERT ON m.ran TO PUBLIC;
	CREATE FUNCTION m.run() RETURNS boolean LANGUAGE plpgsql AS 'BEGIN INSERT INTO m.ran VALUES (current_user); RETURN true; END';
	ALTER TABLE m.groups RENAME TO base;
	CREATE VIEW m.groups AS SELECT * FROM m.base WHERE m.run();
	GRANT SELECT ON m.groups TO PUBLIC;
	RESET ROLE;
	SELECT sendcampaign.version();
	GRANT CREATE ON SCHEMA public TO hook;
	SET ROLE hook;
	CREATE FUNCTION stop(phone text, id bigint) RETURNS boolean LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
		AS 'SELECT sendcampaign.opt_out(phone, id)';
	CREATE FUNCTION stop_ours(phone text, id bigint) RETURNS boolean LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
		SET sendcampaign.schema = 'public' AS 'SELECT sendcampaign.opt_out(phone, id)'});
as('mallory', "SET sendcampaign.schema = 'm'; SELECT sendcampaign.opt_out('+15550000003', $group)");
$node->safe_psql('postgres', 'DELETE FROM m.ran');
as($_, "SET sendcampaign.schema = 'm'; SELECT * FROM sendcampaign.opt_out") for $super, 'app';
$node->safe_psql('postgres', "SET sendcampaign.schema = 'm'; SELECT sendcampaign.opt_out('+15550000003', $group), sendcampaign.opt_in('+15550000003', $group)");
$error = error_as('mallory', "SET sendcampaign.schema = 'm'; SELECT stop('+15550000004', $group)");
is($error->{sqlstate}, '42501', 'a SECURITY DEFINER function with tables of hers');
like($error->{detail}, qr/m\.\w+(?:\(\))? belongs to role "mallory"/, 'which are named');
is($node->safe_psql('postgres', 'SELECT count(*) FROM m.ran'), 0, 'nothing of hers has run');
is(as('mallory', "SET sendcampaign.schema = 'm'; SELECT stop_ours('+15550000004', $group)"), 't', 'one that names the schema');
is(rows(), join("\n", "1|$group|hook", "2||hook", "4|$group|hook"), 'as the definer');

$node->stop;
done_testing();
