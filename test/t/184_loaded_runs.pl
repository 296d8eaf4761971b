# The owner of the database may load runs, as a restore does, and name any role
# in them: that gives no rights of that role, and does not hold up its campaigns.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../perl";
use Campaign;
use LocalTwilio;
use Test::More;

my $twilio = LocalTwilio->start;
my $node = new_cluster('loaded', $twilio, no_extension => 1);
sql($node, 'CREATE ROLE owner LOGIN; CREATE DATABASE one OWNER owner');
install_extension($node, 'one');

# All but the beginning is in that database.
sub query
{
	my ($sql, %arg) = @_;
	return sql($node, $sql, db => 'one', %arg);
}
my $super = query('SELECT current_user');

# The owner's tables, with code that tells who runs it
query(<<~'SQL');
	GRANT USAGE ON SCHEMA sendcampaign TO owner;
	CREATE SCHEMA evil AUTHORIZATION owner;
	SET ROLE owner;
	GRANT USAGE ON SCHEMA evil TO PUBLIC;
	CREATE TABLE evil.who (who name, what text);
	GRANT INSERT ON evil.who TO PUBLIC;
	SELECT sendcampaign.create_tables('evil');
	GRANT ALL ON ALL TABLES IN SCHEMA evil TO PUBLIC;
	GRANT ALL ON ALL SEQUENCES IN SCHEMA evil TO PUBLIC;
	INSERT INTO evil.groups (configuration) VALUES ('{
	    "twilioAccountSid": "ACffffffffffffffffffffffffffffffff",
	    "twilioAuthToken": "x",
	    "twilioFromSmsNumber": "+15005550006"}');
	INSERT INTO evil.ac_lists (group_id) VALUES (1);
	INSERT INTO evil.ac_list_users (ac_list_id, data) VALUES (1, '{"sms": "+15550000001"}');
	INSERT INTO evil.ac_campaigns (id, ac_list_id, data)
	SELECT 1000 + i, 1, '{"message": "Hello"}' FROM generate_series(1, 1000) i;
	INSERT INTO evil.ac_background_jobs (id) SELECT generate_series(1, 1000);
	CREATE FUNCTION evil.tell() RETURNS trigger LANGUAGE plpgsql AS $$
	BEGIN
	    INSERT INTO evil.who VALUES (current_user, TG_TABLE_NAME);
	    RETURN NEW;
	END $$;
	CREATE TRIGGER tell BEFORE INSERT OR UPDATE ON evil.ac_background_jobs
	    FOR EACH ROW EXECUTE FUNCTION evil.tell();
	CREATE TRIGGER tell BEFORE UPDATE ON evil.ac_list_users
	    FOR EACH ROW EXECUTE FUNCTION evil.tell();
	SQL

# Who else has run that code since the last call
sub who
{
	my $who = query(<<~'SQL');
		SELECT coalesce(string_agg(DISTINCT who || ' ' || what, ', '), '')
		FROM evil.who
		WHERE who <> 'owner'
		SQL
	query('DELETE FROM evil.who');
	return $who;
}

# Loads a run with these columns, as the owner; returns its id.
my $job = 0;

sub load
{
	my %column = @_;
	$job++;
	my %row = (
		schema => q{'evil'},
		job_id => $job,
		campaign_id => 1000 + $job,
		database => q{(SELECT oid FROM pg_database WHERE datname = 'one')},
		timeline => q{'0/0'},
		%column);
	my @names = sort keys %row;
	my $names = join ', ', @names;
	my $values = join ', ', @row{@names};
	return query("INSERT INTO sendcampaign.run_data ($names) VALUES ($values) RETURNING id",
		role => 'owner');
}

# What each of the runs has whose list has been read
my %begun = (total => 1, list_id => 1, message => q{'Hello'}, started_at => 'now()');
my %completed = (%begun, state => q{'completed'}, finished_at => 'now()');
my %paused = (%begun, state => q{'paused'});

# A call, a name of the run's state, the run's columns, its message's status
my @calls = (
	[ 'settle(%d, 1, true)', 'completed', { %completed, in_doubt => 1 }, 'in_doubt' ],
	[ 'settle(%d, 1, true)', 'paused', { %paused, in_doubt => 1 }, 'in_doubt' ],
	[ 'retry_failed(%d)', 'completed', { %completed, failed => 1 }, 'failed' ],
	[ 'pause(%d)', 'running', { %begun, state => q{'running'} } ],
	[ 'resume(%d)', 'queued', { state => q{'paused'} } ],
	[ 'resume(%d)', 'paused', \%paused ],
	[ 'cancel(%d)', 'queued', { state => q{'queued'} } ],
	[ 'cancel(%d)', 'paused', \%paused ]);

# Loads the run of a call, which is that of these roles; returns its id.
sub load_for
{
	my ($call, $role, $oid_of) = @_;
	my ($do, $state, $column, $status) = @$call;
	my $id = load(role => "'$role'", role_oid => "'$oid_of'::regrole", %$column);
	query(<<~SQL, role => 'owner') if $status;
		INSERT INTO sendcampaign.message_data (run_id, list_user_id, status)
		VALUES ($id, 1, '$status')
		SQL
	return $id;
}

