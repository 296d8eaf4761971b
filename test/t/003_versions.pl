# script/test-versions, as far as it can be tried without root: what its arguments
# mean, what it reads from the output of script/test, and its table.
use strict;
use warnings;
use FindBin;
use PostgreSQL::Test::Utils;
use Test::More;

my $root = "$FindBin::RealBin/../..";
my $script = "$root/script/test-versions";

# Whether a command succeeds, and what it prints, errors included.
sub try_command
{
	my $output = '';
	my $ok = IPC::Run::run(\@_, '<', \undef, '>&', \$output);
	return ($ok, $output);
}

# What bash prints, in which the script's functions are known.
sub in_script
{
	my ($commands, @arguments) = @_;
	my ($ok, $output) =
	  try_command('bash', '-euc', qq{. "\$1"\nshift\n$commands}, 'test', $script, @arguments);
	ok($ok, $commands =~ /(\w+)/ ? "$1 succeeds" : 'it succeeds') or diag($output);
	return $output;
}

sub arguments_mean
{
	my ($arguments, $meaning) = @_;
	my $print = 'parse_arguments "$@"; echo "${versions[*]}|$keep|${sources[*]}|${tests[*]}"';
	is(in_script($print, split / /, $arguments), "$meaning\n", "arguments: $arguments");
}

sub refuses
{
	my ($arguments, $reason) = @_;
	my ($ok, $output) = try_command($script, split / /, $arguments);
	ok(!$ok && $output =~ $reason, "refused: $arguments") or diag($output);
}

#
# Arguments
#
my $tree = PostgreSQL::Test::Utils::tempdir();
$tree = `realpath $tree` =~ s/\n//r;
system_or_bail('mkdir', '-p', "$tree/src/backend");
append_to_file("$tree/src/backend/Makefile", '');
append_to_file("$tree/configure.ac",
	"AC_INIT([PostgreSQL], [19beta1], [a\@b.example], [], [https://b.example/])\n");

arguments_mean('', '15 17 18|||');
arguments_mean('18', '18|||');
arguments_mean('17 15 -- 001_send calls', '17 15|||001_send calls');
arguments_mean('-- 001_send', '15 17 18|||001_send');
arguments_mean('--keep /nonexistent/systems 18', '18|/nonexistent/systems||');
arguments_mean("--source $tree", "||$tree|");
arguments_mean("18 --source $tree -- 001_send", "18||$tree|001_send");

refuses('14', qr/^there is no version 14; there are: 15 17 18\. Tests are named after --\.$/m);
refuses('001_send', qr/^there is no version 001_send/m);
refuses('18 -- nothing', qr/^no test is named nothing$/m);
refuses('--keep', qr/^--keep needs a folder$/m);
refuses('--source', qr/^--source needs a folder$/m);
refuses('--source /nonexistent', qr/^\/nonexistent is not a source tree of PostgreSQL/m);
SKIP:
{
	skip 'this is root', 1 if $> == 0;
	refuses('18', qr/^script\/test-versions must be run by root/m);
}
my ($ok, $output) = try_command($script, '--help');
ok($ok && $output =~ /^  script\/test-versions 18 -- 001_send  +one test, on 18$/m, '--help');
is(in_script('version_of_source "$1"', $tree), "19beta1\n", 'the version of a source tree');

#
# What a run has printed
#
my $file = "$tree/output";

sub row_is
{
	my ($status, $printed, $row, $name) = @_;
	unlink $file;
	append_to_file($file, $printed);
	is(in_script("row_of 'A label' $status 3661 '$file'"), "A label|$row\n", $name);
}

row_is(0, "Building for PostgreSQL 18\n5 passed, 0 failed\n", '5|0|61:01|', 'all have passed');
row_is(1, <<~'OUTPUT', '40|3|61:01|calls 014_errors 058_crash', 'some have failed, with 18');
	ok 1         - install                                  1659 ms
	not ok 2     - calls                                    1663 ms
	[15:40:48] test/t/014_errors.pl .................... 
	test/t/014_errors.pl (Wstat: 256 (exited 1) Tests: 9 Failed: 1)
	  Failed test:  4
	test/t/058_crash.pl  (Wstat: 0 Tests: 0 Failed: 0)
	not ok 4 - 3 passed, 2 failed
	40 passed, 3 failed
	OUTPUT
row_is(1, <<~'OUTPUT', '1|1|61:01|calls', 'one has failed, with 15');
	test install                      ... ok          120 ms
	test calls                        ... FAILED      163 ms
	1 passed, 1 failed
	OUTPUT
row_is(
	2,
	"make: *** [all] Error 1\n",
	'-|-|61:01|ended before the tests had (exit status 2)',
	'it was not built');

#
# The table
#
my $table = in_script(<<~'BASH', $tree);
	work=$1
	run_tests '18 (one)' printf '7 passed, 0 failed\n'
	fails() { printf 'test/t/058_crash.pl (Wstat: 1)\n6 passed, 1 failed\n'; return 1; }
	run_tests '17 (two)' fails
	print_table
	echo "bad: $bad"
	work=
	BASH
like($table, qr/^7 passed, 0 failed\n/, 'output is shown while it comes');
like(
	$table,
	qr/^\nPostgreSQL +passed +failed +min:s
18 \(one\) +7 +0 +0:\d\d
17 \(two\) +6 +1 +0:\d\d
    058_crash
bad: 1\n\z/m,
	'the table');
done_testing();
