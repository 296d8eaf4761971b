# A server that takes messages as Twilio does, and answers with whatever bytes
# a test wants: broken, endless, too early.  Its list of messages is honest.
# A process for each connection; what they have taken is in a file.
package HostileServer;

use strict;
use warnings;

use Carp;
use File::Temp qw(tempdir);
use IO::Socket::INET;
use JSON::PP ();
use POSIX ();
use Time::HiRes qw(time);

# HostileServer->start(answer => sub { my ($client, $request) = @_; ... })
# The function answers a request to create a message, in the process of its
# connection: a hash with method, path, headers, to, from, body, sid (which the
# message gets if it is taken), attempt (1 for the first request to that
# number).  It writes with ->raw, ->ok and the others below; the message is
# taken where it calls ->take, or ->ok.  Further arguments:
#   on_connect => sub { my ($client) = @_; ... }, before a byte has been read
#   list => '404 Not Found', in place of the list of messages
#   list_sid => in place of each SID in that list
#   change_list => sub { my ($list, $request) = @_; ... }, before the list is written
#   list_behind => seconds that the dates in that list are behind
#   date => a value for the header Date of all answers, or 'now'
sub start
{
	my ($class, %arg) = @_;
	my $listener = IO::Socket::INET->new(Listen => 128, LocalAddr => '127.0.0.1', LocalPort => 0)
	  or croak "cannot listen: $!";
	my $dir = tempdir(CLEANUP => 1);
	my $self = bless { %arg, dir => $dir, port => $listener->sockport, owner => $$ }, $class;

	for my $name ('requests', 'taken')
	{
		open my $file, '>', "$dir/$name" or croak "$dir/$name: $!";
	}
	$self->{pid} = fork() // croak "cannot fork: $!";
	return $self if $self->{pid};
	eval { $self->serve($listener) };
	POSIX::_exit(0);
}

sub url
{
	my $self = shift;
	return "http://127.0.0.1:$self->{port}";
}

sub stop
{
	my $self = shift;
	return if !$self->{pid} || $self->{owner} != $$;
	kill 'KILL', -$self->{pid};
	waitpid $self->{pid}, 0;
	delete $self->{pid};
}

sub DESTROY
{
	my $self = shift;
	local ($?, $@);
	eval { $self->stop };
}

# Lines of JSON that are in one of the files.
sub lines
{
	my ($self, $name) = @_;
	open my $file, '<', "$self->{dir}/$name" or croak "$self->{dir}/$name: $!";
	return map { JSON::PP::decode_json($_) } grep { /\n\z/ } <$file>;
}

# Requests that came, as hashes, see above.
sub requests
{
	my $self = shift;
	return $self->lines('requests');
}

# Messages that were taken: hashes with sid, to, from, body, time.
sub taken
{
	my $self = shift;
	return $self->lines('taken');
}

# How often each number was asked to be sent to.
sub attempts
{
	my $self = shift;
	my %count;
	$count{ $_->{to} }++ for grep { $_->{method} eq 'POST' } $self->requests;
	return \%count;
}

# From here on: in the server's processes.

# How often the number was asked for, without reading all as JSON.
sub attempt
{
	my ($self, $to) = @_;
	open my $file, '<', "$self->{dir}/requests" or die;
	return scalar grep { /"method":"POST"/ && /"to":"\Q$to\E"/ } <$file>;
}

sub serve
{
	my ($self, $listener) = @_;
	setpgrp;
	$SIG{CHLD} = 'IGNORE';
	$SIG{PIPE} = 'IGNORE';
	while (getppid() == $self->{owner})
	{
		my $ready = '';
		vec($ready, fileno $listener, 1) = 1;
		next if !select $ready, undef, undef, 1;
		my $socket = $listener->accept or next;
		next if fork();
		close $listener;
		eval { $self->serve_connection($socket) };
		POSIX::_exit(0);
	}
	kill 'KILL', -$$;
}

# A line at the end of a file, whole.
sub note
{
	my ($self, $name, $row) = @_;
	open my $file, '>>', "$self->{dir}/$name" or die;
	syswrite $file, JSON::PP::encode_json($row) . "\n";
	close $file;
}

sub serve_connection
{
	my ($self, $socket) = @_;
	my $client = HostileServer::Client->new($self, $socket);

	$self->{on_connect}->($client) if $self->{on_connect};
	while (my $request = $client->read_request)
	{
		$self->note('requests', $request);
		if ($request->{method} ne 'POST')
		{
			$client->list($request);
			next;
		}
		$request->{attempt} = $self->attempt($request->{to});
		$client->{request} = $request;
		$self->{answer}->($client, $request);
		last if $client->{closed};
	}
}

# What the answers are written with.
package HostileServer::Client;

use strict;
use warnings;

use POSIX qw(strftime);
use Socket qw(SOL_SOCKET SO_LINGER);

sub new
{
	my ($class, $server, $socket) = @_;
	return bless { server => $server, socket => $socket, buffer => '' }, $class;
}

