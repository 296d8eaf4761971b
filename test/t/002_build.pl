# The Makefile and the scripts where people have them: built outside of the
# source tree, from a checkout that nobody may write to, with a folder for
# temporary files that is of no use.
use strict;
use warnings;
use File::Temp;
use FindBin;
use lib "$FindBin::RealBin/../perl";
use Command;
use PostgreSQL::Test::Utils;
use Test::More;

my $root = "$FindBin::RealBin/../..";
my $pg_config = $ENV{PG_CONFIG} || 'pg_config';

# The functions of the extension that a library exports.
sub functions_of
{
	my $library = shift;
	my ($ok, $output) = run_in('/', 'nm', '-D', '--defined-only', $library);
	my @symbols = map { (split)[-1] } split /\n/, $output;
	return join ' ', grep { /^send_?campaign/ } @symbols;
}

# A shell script that the tests run in place of a program.
sub create_script
{
	my ($file, $text) = @_;
	append_to_file($file, "#!/bin/sh\n$text\n");
	chmod 0755, $file;
}

#
# The Makefile: a VPATH build of two sources has what both of them define.
#
my $copy = PostgreSQL::Test::Utils::tempdir();
my $makefile = "$copy/a/Makefile";
mkdir "$copy/$_" for 'a', 'a/src', 'a/src/part', 'one', 'two', 'none';
system_or_bail('cp', "$root/Makefile", "$root/sendcampaign.control",
	glob("$root/sendcampaign--*.sql"), "$copy/a");
append_to_file("$copy/a/src/sendcampaign.c", <<~'C');
	#include "postgres.h"
	#include "fmgr.h"
	#include "part/part.h"
	PG_MODULE_MAGIC;
	PG_FUNCTION_INFO_V1(sendcampaign_here);
	Datum
	sendcampaign_here(PG_FUNCTION_ARGS)
	{
		PG_RETURN_INT32(part());
	}
	C
append_to_file("$copy/a/src/part/part.h", "extern int part(void);\n");
append_to_file("$copy/a/src/part/part.c", <<~'C');
	#include "postgres.h"
	#include "part/part.h"
	int
	part(void)
	{
		return 1;
	}
	C

my @make = ('make', '-s', "PG_CONFIG=$pg_config", 'with_llvm=no');
my ($ok, $output);

# the folder to build in, and the arguments of make
my @builds = ([ 'one', '-f', $makefile ], [ 'two', '-f', $makefile, "VPATH=$copy/a" ], ['a']);
for my $build (@builds)
{
	my ($where, @arguments) = @$build;
	my $directory = "$copy/$where";
	my $installed = "$copy/installed-$where";
	($ok, $output) = run_in($directory, @make, @arguments);
	ok($ok, "make @arguments succeeds") or diag($output);
	is(functions_of("$directory/sendcampaign.so"),
		'sendcampaign_here', 'the library has its function');
	ok(-e "$directory/src/part/part.o", 'the objects of a subfolder are in a subfolder');
	($ok, $output) = run_in($directory, @make, @arguments, 'install', "DESTDIR=$installed");
	ok($ok, 'make install succeeds') or diag($output);
	isnt(`find $installed -name sendcampaign.control`, '', 'the control file is installed');
}

system_or_bail('cp', "$root/Makefile", "$copy/none");
($ok, $output) = run_in("$copy/none", @make);
ok(!$ok, 'make fails without sources');
like($output, qr/There are no sources in \.\/src/, 'and says why');

create_script("$copy/pg_config", "echo $copy/nowhere");
($ok, $output) = run_in("$copy/a", 'make', '-s', "PG_CONFIG=$copy/pg_config");
ok(!$ok, 'make fails without the headers of the server');
like($output, qr/server headers are not in "$copy\/nowhere"/, 'and says why');

#
# What scripts do first, from a checkout that nobody may write to
#
my $checkout = "$copy/checkout";
mkdir $checkout;
system_or_bail('cp', '-r', "$root/script", "$copy/a/src", $checkout);
system_or_bail('chmod', '-R', 'a-w', $checkout);
my $prepare = <<~'BASH';
	. "$0/script/lib.sh"
	make_work_directory
	copy "$root" "$work/copy" .
	touch "$work/copy/src/part/new" "$work/copy/src/part/part.c" && echo "made $work"
	chmod -R a-w "$work/copy"
	BASH

# With this TMPDIR, a script makes its folder in the folder expected.
sub scripts_work
{
	my ($name, $tmpdir, $expected) = @_;
	local $ENV{TMPDIR} = $tmpdir;
	my ($ok, $output) = run_in('/', 'bash', '-euc', $prepare, $checkout);
	ok($ok && $output =~ /^made ($expected\/sendcampaign\.\S+)$/m, "scripts work with $name")
	  or diag($output);
	ok(defined $1 && !-e $1, 'and leave nothing behind');
}

