# Two hundred clicks at once lose none, beside a worker that counts messages and
# an application that changes other keys: in tables as Sequelize makes them.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../perl";
use Campaign;
use LocalTwilio;
use PostgreSQL::Test::Utils;
use Test::More;

my $users = 40;
my $sessions = 20;
my $rounds = 10;    # clicks of a session
my $twilio = LocalTwilio->start;
my $node =
  new_cluster('clicks', $twilio, conf => "sendcampaign.receipts = off\nmax_connections = 60");

# As models with "underscored: true" make them
sql($node, <<~'SQL', role => 'app');
	DROP TABLE ac_list_users;
	CREATE TABLE ac_list_users (
		id SERIAL PRIMARY KEY, user_id INTEGER, ac_list_id INTEGER,
		data JSONB, deleted BOOLEAN DEFAULT false,
		created_at TIMESTAMP WITH TIME ZONE NOT NULL DEFAULT now(),
		updated_at TIMESTAMP WITH TIME ZONE NOT NULL DEFAULT now());
	SQL
my $campaign = create_campaign($node, users => $users);
my $ids = "(SELECT array_agg(id ORDER BY id) FROM ac_list_users WHERE ac_list_id = "
  . list_of($campaign) . ')';
my $jobs = join ', ', map { run_campaign($node, $campaign)->{job} } 1 .. 2;

# A script for pgbench: each session clicks on links of all, open and complete
my $script = PostgreSQL::Test::Utils::tempdir() . '/clicks';
append_to_file($script, <<~"SQL");
	\\set n random(1, $users)
	\\set what random(1, 2)
	SELECT sendcampaign.track((SELECT min(id) FROM ac_list_users WHERE ac_list_id = @{[ list_of($campaign) ]}) + :n - 1,
		$campaign, (ARRAY['open', 'complete'])[:what]);
	UPDATE ac_list_users SET data = jsonb_set(data, '{seen}', to_jsonb(coalesce((data->>'seen')::integer, 0) + 1))
	WHERE id = (SELECT min(id) FROM ac_list_users WHERE ac_list_id = @{[ list_of($campaign) ]}) + :n - 1;
	SQL

sub click
{
	my $name = shift;
	$node->command_ok(
		[
			'pgbench', '-n', '-U', 'app', '-c', $sessions,
			'-j', 2, '-t', $rounds, '-f', $script,
			'postgres'
		],
		"$name: @{[ $sessions * $rounds ]} clicks");
}
click('after the run');

# The same while another run of the campaign is being sent
my $third = start_campaign($node, $campaign);
click('beside a run');
wait_for_run($node, $third);
is( sql($node, "SELECT sum((data->>'seen')::integer) FROM ac_list_users"),
	2 * $sessions * $rounds,
	'no change of the application is lost');
is( sql($node,
		"SELECT bool_and((data->>'sentCount')::integer = 3) FROM ac_list_users WHERE ac_list_id = "
		  . list_of($campaign)),
	't',
	'nor a message');
my $lost = sql($node, <<~'SQL');
	SELECT count(*) FROM ac_list_users u
	WHERE coalesce((u.data->>'openCount')::integer, 0)
		<> (SELECT count(*) FROM sendcampaign.event e WHERE e.list_user_id = u.id AND e.event = 'open')
	OR coalesce((u.data->>'completeCount')::integer, 0)
		<> (SELECT count(*) FROM sendcampaign.event e WHERE e.list_user_id = u.id AND e.event = 'complete')
	SQL
is($lost, 0, 'nor a click: the counts are the events');
cmp_ok(sql($node, "SELECT count(*) FROM sendcampaign.event WHERE event = 'open'"),
	'>', $users / 2, 'there are many');

# 200 sessions at once, of one recipient each, who waits for all the others
my $each = create_campaign($node, users => 1, phone => '+15559990001');
my $reader = sql($node, 'SELECT id FROM ac_list_users WHERE ac_list_id = ' . list_of($each));
run_campaign($node, $each);
my $one = PostgreSQL::Test::Utils::tempdir() . '/one';
append_to_file($one, <<~"SQL");
	\\set n random(1, 1000000000)
	SELECT sendcampaign.track($reader, $each, 'open');
	SELECT sendcampaign.track($reader, $each, 'e' || :client_id);
	SQL
$node->command_ok(
	[ 'pgbench', '-n', '-U', 'app', '-c', 40, '-j', 2, '-t', 5, '-f', $one, 'postgres' ],
	'200 clicks on one link');
is(sql($node, "SELECT data->>'openCount' FROM ac_list_users WHERE id = $reader"), 1, 'count once');
is(sql($node, "SELECT count(*) FROM sendcampaign.event WHERE list_user_id = $reader"),
	41, 'and events of their own, each once');
unlike(log_of($node), qr/deadlock detected/, 'there is no deadlock');
$node->stop;
done_testing();
