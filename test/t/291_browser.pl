# The report in a browser: it complains of nothing, everybody can read it, and the
# numbers that it shows are those of the tables.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../perl";
use Campaign;
use Cwd qw(getcwd);
use File::Copy qw(copy);
use JSON::PP ();
use LocalTwilio;
use PostgreSQL::Test::Utils;
use Receipts;
use Test::More;

chomp(my $chromium = `command -v chromium || command -v chromium-browser || true`);
plan skip_all => 'there is no chromium' if $chromium eq '';

my $twilio = LocalTwilio->start;
$twilio->set('to-fault' => '+15550000002=code:21211');
my $node = new_cluster('browser', $twilio);
install_receipts($node);
my $campaign = create_campaign(
	$node,
	users => 30,
	message => '<script>alert(1)</script><img src=//127.0.0.1:1/x>');
my $job = run_campaign($node, $campaign, alone => 1)->{job};
my @sids = sids($node, $job);
report(
	$node, $job,
	(map { "$sids[$_] delivered price=0.0075 unit=USD" } 0, 2 .. 20),
	"$sids[21] undelivered code=30003");
sql($node, <<~"SQL");
	INSERT INTO sendcampaign.event_data (run_id, list_user_id, event)
	SELECT ${\run_of($job)}, n, e FROM generate_series(3, 12) n, unnest('{open,complete}'::text[]) e;
	INSERT INTO sendcampaign.reply_data
	    (sid_hash, role_oid, schema, group_id, role, sid, phone, sender, body, received_at, run_id)
	SELECT sha256(n::text::bytea), role_oid, schema, 1, role, 'SM' || n, '+1555000000' || n,
	    '+15005550006', '<svg onload=alert(2)><script>alert(3)</script>', now(), id
	FROM sendcampaign.run_data, generate_series(1, 3) n
	SQL

my $dir = PostgreSQL::Test::Utils::tempdir();
my %files = (run => $job, phones => "$job, phones => true", overview => '');
append_to_file("$dir/$_.html", sql($node, "SELECT sendcampaign.report($files{$_})", role => 'app'))
  for keys %files;

my $root = "$FindBin::RealBin/../browser";
copy($_, $dir) or die "could not copy $_: $!" for "$root/look.js", glob("$root/package*.json");
my $before = getcwd();
chdir $dir;
local $ENV{npm_config_cache} = "$dir/cache";
command_ok([ 'npm', 'ci', '--no-audit', '--no-fund', '--loglevel=error' ],
	'its packages are installed');
local $ENV{HOME} = $dir;
my ($output, $errors) = ('', '');
my $done = IPC::Run::run([ 'node', 'look.js', $chromium, map { "$dir/$_.html" } sort keys %files ],
	'<', \undef, '>', \$output, '2>', \$errors);
chdir $before;
ok($done, 'a browser has looked at the pages') or diag($errors);

my $total = sql($node, <<~"SQL", role => 'app');
	SELECT json_build_object('On the list', total, 'Sent', sent, 'Delivered', delivered,
	    'Refused by Twilio', failed, 'Sent, but not delivered', undelivered,
	    'Opened', (SELECT count(*) FROM sendcampaign.event WHERE event = 'open'),
	    'Completed', (SELECT count(*) FROM sendcampaign.event WHERE event = 'complete'),
	    'Replies', (SELECT count(*) FROM sendcampaign.reply),
	    'Segments', (SELECT sum(segments) FROM sendcampaign.message))
	FROM sendcampaign.run
	SQL
my $expected = JSON::PP::decode_json($total);
my @looks = map { JSON::PP::decode_json($_) } split /\n/, $output;
is(scalar @looks, 12, 'at all of them, light and dark, wide and narrow');

for my $look (@looks)
{
	my ($page) = $look->{file} =~ m{(\w+)\.html};
	my $name = "$page, $look->{width} px, $look->{scheme}";
	is("@{ $look->{complaints} }", '', "$name: the console has nothing");
	is("@{ $look->{loaded} }", '', "$name: nothing else is loaded");
	is($look->{scripts}, 0, "$name: there is no script");
	is(join("\n", @{ $look->{violations} }), '', "$name: axe finds nothing");
	cmp_ok($look->{passes}, '>', 15, "$name: ... having looked");
	ok(!$look->{tooWide}, "$name: it is not too wide");
	next if $page eq 'overview';
	my %shown = map { $_ => $look->{numbers}{$_} } keys %$expected;
	is_deeply(\%shown, $expected, "$name: its numbers are those of the tables");
}
$node->stop;
done_testing();
