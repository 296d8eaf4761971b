# SECURITY DEFINER: whoever calls the function must not lead it to code of their
# own by sendcampaign.schema.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../perl";
use Campaign;
use LocalTwilio;
use Test::More;

my $twilio = LocalTwilio->start;
my $node = new_cluster('definer', $twilio, conf => "max_worker_processes = 30\n");
my $super = sql($node, 'SELECT current_user');
my $version = sql($node, 'SHOW server_version_num');

# The definer, the owners of tables, and a stranger who calls the functions
sql($node, <<~'SQL');
	CREATE ROLE definer LOGIN;
	CREATE ROLE team LOGIN;
	GRANT team TO definer;
	CREATE ROLE stranger LOGIN;
	CREATE ROLE other_member LOGIN IN ROLE team;
	CREATE ROLE holder LOGIN IN ROLE definer;
	CREATE ROLE may_become LOGIN NOINHERIT IN ROLE definer;
	CREATE ROLE indirect LOGIN IN ROLE holder;
	GRANT CREATE ON SCHEMA public TO definer, stranger;
	CREATE TABLE who (who name, owner name);
	GRANT INSERT ON who TO PUBLIC;
	GRANT USAGE ON SCHEMA sendcampaign TO PUBLIC;
	GRANT EXECUTE ON ALL ROUTINES IN SCHEMA sendcampaign TO definer;
	GRANT EXECUTE ON FUNCTION send_campaign TO definer;
	SELECT sendcampaign.version();
	SET ROLE definer;
	CREATE FUNCTION send() RETURNS bigint LANGUAGE sql SECURITY DEFINER
	    SET search_path = pg_catalog, pg_temp
	    AS 'SELECT public.send_campaign(1)';
	CREATE FUNCTION preview() RETURNS bigint LANGUAGE sql SECURITY DEFINER
	    SET search_path = pg_catalog, pg_temp
	    AS 'SELECT count(*) FROM sendcampaign.preview(1)';
	CREATE FUNCTION estimate() RETURNS bigint LANGUAGE sql SECURITY DEFINER
	    SET search_path = pg_catalog, pg_temp
	    AS 'SELECT recipients FROM sendcampaign.estimate(1)';
	CREATE FUNCTION test() RETURNS bigint LANGUAGE sql SECURITY DEFINER
	    SET search_path = pg_catalog, pg_temp
	    AS $$ SELECT sendcampaign.send_test(1, '+15550000001') $$;
	CREATE FUNCTION send_teams() RETURNS bigint LANGUAGE sql SECURITY DEFINER
	    SET search_path = pg_catalog, pg_temp
	    SET sendcampaign.schema = 's_team'
	    AS 'SELECT public.send_campaign(1)';
	CREATE FUNCTION send_mine() RETURNS bigint LANGUAGE sql SECURITY DEFINER
	    SET search_path = pg_catalog, pg_temp
	    SET sendcampaign.schema = 's_definer'
	    AS 'SELECT public.send_campaign(1)';
	CREATE FUNCTION ask_home(query text) RETURNS bigint LANGUAGE sql SECURITY DEFINER
	    SET search_path = pg_catalog, pg_temp
	    AS $$ SELECT count(*) FROM sendcampaign.at_home('s_definer', query) $$;
	SET ROLE stranger;
	CREATE FUNCTION lead() RETURNS bigint LANGUAGE sql
	    SET sendcampaign.schema = 's_team'
	    AS 'SELECT public.send()';
	SQL

# From 16 on a membership may have neither INHERIT nor SET.
sql($node, <<~SQL) if $version >= 160000;
	CREATE ROLE inherits LOGIN;
	CREATE ROLE sets LOGIN;
	CREATE ROLE administers LOGIN;
	GRANT definer TO inherits WITH INHERIT TRUE, SET FALSE;
	GRANT definer TO sets WITH INHERIT FALSE, SET TRUE;
	GRANT definer TO administers WITH ADMIN TRUE, INHERIT FALSE, SET FALSE;
	SQL

# Tables of a role in a schema of its own, whose triggers tell who has run them;
# the definer may use them.  A predefined role gets them from a superuser.
my $jobs = 0;
my @tables = qw(groups ac_lists ac_campaigns ac_list_users ac_background_jobs);

