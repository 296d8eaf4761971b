# sentCount: whatever data holds, nothing of it is lost.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../perl";
use Campaign;
use LocalTwilio;
use PostgreSQL::Test::Utils;
use Session;
use Test::More;

my $twilio = LocalTwilio->start;
my $node = new_cluster('sent_count', $twilio);
my ($campaign, $run);

# What data is before, and after a message was sent.
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

$campaign = create_campaign($node, users => scalar @cases);
$node->safe_psql('postgres', "UPDATE ac_list_users SET data = data || '$cases[$_][0]' WHERE id = $_ + 1") for 0 .. $#cases;
$run = wait_for_run($node, start_campaign($node, $campaign));
is("$run->{state} $run->{sent}", 'completed ' . @cases, 'all are sent');
is($node->safe_psql('postgres', "SELECT data - 'sms' FROM ac_list_users WHERE id = $_ + 1"), $cases[$_][1], "data $cases[$_][0]")
  for 0 .. $#cases;

# data that is no object: nobody's phone is in it, and it stays as it is
my @odd = ('NULL', "'null'", "'[1, 2]'", q{'"+15550000001"'}, "'42'", "'false'");
$campaign = create_campaign($node, users => scalar @odd);
my @ids = split /\n/, $node->safe_psql('postgres', q{SELECT id FROM ac_list_users ORDER BY id} . ' OFFSET ' . @cases);
$node->safe_psql('postgres', "UPDATE ac_list_users SET data = $odd[$_] WHERE id = $ids[$_]") for 0 .. $#odd;
$run = wait_for_run($node, start_campaign($node, $campaign));
is("$run->{state} $run->{skipped}", 'completed ' . @odd, 'no object, no phone: skipped');
is($node->safe_psql('postgres', "SELECT data IS NOT DISTINCT FROM $odd[$_] FROM ac_list_users WHERE id = $ids[$_]"), 't', "data $odd[$_] stays")
  for 0 .. $#odd;

# the same with the phone in a column: sent, and what is there is not lost
$node->safe_psql('postgres', "ALTER TABLE ac_list_users ADD sms text; UPDATE ac_list_users SET sms = '+1555' || (9000000 + id)");
$run = wait_for_run($node, start_campaign($node, $campaign));
is("$run->{state} $run->{sent}", 'completed ' . @odd, 'no object, a phone in a column: sent');
is($node->safe_psql('postgres', "SELECT data FROM ac_list_users WHERE id = $ids[$_]"),
	$_ < 2 ? '{"sentCount": 1}' : $odd[$_] =~ s/^'|'$//gr, "data $odd[$_] after it")
  for 0 .. $#odd;
$node->safe_psql('postgres', 'ALTER TABLE ac_list_users DROP sms');

# Two campaigns to the same list at the same time: both count.
$campaign = create_campaign($node, users => 200);
my $other = $node->safe_psql('postgres', qq{SET ROLE app; INSERT INTO ac_campaigns (ac_list_id, data)
	SELECT ac_list_id, data FROM ac_campaigns WHERE id = $campaign RETURNING id});
wait_for_run($node, $_) for map { start_campaign($node, $_) } $campaign, $other;
is($node->safe_psql('postgres', qq{SELECT DISTINCT data->>'sentCount' FROM ac_list_users
	WHERE ac_list_id = (SELECT ac_list_id FROM ac_campaigns WHERE id = $campaign)}), 2, 'two campaigns to one list: both count');

# No lost update: the application counts openings in the same rows meanwhile.
$twilio->set(latency => 5);
$node->safe_psql('postgres', q{
	SET ROLE app;
	CREATE PROCEDURE open_until_told(list integer) LANGUAGE plpgsql AS $$
	BEGIN
		FOR round IN 1 .. 100000 LOOP
			FOR id_of_user IN (SELECT min(id) FROM ac_list_users WHERE ac_list_id = list) .. (SELECT max(id) FROM ac_list_users WHERE ac_list_id = list) LOOP
				UPDATE ac_list_users SET data = jsonb_set(data, '{openCount}', to_jsonb(round)) WHERE id = id_of_user;
				COMMIT;
			END LOOP;
			EXIT WHEN EXISTS (SELECT FROM stop);
		END LOOP;
		UPDATE stop SET rounds = (SELECT max((data->>'openCount')::int) FROM ac_list_users WHERE ac_list_id = list);
	END $$;
	CREATE TABLE stop (rounds integer)});
$campaign = create_campaign($node, users => 300);
my $list = $node->safe_psql('postgres', "SELECT ac_list_id FROM ac_campaigns WHERE id = $campaign");
my $application = Session->open($node);
$application->query('SET ROLE app');
$application->start_query("CALL open_until_told($list)");
$node->poll_query_until('postgres', "SELECT count(*) = 300 FROM ac_list_users WHERE ac_list_id = $list AND data ? 'openCount'");
$run = wait_for_run($node, start_campaign($node, $campaign));
is("$run->{state} $run->{sent}", 'completed 300', 'beside the updates of others: sent');
$node->safe_psql('postgres', 'INSERT INTO stop VALUES (NULL)');
$application->finish_query;
is($application->errors, '', 'the application meets no error');
is($node->safe_psql('postgres', qq{SELECT data->>'sentCount', (data->>'openCount')::int = rounds, count(*)
	FROM ac_list_users, stop WHERE ac_list_id = $list GROUP BY 1, 2}),
	'1|t|300', 'neither loses an update');

wait_for_no_worker($node);
$application->close;
$node->stop;
done_testing();
