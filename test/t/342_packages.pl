# script/package and its systems, the workflow and debian/control, without a package
# being built.
use strict;
use warnings;
use FindBin;
use PostgreSQL::Test::Utils;
use Test::More;

my $root = "$FindBin::RealBin/../..";
my $work = PostgreSQL::Test::Utils::tempdir_short();

# A call of script/package ends at once, with this error.
sub refused
{
	my ($name, $error, $environment, @arguments) = @_;
	my ($output, $errors) = ('', '');
	local %ENV = (%ENV, %$environment);
	my $ok = IPC::Run::run([ "$root/script/package", @arguments ],
		'<', \undef, '>', \$output, '2>', \$errors);
	ok(!$ok && $errors =~ $error, "$name: refused") or diag($output, $errors);
}

refused('a suite that is unknown', qr/^usage: script\/package/, {}, 'woody');
refused('two suites', qr/^usage: /, {}, 'sid', 'trixie');
refused(
	'no folder for packages',
	qr/^OUTPUT: there is no folder $work\/no$/,
	{ OUTPUT => "$work/no" });
refused(
	'no file with sources',
	qr/^SOURCES: there is no file $work\/no$/,
	{ OUTPUT => $work, SOURCES => "$work/no" });
refused('without root', qr/^This needs root/, { OUTPUT => $work }) if $> != 0;

#
# Processes of a script that ends, however, end with it, and so do its systems.
#
SKIP:
{
	skip 'this needs root', 3 if $> != 0;
	my $program = <<~'BASH';
		. "$0/script/lib.sh"
		. "$0/script/chroot.sh"
		make_systems_folder
		mkdir -p "$systems/a/proc" "$systems/a/dev/shm" "$systems/a/dev/pts"
		echo "folder $systems"
		in_system "$systems/a" /none || echo "ended $?"
		BASH
	my ($output, $errors) = ('', '');
	local $ENV{TMPDIR} = $work;
	IPC::Run::run([ 'bash', '-euc', $program, $root ], '<', \undef, '>', \$output, '2>', \$errors);
	like($output, qr/^ended [1-9]/m, 'a command that fails there fails here');
	my ($folder) = $output =~ /^folder (.*)$/m;
	ok($folder && !-e $folder, 'the systems are removed');
	unlike(slurp_file('/proc/mounts'), qr/\Q$work\E/, 'and nothing stays mounted');
}

#
# The workflow calls scripts that there are.
#
SKIP:
{
	my $workflow = "$root/.github/workflows/test.yml";
	skip 'there is no workflow in a distribution', 1 if !-e $workflow;
	my @scripts = slurp_file($workflow) =~ /\b(script\/[a-z-]+)/g;
	is(join(' ', grep { !-x "$root/$_" } @scripts),
		'', 'the workflow calls scripts that there are');
}

#
# Debian's control file is generated, for the versions that a system has.
#
my $template = slurp_file("$root/debian/control.in");
my $control = slurp_file("$root/debian/control");
my ($version) = $control =~ /^Package: postgresql-(\d+)-sendcampaign$/m;
my ($head, $package) = split /\n\n/, $template, 2;
is((split /\n\n/, $control)[0], $head, 'the head of debian/control is that of its template');
like($control, qr/^\Q@{[ $package =~ s{PGVERSION}{$version}gr ]}\E/m, 'and so are its packages');
done_testing();
