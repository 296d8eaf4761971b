# Commands that may fail.
package Command;

use strict;
use warnings;

use Exporter 'import';
use IPC::Run ();

our @EXPORT = qw(run_in);

# Whether a command succeeds in a directory, and what it prints, errors included.
sub run_in
{
	my ($directory, @command) = @_;
	my $output = '';
	my $ok = IPC::Run::run(\@command, '<', \undef, '>&', \$output,
		init => sub { chdir $directory or die });
	return ($ok, $output);
}

1;
