# The fuzz targets (test/fuzz) still build, and keep all promises for the
# inputs of their corpus, those that once broke something among them.
use strict;
use warnings;
use FindBin;
use File::Basename qw(basename);
use File::Temp qw(tempdir);
use Test::More;

my $targets = "$FindBin::RealBin/../fuzz";
my $out = tempdir(CLEANUP => 1);
my $pg_config = $ENV{PG_CONFIG} || 'pg_config';
delete $ENV{MAKEFLAGS};

# Runs a command; returns whether it succeeds, and its output.
sub output
{
	my $command = shift;
	my $output = `$command 2>&1`;
	return ($? == 0, $output);
}

my $compile = "gcc -fsanitize=address,undefined -x c - -o $out/try";
my ($has_sanitizers) = output("echo 'int main(void) { return 0; }' | $compile && $out/try");
plan skip_all => 'gcc has no sanitizers here' if !$has_sanitizers;
for my $target (map { basename($_) } sort glob "$targets/corpus/*")
{
	my $inputs = () = glob "$targets/corpus/$target/*";
	my $make = "make -s -C $targets CC=gcc MAIN=main.c OUT=$out PG_CONFIG=$pg_config";
	my ($built, $messages) = output("$make $out/fuzz_$target");
	ok($built, "$target is built") or diag($messages);
	my ($kept, $result) = output("$out/fuzz_$target $targets/corpus/$target/*");
	ok($kept, "$target keeps its promises") or diag($result);
	like($result, qr/^$inputs inputs$/m, 'all inputs are tried');
}
done_testing();
