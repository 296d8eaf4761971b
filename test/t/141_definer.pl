# SECURITY DEFINER: whoever calls the function must not lead it to code of
# theirs, by sendcampaign.schema.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../perl";
use Campaign;
use LocalTwilio;
use Test::More;

my $twilio = LocalTwilio->start;
my $node = new_cluster('definer', $twilio, conf => "max_worker_processes = 30\n");
my $super = $node->safe_psql('postgres', 'SELECT current_user');
my $version = $node->safe_psql('postgres', 'SHOW server_version_num');

# The definer; who owns the tables in each case, and calls the function.
$node->safe_psql('postgres', q{
	CREATE ROLE definer LOGIN;
	CREATE ROLE team LOGIN;
	GRANT team TO definer;
	CREATE ROLE stranger LOGIN;
	CREATE ROLE other_member LOGIN IN ROLE team;
	CREATE ROLE holder LOGIN IN ROLE definer;
	CREATE ROLE may_become LOGIN NOINHERIT IN ROLE definer;
	CREATE ROLE indirect LOGIN IN ROLE holder;
	GRANT CREATE ON SCHEMA public TO definer;
	CREATE TABLE who (who name, owner name);
	GRANT INSERT ON who TO PUBLIC;
	GRANT USAGE ON SCHEMA sendcampaign TO PUBLIC;
	GRANT EXECUTE ON ALL ROUTINES IN SCHEMA sendcampaign TO definer;
	GRANT EXECUTE ON FUNCTION send_campaign TO definer;
	SELECT sendcampaign.version();
	SET ROLE definer;
	CREATE FUNCTION send() RETURNS bigint LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
		AS 'SELECT public.send_campaign(1)';
	CREATE FUNCTION preview() RETURNS bigint LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
		AS 'SELECT count(*) FROM sendcampaign.preview(1)';
	CREATE FUNCTION estimate() RETURNS bigint LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
		AS 'SELECT recipients FROM sendcampaign.estimate(1)';
	CREATE FUNCTION test() RETURNS bigint LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
		AS $$ SELECT sendcampaign.send_test(1, '+15550000001') $$;
	CREATE FUNCTION send_teams() RETURNS bigint LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
		SET sendcampaign.schema = 's_team' AS 'SELECT public.send_campaign(1)';
	CREATE FUNCTION send_mine() RETURNS bigint LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
		SET sendcampaign.schema = 's_definer' AS 'SELECT public.send_campaign(1)';
	RESET ROLE;
	GRANT CREATE ON SCHEMA public TO stranger;
	SET ROLE stranger;
	CREATE FUNCTION lead() RETURNS bigint LANGUAGE sql SET sendcampaign.schema = 's_team' AS 'SELECT public.send()'});

# From 16 on a membership may have neither INHERIT nor SET.
$node->safe_psql('postgres', q{
	CREATE ROLE inherits LOGIN; GRANT definer TO inherits WITH INHERIT TRUE, SET FALSE;
	CREATE ROLE sets LOGIN; GRANT definer TO sets WITH INHERIT FALSE, SET TRUE;
	CREATE ROLE administers LOGIN; GRANT definer TO administers WITH ADMIN TRUE, INHERIT FALSE, SET FALSE}) if $version >= 160000;

my $jobs = 0;
my @tables = qw(groups ac_lists ac_campaigns ac_list_users ac_background_jobs);

# Tables of a role, whose triggers tell who has run them; the definer may use them.
sub tables_of
{
	my $role = shift;
	my $schema = "s_$role";
	$jobs += 1000;
	my $as = $role =~ /^pg_/ ? '' : "SET ROLE $role;";
	$node->safe_psql('postgres', qq{
		CREATE SCHEMA $schema;
		GRANT USAGE, CREATE ON SCHEMA $schema TO PUBLIC;
		$as
		SELECT sendcampaign.create_tables('$schema');
		INSERT INTO $schema.groups (configuration) VALUES ('{"twilioAccountSid": "$LocalTwilio::ACCOUNT",
			"twilioAuthToken": "$LocalTwilio::TOKEN", "twilioFromSmsNumber": "$LocalTwilio::SENDER"}');
		INSERT INTO $schema.ac_lists (group_id) VALUES (1);
		INSERT INTO $schema.ac_list_users (ac_list_id, data) VALUES (1, '{"sms": "+15550000001"}');
		INSERT INTO $schema.ac_campaigns (ac_list_id, data) VALUES (1, '{"message": "Hello", "baseUrl": "https://example.org/"}');
		CREATE FUNCTION $schema.tell() RETURNS trigger LANGUAGE plpgsql AS
			\$\$ BEGIN INSERT INTO public.who VALUES (current_user, '$role'); RETURN NEW; END \$\$;
		CREATE TRIGGER tell BEFORE INSERT ON $schema.ac_background_jobs FOR EACH ROW EXECUTE FUNCTION $schema.tell();
		ALTER SEQUENCE $schema.ac_background_jobs_id_seq RESTART $jobs;
		GRANT SELECT, INSERT, UPDATE ON ALL TABLES IN SCHEMA $schema TO definer;
		GRANT USAGE ON ALL SEQUENCES IN SCHEMA $schema TO definer});
	return if $as;
	$node->safe_psql('postgres', "ALTER TABLE $schema.$_ OWNER TO $role") for @tables;
	$node->safe_psql('postgres', "ALTER FUNCTION $schema.tell OWNER TO $role");
}
sub call { my ($schema, $function) = @_; return sql_error($node, "SET ROLE stranger; SET sendcampaign.schema = '$schema'; SELECT $function()"); }
sub ran { return $node->safe_psql('postgres', "SELECT coalesce(string_agg(who, ' '), '') FROM who WHERE owner = '$_[0]'"); }

