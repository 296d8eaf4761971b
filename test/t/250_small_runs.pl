# Many small runs at once, ordinary and unusual ones side by side: each recipient
# has the message once, and each run ends as it would by itself.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../perl";
use Campaign;
use LocalTwilio;
use PostgreSQL::Test::Utils;
use Test::More;

my $twilio = LocalTwilio->start(options => [ '--latency', 5 ]);
my $node = new_cluster('small_runs', $twilio, conf => <<~CONF);
	sendcampaign.lookup_delay = '300ms'
	sendcampaign.request_timeout = '60s'
	restart_after_crash = on
	CONF

# The first user of each list has the phone +1666 and the list's id.
create_campaign($node, users => 1);
sql($node, <<~'SQL');
	CREATE FUNCTION small(message text, users int DEFAULT 1, grp int DEFAULT NULL)
	RETURNS int LANGUAGE sql AS $$
		WITH l AS (
			INSERT INTO ac_lists (group_id)
			SELECT coalesce(grp, (SELECT min(id) FROM groups)) RETURNING id
		), u AS (
			INSERT INTO ac_list_users (ac_list_id, data)
			SELECT l.id, jsonb_build_object('name', 'Ann', 'sms',
				'+1666' || lpad(l.id::text, 4, '0') || lpad(i::text, 3, '0'))
			FROM l, generate_series(1, users) i
		)
		INSERT INTO ac_campaigns (ac_list_id, data)
		SELECT id, jsonb_build_object('message', message, 'baseUrl', 'https://example.org')
		FROM l RETURNING id
	$$;
	CREATE TABLE call (campaign int, what text, job bigint);
	GRANT ALL ON call TO app;
	GRANT EXECUTE ON FUNCTION small TO app;
	SQL

# Queues all campaigns of the table "call" that have no job, in one transaction.
sub call_all
{
	sql($node, 'UPDATE call SET job = send_campaign(campaign) WHERE job IS NULL', role => 'app');
}

sub states_of
{
	return sql($node, <<~SQL);
		SELECT what, state, total, sent, failed, skipped, count(*)
		FROM call JOIN sendcampaign.run ON job_id = job
		GROUP BY 1, 2, 3, 4, 5, 6 ORDER BY 1, 2, 3, 4, 5, 6
		SQL
}

sub wait_for_all
{
	wait_until($node, <<~SQL);
		SELECT count(*) = 0 FROM call JOIN sendcampaign.run ON job_id = job
		WHERE state IN ('queued', 'running')
		SQL
}

# What the tables and Twilio have must agree.
my $before = 0;