# Reads some bytes; false where the other side has gone.
sub read_more
{
	my $self = shift;
	return sysread $self->{socket}, $self->{buffer}, 65536, length $self->{buffer};
}

# The next request as a hash, or nothing at the end of the connection.
sub read_request
{
	my $self = shift;
	while ($self->{buffer} !~ /\r\n\r\n/)
	{
		$self->read_more or return;
	}
	my ($head, $rest) = $self->{buffer} =~ /\A(.*?)\r\n\r\n(.*)\z/s;
	my ($first, @lines) = split /\r\n/, $head;
	my ($method, $path) = split / /, $first;
	my %headers = map { /^(.*?): *(.*)/ ? (lc $1 => $2) : () } @lines;
	my $length = $headers{'content-length'} // 0;

	$self->{buffer} = $rest;
	while (length $self->{buffer} < $length)
	{
		$self->read_more or return;
	}
	my $body = substr $self->{buffer}, 0, $length, '';
	my $query = $path =~ s/^[^?]*\??//r;
	my %value = values_of($method eq 'POST' ? $body : $query);
	delete $headers{authorization};
	$self->{count}++;
	return {
		method => $method,
		path => $path,
		headers => \%headers,
		to => $value{To},
		from => $value{From},
		body => $value{Body},
		sid => sprintf('SM%012d%020d', $$, $self->{count})
	};
}

# The names and values of a form.
sub values_of
{
	my $form = shift;
	my @values;
	for my $pair (split /&/, $form)
	{
		push @values, map { tr/+/ /r =~ s/%(..)/chr hex $1/ger } $pair =~ /^(.*?)=(.*)/;
	}
	return @values;
}

# The message is taken now, whatever is answered.
sub take
{
	my $self = shift;
	my %row = map { $_ => $self->{request}{$_} } qw(sid to from body);
	$self->{server}->note('taken', { %row, time => Time::HiRes::time() })
	  if !$self->{request}{taken}++;
}

# Bytes as they are; false where the other side has gone.
sub raw
{
	my ($self, @parts) = @_;
	my $bytes = join '', @parts;
	while (length $bytes)
	{
		my $written = syswrite $self->{socket}, $bytes;
		return 0 if !$written;
		substr $bytes, 0, $written, '';
	}
	return 1;
}

# The same again and again, until the other side has gone.
sub endless
{
	my ($self, $bytes, $pause) = @_;
	while ($self->raw($bytes))
	{
		Time::HiRes::sleep($pause) if $pause;
	}
	$self->finish;
}

# Closes in good order.
sub finish
{
	my $self = shift;
	close $self->{socket};
	$self->{closed} = 1;
}

# Closes with a reset.
sub reset
{
	my $self = shift;
	setsockopt $self->{socket}, SOL_SOCKET, SO_LINGER, pack 'ii', 1, 0;
	$self->finish;
}

# A created message as JSON.  Option: sid.
sub message
{
	my ($self, %arg) = @_;
	my $request = $self->{request};
	return JSON::PP::encode_json({
		sid => $arg{sid} // $request->{sid},
		num_segments => '1',
		status => 'queued',
		to => $request->{to}
	});
}

# Takes the message and says so, with header lines more than usual.
sub ok
{
	my ($self, @headers) = @_;
	$self->take;
	return $self->answer('201 Created', $self->message, @headers);
}

# An answer with any status and body.
sub answer
{
	my ($self, $status, $body, @headers) = @_;
	my $date = $self->{server}{date};
	$date = strftime('%a, %d %b %Y %H:%M:%S GMT', gmtime) if ($date // '') eq 'now';
	push @headers, "Date: $date" if defined $date;
	return $self->raw(
		join "\r\n",
		"HTTP/1.1 $status",
		'Content-Type: application/json',
		'Content-Length: ' . length $body,
		@headers, '', $body);
}

# Twilio's list of messages: those to a number, newest first.
sub list
{
	my ($self, $request) = @_;
	my $server = $self->{server};
	my @rows;

	return $self->answer($server->{list}, '{}') if defined $server->{list};
	for my $row (reverse $server->taken)
	{
		next if defined $request->{to} && $row->{to} ne $request->{to};
		my $time = $row->{time} - ($server->{list_behind} // 0);
		my $date = strftime('%a, %d %b %Y %H:%M:%S +0000', gmtime $time);
		$row->{sid} = $server->{list_sid} if $server->{list_sid};
		push @rows,
		  {
			%$row,
			status => 'sent',
			direction => 'outbound-api',
			num_segments => '1',
			messaging_service_sid => undef,
			date_created => $date,
			date_sent => $date,
			date_updated => $date
		  };
	}
	my %list = (messages => \@rows, page => 0, page_size => 1000, next_page_uri => undef);
	$server->{change_list}->(\%list, $request) if $server->{change_list};
	return $self->answer('200 OK', JSON::PP->new->ascii->encode(\%list));
}

1;
