# Sessions of the superuser that stay open between statements, one for each database: a
# process of psql and one of the server for each statement would take most of the time
# of a test. Whatever a statement leaves behind in its session is discarded after it
# (but a setting that nobody has defined is empty then, not null).
package KeptSession;

use strict;
use warnings;

use Session;

# Statements that need a session of their own: those on databases, as nothing else may
# be connected to them; settings, as they count for new sessions, and are checked only
# where the library is loaded; transactions, as they may be left open; psql's commands.
my $alone =
  qr/\b(DATABASE|SYSTEM|ALTER\s+(ROLE|USER)|LOAD|pg_reload_conf)\b|(^|;)\s*(BEGIN|START\ TRANSACTION)\b|\\/imx;

# By process (those of one that has forked are not its child's), node, database and what
# the environment says of a session
my %kept;
my @environment = qw(PGCLIENTENCODING PGOPTIONS);

# Can these statements be run here?
sub suits
{
	my $sql = shift;
	return $sql !~ $alone;
}

sub open_session
{
	my ($node, $db) = @_;
	my $session = Session->open($node, $db, '-v', 'ON_ERROR_STOP=1');
	$session->{limit} *= 5;    # a million rows take long on a busy machine
	return $session;
}

# Runs the statements and returns what they print; dies at the first error.
sub run
{
	my ($node, $db, $sql) = @_;
	my $key = join ' ', $$, $node->connstr($db), map { $ENV{$_} // '' } @environment;
	# The server may have been restarted, or have ended it. What it has read and written so
	# far is counted.
	my $first = 'SELECT pg_catalog.pg_stat_force_next_flush()';
	delete $kept{$key} if $kept{$key} && !defined eval { $kept{$key}->query($first) };
	my $session = delete $kept{$key} || open_session($node, $db);
	my $output = eval { $session->query("$sql\n;DISCARD ALL") };
	my $error = $@;
	my $messages = $session->take_errors;
	if (!defined $output)
	{
		# psql has ended with the error, or does not end
		$session->kill;
		die "error running SQL: '" . ($messages || $error) . "'\nwith sql '$sql'\n";
	}
	print $messages;
	$kept{$key} = $session;
	return $output;
}

# Ends those of a node, or all.
sub close_all
{
	my $node = shift;
	my $those = "$$ " . ($node ? $node->connstr : '');
	delete $kept{$_} for grep { index($_, $those) == 0 } keys %kept;
	return;
}

# Before the servers are stopped, which would end them less quietly
END { %kept = () }

1;
