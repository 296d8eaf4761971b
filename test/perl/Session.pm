# A psql session that stays open, to hold locks and transactions.
package Session;

use strict;
use warnings;

use IPC::Run ();
use PostgreSQL::Test::Utils;

# Session->open($node, $db, arguments of psql...)
sub open
{
	my ($class, $node, $db, @arguments) = @_;
	my $self = bless {
		in => '',
		out => '',
		err => '',
		count => 0,
		process => $$,
		limit => $PostgreSQL::Test::Utils::timeout_default
	}, $class;
	$self->{timer} = IPC::Run::timeout($self->{limit});
	$self->{run} =
	  IPC::Run::start([ 'psql', '-XAtq', @arguments, '-d', $node->connstr($db || 'postgres') ],
		'<', \$self->{in}, '>', \$self->{out}, '2>', \$self->{err}, $self->{timer});
	eval { $self->query('SELECT 1'); 1 } or die "could not connect: $self->{err}$@";
	return $self;
}

# Runs the statements and returns what they print; errors are in ->errors.
sub query
{
	my ($self, $sql) = @_;
	$self->start_query($sql);
	return $self->finish_query;
}

# The same in two steps, for statements that wait for someone else.
sub start_query
{
	my ($self, $sql) = @_;
	$self->{count}++;
	$self->{in} .= "$sql;\n\\echo end of query $self->{count}\n";
	$self->{timer}->start($self->{limit});
	$self->{run}->pump_nb while $self->{in} ne '';
}

sub finish_query
{
	my $self = shift;
	my $mark = "end of query $self->{count}";
	$self->{timer}->start($self->{limit});
	$self->{run}->pump until $self->{out} =~ s/\A(.*?)\n?\Q$mark\E\n//s;
	return $1;
}

# All that psql has written to its standard error.
sub errors
{
	my $self = shift;
	return $self->{err};
}

# The same, since the last call
sub take_errors
{
	my $self = shift;
	my $errors = $self->{err};
	$self->{err} = '';
	return $errors;
}

sub close
{
	my $self = shift;
	my $run = delete $self->{run} or return;
	$self->{in} .= "\\q\n";
	$self->{timer}->start($self->{limit});
	return if eval { $run->finish; 1 };
	my $error = $@;
	$run->kill_kill;
	die $error;
}

# The same at once, whatever it is doing
sub kill
{
	my $self = shift;
	my $run = delete $self->{run} or return;
	$run->kill_kill(grace => 0);
	return;
}

sub DESTROY
{
	my $self = shift;
	local ($?, $@);
	# a child of the process that opened it does not end it
	eval { $self->close } if $self->{process} == $$;
}

1;
