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
sql($node, slurp_file("$bench/schema.sql"));

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
