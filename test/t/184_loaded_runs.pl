# The owner of the database may load runs, as a restore does, and name any role
# in them: that gives no right of that role, and does not hold up its campaigns.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../perl";
use Campaign;
use LocalTwilio;
use Test::More;

my $twilio = LocalTwilio->start;
my $node = new_cluster('loaded', $twilio, no_extension => 1);
$node->safe_psql('postgres', 'CREATE ROLE owner LOGIN; CREATE DATABASE one OWNER owner');
install_extension($node, 'one');
my $super = $node->safe_psql('one', 'SELECT current_user');
sub sql { return $node->safe_psql('one', $_[0]); }

# Tables of the owner's, with code that tells who runs it.
sql(q{
	GRANT USAGE ON SCHEMA sendcampaign TO owner;
	CREATE SCHEMA evil AUTHORIZATION owner;
	SET ROLE owner;
	GRANT USAGE ON SCHEMA evil TO PUBLIC;
	CREATE TABLE evil.who (who name, what text);
	GRANT INSERT ON evil.who TO PUBLIC;
	SELECT sendcampaign.create_tables('evil');
	GRANT ALL ON ALL TABLES IN SCHEMA evil TO PUBLIC;
	GRANT ALL ON ALL SEQUENCES IN SCHEMA evil TO PUBLIC;
	INSERT INTO evil.groups (configuration) VALUES ('{"twilioAccountSid": "ACffffffffffffffffffffffffffffffff", "twilioAuthToken": "x", "twilioFromSmsNumber": "+15005550006"}');
	INSERT INTO evil.ac_lists (group_id) VALUES (1);
	INSERT INTO evil.ac_list_users (ac_list_id, data) VALUES (1, '{"sms": "+15550000001"}');
	INSERT INTO evil.ac_campaigns (id, ac_list_id, data) SELECT 1000 + i, 1, '{"message": "Hello"}' FROM generate_series(1, 1000) i;
	INSERT INTO evil.ac_background_jobs (id) SELECT generate_series(1, 1000);
	CREATE FUNCTION evil.tell() RETURNS trigger LANGUAGE plpgsql AS
		$$BEGIN INSERT INTO evil.who VALUES (current_user, TG_TABLE_NAME); RETURN NEW; END$$;
	CREATE TRIGGER tell BEFORE INSERT OR UPDATE ON evil.ac_background_jobs FOR EACH ROW EXECUTE FUNCTION evil.tell();
	CREATE TRIGGER tell BEFORE UPDATE ON evil.ac_list_users FOR EACH ROW EXECUTE FUNCTION evil.tell()});

# Who else has run it since the last call.
sub who
{
	my $who = sql(q{SELECT coalesce(string_agg(DISTINCT who || ' ' || what, ', '), '') FROM evil.who WHERE who <> 'owner'});
	sql('DELETE FROM evil.who');
	return $who;
}

# As the owner: a run with the columns given; returns its id.
my $job = 0;
sub load
{
	my %column = @_;
	$job++;
	my %row = (schema => q{'evil'}, job_id => $job, campaign_id => 1000 + $job,
		database => q{(SELECT oid FROM pg_database WHERE datname = 'one')}, timeline => q{'0/0'}, %column);
	my @names = sort keys %row;
	return sql('SET ROLE owner; INSERT INTO sendcampaign.run_data (' . join(', ', @names) . ') VALUES ('
		  . join(', ', map { $row{$_} } @names) . ') RETURNING id');
}

my %begun = (total => 1, list_id => 1, message => q{'Hello'}, started_at => 'now()');
my @calls = (
	[ 'settle(%d, 1, true)', 'completed', state => q{'completed'}, finished_at => 'now()', in_doubt => 1, %begun ],
	[ 'settle(%d, 1, true)', 'paused', state => q{'paused'}, in_doubt => 1, %begun ],
	[ 'retry_failed(%d)', 'completed', state => q{'completed'}, finished_at => 'now()', failed => 1, %begun ],
	[ 'pause(%d)', 'running', state => q{'running'}, %begun ],
	[ 'resume(%d)', 'queued', state => q{'paused'} ],
	[ 'resume(%d)', 'paused', state => q{'paused'}, %begun ],
	[ 'cancel(%d)', 'queued', state => q{'queued'} ],
	[ 'cancel(%d)', 'paused', state => q{'paused'}, %begun ]);

# the owner, with a run whose role_oid is the owner's, and whose role is another
for my $call (@calls)
{
	my ($do, $state, %column) = @$call;
	for my $role ('app', $super)
	{
		my $id = load(role => "'$role'", role_oid => q{'owner'::regrole}, %column);
		my $status = $do =~ /retry/ ? 'failed' : 'in_doubt';
		sql("SET ROLE owner; INSERT INTO sendcampaign.message_data (run_id, list_user_id, status) VALUES ($id, 1, '$status')")
		  if $do =~ /settle|retry/;
		my $error = sql_error($node, "SET ROLE owner; SET sendcampaign.schema = 'evil'; SELECT sendcampaign." . sprintf($do, $job), db => 'one');
		is($error->{sqlstate}, 'P0002', "the owner, $do, $state: the run is not the owner's but that of role $role");
		wait_for_no_worker($node);
		is(who(), '', "the owner, $do, $state: no code runs with the rights of $role");
	}
}

