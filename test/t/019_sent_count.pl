# sentCount: whatever data contains, nothing of it is lost.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../perl";
use Campaign;
use LocalTwilio;
use Session;
use Test::More;

my $twilio = LocalTwilio->start;
my $node = new_cluster('sent_count', $twilio);

# The outcome of a campaign, in words: its state and one of its counts.
sub outcome
{
	my ($campaign, $count) = @_;
	my $run = run_campaign($node, $campaign);
	return "$run->{state} $run->{$count}";
}

# what data is before and after a message was sent
my @cases = (
	[ '{}', '{"sentCount": 1}' ],
	[ '{"sentCount": 0, "openCount": 7}', '{"openCount": 7, "sentCount": 1}' ],
	[ '{"sentCount": 41, "a": {"b": [1, 2]}}', '{"a": {"b": [1, 2]}, "sentCount": 42}' ],
	[ '{"sentCount": "5"}', '{"sentCount": 6}' ],
	[ '{"sentCount": null}', '{"sentCount": 1}' ],
	[ '{"sentCount": -3}', '{"sentCount": -2}' ],
	[ '{"sentCount": "often"}', '{"sentCount": 1}' ],
	[ '{"sentCount": true}', '{"sentCount": 1}' ],
	[ '{"sentCount": [1]}', '{"sentCount": 1}' ],
	[ '{"sentCount": {"n": 1}}', '{"sentCount": 1}' ],
	[ '{"sentCount": 99999999999999999999999}', '{"sentCount": 100000000000000000000000}' ],
	[ '{"sentCount": 2.0}', '{"sentCount": 3.0}' ],
	[ '{"sentCount": 1e400}', '{"sentCount": 1' . '0' x 399 . '1}' ],
	[ '{"sentCount": " 7"}', '{"sentCount": 1}' ],
	[ '{"sentCount": "1e400000"}', '{"sentCount": 1}' ],
	[ '{"sentcount": 3}', '{"sentCount": 1, "sentcount": 3}' ]);

my $campaign = create_campaign($node, users => scalar @cases);
for my $i (0 .. $#cases)
{
	my $id = $i + 1;
	sql($node, "UPDATE ac_list_users SET data = data || '$cases[$i][0]' WHERE id = $id");
}
is(outcome($campaign, 'sent'), 'completed ' . @cases, 'all are sent');
for my $i (0 .. $#cases)
{
	my ($before, $after) = @{ $cases[$i] };
	my $id = $i + 1;
	is(sql($node, "SELECT data - 'sms' FROM ac_list_users WHERE id = $id"),
		$after, "data $before");
}

# data that is no object: there is no phone in it, and it stays as it is
my @odd = ('NULL', "'null'", "'[1, 2]'", q{'"+15550000001"'}, "'42'", "'false'");
$campaign = create_campaign($node, users => scalar @odd);
my $list = list_of($campaign);
my @ids =
  split /\n/, sql($node, "SELECT id FROM ac_list_users WHERE ac_list_id = $list ORDER BY id");
for my $i (0 .. $#odd)
{
	sql($node, "UPDATE ac_list_users SET data = $odd[$i] WHERE id = $ids[$i]");
}
is(outcome($campaign, 'skipped'), 'completed ' . @odd, 'no object, no phone: all are skipped');
for my $i (0 .. $#odd)
{
	is(sql($node, <<~"SQL"), 't', "data $odd[$i] stays");
		SELECT data IS NOT DISTINCT FROM $odd[$i] FROM ac_list_users WHERE id = $ids[$i]
		SQL
}

# the same with the phone in a column: sent, and what is in data is not lost
sql($node, <<~'SQL');
	ALTER TABLE ac_list_users ADD sms text;
	UPDATE ac_list_users SET sms = '+1555' || (9000000 + id);
	SQL
is(outcome($campaign, 'sent'), 'completed ' . @odd,
	'no object, a phone in a column: all are sent');
for my $i (0 .. $#odd)
{
	my $is_null = $i < 2;
	is( sql($node, "SELECT data FROM ac_list_users WHERE id = $ids[$i]"),
		$is_null ? '{"sentCount": 1}' : $odd[$i] =~ s/^'|'$//gr,
		"data $odd[$i] after it was sent");
}
sql($node, 'ALTER TABLE ac_list_users DROP sms');

# Two campaigns to the same list at the same time: both count.
$campaign = create_campaign($node, users => 200);
$list = list_of($campaign);
my $other = sql($node, <<~"SQL", role => 'app');
	INSERT INTO ac_campaigns (ac_list_id, data)
	SELECT ac_list_id, data FROM ac_campaigns WHERE id = $campaign
	RETURNING id
	SQL
my @jobs = map { start_campaign($node, $_) } $campaign, $other;
wait_for_run($node, $_) for @jobs;
is(sql($node, <<~"SQL"), 2, 'two campaigns to one list: both count');
	SELECT DISTINCT data->>'sentCount' FROM ac_list_users WHERE ac_list_id = $list
	SQL

# No lost update: meanwhile the application counts openings in the same rows.
$twilio->set(latency => 5);
sql($node, <<~'SQL', role => 'app');
	CREATE PROCEDURE open_until_told(list integer) LANGUAGE plpgsql AS $$
	DECLARE
		first integer := (SELECT min(id) FROM ac_list_users WHERE ac_list_id = list);
		last integer := (SELECT max(id) FROM ac_list_users WHERE ac_list_id = list);
	BEGIN
		FOR round IN 1 .. 100000 LOOP
			FOR id_of_user IN first .. last LOOP
				UPDATE ac_list_users
				SET data = jsonb_set(data, '{openCount}', to_jsonb(round))
				WHERE id = id_of_user;
				COMMIT;
			END LOOP;
			EXIT WHEN EXISTS (SELECT FROM stop);
		END LOOP;
		UPDATE stop
		SET rounds = (SELECT max((data->>'openCount')::int) FROM ac_list_users
			WHERE ac_list_id = list);
	END $$;

	CREATE TABLE stop (rounds integer);
	SQL
$campaign = create_campaign($node, users => 300);
$list = sql($node, 'SELECT ' . list_of($campaign));
my $application = Session->open($node);
$application->query('SET ROLE app');
$application->start_query("CALL open_until_told($list)");
wait_until($node, <<~"SQL");
	SELECT count(*) = 300 FROM ac_list_users WHERE ac_list_id = $list AND data ? 'openCount'
	SQL
is(outcome($campaign, 'sent'), 'completed 300', 'all are sent beside the updates of others');
sql($node, 'INSERT INTO stop VALUES (NULL)');
$application->finish_query;
is($application->errors, '', 'the application meets no error');
is(sql($node, <<~"SQL"), '1|t|300', 'neither loses an update');
	SELECT data->>'sentCount', (data->>'openCount')::int = rounds, count(*)
	FROM ac_list_users, stop
	WHERE ac_list_id = $list
	GROUP BY 1, 2
	SQL

wait_for_no_worker($node);
$application->close;
$node->stop;
done_testing();
