# What script/bench measures with fits the extension's own tables.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../perl";
use Campaign;
use LocalTwilio;
use PostgreSQL::Test::Utils;
use Test::More;

my $bench = "$FindBin::RealBin/../../bench";
my $twilio = LocalTwilio->start;
my $node = new_cluster('bench', $twilio, no_extension => 1, conf => <<~CONF);
	track_commit_timestamp = on
	bench.account = '$LocalTwilio::ACCOUNT'
	bench.token = '$LocalTwilio::TOKEN'
	bench.ticks_per_s = '100'
	CONF
sql($node, slurp_file("$bench/$_.sql")) for qw(schema process);

my $campaign = sql($node, 'SELECT bench.create_campaign(50)');
sql($node, "CALL bench.send('send', $campaign)");
is(sql($node, <<~'SQL'), 'send|50|t|t|t|t|t', 'a run is measured');
	SELECT what, total, run_s > 0, messages_per_s > 0, commit_to_completed_s > 0,
	    cpu_s >= 0, wal_bytes > 0
	FROM bench.run
	SQL
my $list = sql($node, "SELECT ac_list_id FROM ac_campaigns WHERE id = $campaign");
my ($ok, $output, $errors) = $node->psql(
	'postgres',
	slurp_file("$bench/floor_sql.sql"),
	extra_params => [ '-v', "list=$list" ]);
is($errors, '', 'bare SQL has no errors');
like($output, qr/^50 \S+ \S+$/m, 'and records as many messages');
is(sql($node, <<~'SQL'), 1, 'in a table like the one that the extension records in');
	SELECT count(*)
	FROM pg_index
	WHERE indrelid = 'floor_message'::regclass AND indisprimary
	SQL

sql($node, <<~'SQL');
	CALL bench.wait_for_runs();
	CALL bench.send_all('at once', ARRAY[bench.create_campaign(20), bench.create_campaign(30)]);
	SQL
is(sql($node, <<~'SQL'), '2|50|1|t', 'several runs at once are measured as one');
	SELECT count(*), sum(total), count(cpu_s), sum(cpu_s) >= 0
	FROM bench.run WHERE what = 'at once'
	SQL

my $first = sql($node, 'SELECT bench.create_small(3)');
sql($node, "CALL bench.send_in_a_row('in a row', ARRAY[$first, $first + 1, $first + 2])");
is(sql($node, <<~'SQL'), '3|3|3|1|t', 'and runs of one recipient, each after the one before');
	SELECT count(*), sum(total), count(DISTINCT phone), count(cpu_s),
	    bool_and(started_at >= finished_before)
	FROM (SELECT *, coalesce(lag(finished_at) OVER (ORDER BY job_id), queued_at) AS finished_before
	      FROM bench.run WHERE what = 'in a row') r
	JOIN sendcampaign.message USING (job_id)
	SQL
sql($node, 'CALL bench.wait_for_runs()');

# As in bench/small.sh, where the log of pgbench tells when the first was queued.
my $small = sql($node, 'SELECT bench.create_small(8)');
my $tempdir = PostgreSQL::Test::Utils::tempdir;
append_to_file("$tempdir/queue.sql", <<~'SQL');
	\set n :n + 1
	\set campaign :first + :client_id * 4 + :n - 1
	SELECT send_campaign(:campaign);
	SQL
$node->command_ok(
	[
		qw(pgbench -n -U app -c 2 -t 4 -D n=0 -l),
		"--log-prefix=$tempdir/log", '-D', "first=$small", '-f', "$tempdir/queue.sql", 'postgres'
	],
	'sessions queue campaigns');
my ($log) = glob "$tempdir/log.*";
my $lines = slurp_file($log);
$lines =~ tr/ /\t/;
sql($node, "COPY bench.pgbench FROM STDIN;\n$lines\\.\n");
sql($node, 'CALL bench.wait_for_runs()');
is(sql($node, <<~SQL), '8|8|t', 'each is sent, after its transaction');
	SELECT (SELECT count(*) FROM bench.pgbench), count(*),
	    min(finished_at) > (SELECT min(bench.ended_at(p) - p.latency_us * interval '1 us')
	        FROM bench.pgbench p)
	FROM sendcampaign.run WHERE campaign_id >= $small
	SQL

# A section that counts or empties a view counts and empties nothing.
my %named;
for my $section (glob "$bench/*.sh")
{
	$named{$_} = 1 for slurp_file($section) =~ /\bsendcampaign\.(\w+)/g;
}
my $names = join ',', map { "'$_'" } sort keys %named;
is(sql($node, <<~SQL), '', 'no section takes a view for a table');
	SELECT string_agg(relname, ', ')
	FROM pg_class
	WHERE relnamespace = 'sendcampaign'::regnamespace AND relkind = 'v' AND relname IN ($names)
	SQL
$node->stop;
done_testing();
