# The Makefile and the scripts where people have them: built elsewhere than the
# sources are, a checkout that nobody may write to, a folder for temporary
# files that is of no use.
use strict;
use warnings;
use File::Temp;
use FindBin;
use PostgreSQL::Test::Utils;
use Test::More;

my $root = "$FindBin::RealBin/../..";
my $pg_config = $ENV{PG_CONFIG} || 'pg_config';

# What a command prints, errors included, and whether it succeeds
sub run_in
{
	my ($directory, @command) = @_;
	my $output = '';
	my $ok = IPC::Run::run(\@command, '<', \undef, '>&', \$output, init => sub { chdir $directory or die });
	return ($ok, $output);
}

sub functions_of
{
	my ($ok, $output) = run_in('/', 'nm', '-D', '--defined-only', shift);
	return join ' ', grep { /^send_?campaign/ } map { (split)[-1] } split /\n/, $output;
}

# A VPATH build of a few sources is one of all of them.
my $copy = PostgreSQL::Test::Utils::tempdir();
my $makefile = "$copy/a/Makefile";
mkdir "$copy/$_" for 'a', 'a/src', 'a/src/part', 'one', 'two', 'none';
system_or_bail('cp', "$root/Makefile", "$root/sendcampaign.control", glob("$root/sendcampaign--*.sql"), "$copy/a");
append_to_file("$copy/a/src/sendcampaign.c", qq{#include "postgres.h"\n#include "fmgr.h"\n#include "part/part.h"\nPG_MODULE_MAGIC;\nPG_FUNCTION_INFO_V1(sendcampaign_here);\nDatum\nsendcampaign_here(PG_FUNCTION_ARGS)\n{\n\tPG_RETURN_INT32(part());\n}\n});
append_to_file("$copy/a/src/part/part.h", "extern int part(void);\n");
append_to_file("$copy/a/src/part/part.c", qq{#include "postgres.h"\n#include "part/part.h"\nint\npart(void)\n{\n\treturn 1;\n}\n});
my @make = ('make', '-s', "PG_CONFIG=$pg_config", 'with_llvm=no');
for my $case ([ 'one', '-f', $makefile ], [ 'two', '-f', $makefile, "VPATH=$copy/a" ], ['a'])
{
	my ($where, @arguments) = @$case;
	my ($ok, $output) = run_in("$copy/$where", @make, @arguments);
	ok($ok, "make @arguments") or diag($output);
	is(functions_of("$copy/$where/sendcampaign.so"), 'sendcampaign_here', 'the library has its function');
	ok(-e "$copy/$where/src/part/part.o", 'what is in a subfolder is built there');
	($ok, $output) = run_in("$copy/$where", @make, @arguments, 'install', "DESTDIR=$copy/installed-$where");
	ok($ok, 'and installed') or diag($output);
	isnt(`find $copy/installed-$where -name sendcampaign.control`, '', 'with its control file');
}
system_or_bail('cp', "$root/Makefile", "$copy/none");
my ($ok, $output) = run_in("$copy/none", @make);
ok(!$ok, 'without sources nothing is built');
like($output, qr/There are no sources in \.\/src/, 'and it says why');
append_to_file("$copy/pg_config", "#!/bin/sh\necho $copy/nowhere\n");
chmod 0755, "$copy/pg_config";
($ok, $output) = run_in("$copy/a", 'make', '-s', "PG_CONFIG=$copy/pg_config");
ok(!$ok, 'nor without headers');
like($output, qr/server headers are not in "$copy\/nowhere"/, 'and it says so');

# What scripts do first, from a checkout that nobody may write to
my $checkout = "$copy/checkout";
mkdir $checkout;
system_or_bail('cp', '-r', "$root/script", "$copy/a/src", $checkout);
system_or_bail('chmod', '-R', 'a-w', $checkout);
my $prepare = q{. "$0/script/lib.sh"; make_work_directory; copy "$root" "$work/copy" .;
	touch "$work/copy/src/part/new" "$work/copy/src/part/part.c" && echo "made $work"; chmod -R a-w "$work/copy"};
sub scripts_work
{
	my ($name, $tmpdir, $expected) = @_;
	local $ENV{TMPDIR} = $tmpdir;
	my ($ok, $output) = run_in('/', 'bash', '-euc', $prepare, $checkout);
	ok($ok && $output =~ /^made ($expected\/sendcampaign\.\S+)$/m, $name) or diag($output);
	ok(defined $1 && !-e $1, 'and leaves nothing behind');
}
scripts_work('a checkout without write bits', '/tmp', '/tmp');
scripts_work('TMPDIR', '/var/tmp', '/var/tmp');
scripts_work('TMPDIR that is not there', "/nonexistent", '(?:/var)?/tmp');
scripts_work('TMPDIR with a path that is too long for sockets', "/var/tmp/" . './' x 30, '(?:/var)?/tmp');
my $blanks = File::Temp->newdir('with blanks XXXX', DIR => '/tmp');
chmod 0777, "$blanks";
scripts_work('TMPDIR with blanks, which make cannot work in', "$blanks", '(?:/var)?/tmp');
system_or_bail('chmod', '-R', 'u+w', $checkout);

# A server that is not complete
sub refuses
{
	my ($given, $reason, $name) = @_;
	local $ENV{PG_CONFIG} = $given;
	my ($ok, $output) = run_in('/', 'bash', '-euc', '. "$0/script/lib.sh"; need_to_build', $root);
	ok(!$ok && $output =~ $reason, $name) or diag($output);
}
refuses("$copy/nothing", qr/PG_CONFIG: there is no program $copy\/nothing/, 'PG_CONFIG that is not there');
append_to_file("$copy/incomplete", "#!/bin/sh\ncase \$1 in --version) echo PostgreSQL 15.1 ;; *) echo $copy/nowhere ;; esac\n");
chmod 0755, "$copy/incomplete";
refuses("$copy/incomplete", qr/is of a PostgreSQL without its server: $copy\/nowhere\/postgres is missing/, 'PG_CONFIG of what is no server');

# What scripts refuse to begin with, and say how it is to be mended
sub script_refuses
{
	my ($name, $reason, @command) = @_;
	my ($ok, $output) = run_in('/', @command);
	ok(!$ok && $output =~ $reason, $name) or diag($output);
}
script_refuses('packages are missing, and nobody can install them', qr/^To be installed, as root or with sudo: nothing-such nor-this$/m,
	'bash', '-euc', '. "$0/script/lib.sh"; can_be_root() { false; }; missing=(nothing-such nor-this); install_missing', $root);
script_refuses('a target of fuzzing that does not exist', qr/^no target is named nothing; there are: .*\bphone\b/m, "$root/script/fuzz", 'nothing');
script_refuses('a time that is none', qr/^SECONDS is a whole number$/m, 'env', 'SECONDS=soon', "$root/script/fuzz");
done_testing();
