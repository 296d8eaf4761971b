# What is not committed is not sent, and leaves no job.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../perl";
use Campaign;
use LocalTwilio;
use Test::More;

my $twilio = LocalTwilio->start;
my $node = new_cluster('transactions', $twilio);

sub count_jobs { return sql($node, 'SELECT count(*) FROM ac_background_jobs'); }

# Sends another campaign and waits for the worker's end: whatever was going to
# be sent has been sent then.
sub nothing_sent
{
	my ($text, $name) = @_;
	run_campaign($node, create_campaign($node, users => 1, message => 'control'));
	wait_for_no_worker($node);
	is(sent_with($twilio, $text), 0, "$name: nothing is sent");
}

# a transaction that is rolled back
my $campaign = create_campaign($node, users => 3, message => 'whole');
sql($node, "BEGIN; SELECT send_campaign($campaign); ROLLBACK", role => 'app');
is(count_jobs(), 0, 'rolled back: there is no job');
is(sql($node, 'SELECT count(*) FROM sendcampaign.run'), 0, 'rolled back: there is no run');
nothing_sent('whole', 'rolled back');

# a savepoint that is rolled back
my $inner = create_campaign($node, users => 3, message => 'inner');
my $outer = create_campaign($node, users => 3, message => 'outer');
my $before = count_jobs();
my ($job) = split /\n/, sql($node, <<~"SQL", role => 'app');
	BEGIN;
	SELECT send_campaign($outer);
	SAVEPOINT s;
	SELECT send_campaign($inner);
	ROLLBACK TO s;
	COMMIT;
	SQL
wait_for_run($node, $job);
nothing_sent('inner', 'savepoint');
is(sent_with($twilio, 'outer'), 3, 'savepoint: what is outside of it is sent');
is(count_jobs(), $before + 2, 'savepoint: it leaves no job');

# the same, where it has the only call of the transaction
$before = count_jobs();
sql($node, <<~"SQL", role => 'app');
	BEGIN;
	SAVEPOINT s;
	SELECT send_campaign($inner);
	ROLLBACK TO s;
	COMMIT;
	SQL
is(count_jobs(), $before, 'savepoint alone: there is no job');
nothing_sent('inner', 'savepoint alone');

# a commit that fails
sql($node, <<~'SQL', role => 'app');
	CREATE TABLE parent (id int PRIMARY KEY);
	CREATE TABLE child (id int REFERENCES parent DEFERRABLE INITIALLY DEFERRED);
	SQL
$campaign = create_campaign($node, users => 3, message => 'deferred');
$before = count_jobs();
my $error = sql_error($node, <<~"SQL", role => 'app');
	BEGIN;
	SELECT send_campaign($campaign);
	INSERT INTO child VALUES (1);
	COMMIT;
	SQL
is($error->{sqlstate}, '23503', 'the commit fails because of a deferred constraint');
is(count_jobs(), $before, 'failed commit: there is no job');
nothing_sent('deferred', 'failed commit');

# all this does not spoil the campaign
run_campaign($node, $campaign);
is(sent_with($twilio, 'deferred'), 3, 'the same campaign is sent once its call is committed');

# an error that a function catches
sql($node, <<~'SQL', role => 'app');
	CREATE FUNCTION send_and_fail(campaign bigint) RETURNS text LANGUAGE plpgsql AS $$
	BEGIN
		PERFORM send_campaign(campaign);
		RAISE division_by_zero;
	EXCEPTION WHEN division_by_zero THEN
		RETURN 'caught';
	END $$;

	CREATE FUNCTION send_both(first bigint, second bigint) RETURNS bigint LANGUAGE plpgsql AS $$
	BEGIN
		PERFORM send_and_fail(first);
		RETURN send_campaign(second);
	END $$;
	SQL
$inner = create_campaign($node, users => 3, message => 'caught');
$outer = create_campaign($node, users => 3, message => 'not caught');
wait_for_run($node, sql($node, "SELECT send_both($inner, $outer)", role => 'app'));
nothing_sent('caught', 'exception');
is(sent_with($twilio, 'not caught'), 3, 'exception: what comes after it is sent');

# a DO block that commits one campaign and rolls back another
$inner = create_campaign($node, users => 3, message => 'half');
$outer = create_campaign($node, users => 3, message => 'other half');
sql($node, <<~"SQL", role => 'app');
	DO \$\$ BEGIN
		PERFORM send_campaign($outer);
		COMMIT;
		PERFORM send_campaign($inner);
		ROLLBACK;
	END \$\$;
	SQL
nothing_sent('half', 'rolled back in a DO block');
is(sent_with($twilio, 'other half'), 3, 'what is committed in a DO block is sent');

$node->stop;
done_testing();