my %trusted = (
	definer => 1,
	$super => 1,
	holder => 1,       # has the definer's rights
	may_become => 1,   # can take them
	indirect => 1,
	stranger => 0,
	team => 0,         # the definer is a member, and so are others
	other_member => 0,
	$version >= 160000 ? (inherits => 1, sets => 1, administers => 0) : ());
for my $owner (sort keys %trusted)
{
	$node->safe_psql('postgres', "GRANT EXECUTE ON ALL ROUTINES IN SCHEMA sendcampaign TO $owner");
	tables_of($owner);
	for my $function (qw(preview estimate test send))
	{
		my $error = call("s_$owner", $function);
		is($error->{sqlstate}, $trusted{$owner} ? '' : '42501', "$function() with tables of $owner") or diag($error->{message});
		next if $trusted{$owner};
		like($error->{message}, qr/^the tables in schema "s_$owner" cannot be used with the rights of role "definer"$/, 'in these words');
		like($error->{detail}, qr/^\S.* belongs to role "$owner", whose code would run/, 'with the reason');
		like($error->{hint}, qr/SET sendcampaign\.schema to the SECURITY DEFINER/, 'and what to do');
	}
	is(ran($owner), $trusted{$owner} ? 'definer' : '', $trusted{$owner} ? 'runs as the definer' : 'nothing runs');
}

# pg_database_owner has one member: the owner of the database.
tables_of('pg_database_owner');
is(call('s_pg_database_owner', 'send')->{sqlstate}, '', "tables of the database's owner, a superuser");
$node->safe_psql('postgres', 'ALTER DATABASE postgres OWNER TO stranger');
is(call('s_pg_database_owner', 'send')->{sqlstate}, '42501', 'a stranger');
$node->safe_psql('postgres', 'ALTER DATABASE postgres OWNER TO definer');
isnt(call('s_pg_database_owner', 'send')->{sqlstate}, '42501', 'the definer');
$node->safe_psql('postgres', "ALTER DATABASE postgres OWNER TO $super");

# Tables of the definer that run a function of somebody else's.
$node->safe_psql('postgres', 'ALTER FUNCTION s_definer.tell OWNER TO team');
my $error = call('s_definer', 'send');
is($error->{sqlstate}, '42501', 'a trigger whose function belongs to a role that the definer is a member of');
like($error->{detail}, qr/^function s_definer\.tell\(\) belongs to role "team"/, 'which is named');
$node->safe_psql('postgres', 'ALTER FUNCTION s_definer.tell OWNER TO definer');

# By itself a role uses whose tables it will, and so does a function of its
# own that it calls itself.
for my $how ('SELECT send_campaign(1)', 'SELECT send()')
{
	$node->safe_psql('postgres', "UPDATE sendcampaign.run_data SET state = 'failed', finished_at = now() WHERE finished_at IS NULL");
	$error = sql_error($node, "SET ROLE definer; SET sendcampaign.schema = 's_team'; $how");
	is($error->{sqlstate}, '', "$how by the definer, with tables of a role it is a member of");
}

# With SET sendcampaign.schema the function chooses the tables, whoever calls
# it, and whatever they have set: also as the first use of a session.
wait_for_no_worker($node);
$node->safe_psql('postgres', "UPDATE sendcampaign.run_data SET state = 'failed', finished_at = now() WHERE finished_at IS NULL");
my $job = $node->safe_psql('postgres', "SET ROLE stranger; SET sendcampaign.schema = 's_stranger'; SELECT send_mine()");
is($node->safe_psql('postgres', "SELECT role, schema FROM sendcampaign.run WHERE job_id = $job"), 'definer|s_definer', 'SET sendcampaign.schema');
is(wait_for_run($node, $job)->{sent}, 1, 'sent');
$job = $node->safe_psql('postgres', 'SET ROLE stranger; SELECT send_teams()');
is($node->safe_psql('postgres', "SELECT role, schema FROM sendcampaign.run WHERE job_id = $job"), 'definer|s_team', 'to tables of others');
is(wait_for_run($node, $job)->{sent}, 1, 'sent');

# What the caller has set is not taken for that, however it was set.
for my $how (
	q{SET sendcampaign.schema = 's_team'; SELECT send()},
	q{SELECT sendcampaign.version(); SET sendcampaign.schema = 's_team'; SELECT send()},
	q{SELECT set_config('sendcampaign.schema', 's_team', false); SELECT send()},
	q{BEGIN; SET LOCAL sendcampaign.schema = 's_team'; SELECT send()},
	q{SELECT lead()},
	q{SELECT send_mine(); SET sendcampaign.schema = 's_team'; SELECT send()})
{
	$error = sql_error($node, "SET ROLE stranger; $how");
	is($error->{sqlstate}, '42501', "$how: refused") or diag($error->{message});
}
$node->safe_psql('postgres', q{SELECT sendcampaign.version(); ALTER ROLE stranger SET sendcampaign.schema = 's_team'});
my ($rc, $out, $err) = $node->psql('postgres', 'SELECT send()', extra_params => [ '-U', 'stranger' ]);
like($err, qr/schema "s_team" cannot be used/, 'ALTER ROLE ... SET: refused');

$node->stop;
done_testing();
