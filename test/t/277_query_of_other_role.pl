# A query that selects recipients never runs with the rights of a role that has not
# passed it, a call without a query keeps the one that there is, and its time limit
# is that of all queries in it.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../perl";
use Campaign;
use LocalTwilio;
use Test::More;

my $twilio = LocalTwilio->start;
my $node = new_cluster('query_of_other_role', $twilio, conf => <<~'CONF');
	sendcampaign.receipts = off
	max_worker_processes = 16
	CONF
sql($node, <<~'SQL');
	CREATE ROLE clerk LOGIN;
	CREATE ROLE manager LOGIN IN ROLE clerk;
	GRANT USAGE ON SCHEMA sendcampaign TO clerk, manager;
	CREATE SCHEMA clerk AUTHORIZATION clerk;
	GRANT USAGE ON SCHEMA clerk TO PUBLIC;
	GRANT SELECT ON groups, ac_lists, ac_campaigns, ac_list_users, ac_background_jobs TO clerk;
	GRANT UPDATE ON ac_list_users, ac_background_jobs TO clerk;
	GRANT INSERT ON ac_background_jobs TO clerk;
	GRANT USAGE ON SEQUENCE ac_background_jobs_id_seq TO clerk;
	SET ROLE clerk;
	CREATE FUNCTION clerk.whose() RETURNS bigint LANGUAGE plpgsql
	AS $$BEGIN RAISE 'run as %', current_user; END$$;
	SQL

# A run of clerk's that has failed in its query, and its campaign
sub failed_run
{
	my $campaign = create_campaign($node, users => 3);
	my $job =
	  start_campaign($node, $campaign, role => 'clerk', recipients => 'SELECT clerk.whose()');
	is( wait_for_run($node, $job)->{error},
		'could not select the recipients: run as clerk',
		'the query fails as clerk');
	return ($campaign, $job);
}

for my $who ('manager', 'a superuser')
{
	my ($campaign, $job) = failed_run();
	my %arg = $who eq 'manager' ? (role => $who) : ();
	my $role = $who eq 'manager' ? $who : 'app';
	my $error = sql_error($node, "SELECT send_campaign($campaign, $job)", %arg);
	is( "$error->{sqlstate} $error->{message}",
		qq(42501 the query that selects the recipients of job $job is of role "clerk"),
		"$who does not run it unseen");
	is($error->{detail}, qq(It would run with the rights of role "$role".), '... and why');
	is( $error->{hint},
		'Look at "recipients" in sendcampaign.run, and pass the query.',
		'... and what to do');
	is( run_row($node, $job)->{error},
		'could not select the recipients: run as clerk',
		'nothing has changed');
	my $users =
	  "SELECT u.id FROM public.ac_list_users u WHERE u.ac_list_id = " . list_id($campaign);
	sql($node, "SELECT send_campaign($campaign, $job, '$users')", %arg);
	my $run = wait_for_run($node, $job);
	is("$run->{state} $run->{sent}", 'completed 3', 'passed by the one who calls, it runs');
}

sub list_id { return sql($node, 'SELECT ' . list_of(shift)) }

# A list's own query does not take the place of one that was passed.
sql($node, 'CREATE TABLE divisor AS SELECT 0 AS d; GRANT SELECT ON divisor TO PUBLIC');
my $base = create_campaign($node, users => 10);
my $list = list_id($base);
my $user = sql($node, "SELECT min(id) FROM ac_list_users WHERE ac_list_id = $list");
my $selecting = sql($node, <<~"SQL", role => 'app');
	INSERT INTO ac_lists (group_id, data)
	SELECT group_id, jsonb_build_object('listId', id, 'query',
	    'SELECT u.id FROM public.ac_list_users u WHERE u.ac_list_id = $list')
	FROM ac_lists WHERE id = $list
	RETURNING id
	SQL
set_and_reload($node, 'sendcampaign.list_queries', 'on');
my $campaign = sql($node, <<~"SQL", role => 'app');
	INSERT INTO ac_campaigns (ac_list_id, data) SELECT $selecting, data
	FROM ac_campaigns WHERE id = $base
	RETURNING id
	SQL
my $job = start_campaign($node, $campaign,
	recipients => "SELECT $user FROM public.divisor WHERE 1 / d = 1");
like(wait_for_run($node, $job)->{error}, qr/division by zero/, 'a query that was passed fails');
sql($node, 'UPDATE divisor SET d = 1');
start_campaign($node, $campaign, job => $job);
is(wait_for_run($node, $job)->{sent}, 1, 'called without one, it is that query that runs');

# A query within a query does not end the limit of the outer one.
sql($node, <<~"SQL", role => 'clerk');
	CREATE FUNCTION clerk.inner_query() RETURNS bigint LANGUAGE plpgsql
	AS \$\$BEGIN
	    PERFORM sendcampaign.estimate($base, recipients => 'SELECT $user');
	    PERFORM pg_sleep(180);
	    RETURN $user;
	END\$\$
	SQL
my $error = sql_error($node, <<~"SQL", role => 'app');
	SET sendcampaign.query_timeout = '1s';
	SET statement_timeout = '150s';
	SELECT sendcampaign.estimate($base, recipients => 'SELECT clerk.inner_query()')
	SQL
is( $error->{message},
	'the query that selects the recipients took longer than 1 s',
	'a query in a query leaves the limit as it is');

# An error of the query's own, whatever its code, is the run's.
sql($node, <<~'SQL', role => 'clerk');
	CREATE FUNCTION clerk.fail(code text) RETURNS bigint LANGUAGE plpgsql
	AS $$BEGIN RAISE 'as if' USING ERRCODE = code; END$$
	SQL
for my $code ('40001', '53400', '22012')
{
	my $run =
	  run_campaign($node, $base, recipients => "SELECT clerk.fail(''$code'')" =~ s/''/'/gr);
	is( "$run->{state} $run->{error}",
		'failed could not select the recipients: as if',
		"$code fails the run");
}
$node->stop;
done_testing();
