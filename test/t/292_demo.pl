# script/demo: it leaves its report in the current directory and nothing else; with
# --keep, a cluster that one can connect to and stop as it says.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../perl";
use Campaign qw(poll);
use PostgreSQL::Test::Utils;
use Test::More;

my $demo = "$FindBin::RealBin/../../script/demo";
my $tmp = PostgreSQL::Test::Utils::tempdir_short();
my $here = PostgreSQL::Test::Utils::tempdir();

# Runs a command in a directory, with a folder of its own for temporary files;
# returns whether it succeeds, and what it prints.
sub run_here
{
	my ($directory, @command) = @_;
	local $ENV{TMPDIR} = $tmp;
	my $log = "$tmp/output";    # a pipe would be open as long as what stays
	my $ok =
	  IPC::Run::run(\@command, '<', \undef, '>&', $log, init => sub { chdir $directory or die });
	return ($ok, slurp_file($log));
}

my ($ok, $output) = run_here($here, $demo, '--stay');
ok(!$ok, 'an unknown option is refused');
like($output, qr/usage: script\/demo \[--keep\] \[recipients\]/, '... with the usage');

($ok, $output) = run_here($here, $demo, 20);
ok($ok, 'the demo runs') or diag($output);
my $report = "$here/sendcampaign-report.html";
like($output, qr/^  \Q$report\E$/m, 'the path of its report is printed');
like(slurp_file($report), qr/<h1>Campaign 1<.*<\/html>\n$/s, 'where the report is');
is(join(' ', glob("$tmp/sendcampaign.*")), '', 'nothing else is left');

mkdir "$here/closed", 0555;
($ok, $output) = run_here("$here/closed", $demo, '--keep', 20);
ok($ok, 'with --keep, it runs') or diag($output);
my ($file) = $output =~ m{^  (/\S*sendcampaign-report\S*\.html)$}m;
ok(defined $file && -s $file, 'where nothing can be written, the report is elsewhere');
unlink $file if defined $file && index($file, $tmp) == 0;
my ($psql) = $output =~ /^  (\S*psql .*)$/m;
my ($stop) = $output =~ /^  (kill .*)$/m;
my $count = '';
IPC::Run::run([ 'sh', '-c', "$psql -XAtc 'SELECT sent > 10 FROM sendcampaign.run'" ],
	'<', \undef, '>', \$count);
is($count, "t\n", 'its cluster can be connected to, as it says');
ok(IPC::Run::run([ 'sh', '-c', $stop ], '<', \undef), 'and stopped as it says');
is(join(' ', glob("$tmp/sendcampaign.*")), '', 'which leaves no file');
my $processes;
poll(sub { ($processes = `ps -e -o args`) !~ /\Q$tmp\E\/sendcampaign/ });
unlike($processes, qr/\Q$tmp\E\/sendcampaign/, 'and no process');
done_testing();