sub check_all
{
	my ($what, %arg) = @_;
	# companions, too
	wait_until($node, 'SELECT bool_and(finished_at IS NOT NULL) FROM sendcampaign.run');
	is($twilio->num_twice, $arg{twice}, "$what: nobody has a message twice of one run");
	my $sent = sql($node, 'SELECT sum(sent) FROM sendcampaign.run JOIN call ON job = job_id');
	is($sent, $twilio->stats->{accepted} - $before, "$what: what Twilio has accepted is recorded");
	$before += $sent;
	is(sql($node, <<~SQL), $arg{uncounted} // 0, "$what: sentCount is the number of messages");
			SELECT count(*) FROM ac_list_users u
			WHERE coalesce((data->>'sentCount')::int, 0) <> (SELECT count(*)
				FROM sendcampaign.message m WHERE m.list_user_id = u.id AND status = 'sent')
			AND ac_list_id IN (SELECT ac_list_id FROM ac_campaigns JOIN call ON campaign = id)
			SQL
	is( sql($node, <<~SQL), '0|0',
			SELECT (SELECT count(*) FROM sendcampaign.claim),
				(SELECT count(*) FROM sendcampaign.batch b JOIN sendcampaign.run_data r
				 ON r.id = b.run_id WHERE r.state <> 'failed')
			SQL
		"$what: nothing is claimed or left over");
	is(sql($node, <<~SQL), '0', "$what: jobs have the progress of their runs");
			SELECT count(*) FROM ac_background_jobs j JOIN sendcampaign.run r ON r.job_id = j.id
			WHERE r.state = 'completed' AND (j.progress <> 100 OR j.error IS DISTINCT FROM r.error
				OR j.data->>'sent' IS DISTINCT FROM r.sent::text OR j.data->>'state' <> 'completed')
			SQL
}

# Ordinary ones, and one of each kind that is not.
sql($node, <<~'SQL');
	INSERT INTO call SELECT small('Hello ' || n, 1 + n % 3), 'ordinary ' || 1 + n % 3
	FROM generate_series(1, 300) n;
	INSERT INTO call SELECT small('Hello {{name}}'), 'a name' FROM generate_series(1, 20);
	INSERT INTO call SELECT small('Hello {{nick}}'), 'a key without a value'
	FROM generate_series(1, 5);
	INSERT INTO call SELECT small('', 2), 'no message' FROM generate_series(1, 3);
	INSERT INTO call SELECT small('Hello {{'), 'a bad placeholder';
	INSERT INTO call SELECT small('Hello', 0), 'nobody';
	INSERT INTO call SELECT small('Hello', 500), 'many';
	INSERT INTO call SELECT small('Hello', 240), 'as many as fit';
	INSERT INTO call SELECT small('Hello', 3), 'duplicates' FROM generate_series(1, 2);
	UPDATE ac_list_users SET data = data || '{"sms": "+16667770001"}' WHERE ac_list_id =
		(SELECT ac_list_id FROM ac_campaigns WHERE id =
			(SELECT min(campaign) FROM call WHERE what = 'duplicates'));
	UPDATE ac_list_users SET data = data || '{"sms": "666 7770002"}' WHERE ac_list_id =
		(SELECT ac_list_id FROM ac_campaigns WHERE id =
			(SELECT max(campaign) FROM call WHERE what = 'duplicates'));
	INSERT INTO call SELECT small('Hello', 2), 'opted out';
	SELECT sendcampaign.opt_out(
		(SELECT u.data->>'sms' FROM ac_list_users u JOIN ac_campaigns c USING (ac_list_id)
		 WHERE c.id = (SELECT campaign FROM call WHERE what = 'opted out')
		 ORDER BY u.id LIMIT 1));
	INSERT INTO groups (configuration) VALUES ('{}');
	INSERT INTO call SELECT small('Hello', 1, (SELECT max(id) FROM groups)), 'no account'
	FROM generate_series(1, 3);
	INSERT INTO groups (configuration)
	SELECT configuration || '{"twilioSegmentsPerSecond": 1, "twilioFromSmsNumber": "+15551230000"}'
	FROM groups ORDER BY id LIMIT 1;
	INSERT INTO call SELECT small('Hello', 3, (SELECT max(id) FROM groups)), 'a low rate';
	INSERT INTO call SELECT small('Hello', 2), 'same list';
	WITH c AS (
		INSERT INTO ac_campaigns (ac_list_id, data)
		SELECT ac_list_id, data FROM ac_campaigns
		WHERE id = (SELECT campaign FROM call WHERE what = 'same list') RETURNING id)
	INSERT INTO call SELECT id, 'same list' FROM c;
	SQL
call_all();
wait_for_all();
is(states_of(), <<~'EXPECTED' =~ s/\n\z//r, 'each ends as it would by itself');
	a bad placeholder|failed||0|0|0|1
	a key without a value|completed|1|0|0|1|5
	a low rate|completed|3|3|0|0|1
	a name|completed|1|1|0|0|20
	as many as fit|completed|240|240|0|0|1
	duplicates|completed|3|0|0|3|1
	duplicates|completed|3|1|0|2|1
	many|completed|500|500|0|0|1
	no account|failed|1|0|0|0|3
	no message|failed||0|0|0|3
	nobody|completed|0|0|0|0|1
	opted out|completed|2|1|0|1|1
	ordinary 1|completed|1|1|0|0|100
	ordinary 2|completed|2|2|0|0|100
	ordinary 3|completed|3|3|0|0|100
	same list|completed|2|2|0|0|2
	EXPECTED
is(sql($node, <<~'SQL'), '2|2', 'users of two runs at once are counted for both');
		SELECT count(*), min((data->>'sentCount')::int) FROM ac_list_users
		WHERE ac_list_id IN (SELECT ac_list_id FROM ac_campaigns JOIN call ON campaign = id
			WHERE what = 'same list')
		SQL
check_all('all kinds', twice => 2);

# Jobs: one is gone, one cannot be updated, one is locked for a while.
sql($node, <<~'SQL');
	DELETE FROM call;
	INSERT INTO call SELECT small('Hello'), 'ordinary' FROM generate_series(1, 30);
	INSERT INTO call SELECT small('Hello'), 'its job is gone';
	INSERT INTO call SELECT small('Hello'), 'its job stays as it is';
	INSERT INTO call SELECT small('Hello'), 'its user stays as it is';
	CREATE FUNCTION keep() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
		IF OLD.id = TG_ARGV[0]::int THEN RETURN NULL; END IF; RETURN NEW; END $$;
	SQL
$twilio->set(hold => 1);
call_all();
wait_for_flight($twilio, 20);
my ($gone, $kept, $user) = split /\|/, sql($node, <<~'SQL');
	SELECT (SELECT job FROM call WHERE what = 'its job is gone'),
		(SELECT job FROM call WHERE what = 'its job stays as it is'),
		(SELECT u.id FROM call c JOIN ac_campaigns p ON p.id = c.campaign
			JOIN ac_list_users u USING (ac_list_id) WHERE what = 'its user stays as it is')
	SQL
sql($node, <<~SQL);
	DELETE FROM ac_background_jobs WHERE id = $gone;
	CREATE TRIGGER keep BEFORE UPDATE ON ac_background_jobs
		FOR EACH ROW EXECUTE FUNCTION keep($kept);
	CREATE TRIGGER keep BEFORE UPDATE ON ac_list_users
		FOR EACH ROW EXECUTE FUNCTION keep($user);
	SQL
$twilio->set(hold => 0);
wait_for_all();
is(sql($node, <<~'SQL'), <<~'EXPECTED' =~ s/\n\z//r, 'one job does not affect the others');
		SELECT what, state, sent, left(error, 31), count(*)
		FROM call JOIN sendcampaign.run ON job_id = job GROUP BY 1, 2, 3, 4 ORDER BY 1
		SQL
	its job is gone|completed|1||1
	its job stays as it is|failed|1|could not update background job|1
	its user stays as it is|completed|1|sentCount of 1 list user could |1
	ordinary|completed|1||30
	EXPECTED
sql($node, <<~'SQL');
	DROP TRIGGER keep ON ac_background_jobs;
	DROP TRIGGER keep ON ac_list_users;
	SQL

check_all('jobs', twice => 2, uncounted => 1);

# A new column counts from the next run on.
sql($node, <<~'SQL');
	DELETE FROM call;
	ALTER TABLE ac_list_users ADD sent_count int;
	INSERT INTO call SELECT small('Hello'), 'new column' FROM generate_series(1, 10);
	SQL
call_all();
wait_for_all();
is( sql($node, 'SELECT count(*), sum(sent_count) FROM ac_list_users WHERE sent_count IS NOT NULL'),
	'10|10',
	'sentCount is counted in a column that was added');
sql($node, 'ALTER TABLE ac_list_users DROP sent_count');
$before += 10;

# The worker is killed again and again; what is in doubt after that is looked up soon.
set_and_reload($node, 'sendcampaign.request_timeout', '1s');
sql($node, <<~'SQL');
	DELETE FROM call;
	INSERT INTO call SELECT small('Hello', 1 + n % 4), 'killed' FROM generate_series(1, 120) n;
	SQL
call_all();
for my $kill (1 .. 2)
{
	my $accepted = $twilio->stats->{accepted};
	poll_in_company($node, $twilio, sub { $twilio->stats->{accepted} >= $accepted + 40 });
	kill_worker($node);
	sql($node, 'SELECT sendcampaign.wake()');
}
poll_in_company(
	$node, $twilio,
	sub {
		sql($node, <<~SQL) eq 't';
			SELECT count(*) = 0 FROM call JOIN sendcampaign.run ON job_id = job
			WHERE state IN ('queued', 'running')
			SQL
	});
is(sql($node, <<~'SQL'), 'completed|120|300|0', 'all messages are sent in spite of crashes');
		SELECT state, count(*), sum(sent), sum(in_doubt)
		FROM call JOIN sendcampaign.run ON job_id = job GROUP BY 1
		SQL
check_all('killed', twice => 2);
$node->stop;
done_testing();
