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
my $node = new_cluster('bench', $twilio, no_extension => 1,
	conf => "track_commit_timestamp = on\nbench.account = '$LocalTwilio::ACCOUNT'\n"
	  . "bench.token = '$LocalTwilio::TOKEN'\nbench.ticks_per_s = '100'\n");
$node->safe_psql('postgres', PostgreSQL::Test::Utils::slurp_file("$bench/schema.sql"));

my $campaign = $node->safe_psql('postgres', 'SELECT bench.create_campaign(50)');
$node->safe_psql('postgres', "CALL bench.send('send', $campaign)");
is($node->safe_psql('postgres', q{SELECT what, total, run_s > 0, messages_per_s > 0, commit_to_completed_s > 0,
	cpu_s >= 0, wal_bytes > 0 FROM bench.run}), 'send|50|t|t|t|t|t', 'a run is measured');
my $list = $node->safe_psql('postgres', "SELECT ac_list_id FROM ac_campaigns WHERE id = $campaign");
my ($ok, $output, $errors) = $node->psql('postgres', PostgreSQL::Test::Utils::slurp_file("$bench/floor_sql.sql"),
	extra_params => [ '-v', "list=$list" ]);
is($errors, '', 'bare SQL has no errors');
like($output, qr/^50 \S+ \S+$/m, 'and records as many messages');
is($node->safe_psql('postgres', q{SELECT count(*) FROM pg_index WHERE indrelid = 'floor_message'::regclass AND indisprimary}),
	1, 'in a table like the one that the extension records in');

# A section that counts or empties a view counts and empties nothing.
my %named;
for my $section (glob "$bench/*.sh")
{
	$named{$_} = 1 for PostgreSQL::Test::Utils::slurp_file($section) =~ /\bsendcampaign\.(\w+)/g;
}
my $names = join ',', map { "'$_'" } sort keys %named;
is($node->safe_psql('postgres', qq{SELECT string_agg(relname, ', ') FROM pg_class
	WHERE relnamespace = 'sendcampaign'::regnamespace AND relkind = 'v' AND relname IN ($names)}), '',
	'no section takes a view for a table');
$node->stop;
done_testing();
