# Ids that are not unique, of tables and views as a role can make them: nobody
# gets two messages, and nothing is written beyond what there is room for.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../perl";
use Campaign;
use LocalTwilio;
use PostgreSQL::Test::Utils;
use Test::More;

my $twilio = LocalTwilio->start;
my $node = new_cluster('twice', $twilio);
my $dbs = 0;

# A database with a campaign to so many users, changed by $changes as role app.
sub new_database
{
	my ($changes, $users) = @_;
	my $db = 'db' . ++$dbs;
	$node->safe_psql('postgres', "CREATE DATABASE $db");
	install_extension($node, $db);
	my $campaign = create_campaign($node, db => $db, users => $users // 5, message => $db);
	$node->safe_psql($db, "SET ROLE app; $changes");
	return ($db, $campaign);
}

# The run fails for this id in this table, and nothing has been sent.
sub fails
{
	my ($name, $db, $campaign, $table, $id) = @_;
	my $run = wait_for_run($node, start_campaign($node, $campaign, db => $db), db => $db);
	is($run->{state}, 'failed', "$name: the run fails");
	like($run->{error}, qr/^id $id is in table "public\.$table" more than once\. .*primary key or a unique index on "id"/,
		'... naming table and id, and how to mend it');
	is(sent_with($twilio, "$db "), 0, '... with nothing sent');
}

# 200 rows with one id, which the outcomes of a claim once had no room for
my ($db, $campaign) = new_database(q{
	ALTER TABLE ac_list_users DROP CONSTRAINT ac_list_users_pkey;
	INSERT INTO ac_list_users (id, ac_list_id, data) SELECT u.id, u.ac_list_id, u.data FROM ac_list_users u, generate_series(1, 199)}, 240);
fails('200 of each id', $db, $campaign, 'ac_list_users', 1);

($db, $campaign) = new_database(q{
	ALTER TABLE ac_list_users RENAME TO users;
	CREATE TABLE tags (user_id integer, tag text);
	INSERT INTO tags SELECT id, tag FROM users, unnest('{a,b}'::text[]) tag WHERE id = 3 UNION ALL SELECT id, 'a' FROM users WHERE id <> 3;
	CREATE VIEW ac_list_users AS SELECT u.* FROM users u JOIN tags t ON t.user_id = u.id;
	CREATE FUNCTION count_one() RETURNS trigger LANGUAGE plpgsql AS $$
	BEGIN UPDATE users SET data = new.data WHERE id = new.id; RETURN new; END $$;
	CREATE TRIGGER count INSTEAD OF UPDATE ON ac_list_users FOR EACH ROW EXECUTE FUNCTION count_one()});
fails('a view of a join', $db, $campaign, 'ac_list_users', 3);
$node->safe_psql($db, 'DELETE FROM tags WHERE tag = $$b$$');
my $job = start_campaign($node, $campaign, db => $db, job => 1);
is(wait_for_run($node, $job, db => $db)->{sent}, 5, '... and when it is mended, the same job sends to each');
is(sent_with($twilio, "$db "), 5, '... once');

($db, $campaign) = new_database(q{
	CREATE TABLE more_users () INHERITS (ac_list_users);
	INSERT INTO more_users (id, ac_list_id, data) SELECT id, ac_list_id, data FROM ac_list_users WHERE id = 5});
fails('a table that inherits', $db, $campaign, 'ac_list_users', 5);

# the same id in another list is another person: told apart, and not counted
($db, $campaign) = new_database(q{
	ALTER TABLE ac_list_users RENAME TO users;
	CREATE TABLE ac_list_users (id integer, ac_list_id integer, data jsonb, PRIMARY KEY (ac_list_id, id)) PARTITION BY LIST (ac_list_id);
	CREATE TABLE of_one PARTITION OF ac_list_users FOR VALUES IN (1);
	CREATE TABLE of_others PARTITION OF ac_list_users DEFAULT;
	INSERT INTO ac_list_users SELECT id, ac_list_id, data FROM users;
	INSERT INTO ac_list_users SELECT id, 2, '{"sms": "+15559999999"}' FROM users WHERE id <> 2;
	DELETE FROM ac_list_users WHERE ac_list_id = 1 AND id = 1});
$job = start_campaign($node, $campaign, db => $db);
is(wait_for_run($node, $job, db => $db)->{sent}, 4, 'one id in two lists: those of this list are sent to');
is(join(' ', sort map { $_->{to} } grep { $_->{body} =~ /^$db / } $twilio->ledger),
	join(' ', map { "+1555000000$_" } 2 .. 5), '... at their phones');
is($node->safe_psql($db, q{SELECT string_agg(ac_list_id || ':' || id, ' ' ORDER BY id) FROM ac_list_users WHERE data ? 'sentCount'}),
	'1:2 1:3 1:4 1:5', '... and they alone are counted');

# rows of the others
for my $table (qw(ac_campaigns ac_lists groups))
{
	($db, $campaign) = new_database(qq{
		ALTER TABLE $table DROP CONSTRAINT ${table}_pkey;
		INSERT INTO $table SELECT * FROM $table});
	if ($table eq 'ac_campaigns')
	{
		my $error = sql_error($node, "SET ROLE app; SELECT send_campaign($campaign)", db => $db);
		like($error->{message}, qr/^id 1 is in table "public\.$table" more than once$/, "$table: refused");
		like($error->{hint}, qr/primary key/, '... with a hint');
	}
	else
	{
		fails($table, $db, $campaign, $table, 1);
	}
}
($db, $campaign) = new_database(q{
	ALTER TABLE ac_background_jobs DROP CONSTRAINT ac_background_jobs_pkey;
	INSERT INTO ac_background_jobs (id) VALUES (7), (7)});
my $error = sql_error($node, "SET ROLE app; SELECT send_campaign($campaign, 7)", db => $db);
like($error->{message}, qr/^id 7 is in table "public\.ac_background_jobs" more than once$/, 'ac_background_jobs: refused');

# no id
($db, $campaign) = new_database(q{
	ALTER TABLE ac_list_users DROP CONSTRAINT ac_list_users_pkey;
	ALTER TABLE ac_list_users ALTER id DROP NOT NULL;
	UPDATE ac_list_users SET id = NULL WHERE id = 2});
my $run = wait_for_run($node, start_campaign($node, $campaign, db => $db), db => $db);
like("$run->{state}: $run->{error}", qr/^failed: a list user has no id/, 'a null id: the run fails');
is(sent_with($twilio, "$db "), 0, '... with nothing sent');

# what the author asks for meets the same
($db, $campaign) = new_database(q{
	ALTER TABLE ac_list_users DROP CONSTRAINT ac_list_users_pkey;
	INSERT INTO ac_list_users (id, ac_list_id, data) SELECT id, ac_list_id, data FROM ac_list_users WHERE id = 4});
for my $call ("count(*) FROM sendcampaign.preview($campaign)", "* FROM sendcampaign.estimate($campaign)",
	"sendcampaign.send_test($campaign, '+15550009999')")
{
	like(sql_error($node, "SET ROLE app; SELECT $call", db => $db)->{message},
		qr/^id 4 is in table "public\.ac_list_users" more than once$/, "refused: $call");
}

wait_for_no_worker($node);
is(worker_errors($node), '', 'no crash');
$node->stop;
done_testing();
