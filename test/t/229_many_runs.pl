# An account has many runs, as where each message is a run of its own: what a
# sweep or a callback looks at does not grow with their number.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../perl";
use Campaign;
use LocalTwilio;
use Sweeps;
use Test::More;
use Webhook;

my $runs = 10000;
my $twilio = LocalTwilio->start;
my $node =
  new_cluster('many_runs', $twilio, conf => "autovacuum = off\nlog_min_messages = debug1");
create_webhook_role($node);
$twilio->set('sent-after' => 0, 'deliver-after' => 0);
my $campaign = create_campaign($node, users => 2);
configure($node, $campaign, qq(configuration || '{"twilioStatusCallback": "$URL"}'));
my $run = run_campaign($node, $campaign);
wait_for_no_worker($node);

# What has been read of the table of runs
sub rows_read
{
	return sql($node, <<~'SQL');
		SELECT pg_stat_clear_snapshot();
		SELECT seq_tup_read + idx_tup_fetch FROM pg_stat_all_tables
		WHERE relid = 'sendcampaign.run_data'::regclass
		SQL
}

# Copies of the run, of which it is known what became of their messages
sql($node, <<~"SQL");
	INSERT INTO sendcampaign.run_data (id, schema, job_id, campaign_id, role, role_oid, state,
		total, sent, delivered, started_at, finished_at, account, group_id, list_id, list_users,
		database, sweep_at)
	SELECT -n, schema, -n, -n, role, role_oid, state, 1, 1, 1, started_at, finished_at, account,
		group_id, list_id, list_users, database, now()
	FROM sendcampaign.run_data, generate_series(1, $runs) n
	WHERE job_id = $run->{job};
	INSERT INTO sendcampaign.message_data (run_id, list_user_id, phone, status, sid)
	SELECT -n, 1, '+1666' || n, 'sent', 'SM' || md5(n::text)
	FROM generate_series(1, $runs) n
	SQL

my $before = rows_read();
my $sid = sql($node, 'SELECT sid FROM sendcampaign.message_data WHERE run_id = -77');
my $callback = signed_form({
	MessageSid => $sid,
	MessageStatus => 'delivered',
	AccountSid => $LocalTwilio::ACCOUNT,
	From => $LocalTwilio::SENDER,
	To => '+166677'
});
is(receive($node, $callback), 'receipt', 'a callback is taken');
cmp_ok(rows_read() - $before, '<', 100, '... and only the run of its message is looked at');
$before = rows_read();
is(receive($node, inbound_form("SM$run->{job}", '+166678', 'Hello')), 'reply', 'a reply is taken');
cmp_ok(rows_read() - $before, '<', 500, '... and few runs are looked at');

$before = rows_read();
sql($node, 'SELECT sendcampaign.wake()');
ok(no_worker_is_to_come($node), 'a worker has come and gone');    # a look at the runs reads them
my $per_run = (rows_read() - $before) / $runs;
is(sql($node, <<~'SQL'), 0, 'all are swept');
	SELECT count(*) FROM sendcampaign.run_data WHERE sweep_at <= now()
	SQL
cmp_ok($per_run, '<', 100, 'for which no run is looked at for each other one');

is(worker_errors($node), '', 'workers have no errors');
$node->stop;
done_testing();
