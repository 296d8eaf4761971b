# What people get: "make dist" has what is committed and nothing else; from that,
# "make install" installs the files and "make uninstall" removes them all.
use strict;
use warnings;
use File::Basename qw(dirname);
use File::Find qw(find);
use File::Path qw(make_path);
use FindBin;
use lib "$FindBin::RealBin/../perl";
use Command;
use IO::Uncompress::Unzip qw($UnzipError);
use PostgreSQL::Test::Utils;
use Test::More;

my $root = "$FindBin::RealBin/../..";
my $pg_config = $ENV{PG_CONFIG} || 'pg_config';
my @make = ('make', '-s', "PG_CONFIG=$pg_config");
my $work = PostgreSQL::Test::Utils::tempdir();
my ($version) = slurp_file("$root/META.json") =~ /^   "version": "(.*)",$/m;
my $prefix = "sendcampaign-$version";
my ($ok, $output);

sub git
{
	my ($ok, $output) =
	  run_in("$work/checkout", 'git', '-c', 'user.name=Nobody', '-c',
		'user.email=nobody@example.org',
		'-c', 'init.defaultBranch=main', @_);
	$ok or BAIL_OUT("git @_: $output");
	return $output;
}

# The files below a directory, sorted
sub files_of
{
	my $directory = shift;
	my @files;
	return () if !-d $directory;
	find(sub { push @files, $File::Find::name if -f }, $directory);
	return sort map { s{^\Q$directory\E/}{}r } @files;
}

# The same files; if they are not, only the differences are shown.
sub same_files
{
	my ($got, $expected, $name) = @_;
	my %got = map { $_ => 1 } @$got;
	my %expected = map { $_ => 1 } @$expected;
	is( join("\n",
			(map { "+ $_" } grep { !$expected{$_} } @$got),
			(map { "- $_" } grep { !$got{$_} } @$expected)),
		'', $name);
}

# The path of an installed file, in short.
sub in_server
{
	my $path = shift;
	my (undef, $lib) = run_in('/', $pg_config, '--pkglibdir');
	my (undef, $share) = run_in('/', $pg_config, '--sharedir');
	chomp($lib, $share);
	return $path =~ s{^\Q$lib\E/}{lib/}r =~ s{^\Q$share\E/}{}r;
}

# Writes the files of an archive to a directory; returns their names.
sub unpack_zip
{
	my ($file, $directory) = @_;
	my @names;
	my $zip = IO::Uncompress::Unzip->new($file) or die $UnzipError;
	my $more = 1;
	for (; $more > 0; $more = $zip->nextStream)
	{
		my $name = $zip->getHeaderInfo->{Name};
		push @names, $name;
		my $to = "$directory/$name";
		next if $name =~ m{/$};
		make_path(dirname($to));
		open my $out, '>', $to or die;
		local $/;
		print $out $_ while defined($_ = <$zip>);
		close $out;
	}
	return @names;
}

#
# make dist, in a checkout with what builds and tests leave
#
mkdir "$work/checkout";
system_or_bail(
	"tar -C '$root' --exclude=./.git --exclude=./tmp_check --exclude=node_modules --exclude=corpus "
	  . "--exclude='*.o' --exclude='*.so' -c . | tar -C '$work/checkout' -x");
my $source = "$work/checkout";

SKIP:
{
	skip 'this is a distribution itself', 7 if !-e "$root/.gitattributes";
	git('init', '-q');
	git('add', '-A');
	git('commit', '-q', '-m', 'all');
	my @committed = grep { !m{^\.ci/|^\.github/|(?:^|/)\.git(?:ignore|attributes)$} } split /\n/,
	  git('ls-files');
	mkdir "$work/checkout/tmp_check";
	append_to_file("$work/checkout/$_", 'left')
	  for 'src/left.o', 'left.so', 'tmp_check/left', 'regression.diffs';

	($ok, $output) = run_in("$work/checkout", @make, 'dist');
	ok($ok, 'make dist succeeds') or diag($output);
	my $zip = "$work/checkout/$prefix.zip";
	ok(-s $zip, 'and makes an archive, with the version in its name') or BAIL_OUT('no archive');
	mkdir "$work/unpacked";
	my @names = unpack_zip($zip, "$work/unpacked");
	is(scalar(grep { !m{^\Q$prefix\E/} } @names), 0, 'all of it is in one folder');
	same_files([ files_of("$work/unpacked/$prefix") ],
		\@committed, 'it has what is committed, and nothing else');
	is(git('status', '--porcelain'), '', 'the archive is ignored by git');

	append_to_file("$work/checkout/README.md", "more\n");
	($ok, $output) = run_in("$work/checkout", @make, 'dist');
	ok(!$ok, 'make dist fails with changes that are not committed');
	like($output, qr/^make dist: not everything is committed$/m, 'and says why');
	$source = "$work/unpacked/$prefix";
}

#
# make install and make uninstall, in the source tree and outside of it. The library
# is made of one function, since it is the Makefile that is tested.
#
system_or_bail('rm', '-r', "$source/src");
mkdir "$source/src";
append_to_file("$source/src/sendcampaign.c", <<~'C');
	#include "postgres.h"
	#include "fmgr.h"
	PG_MODULE_MAGIC;
	C

# Bitcode, too, if the server has it and there is a compiler for it
my (undef, $options) = run_in('/', $pg_config, '--configure');
my ($clang) = $options =~ /CLANG=([^']+)/;
my @llvm = $clang && -x $clang ? () : 'with_llvm=no';
mkdir "$work/elsewhere";
my @before = files_of($source);
my @builds = (
	[ 'in the source tree', $source ],
	[ 'elsewhere (VPATH)', "$work/elsewhere", '-f', "$source/Makefile" ]);
my @expected = (
	'extension/sendcampaign--1.0--1.1.sql', 'extension/sendcampaign--1.0.sql',
	'extension/sendcampaign.control', 'lib/sendcampaign.so');

for my $build (@builds)
{
	my ($where, $directory, @arguments) = @$build;
	my $to = "$work/installed";
	my @command = (@make, @llvm, @arguments, "DESTDIR=$to");
	my @files = files_of($directory);
	($ok, $output) = run_in($directory, @command, 'install');
	ok($ok, "$where: make install succeeds") or diag($output);
	my @installed = files_of($to);
	same_files([ map { in_server("/$_") } grep { !/bitcode/ } @installed ],
		\@expected, "$where: it installs the files");
	cmp_ok(scalar(grep { /\.bc$/ } @installed), '>', 0, "$where: with bitcode") if !@llvm;
	($ok, $output) = run_in($directory, @command, 'uninstall');
	ok($ok, "$where: make uninstall succeeds") or diag($output);
	same_files([ files_of($to) ], [], "$where: and nothing is left");
	($ok, $output) = run_in($directory, @command, 'clean');
	same_files([ files_of($directory) ], \@files, "$where: nor after make clean")
	  or diag($output);
}
same_files([ files_of($source) ], \@before, 'a build elsewhere leaves nothing in the source tree');
done_testing();