my $with_blanks = File::Temp->newdir('with blanks XXXX', DIR => '/tmp');
my $too_long = '/var/tmp/' . './' x 30;
my $either = '(?:/var)?/tmp';
chmod 0777, "$with_blanks";
scripts_work('a checkout without write permission', '/tmp', '/tmp');
scripts_work('TMPDIR', '/var/tmp', '/var/tmp');
scripts_work('a TMPDIR that does not exist', '/nonexistent', $either);
scripts_work('a TMPDIR whose path is too long for sockets', $too_long, $either);
scripts_work('a TMPDIR with blanks, in which make cannot work', "$with_blanks", $either);
system_or_bail('chmod', '-R', 'u+w', $checkout);

#
# What scripts refuse to begin with, and say how to fix
#
sub script_refuses
{
	my ($name, $reason, @command) = @_;
	my ($ok, $output) = run_in('/', @command);
	ok(!$ok && $output =~ $reason, "$name: refused") or diag($output);
}

# with this PG_CONFIG
sub refuses_to_build
{
	my ($given, $reason, $name) = @_;
	local $ENV{PG_CONFIG} = $given;
	script_refuses($name, $reason, 'bash', '-euc', '. "$0/script/lib.sh"; need_to_build', $root);
}

refuses_to_build(
	"$copy/nothing",
	qr/PG_CONFIG: there is no program $copy\/nothing/,
	'PG_CONFIG that does not exist');
create_script("$copy/incomplete", <<~"SH");
	case \$1 in
		--version) echo PostgreSQL 15.1 ;;
		*) echo $copy/nowhere ;;
	esac
	SH
refuses_to_build(
	"$copy/incomplete",
	qr/is of a PostgreSQL without its server: $copy\/nowhere\/postgres is missing/,
	'PG_CONFIG of an installation without a server');

# Headers of a later minor version than the server's; earlier ones are fine.
my $check_headers = <<~'BASH';
	. "$0/script/lib.sh"
	bindir=$1 pg_config=$1/pg_config pg_version=15
	check_headers
	BASH
mkdir "$copy/server", 0755;
create_script("$copy/server/postgres",
	"echo 'postgres (PostgreSQL) 15.9 (Debian 15.9-0+deb12u1)'");
create_script("$copy/server/pg_config", "echo 'PostgreSQL 15.10 (Debian 15.10-0+deb12u1)'");
script_refuses(
	'headers of a later minor version',
	qr/^The headers of PostgreSQL 15\.10 are installed, but the server is 15\.9, .*--only-upgrade postgresql-15$/m,
	'bash',
	'-euc',
	$check_headers,
	$root,
	"$copy/server");
for my $version ('15.9', '15.8', '19beta1')
{
	unlink "$copy/server/pg_config";
	create_script("$copy/server/pg_config", "echo 'PostgreSQL $version'");
	($ok, $output) = run_in('/', 'bash', '-euc', $check_headers, $root, "$copy/server");
	ok($ok, "headers of $version") or diag($output);
}

# The headers that are installed are those of the server, if apt has them.
my $pin_headers = <<~'BASH';
	. "$0/script/lib.sh"
	dpkg-query() { echo "15.9-1"; }
	apt-cache() { [ "$2" = "postgresql-server-dev-15=$has" ]; }
	missing=(make postgresql-server-dev-15) pg_version=15
	for has in 15.9-1 15.10-1; do (pin_headers; echo "$has: ${missing[*]}"); done
	BASH
($ok, $output) = run_in('/', 'bash', '-euc', $pin_headers, $root);
is($output, <<~'TEXT', 'the headers of the server that is installed');
	15.9-1: make postgresql-server-dev-15=15.9-1
	15.10-1: make postgresql-server-dev-15
	TEXT

# INSTALLED=1 tests this version and no other.
my $expect_installed = <<~'BASH';
	. "$0/script/lib.sh"
	pg_config=$1
	expect_installed
	BASH
create_script("$copy/installed", "echo $copy/share");
mkdir "$copy/share", 0755;
mkdir "$copy/share/extension", 0755;
append_to_file("$copy/share/extension/sendcampaign.control", "default_version = '0.9'\n");
script_refuses(
	'another version is installed',
	qr/^INSTALLED: version '[0-9.]+' of sendcampaign is not installed for $copy\/installed$/m,
	'bash', '-euc', $expect_installed, $root, "$copy/installed");
script_refuses(
	'none is installed',
	qr/^INSTALLED: version /m,
	'bash', '-euc', $expect_installed, $root, "$copy/pg_config");
system_or_bail('cp', "$root/sendcampaign.control", "$copy/share/extension");
($ok, $output) = run_in('/', 'bash', '-euc', $expect_installed, $root, "$copy/installed");
ok($ok, 'this version is tested') or diag($output);

my $install = <<~'BASH';
	. "$0/script/lib.sh"
	can_be_root() { false; }
	missing=(nothing-such nor-this)
	install_missing
	BASH
script_refuses(
	'packages are missing, and nobody can install them',
	qr/^To be installed, as root or with sudo: nothing-such nor-this$/m,
	'bash', '-euc', $install, $root);
script_refuses(
	'a fuzz target that does not exist',
	qr/^no target is named nothing; there are: .*\bphone\b/m,
	"$root/script/fuzz", 'nothing');
script_refuses(
	'a time that is no number', qr/^SECONDS is a whole number$/m,
	'env', 'SECONDS=soon',
	"$root/script/fuzz");
done_testing();