sub tables_of
{
	my $role = shift;
	my $schema = "s_$role";
	my $predefined = $role =~ /^pg_/;
	$jobs += 1000;
	sql($node, <<~SQL);
		CREATE SCHEMA $schema;
		GRANT USAGE, CREATE ON SCHEMA $schema TO PUBLIC;
		SQL
	sql($node, <<~SQL, role => $predefined ? $super : $role);
		SELECT sendcampaign.create_tables('$schema');
		INSERT INTO $schema.groups (configuration) VALUES ('{
		    "twilioAccountSid": "$LocalTwilio::ACCOUNT",
		    "twilioAuthToken": "$LocalTwilio::TOKEN",
		    "twilioFromSmsNumber": "$LocalTwilio::SENDER"}');
		INSERT INTO $schema.ac_lists (group_id) VALUES (1);
		INSERT INTO $schema.ac_list_users (ac_list_id, data)
		    VALUES (1, '{"sms": "+15550000001"}');
		INSERT INTO $schema.ac_campaigns (ac_list_id, data)
		    VALUES (1, '{"message": "Hello", "baseUrl": "https://example.org/"}');
		CREATE FUNCTION $schema.tell() RETURNS trigger LANGUAGE plpgsql AS \$\$
		BEGIN
		    INSERT INTO public.who VALUES (current_user, '$role');
		    RETURN NEW;
		END \$\$;
		CREATE TRIGGER tell BEFORE INSERT ON $schema.ac_background_jobs
		    FOR EACH ROW EXECUTE FUNCTION $schema.tell();
		ALTER SEQUENCE $schema.ac_background_jobs_id_seq RESTART $jobs;
		GRANT SELECT, INSERT, UPDATE ON ALL TABLES IN SCHEMA $schema TO definer;
		GRANT USAGE ON ALL SEQUENCES IN SCHEMA $schema TO definer;
		SQL
	return if !$predefined;
	sql($node, "ALTER TABLE $schema.$_ OWNER TO $role") for @tables;
	sql($node, "ALTER FUNCTION $schema.tell OWNER TO $role");
}

# The error of a function that the stranger calls with the tables of a schema.
sub error_of_stranger
{
	my ($schema, $function) = @_;
	my $sql = "SET sendcampaign.schema = '$schema'; SELECT $function()";
	return sql_error($node, $sql, role => 'stranger');
}

# Who has run the triggers of an owner's tables.
sub who_ran
{
	my $owner = shift;
	return sql($node, "SELECT coalesce(string_agg(who, ' '), '') FROM who WHERE owner = '$owner'");
}

# No run is left that another one could be taken for.
sub end_runs
{
	sql($node, <<~SQL);
		UPDATE sendcampaign.run_data
		SET state = 'failed', finished_at = now()
		WHERE finished_at IS NULL
		SQL
}

# Whose tables the definer's functions use
my %trusted = (
	definer => 1,
	$super => 1,
	holder => 1,        # has the definer's rights
	may_become => 1,    # can take them
	indirect => 1,
	stranger => 0,
	team => 0,          # the definer is a member, and so are others
	other_member => 0);
%trusted = (%trusted, inherits => 1, sets => 1, administers => 0) if $version >= 160000;
for my $owner (sort keys %trusted)
{
	sql($node, "GRANT EXECUTE ON ALL ROUTINES IN SCHEMA sendcampaign TO $owner");
	tables_of($owner);
	for my $function (qw(preview estimate test send))
	{
		my $error = error_of_stranger("s_$owner", $function);
		my $name = "$function() with tables of $owner";
		if ($trusted{$owner})
		{
			is($error->{sqlstate}, '', $name) or diag($error->{message});
			next;
		}
		is($error->{sqlstate}, '42501', "$name is refused") or diag($error->{message});
		is( $error->{message},
			qq{the tables in schema "s_$owner" cannot be used with the rights of role "definer"},
			'... in these words');
		like(
			$error->{detail},
			qr/^\S.* belongs to role "$owner", whose code would run with these rights\.$/,
			'... with the reason');
		like(
			$error->{hint},
			qr/SET sendcampaign\.schema to the SECURITY DEFINER/,
			'... and what to do');
	}
	if ($trusted{$owner})
	{
		is(who_ran($owner), 'definer', "tables of $owner: the triggers run as the definer");
	}
	else
	{
		is(who_ran($owner), '', "tables of $owner: no trigger runs");
	}
}

