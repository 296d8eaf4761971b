# It takes a right to opt a phone out of the messages of others, and nobody can
# change what others have written down.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../perl";
use Campaign;
use LocalTwilio;
use Test::More;

my $twilio = LocalTwilio->start;
my $node = new_cluster('opt_out_rights', $twilio);
my $super = sql($node, 'SELECT current_user');
my $campaign = create_campaign($node, users => 6);
my $group = sql($node, 'SELECT ' . group_of($campaign));
my $other_group = sql($node, 'INSERT INTO groups DEFAULT VALUES RETURNING id');
sql($node, <<~SQL);
	REVOKE INSERT ON sendcampaign.opt_out FROM app;
	CREATE ROLE hook LOGIN;
	CREATE ROLE mallory LOGIN;
	CREATE ROLE boss LOGIN IN ROLE hook;
	GRANT USAGE ON SCHEMA sendcampaign TO hook, mallory, boss;
	CREATE SCHEMA m AUTHORIZATION mallory;
	GRANT USAGE ON SCHEMA m TO PUBLIC;
	GRANT SELECT ON groups TO hook;
	SQL

# As SQL: a call of opt_out() or opt_in() for list user n's phone, with further
# arguments after that.
sub call_for
{
	my ($function, $n, @arguments) = @_;
	my $arguments = join ', ', "'+1555000000$n'", @arguments;
	return "$function($arguments)";
}

# Such calls by a role, and their errors.
sub opt_out
{
	my ($role, @arguments) = @_;
	my $call = call_for('opt_out', @arguments);
	return sql($node, "SELECT sendcampaign.$call", role => $role);
}

sub opt_in
{
	my ($role, @arguments) = @_;
	my $call = call_for('opt_in', @arguments);
	return sql($node, "SELECT sendcampaign.$call", role => $role);
}

sub opt_out_error
{
	my ($role, @arguments) = @_;
	return call_error($node, call_for('opt_out', @arguments), role => $role);
}

sub opt_in_error
{
	my ($role, @arguments) = @_;
	return call_error($node, call_for('opt_in', @arguments), role => $role);
}

# What opt_in() prints, and what it says beyond that.
sub opt_in_with_notice
{
	my ($role, @arguments) = @_;
	my $call = call_for('opt_in', @arguments);
	my ($rc, $stdout, $stderr) =
	  $node->psql('postgres', "SET ROLE $role; SELECT sendcampaign.$call");
	return ($stdout, $stderr);
}

sub sqlstate_and_message
{
	my $error = shift;
	return "$error->{sqlstate} $error->{message}";
}

# All opt-outs: number of the phone, group and role.
sub rows
{
	return sql($node, <<~SQL);
		SELECT right(phone, 1), group_id, role FROM sendcampaign.opt_out ORDER BY 1, 2, 3
		SQL
}

sub delete_all
{
	sql($node, 'DELETE FROM sendcampaign.opt_out');
}

# The numbers of the phones that the campaign is not sent to.
sub skipped
{
	return sql($node, <<~SQL, role => 'app');
		SELECT coalesce(string_agg(right(phone, 1), ' ' ORDER BY phone), '')
		FROM sendcampaign.preview($campaign)
		WHERE skipped = 'opted out'
		SQL
}

# Opt-outs of a group: whoever sees its row may write them.
is(opt_out('hook', 1, $group, q{'STOP'}), 't', 'a role that may see the group');
is(opt_out_error('mallory', 2, $group)->{sqlstate}, '42501', 'one that may not see it is refused');
is(skipped(), '1', 'an opt-out counts for all who send to the group');
my $error = opt_out_error('hook', 2, 123456);
is( sqlstate_and_message($error),
	'P0002 group 123456 does not exist',
	'a group that does not exist is refused');
like($error->{hint}, qr/"public\.groups".*your role may see it/, '... with a hint');
sql($node, 'GRANT SELECT (id) ON groups TO mallory');
is(opt_out('mallory', 2, $group), 't', 'a role that may see the id of the group');
sql($node, <<~SQL);
	ALTER TABLE groups ENABLE ROW LEVEL SECURITY;
	CREATE POLICY not_for_all ON groups TO mallory USING (id <> $group);
	SQL
is( sqlstate_and_message(opt_out_error('mallory', 3, $group)),
	"P0002 group $group does not exist",
	'one that a policy keeps from it is refused');
is(opt_out('mallory', 3, $other_group), 't', '... but not for another group');
sql($node, <<~SQL);
	DROP POLICY not_for_all ON groups;
	ALTER TABLE groups DISABLE ROW LEVEL SECURITY;
	REVOKE ALL (id) ON groups FROM mallory;
	SQL
is(opt_out($super, 4, $group), 't', 'a superuser');
is(skipped(), '1 2 4', 'opt-outs count, whoever has written them down');