# a superuser, with a run of app's
for my $call (@calls)
{
	my ($do, $state, %column) = @$call;
	my $id = load(role => q{'app'}, role_oid => q{'app'::regrole}, %column);
	my $status = $do =~ /retry/ ? 'failed' : 'in_doubt';
	sql("SET ROLE owner; INSERT INTO sendcampaign.message_data (run_id, list_user_id, status) VALUES ($id, 1, '$status')")
	  if $do =~ /settle|retry/;
	my $error = sql_error($node, "SET sendcampaign.schema = 'evil'; SELECT sendcampaign." . sprintf($do, $job), db => 'one');
	is($error->{sqlstate}, $do =~ /resume/ ? '42501' : '', "a superuser, $do, $state: " . ($do =~ /resume/ ? 'refused' : 'done'));
	like($error->{hint}, qr/app/, "a superuser, $do, $state: who may") if $do =~ /resume/;
	wait_for_no_worker($node);
	is(who(), '', "a superuser, $do, $state: no code runs with the rights of others");
	next if $do !~ /cancel/;
	is(sql("SELECT state, finished_at IS NOT NULL FROM sendcampaign.run WHERE id = $id"), 'cancelled|t', "a superuser, $do, $state: it has ended");
}

# a superuser, with a run of app's own tables: they are no trap
$node->safe_psql('one', q{CREATE SCHEMA own AUTHORIZATION app; SET ROLE app; SELECT sendcampaign.create_tables('own');
	INSERT INTO own.groups (configuration) SELECT configuration FROM evil.groups LIMIT 0;
	INSERT INTO own.ac_background_jobs DEFAULT VALUES});
load(role => q{'app'}, role_oid => q{'app'::regrole}, schema => q{'own'}, state => q{'paused'}, job_id => 1, campaign_id => 1);
is(sql_error($node, "SET sendcampaign.schema = 'own'; SELECT sendcampaign.resume(1)", db => 'one')->{sqlstate}, '',
	q{a superuser resumes what was loaded of app's own tables});
wait_for_no_worker($node);

# a cancelled run with a claim does not hold up the next run of its campaign
my $campaign = create_campaign($node, db => 'one', users => 3);
my $id = load(role => q{'app'}, role_oid => q{'app'::regrole}, schema => q{'public'}, job_id => 900000, campaign_id => $campaign,
	state => q{'cancelled'}, %begun);
sql("SET ROLE owner; INSERT INTO sendcampaign.claim (run_id, number, list_user_ids, phones, account, senders, claimed_at, twilio_time)
	VALUES ($id, 1, '{1}', '{+15550000001}', 'AC', '{+1}', now(), 0)");
my $real = start_campaign($node, $campaign, db => 'one');
ok(poll(sub { sql("SELECT state FROM sendcampaign.run WHERE job_id = $real AND schema = 'public'") eq 'completed' }, 20),
	'a cancelled run that was loaded does not hold up another one');
wait_for_no_worker($node);

# forget() knows the role by its name, too
$id = load(role => q{'app'}, role_oid => q{'owner'::regrole}, state => q{'completed'}, finished_at => q{now() - interval '1 day'}, %begun);
is(sql('SET ROLE owner; SELECT sendcampaign.forget(now())'), 0, q{forget(): a run that names another role's OID is not the owner's});
is(sql("SELECT count(*) FROM sendcampaign.run_data WHERE id = $id"), 1, 'it is kept');
cmp_ok(sql('SET ROLE app; SELECT sendcampaign.forget(now())'), '>', 0, 'forget(): it is that of the role with the name');
is(sql("SELECT count(*) FROM sendcampaign.run_data WHERE id = $id"), 0, 'it is gone');

# many runs: all are paused, some at a time
sql(q{SET ROLE owner; INSERT INTO sendcampaign.run_data (schema, job_id, campaign_id, role, role_oid, database, timeline)
	SELECT 'evil', 100000 + i, 100000 + i, 'app', 'app'::regrole, oid, '0/0' FROM pg_database, generate_series(1, 500) i WHERE datname = 'one'});
sql('SELECT sendcampaign.wake()');
ok(poll(sub { sql('SELECT count(*) FROM sendcampaign.run WHERE job_id > 100000 AND state = \'paused\'') == 500 }, 60), 'many runs are all paused');
wait_for_no_worker($node);
is(who(), '', 'many runs: no code runs');
is($twilio->stats->{accepted}, 3, 'what was loaded sends nothing');
is(sql("SELECT count(*) FROM sendcampaign.run WHERE schema = 'evil' AND state IN ('queued', 'running')"), 0, 'nothing waits for ever');
$node->stop;
done_testing();