# pg_database_owner has one member: the owner of the database.
tables_of('pg_database_owner');
is(error_of_stranger('s_pg_database_owner', 'send')->{sqlstate},
	'', "tables of the database's owner, who is a superuser");
sql($node, 'ALTER DATABASE postgres OWNER TO stranger');
is(error_of_stranger('s_pg_database_owner', 'send')->{sqlstate},
	'42501', '... who is a stranger: refused');
sql($node, 'ALTER DATABASE postgres OWNER TO definer');
isnt(error_of_stranger('s_pg_database_owner', 'send')->{sqlstate},
	'42501', '... who is the definer');
sql($node, "ALTER DATABASE postgres OWNER TO $super");

# Tables of the definer that run a function of somebody else's
sql($node, 'ALTER FUNCTION s_definer.tell OWNER TO team');
my $error = error_of_stranger('s_definer', 'send');
is($error->{sqlstate}, '42501',
	'a trigger whose function belongs to a role that the definer is a member of: refused');
like(
	$error->{detail},
	qr/^function s_definer\.tell\(\) belongs to role "team"/,
	'... and the function is named');
sql($node, 'ALTER FUNCTION s_definer.tell OWNER TO definer');

# A role that acts for itself may use anybody's tables, and so may a function of
# its own that it calls itself.
for my $call ('send_campaign(1)', 'send()')
{
	end_runs();
	my $sql = "SET sendcampaign.schema = 's_team'; SELECT $call";
	is(sql_error($node, $sql, role => 'definer')->{sqlstate},
		'', "$call by the definer, with tables of a role it is a member of");
}

# With SET sendcampaign.schema the function chooses the tables, whoever calls
# it, and whatever they have set: also as the first use of a session.
wait_for_no_worker($node);
end_runs();
my $job = sql($node, <<~SQL, role => 'stranger');
	SET sendcampaign.schema = 's_stranger';
	SELECT send_mine();
	SQL
is(sql($node, "SELECT role, schema FROM sendcampaign.run WHERE job_id = $job"),
	'definer|s_definer', 'SET sendcampaign.schema: the tables are those of the function');
is(wait_for_run($node, $job)->{sent}, 1, '... and the message is sent');
$job = sql($node, 'SELECT send_teams()', role => 'stranger');
is(sql($node, "SELECT role, schema FROM sendcampaign.run WHERE job_id = $job"),
	'definer|s_team', '... also where these are of others');
is(wait_for_run($node, $job)->{sent}, 1, '... and the message is sent');

# What the caller has set is not taken for that, however it was set.
my @settings = (
	q{SET sendcampaign.schema = 's_team'; SELECT send()},
	q{SELECT sendcampaign.version(); SET sendcampaign.schema = 's_team'; SELECT send()},
	q{SELECT set_config('sendcampaign.schema', 's_team', false); SELECT send()},
	q{BEGIN; SET LOCAL sendcampaign.schema = 's_team'; SELECT send()},
	q{SELECT lead()},
	q{SELECT send_mine(); SET sendcampaign.schema = 's_team'; SELECT send()},
	q{SET sendcampaign.schema = 's_team'; SELECT ask_home('SELECT 1'); SELECT send()},
	q{BEGIN; SET LOCAL sendcampaign.schema = 's_team'; SELECT ask_home('SELECT 1'); SELECT send()},
	q{BEGIN; SET LOCAL sendcampaign.schema = 's_team'; DO $$ BEGIN PERFORM ask_home('SELECT 1/0');
		EXCEPTION WHEN OTHERS THEN PERFORM ask_home('SELECT 1'); END $$; SELECT send()});
for my $sql (@settings)
{
	$error = sql_error($node, $sql, role => 'stranger');
	is($error->{sqlstate}, '42501', "refused: $sql") or diag($error->{message});
}
sql($node, <<~SQL);
	SELECT sendcampaign.version();
	ALTER ROLE stranger SET sendcampaign.schema = 's_team';
	SQL
my ($rc, $stdout, $stderr) =
  $node->psql('postgres', 'SELECT send()', extra_params => [ '-U', 'stranger' ]);
like($stderr, qr/schema "s_team" cannot be used/, 'refused: ALTER ROLE ... SET');

$node->stop;
done_testing();
