# The owner of a database, who is no superuser, dumps it and restores it.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../perl";
use Campaign;
use LocalTwilio;
use PostgreSQL::Test::Utils;
use Test::More;

my $twilio = LocalTwilio->start;
my $node = new_cluster('owner', $twilio, no_extension => 1);
sql($node, <<~SQL);
	CREATE ROLE app LOGIN;
	CREATE DATABASE one OWNER app;
	CREATE DATABASE two OWNER app;
	SQL
install_extension($node, 'one');
my $campaign = create_campaign($node, db => 'one', users => 20);
my $run = run_campaign($node, $campaign, db => 'one');
my $job = $run->{job};
is($run->{sent}, 20, 'a campaign is sent');
$twilio->set(hold => 1);
my $second = start_campaign($node, create_campaign($node, db => 'one', users => 20), db => 'one');
wait_for_flight($twilio, 20);
sql($node, "SELECT sendcampaign.opt_out('+15550000001', 1)", db => 'one', role => 'app');

my $dump = PostgreSQL::Test::Utils::tempdir() . '/dump';
$node->command_ok([ 'pg_dump', '-U', 'app', '-Fc', '-f', $dump, 'one' ],
	'the owner dumps the database');
$twilio->set(hold => 0);
wait_for_run($node, $second, db => 'one');
my $accepted = $twilio->stats->{accepted};

# The extension is a superuser's to create.
sql($node, <<~SQL, db => 'two');
	CREATE EXTENSION sendcampaign;
	GRANT USAGE ON SCHEMA sendcampaign TO app;
	GRANT EXECUTE ON ALL ROUTINES IN SCHEMA sendcampaign TO app;
	GRANT EXECUTE ON FUNCTION send_campaign TO app;
	SQL
my $list = PostgreSQL::Test::Utils::tempdir() . '/list';
my ($contents) = run_command([ 'pg_restore', '-l', $dump ]);
my @entries = grep { !/ (EXTENSION|COMMENT) - | ACL / } split /\n/, $contents;
append_to_file($list, join "\n", @entries);
$node->command_ok(
	[ 'pg_restore', '-U', 'app', '--exit-on-error', '-L', $list, '-d', 'two', $dump ],
	'... and restores it');
is(sql($node, 'SELECT count(*) FROM sendcampaign.message', db => 'two'),
	20, 'the messages are there');
is(sql($node, 'SELECT count(*) FROM sendcampaign.opt_out', db => 'two'),
	1, 'the opt-outs are there');
is(start_campaign($node, $campaign, db => 'two', job => $job), $job, 'what was sent is known');
sql($node, 'SELECT sendcampaign.wake()', db => 'two');
$run = wait_for_run($node, $second, db => 'two', state => 'paused');
is($run->{state}, 'paused', 'what was not sent waits for a person');
wait_for_no_worker($node);
is($twilio->stats->{accepted}, $accepted, 'nothing was sent');

# Loading rows does not make runs: another role's credentials are not its to use.
sql($node, <<~SQL, db => 'one');
	CREATE ROLE victim LOGIN;
	GRANT SELECT, INSERT, UPDATE ON ALL TABLES IN SCHEMA public TO victim;
	SQL
my $other = create_campaign($node, db => 'one', users => 5);
sql($node, <<~SQL, db => 'one', role => 'app');
	INSERT INTO sendcampaign.run_data (
	    id, schema, job_id, campaign_id, role, role_oid,
	    database, timeline, system_identifier)
	SELECT 4711, 'public', 4711, $other, 'victim', 'victim'::regrole,
	    d.oid, r.timeline, r.system_identifier
	FROM sendcampaign.run_data r, pg_database d
	WHERE d.datname = 'one' AND r.job_id = $job
	SQL
sql($node, 'SELECT sendcampaign.wake()', db => 'one');
$run = wait_for_run($node, 4711, db => 'one', state => 'paused');
is($run->{state}, 'paused', 'a run that was loaded is paused');
wait_for_no_worker($node);
is($twilio->stats->{accepted}, $accepted, '... and sends nothing');
my $writable = sql($node, <<~SQL, db => 'one');
	SELECT count(*)
	FROM pg_class
	WHERE relnamespace = 'sendcampaign'::regnamespace AND relkind = 'r'
	    AND has_table_privilege('app', oid, 'UPDATE, DELETE, TRUNCATE, TRIGGER')
	SQL
is($writable, 0, 'the owner of the database changes nothing');
$node->stop;
done_testing();
