# The folders of the source state what may know what: a lower one includes
# nothing of a higher one, and nothing includes itself by a detour.
use strict;
use warnings;
use FindBin;
use PostgreSQL::Test::Utils;
use Test::More;

my $source = "$FindBin::RealBin/../../src";
# From the top
my @folders = qw(calls report worker campaign twilio database);
my %level = map { $folders[$_] => $_ } 0 .. $#folders;
my %everywhere = map { $_ => 1 } qw(settings.h compat.h debug_point.h);

# The source's own headers that a text includes, by their paths
sub included
{
	my $text = shift;
	return $text =~ /^#include "([^"]+)"/mg;
}

# Does a header lie above the file that includes it?
sub is_upward
{
	my ($file, $header) = @_;
	my ($from, $to) = map { m{^(\w+)/} ? $1 : '' } $file, $header;
	return 0 if $from eq '' || $everywhere{$header};
	return $to eq '' || $level{$to} < $level{$from};
}

# Does a text depend on PostgreSQL's version? Only compat.h may.
sub depends_on_version { return $_[0] =~ /\bPG_VERSION(_NUM)?\b|\bPG_MAJORVERSION/ }

my (@upward, @dependent, %uses);
for my $path (glob("$source/*.[ch]"), glob("$source/*/*.[ch]"))
{
	my ($file) = $path =~ m{src/(.*)};
	my $module = $file =~ s/\.[ch]$//r;
	$uses{$module} ||= {};
	push @dependent, $file if depends_on_version(slurp_file($path));
	for my $header (grep { -e "$source/$_" } included(slurp_file($path)))
	{
		push @upward, "$file includes $header" if is_upward($file, $header);
		my $other = $header =~ s/\.h$//r;
		$uses{$module}{$other} = 1 if $other ne $module && !$everywhere{$header};
	}
}

# A way from a module back to itself, or nothing
sub circle
{
	my ($goal, $at, $seen) = @_;
	for my $next (sort keys %{ $uses{$at} })
	{
		return ($at, $next) if $next eq $goal;
		next if $seen->{$next}++;
		my @way = circle($goal, $next, $seen);
		return ($at, @way) if @way;
	}
	return;
}

cmp_ok(scalar(keys %uses), '>', 60, 'the sources were found');
cmp_ok(scalar(map { keys %$_ } values %uses), '>', 200, 'so was what they include');
is_deeply(\@upward, [], 'nothing includes what is above it');
is_deeply(\@dependent, ['compat.h'], 'what depends on the version of PostgreSQL is in one header');
my @circles = grep { $_ ne '' } map { join ' > ', circle($_, $_, {}) } sort keys %uses;
is_deeply(\@circles, [], 'nothing includes itself by a detour');

# The check itself
ok(is_upward('twilio/http.c', 'worker/run.h'), 'a header of a higher folder is found');
ok(is_upward('worker/run.c', 'version.h'), 'so is one of no folder');
ok(!is_upward('worker/run.c', 'database/spi.h'), 'one of a lower folder may be included');
is_deeply([ included(qq{#include "a/b.h"\n#include <c.h>\n}) ],
	['a/b.h'], 'what is included is seen');
%uses = (a => { b => 1 }, b => { c => 1 }, c => { a => 1 }, d => { a => 1 });
is(join(' > ', circle('a', 'a', {})), 'a > b > c > a', 'a circle is found');
is(join(' > ', circle('d', 'd', {})), '', 'a module that only leads to one is not in it');
done_testing();