# A group of the same number, in tables of her own
sql($node, <<~SQL, role => 'mallory');
	SELECT sendcampaign.create_tables('m');
	INSERT INTO m.groups (id) VALUES ($group);
	SET sendcampaign.schema = 'm';
	SELECT sendcampaign.opt_out('+15550000005', $group);
	SQL
is(skipped(), '1 2 4', 'a group of another schema is another group');
delete_all();

# Opt-outs of all groups: an administrator grants the right.
for my $role (qw(app hook mallory))
{
	$error = opt_out_error($role, 1);
	is( sqlstate_and_message($error),
		'42501 permission denied to opt a phone number out of all groups',
		"of all groups, by $role: refused");
	like($error->{hint}, qr/GRANT INSERT ON sendcampaign\.opt_out TO $role\.$/, '... with a hint');
}
is(opt_out($super, 1), 't', 'of all groups, by a superuser');
sql($node, 'GRANT INSERT ON sendcampaign.opt_out TO hook');
is(opt_out('hook', 2, 'NULL', q{'STOP'}), 't', 'of all groups, by a role that it is granted to');
is(opt_out('boss', 3), 't', '... and by its members');
$error = sql_error($node, <<~SQL, role => 'hook');
	INSERT INTO sendcampaign.opt_out (phone, schema, group_id, role)
	    VALUES ('+15550000004', 'public', $group, 'app')
	SQL
isnt($error->{sqlstate}, '', 'nobody writes there directly');
is(skipped(), '1 2 3', 'these opt-outs count');
delete_all();

# Each role has an opt-out of its own: she is first, and takes hers back.
sql($node, 'GRANT SELECT ON groups TO mallory');
is(opt_out('mallory', 1, $group), 't', 'she is first');
is(opt_out('hook', 1, $group, q{'STOP'}), 't', 'that of another role is stored all the same');
is(opt_out('hook', 1, $group), 'f', '... once per role');
is(opt_in('mallory', 1, $group), 't', 'she takes hers back');
is(rows(), "1|$group|hook", 'the other one stays');
is(skipped(), '1', '... and counts');
is( sqlstate_and_message(opt_in_error('mallory', 1, $group)),
	'42501 the phone number was opted out by role "hook"',
	'she cannot take it back');
is(opt_in_error('mallory', 1)->{sqlstate}, '42501', '... nor all that there are');
is(rows(), "1|$group|hook", '... and it stays');

# What is left is told, to those who may see it.
opt_out('mallory', 1, $group);
my $still_opted_out = qr/NOTICE:  the phone number is still opted out/;
my ($printed, $notice) = opt_in_with_notice('mallory', 1, $group);
is($printed, 't', 'hers is gone');
like(
	$notice,
	qr/$still_opted_out.*Role "hook" has opted it out, too\./s,
	'... and she is told that the phone number is still opted out');
opt_out('hook', 2);
opt_out('mallory', 2, $group);
($printed, $notice) = opt_in_with_notice('mallory', 2, $group);
like(
	$notice,
	qr/$still_opted_out.*Role "hook" has opted it out of all groups\./s,
	'... also where it is opted out of all groups');
sql($node, 'REVOKE SELECT ON groups FROM mallory');
is(opt_in('mallory', 1, $group), 'f', 'a role that may not see the group is told nothing');
is(opt_in('boss', 1, $group), 't', 'a member of a role takes back what is that of the role');
is(skipped(), '2', '... and it is gone');
is(opt_in($super, 2), 't', 'a superuser takes back what others have written');
is(rows(), '', '... all of it');

# Twilio's own answer is that of the run's role.
$twilio->set('to-fault' => '+15550000006=code:21610');
is(run_campaign($node, $campaign)->{failed}, 1, 'Twilio refuses one message');
is(rows(), "6|$group|app", 'it is written down for the role of the run');
wait_for_no_worker($node);
delete_all();

# Roles whose messages they stop see them.
sql($node, <<~SQL);
	CREATE ROLE tenant LOGIN;
	CREATE ROLE blind LOGIN;
	GRANT USAGE ON SCHEMA sendcampaign TO tenant, blind;
	GRANT SELECT ON groups TO tenant;
	GRANT INSERT ON sendcampaign.opt_out TO hook;
	REVOKE EXECUTE ON FUNCTION send_campaign FROM PUBLIC;
	GRANT EXECUTE ON FUNCTION send_campaign TO app, tenant;
	SQL
opt_out('hook', 1, $group);
opt_out('hook', 2);

