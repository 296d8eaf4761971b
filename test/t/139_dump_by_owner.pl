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
$node->safe_psql('postgres', 'CREATE ROLE app LOGIN; CREATE DATABASE one OWNER app; CREATE DATABASE two OWNER app');
install_extension($node, 'one');
my $campaign = create_campaign($node, db => 'one', users => 20);
my $job = start_campaign($node, $campaign, db => 'one');
is(wait_for_run($node, $job, db => 'one')->{sent}, 20, 'sent');
$twilio->set(hold => 1);
my $second = start_campaign($node, create_campaign($node, db => 'one', users => 20), db => 'one');
wait_for_flight($twilio, 20);
$node->safe_psql('one', "SET ROLE app; SELECT sendcampaign.opt_out('+15550000001', 1)");

my $dump = PostgreSQL::Test::Utils::tempdir() . '/dump';
$node->command_ok([ 'pg_dump', '-U', 'app', '-Fc', '-f', $dump, 'one' ], 'the owner dumps the database');
$twilio->set(hold => 0);
wait_for_run($node, $second, db => 'one');
my $accepted = $twilio->stats->{accepted};

# the extension is a superuser's to create
$node->safe_psql('two', 'CREATE EXTENSION sendcampaign; GRANT USAGE ON SCHEMA sendcampaign TO app;
	GRANT EXECUTE ON ALL ROUTINES IN SCHEMA sendcampaign TO app; GRANT EXECUTE ON FUNCTION send_campaign TO app');
my $list = PostgreSQL::Test::Utils::tempdir() . '/list';
my ($toc) = run_command([ 'pg_restore', '-l', $dump ]);
append_to_file($list, join "\n", grep { !/ (EXTENSION|COMMENT) - / && !/ ACL / } split /\n/, $toc);
$node->command_ok([ 'pg_restore', '-U', 'app', '--exit-on-error', '-L', $list, '-d', 'two', $dump ], 'and restores it');
is($node->safe_psql('two', 'SELECT count(*) FROM sendcampaign.message'), 20, 'messages are there');
is($node->safe_psql('two', 'SELECT count(*) FROM sendcampaign.opt_out'), 1, 'opt-outs are there');
like($node->safe_psql('two', "SET ROLE app; SELECT send_campaign($campaign, $job)", on_error_stop => 1), qr/^$job$/, 'what was sent is known');
$node->safe_psql('two', 'SELECT sendcampaign.wake()');
is(wait_for_run($node, $second, db => 'two', state => 'paused')->{state}, 'paused', 'what was not waits for a person');
wait_for_no_worker($node);
is($twilio->stats->{accepted}, $accepted, 'nothing was sent');

# loading rows does not make runs: another role's credentials are not its to use
$node->safe_psql('one', q{CREATE ROLE victim LOGIN; GRANT SELECT, INSERT, UPDATE ON ALL TABLES IN SCHEMA public TO victim});
my $other = create_campaign($node, db => 'one', users => 5);
$node->safe_psql('one', qq{SET ROLE app;
	INSERT INTO sendcampaign.run_data (id, schema, job_id, campaign_id, role, role_oid, database, timeline, system_identifier)
		SELECT 4711, 'public', 4711, $other, 'victim', 'victim'::regrole, d.oid, r.timeline, r.system_identifier
		FROM sendcampaign.run_data r, pg_database d WHERE d.datname = 'one' AND r.job_id = $job});
$node->safe_psql('one', 'SELECT sendcampaign.wake()');
is(wait_for_run($node, 4711, db => 'one', state => 'paused')->{state}, 'paused', 'a run that was loaded is paused');
wait_for_no_worker($node);
is($twilio->stats->{accepted}, $accepted, 'and sends nothing');
is($node->safe_psql('one', "SELECT count(*) FROM pg_class WHERE relnamespace = 'sendcampaign'::regnamespace AND has_table_privilege('app', oid, 'UPDATE, DELETE, TRUNCATE, TRIGGER') AND relkind = 'r'"),
	0, 'the owner of the database changes nothing');
$node->stop;
done_testing();
