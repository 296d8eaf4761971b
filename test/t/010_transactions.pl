# What is not committed is not sent, and leaves no job.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../perl";
use Campaign;
use LocalTwilio;
use PostgreSQL::Test::Utils;
use Test::More;

my $twilio = LocalTwilio->start;
my $node = new_cluster('transactions', $twilio);

sub jobs { return $node->safe_psql('postgres', 'SELECT count(*) FROM ac_background_jobs'); }

# Sends another campaign and waits for the worker's end: whatever was going to
# be sent has been sent then.
sub nothing_sent
{
	my ($text, $name) = @_;
	my $job = start_campaign($node, create_campaign($node, users => 1, message => 'control'));
	wait_for_run($node, $job);
	wait_for_no_worker($node);
	is(sent_with($twilio, $text), 0, "$name: nothing is sent");
}

my $campaign = create_campaign($node, users => 3, message => 'whole');
$node->safe_psql('postgres', "SET ROLE app; BEGIN; SELECT send_campaign($campaign); ROLLBACK");
is(jobs(), 0, 'rolled back: no job');
is($node->safe_psql('postgres', 'SELECT count(*) FROM sendcampaign.run'), 0, 'rolled back: no run');
nothing_sent('whole', 'rolled back');

my $inner = create_campaign($node, users => 3, message => 'inner');
my $outer = create_campaign($node, users => 3, message => 'outer');
my $before = jobs();
my $job = (split /\n/, $node->safe_psql('postgres', qq{
	SET ROLE app;
	BEGIN;
	SELECT send_campaign($outer);
	SAVEPOINT s;
	SELECT send_campaign($inner);
	ROLLBACK TO s;
	COMMIT}))[0];
wait_for_run($node, $job);
nothing_sent('inner', 'savepoint');
is(sent_with($twilio, 'outer'), 3, 'savepoint: what is outside of it is sent');
is(jobs(), $before + 2, 'savepoint: no job is left of it');

# the only call of the transaction, in a savepoint that is rolled back
$before = jobs();
$node->safe_psql('postgres',
	"SET ROLE app; BEGIN; SAVEPOINT s; SELECT send_campaign($inner); ROLLBACK TO s; COMMIT");
is(jobs(), $before, 'savepoint alone: no job');
nothing_sent('inner', 'savepoint alone');

$node->safe_psql('postgres', q{
	SET ROLE app;
	CREATE TABLE parent (id int PRIMARY KEY);
	CREATE TABLE child (id int REFERENCES parent DEFERRABLE INITIALLY DEFERRED)});
$campaign = create_campaign($node, users => 3, message => 'deferred');
$before = jobs();
my $error = sql_error($node, qq{
	SET ROLE app; BEGIN; SELECT send_campaign($campaign); INSERT INTO child VALUES (1); COMMIT});
is($error->{sqlstate}, '23503', 'the commit fails for a deferred constraint');
is(jobs(), $before, 'failed commit: no job');
nothing_sent('deferred', 'failed commit');

# the same campaign is not spoilt by all this
wait_for_run($node, start_campaign($node, $campaign));
is(sent_with($twilio, 'deferred'), 3, 'committed at last: sent');

# an error that a function catches
$node->safe_psql('postgres', q{
	SET ROLE app;
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
	END $$});
$inner = create_campaign($node, users => 3, message => 'caught');
$outer = create_campaign($node, users => 3, message => 'not caught');
wait_for_run($node, $node->safe_psql('postgres', "SET ROLE app; SELECT send_both($inner, $outer)"));
nothing_sent('caught', 'exception');
is(sent_with($twilio, 'not caught'), 3, 'exception: what comes after it is sent');

# a procedure that commits one campaign and rolls back another
$inner = create_campaign($node, users => 3, message => 'half');
$outer = create_campaign($node, users => 3, message => 'other half');
$node->safe_psql('postgres', qq{
	SET ROLE app;
	DO \$\$ BEGIN
		PERFORM send_campaign($outer); COMMIT;
		PERFORM send_campaign($inner); ROLLBACK;
	END \$\$});
nothing_sent('half', 'rolled back in a DO block');
is(sent_with($twilio, 'other half'), 3, 'committed in a DO block: sent');

$node->stop;
done_testing();
