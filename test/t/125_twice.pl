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

# A database with a campaign to so many users, changed by role app; returns the
# names of both.
sub new_database
{
	my ($changes, $users) = @_;
	my $db = 'db' . ++$dbs;
	sql($node, "CREATE DATABASE $db");
	install_extension($node, $db);
	my $campaign = create_campaign($node, db => $db, users => $users // 5, message => $db);
	sql($node, $changes, db => $db, role => 'app');
	return ($db, $campaign);
}

# How many messages were sent from a database.
sub sent_from
{
	my $db = shift;
	return sent_with($twilio, "$db ");
}

# The run fails for this id in this table, and nothing has been sent.
sub fails
{
	my ($name, $db, $campaign, $table, $id) = @_;
	my $run = run_campaign($node, $campaign, db => $db);
	my $more_than_once = qr/^table "public\.$table" has more than one row with id $id\./;
	is($run->{state}, 'failed', "$name: the run fails");
	like(
		$run->{error},
		qr/$more_than_once .*primary key or a unique index on "id"/,
		'... and the error names table and id, and how to mend it');
	is(sent_from($db), 0, '... with nothing sent');
}

# 200 rows with one id, which the outcomes of a claim once had no room for
my ($db, $campaign) = new_database(<<~SQL, 240);
	ALTER TABLE ac_list_users DROP CONSTRAINT ac_list_users_pkey;
	INSERT INTO ac_list_users (id, ac_list_id, data)
	    SELECT u.id, u.ac_list_id, u.data FROM ac_list_users u, generate_series(1, 199);
	SQL
fails('200 rows of each id', $db, $campaign, 'ac_list_users', 1);

# A view of a join, where a list user with two tags is there twice
($db, $campaign) = new_database(<<~'SQL');
	ALTER TABLE ac_list_users RENAME TO users;
	CREATE TABLE tags (user_id integer, tag text);
	INSERT INTO tags SELECT id, 'a' FROM users;
	INSERT INTO tags VALUES (3, 'b');
	CREATE VIEW ac_list_users AS
	    SELECT u.* FROM users u JOIN tags t ON t.user_id = u.id;
	CREATE FUNCTION count_one() RETURNS trigger LANGUAGE plpgsql AS $$
	BEGIN
	    UPDATE users SET data = new.data WHERE id = new.id;
	    RETURN new;
	END $$;
	CREATE TRIGGER count INSTEAD OF UPDATE ON ac_list_users
	    FOR EACH ROW EXECUTE FUNCTION count_one();
	SQL
fails('a view of a join', $db, $campaign, 'ac_list_users', 3);
sql($node, q{DELETE FROM tags WHERE tag = 'b'}, db => $db);
my $run = run_campaign($node, $campaign, db => $db, job => 1);
is($run->{sent}, 5, '... and when it is mended, the same job sends to each');
is(sent_from($db), 5, '... once');

($db, $campaign) = new_database(<<~SQL);
	CREATE TABLE more_users () INHERITS (ac_list_users);
	INSERT INTO more_users (id, ac_list_id, data)
	    SELECT id, ac_list_id, data FROM ac_list_users WHERE id = 5;
	SQL
fails('a table that inherits', $db, $campaign, 'ac_list_users', 5);

# The same id in another list is another person: told apart, and not counted.
($db, $campaign) = new_database(<<~SQL);
	ALTER TABLE ac_list_users RENAME TO users;
	CREATE TABLE ac_list_users (
	    id integer,
	    ac_list_id integer,
	    data jsonb,
	    PRIMARY KEY (ac_list_id, id)
	) PARTITION BY LIST (ac_list_id);
	CREATE TABLE of_one PARTITION OF ac_list_users FOR VALUES IN (1);
	CREATE TABLE of_others PARTITION OF ac_list_users DEFAULT;
	INSERT INTO ac_list_users
	    SELECT id, ac_list_id, data FROM users WHERE id <> 1;
	INSERT INTO ac_list_users
	    SELECT id, 2, '{"sms": "+15559999999"}' FROM users WHERE id <> 2;
	SQL
$run = run_campaign($node, $campaign, db => $db);
is($run->{sent}, 4, 'one id in two lists: those of this list are sent to');
my @phones = map { $_->{to} } grep { $_->{body} =~ /^$db / } $twilio->ledger;
is_deeply([ sort @phones ], [ map { "+1555000000$_" } 2 .. 5 ], '... at their phone numbers');
my $counted = sql($node, <<~SQL, db => $db);
	SELECT string_agg(ac_list_id || ':' || id, ' ' ORDER BY id)
	FROM ac_list_users
	WHERE data ? 'sentCount'
	SQL
is($counted, '1:2 1:3 1:4 1:5', '... and they alone are counted');

# Rows of the other tables
for my $table (qw(ac_campaigns ac_lists groups))
{
	($db, $campaign) = new_database(<<~SQL);
		ALTER TABLE $table DROP CONSTRAINT ${table}_pkey;
		INSERT INTO $table SELECT * FROM $table;
		SQL
	if ($table eq 'ac_campaigns')
	{
		my $error = sql_error($node, "SELECT send_campaign($campaign)", db => $db, role => 'app');
		my $message = qr/^table "public\.$table" has more than one row with id 1$/;
		like($error->{message}, $message, "$table: the call is refused");
		like($error->{hint}, qr/primary key/, '... with a hint');
	}
	else
	{
		fails($table, $db, $campaign, $table, 1);
	}
}
($db, $campaign) = new_database(<<~SQL);
	ALTER TABLE ac_background_jobs DROP CONSTRAINT ac_background_jobs_pkey;
	INSERT INTO ac_background_jobs (id) VALUES (7), (7);
	SQL
my $error = sql_error($node, "SELECT send_campaign($campaign, 7)", db => $db, role => 'app');
like(
	$error->{message},
	qr/^table "public\.ac_background_jobs" has more than one row with id 7$/,
	'ac_background_jobs: the call is refused');

# No id
($db, $campaign) = new_database(<<~SQL);
	ALTER TABLE ac_list_users DROP CONSTRAINT ac_list_users_pkey;
	ALTER TABLE ac_list_users ALTER id DROP NOT NULL;
	UPDATE ac_list_users SET id = NULL WHERE id = 2;
	SQL
$run = run_campaign($node, $campaign, db => $db);
like(
	"$run->{state}: $run->{error}",
	qr/^failed: a list user has no id\. Make "id" the primary key of "ac_list_users"\.$/,
	'an id that is null: the run fails');
is(sent_from($db), 0, '... with nothing sent');

# What the author asks for meets the same.
($db, $campaign) = new_database(<<~SQL);
	ALTER TABLE ac_list_users DROP CONSTRAINT ac_list_users_pkey;
	INSERT INTO ac_list_users (id, ac_list_id, data)
	    SELECT id, ac_list_id, data FROM ac_list_users WHERE id = 4;
	SQL
for my $call ("preview($campaign)", "estimate($campaign)", "send_test($campaign, '+15550009999')")
{
	$error = sql_error($node, "SELECT * FROM sendcampaign.$call", db => $db, role => 'app');
	like(
		$error->{message},
		qr/^table "public\.ac_list_users" has more than one row with id 4$/,
		"refused: $call");
}

wait_for_no_worker($node);
is(worker_errors($node), '', 'no worker crashed');
$node->stop;
done_testing();
