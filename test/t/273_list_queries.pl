# A list may have a query that selects users of another list, where a superuser
# allows that.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../perl";
use Campaign;
use LocalTwilio;
use PostgreSQL::Test::Utils;
use Test::More;

my $twilio = LocalTwilio->start;
my $node = new_cluster('list_queries', $twilio, conf => <<~'CONF');
	sendcampaign.receipts = off
	max_worker_processes = 16
	CONF
sql($node, <<~'SQL');
	CREATE ROLE other LOGIN;
	CREATE SCHEMA app AUTHORIZATION app;
	GRANT USAGE ON SCHEMA app TO other;
	SQL
my $campaign = create_campaign($node, users => 10, message => 'base');
my $list = sql($node, 'SELECT ' . list_of($campaign));
my $elsewhere = create_campaign($node, users => 1, message => 'elsewhere');
my $foreign = sql($node, 'SELECT ' . list_of($elsewhere));
my $user = sql($node, "SELECT min(id) FROM ac_list_users WHERE ac_list_id = $list");
my $query = "SELECT id FROM public.ac_list_users WHERE ac_list_id = $list AND id < $user + 4";

sub text_of { return join '|', @{ shift() }{qw(sqlstate message detail hint)} }

my $selected = sql($node, <<~"SQL");
	INSERT INTO ac_lists (group_id, data)
	SELECT group_id, jsonb_build_object('query', '$query', 'listId', $list)
	FROM ac_lists WHERE id = $list RETURNING id
	SQL
my $segment = sql($node, <<~"SQL");
	INSERT INTO ac_campaigns (ac_list_id, data)
	SELECT $selected, data FROM ac_campaigns WHERE id = $campaign RETURNING id
	SQL

# Where it is not allowed, nobody gets it, and no query runs.
my $run = run_campaign($node, $segment);
like(
	"$run->{total} $run->{error}",
	qr/^0 nothing was sent: list $selected has no users/,
	'off: the list has no users');
like(
	text_of(sql_error(
		$node,
		'SELECT sendcampaign.version(); SET sendcampaign.list_queries = on',
		user => 'app')),
	qr/^42501\|permission denied/,
	'only a superuser may allow it');
my ($value) = sql_output($node, <<~'SQL', user => 'app');
	SET sendcampaign.list_queries = on;
	SELECT sendcampaign.version();
	SHOW sendcampaign.list_queries;
	SQL
like($value, qr/^off$/m, 'nor may others before the library is loaded');

# It is allowed.
sql($node, 'ALTER DATABASE postgres SET sendcampaign.list_queries = on');
is( sql($node,
		"SELECT count(*), min(list_user_id) FROM sendcampaign.preview($segment)",
		role => 'app'),
	"4|$user",
	'preview()');
is(sql($node, "SELECT messages FROM sendcampaign.estimate($segment)", role => 'app'),
	4, 'estimate()');
$run = run_campaign($node, $segment);
is("$run->{state} $run->{total} $run->{sent}", 'completed 4 4', 'it is sent');
is(sql($node, "SELECT recipients, list_id FROM sendcampaign.run WHERE job_id = $run->{job}"),
	"$query|$list", 'to users of the list that it names');
$run = run_campaign($node, $segment, recipients => "SELECT $user + 9");
is("$run->{total} $run->{sent}", '1 1', 'a query of the call takes precedence');
my $test = sql($node, "SELECT sendcampaign.send_test($segment, '+15559990000')", role => 'app');
is(wait_for_run($node, $test)->{sent}, 1, 'send_test()');
$run = run_campaign($node, $campaign);
is("$run->{total} $run->{sent}", '10 10', 'a list without a query goes to all of its users');

# What is wrong with it is said by the call.
my %wrong = (
	'no list' => [
		q(data - 'listId'),
		"55000|list $selected has a query, but does not say of which"
		  . ' list||Write the id of the list whose users the query selects into "data", as the value of'
		  . ' the key "listId".'
	],
	'not a list' => [ q(data || '{"listId": "x"}'), qr/^55000\|list $selected has a query, but/ ],
	'itself' =>
	  [ qq(data || '{"listId": $selected}'), qr/^55000\|list $selected has a query, but/ ],
	'another group' => [
		qq(data || '{"listId": $foreign}'),
		"55000|the query of list $selected selects"
		  . " users of list $foreign, which is of another group||Use a list of the same group."
	],
	'no query' =>
	  [ q(data || '{"query": "DELETE FROM x"}'), qr/^22023\|recipients must be one SELECT/ ],
	'no right' => [
		q(data || '{"query": "SELECT 1 FROM pg_catalog.pg_authid"}'),
		qr/^42501\|could not select the recipients: permission denied for table pg_authid/
	]);

sub error_with
{
	my ($data, $call) = @_;
	return text_of(sql_error($node, <<~"SQL"));
		BEGIN;
		UPDATE ac_lists SET data = $data WHERE id = $selected;
		SET ROLE app;
		SELECT $call;
		ROLLBACK;
		SQL
}
for my $name (sort keys %wrong)
{
	my ($data, $error) = @{ $wrong{$name} };
	my $got = error_with($data, "send_campaign($segment)");
	ref $error
	  ? like($got, $error, "$name: send_campaign()")
	  : is($got, $error, "$name: send_campaign()");
}
sql($node, 'ALTER TABLE ac_lists ADD deleted boolean NOT NULL DEFAULT false');
is( text_of(sql_error(
		$node,
		"BEGIN; UPDATE ac_lists SET deleted = true WHERE id = $selected;"
		  . " SELECT * FROM sendcampaign.preview($segment)")),
	"55000|list $selected, which has a query, is deleted|The application has marked it as deleted.|Remove"
	  . ' that mark if the campaign is to be sent.',
	'a deleted list');

# A function that others may call: they cannot allow it.
sql($node, 'ALTER DATABASE postgres RESET sendcampaign.list_queries');
sql($node, <<~"SQL", role => 'app');
	SELECT sendcampaign.version();
	CREATE FUNCTION app.send() RETURNS bigint LANGUAGE sql SECURITY DEFINER
	SET sendcampaign.schema = 'public' RETURN public.send_campaign($segment);
	SQL
my $job = sql($node, 'SELECT app.send()', role => 'other');
is(wait_for_run($node, $job)->{total}, 0, 'off: nor is it read for a SECURITY DEFINER function');

# A superuser's tables
sql($node, <<~"SQL");
	CREATE SCHEMA boss;
	SELECT sendcampaign.create_tables('boss');
	INSERT INTO boss.groups (configuration) SELECT configuration FROM groups LIMIT 1;
	INSERT INTO boss.ac_lists (group_id, data)
	VALUES (1, '{"listId": 2, "query": "SELECT 1"}'), (1, '{}');
	INSERT INTO boss.ac_list_users (ac_list_id, data) VALUES (2, '{"sms": "+15550001"}');
	INSERT INTO boss.ac_campaigns (ac_list_id, data) VALUES (1, '{"message": "Hi"}');
	SQL
is( text_of(sql_error(
		$node,
		q(SET sendcampaign.list_queries = on; SET sendcampaign.schema = 'boss';)
		  . ' SELECT send_campaign(1)')),
	'42501|the query of list 1 cannot run with the rights of a superuser||Make another role the owner of'
	  . ' the application\'s tables, or pass the query to send_campaign().',
	'no query of a list runs as a superuser');
is(worker_errors($node), '', 'there are no errors in the log');
$node->stop;
done_testing();
