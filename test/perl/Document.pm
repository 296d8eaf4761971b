# The fenced blocks of a Markdown file, and psql to run those in SQL.
package Document;

use strict;
use warnings;

use Cwd qw(abs_path);
use Exporter 'import';
use File::Basename qw(dirname);
use PostgreSQL::Test::Utils;

our @EXPORT = qw(blocks_of run_block without_padding);

my $root = dirname(abs_path(__FILE__)) . '/../..';

# Blocks in their order: { name, section, language, text, output }.  A name is
# the line of the file, a section the last heading; output is the plain block
# that follows with nothing between, or undef.
sub blocks_of
{
	my $file = shift;
	my (@blocks, $block, $near);
	my ($line, $section) = (0, '');

	open my $in, '<:raw', "$root/$file" or die "could not open $file: $!";
	while (my $text = <$in>)
	{
		$line++;
		if ($block && $text =~ /^```\s*$/)
		{
			$near->{output} = $block->{text} if $near && $block->{language} eq '';
			push @blocks, $block;
			($near, $block) = ($block->{language} eq 'sql' ? $block : undef, undef);
		}
		elsif ($block)
		{
			$block->{text} .= $text;
		}
		elsif ($text =~ /^```(\w*)$/)
		{
			$block = { name => "$file:$line", section => $section, language => $1, text => '' };
		}
		elsif ($text =~ /\S/)
		{
			undef $near;
			$section = $1 if $text =~ /^#+ (.*)$/;
		}
	}
	close $in;
	die "$file:$line: a block has no end" if $block;
	return @blocks;
}

# What psql prints and complains of.  The role is the one given, except where
# the block begins with "-- as a superuser".
sub run_block
{
	my ($node, $db, $block, $role) = @_;
	my ($stdout, $stderr) = ('', '');
	my $sql = $block->{text};

	$sql = "\\set QUIET on\nSET ROLE $role;\n\\set QUIET off\n$sql"
	  if $role && $sql !~ /^-- as a superuser/;
	my @command =
	  ('psql', '-X', '-v', 'ON_ERROR_STOP=1', '-P', 'footer=off', '-d', $node->connstr($db));
	IPC::Run::run(\@command, '<', \$sql, '>', \$stdout, '2>', \$stderr);
	return ($stdout, $stderr);
}

# The tags of commands that return nothing, and empty lines.
my $tag = qr/
	INSERT\ \d+\ \d+
	| (?:UPDATE|DELETE)\ \d+
	| (?:CREATE|ALTER|DROP)\ [A-Z ]+
	| CALL | SET | BEGIN | COMMIT | ROLLBACK | GRANT | LISTEN | LOAD
	| Expanded\ display\ is\ on\.
/x;

# What psql prints as documents show it: without the blanks that pad lines, and
# without tags.
sub without_padding
{
	my $text = shift;
	my @lines = map { s/\s+$//r } split /\n/, $text;
	return join "\n", grep { !/^$tag?$/ } @lines;
}

1;