# The numbers of the phones that a role sees in the view.
sub seen_by
{
	my $role = shift;
	return sql($node, <<~SQL, role => $role);
		SELECT coalesce(string_agg(right(phone, 1), ' ' ORDER BY phone), '')
		FROM sendcampaign.opt_out
		SQL
}
is(seen_by($_), '1 2', "$_ sees the opt-outs") for $super, qw(app hook boss tenant);
is(seen_by('blind'), '', 'a role that neither sends nor sees the groups does not see them');
is(seen_by('mallory'), '', '... nor does she');
sql($node, <<~SQL);
	GRANT SELECT ON groups TO mallory;
	ALTER TABLE groups ENABLE ROW LEVEL SECURITY;
	SQL
is(seen_by('mallory'), '', '... nor where policies say what she sees');
is(seen_by('app'), '1 2', '... but the owner does');

# With policies, a role sees the opt-outs of the groups whose rows it may see.
sql($node, <<~SQL);
	CREATE POLICY not_hers ON groups TO mallory USING (id <> $group);
	GRANT EXECUTE ON FUNCTION sendcampaign.opt_outs TO blind;
	SQL

# What opt_outs() of a group returns to a role: numbers of phones, and whether
# they have opted out of all groups.
sub listed
{
	my ($role, $group) = @_;
	return sql($node, <<~SQL, role => $role);
		SELECT string_agg(right(phone, 1) || "all", ' ') FROM sendcampaign.opt_outs($group)
		SQL
}
is(listed($_, $group), '1false 2true', "opt_outs() by $_") for $super, 'app';
is(listed('mallory', $other_group), '2true', 'opt_outs() of another group, by her');
my $list = "SELECT * FROM sendcampaign.opt_outs($group)";
is( sqlstate_and_message(sql_error($node, $list, role => 'mallory')),
	"P0002 group $group does not exist",
	'... of this group: refused');
is(sql_error($node, $list, role => 'blind')->{sqlstate},
	'42501', '... by a role that sees no groups: refused');
sql($node, <<~SQL);
	DROP POLICY not_hers ON groups;
	ALTER TABLE groups DISABLE ROW LEVEL SECURITY;
	SQL

# Looking runs nobody's code, and a SECURITY DEFINER function is led nowhere.
sql($node, <<~'SQL');
	SET ROLE mallory;
	CREATE TABLE m.ran (who name);
	GRANT INSERT ON m.ran TO PUBLIC;
	CREATE FUNCTION m.run() RETURNS boolean LANGUAGE plpgsql AS $$
	BEGIN
	    INSERT INTO m.ran VALUES (current_user);
	    RETURN true;
	END $$;
	ALTER TABLE m.groups RENAME TO base;
	CREATE VIEW m.groups AS SELECT * FROM m.base WHERE m.run();
	GRANT SELECT ON m.groups TO PUBLIC;
	RESET ROLE;
	SELECT sendcampaign.version();
	GRANT CREATE ON SCHEMA public TO hook;
	SET ROLE hook;
	CREATE FUNCTION stop(phone text, id bigint) RETURNS boolean LANGUAGE sql SECURITY DEFINER
	    SET search_path = pg_catalog, pg_temp
	    AS 'SELECT sendcampaign.opt_out(phone, id)';
	CREATE FUNCTION stop_ours(phone text, id bigint) RETURNS boolean LANGUAGE sql SECURITY DEFINER
	    SET search_path = pg_catalog, pg_temp
	    SET sendcampaign.schema = 'public'
	    AS 'SELECT sendcampaign.opt_out(phone, id)';
	SQL

# Runs SQL by a role with mallory's tables.
sub with_her_tables
{
	my ($role, $sql) = @_;
	return sql($node, "SET sendcampaign.schema = 'm';\n$sql", role => $role);
}
with_her_tables('mallory', "SELECT sendcampaign.opt_out('+15550000003', $group)");
sql($node, 'DELETE FROM m.ran');
with_her_tables($_, 'SELECT * FROM sendcampaign.opt_out') for $super, 'app';
with_her_tables($super, <<~SQL);
	SELECT sendcampaign.opt_out('+15550000003', $group),
	    sendcampaign.opt_in('+15550000003', $group)
	SQL
$error = sql_error($node, <<~SQL, role => 'mallory');
	SET sendcampaign.schema = 'm';
	SELECT stop('+15550000004', $group);
	SQL
is($error->{sqlstate}, '42501', 'a SECURITY DEFINER function with tables of hers: refused');
like($error->{detail}, qr/m\.\w+(?:\(\))? belongs to role "mallory"/, '... and they are named');
is(sql($node, 'SELECT count(*) FROM m.ran'), 0, 'nothing of hers has run');
is(with_her_tables('mallory', "SELECT stop_ours('+15550000004', $group)"),
	't', 'a SECURITY DEFINER function that names the schema');
is(rows(), join("\n", "1|$group|hook", '2||hook', "4|$group|hook"), '... writes as the definer');

$node->stop;
done_testing();