# The error of a call by a role, or by the superuser
sub error_of
{
	my ($call, $role, $schema) = @_;
	return sql_error($node, <<~SQL, db => 'one', role => $role);
		SET sendcampaign.schema = '$schema';
		SELECT sendcampaign.$call;
		SQL
}

# By the owner, for a run whose role_oid is the owner's, and whose role is another
for my $call (@calls)
{
	my ($do, $state) = @$call;
	for my $role ('app', $super)
	{
		load_for($call, $role, 'owner');
		my $error = error_of(sprintf($do, $job), 'owner', 'evil');
		my $name = "the owner, $do, $state";
		is($error->{sqlstate}, 'P0002',
			"$name: the run is not the owner's but that of role $role");
		wait_for_no_worker($node);
		is(who(), '', "$name: no code runs with the rights of $role");
	}
}

# By a superuser, for a run of app's
for my $call (@calls)
{
	my ($do, $state) = @$call;
	my $id = load_for($call, 'app', 'app');
	my $error = error_of(sprintf($do, $job), undef, 'evil');
	my $name = "a superuser, $do, $state";
	if ($do =~ /resume/)
	{
		is($error->{sqlstate}, '42501', "$name: it is refused");
		like($error->{hint}, qr/app/, "$name: the hint says who may");
	}
	else
	{
		is($error->{sqlstate}, '', "$name: it is done");
	}
	wait_for_no_worker($node);
	is(who(), '', "$name: no code runs with the rights of others");
	next if $do !~ /cancel/;
	is(query("SELECT state, finished_at IS NOT NULL FROM sendcampaign.run WHERE id = $id"),
		'cancelled|t', "$name: it has ended");
}

# By a superuser, for a run of app's own tables: they are no trap.
query(<<~'SQL');
	CREATE SCHEMA own AUTHORIZATION app;
	SET ROLE app;
	SELECT sendcampaign.create_tables('own');
	INSERT INTO own.groups (configuration) SELECT configuration FROM evil.groups LIMIT 0;
	INSERT INTO own.ac_background_jobs DEFAULT VALUES;
	SQL
load(
	role => q{'app'},
	role_oid => q{'app'::regrole},
	schema => q{'own'},
	state => q{'paused'},
	job_id => 1,
	campaign_id => 1);
is(error_of('resume(1)', undef, 'own')->{sqlstate},
	'', q{a superuser resumes what was loaded of app's own tables});
wait_for_no_worker($node);

# A cancelled run with a claim does not hold up the next run of its campaign.
my $campaign = create_campaign($node, db => 'one', users => 3);
my $id = load(
	role => q{'app'},
	role_oid => q{'app'::regrole},
	schema => q{'public'},
	job_id => 900000,
	campaign_id => $campaign,
	%begun,
	state => q{'cancelled'});
query(<<~SQL, role => 'owner');
	INSERT INTO sendcampaign.claim (run_id, number, list_user_ids, phones, account, senders,
	    claimed_at, twilio_time)
	VALUES ($id, 1, '{1}', '{+15550000001}', 'AC', '{+1}', now(), 0)
	SQL
my $real = start_campaign($node, $campaign, db => 'one');
my $state = "SELECT state FROM sendcampaign.run WHERE job_id = $real AND schema = 'public'";
ok(poll(sub { query($state) eq 'completed' }),
	'a cancelled run that was loaded does not hold up another one');
wait_for_no_worker($node);

# forget() knows the role by its name, too.
my $forget = 'SELECT sendcampaign.forget(now())';
$id = load(
	role => q{'app'},
	role_oid => q{'owner'::regrole},
	%begun,
	state => q{'completed'},
	finished_at => q{now() - interval '1 day'});
my $count = "SELECT count(*) FROM sendcampaign.run_data WHERE id = $id";
is(query($forget, role => 'owner'),
	0, q{forget(): a run that names another role's OID is not the owner's});
is(query($count), 1, 'it is kept');
cmp_ok(query($forget, role => 'app'), '>', 0, 'forget(): it is that of the role with the name');
is(query($count), 0, 'it is gone');

# Many runs: all are paused, some at a time.
query(<<~'SQL', role => 'owner');
	INSERT INTO sendcampaign.run_data (schema, job_id, campaign_id, role, role_oid, database,
	    timeline)
	SELECT 'evil', 100000 + i, 100000 + i, 'app', 'app'::regrole, oid, '0/0'
	FROM pg_database, generate_series(1, 500) i
	WHERE datname = 'one'
	SQL
query('SELECT sendcampaign.wake()');
my $paused = q{SELECT count(*) FROM sendcampaign.run WHERE job_id > 100000 AND state = 'paused'};
ok(poll(sub { query($paused) == 500 }), 'many runs are all paused');
wait_for_no_worker($node);
is(who(), '', 'many runs: no code runs');
is($twilio->stats->{accepted}, 3, 'what was loaded sends nothing');
is(query(<<~'SQL'), 0, 'nothing waits for ever');
	SELECT count(*)
	FROM sendcampaign.run
	WHERE schema = 'evil' AND state IN ('queued', 'running')
	SQL
$node->stop;
done_testing();
