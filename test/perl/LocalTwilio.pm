# The local Twilio as a test sees it: started, set, asked, and always ended.
package LocalTwilio;

use strict;
use warnings;

use Carp;
use Cwd qw(abs_path);
use File::Basename qw(dirname);
use File::Temp qw(tempdir);
use HTTP::Tiny;
use IPC::Run ();
use JSON::PP ();
use Symbol qw(gensym);
use Time::HiRes qw(sleep time);

our $ACCOUNT = 'AC00000000000000000000000000000001';
our $TOKEN = 'the-secret-auth-token-of-the-tests';
our $SENDER = '+15005550006';
our $COMPANION = '+18885550000'; # see Campaign.pm

my $program = dirname(abs_path(__FILE__)) . '/../twilio/twilio';

# LocalTwilio->start(tls => 1, options => [...]): ends with the object.  The
# server also ends when this process does, as its standard input closes.
sub start
{
	my ($class, %arg) = @_;
	my $dir = tempdir(CLEANUP => 1);
	chmod 0755, $dir;
	my @command = ($program, '--port', 0, '--control-port', 0, '--die-with-stdin',
		'--ready-file', "$dir/ready", '--account', "$ACCOUNT:$TOKEN");
	my $self = bless { dir => $dir, stdin => '', log => '', tls => $arg{tls} }, $class;

	if ($arg{tls})
	{
		system("openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost"
			  . " -addext subjectAltName=IP:127.0.0.1,DNS:localhost -batch"
			  . " -keyout $dir/key.pem -out $dir/cert.pem 2>/dev/null") == 0
		  or croak "openssl failed";
		push @command, '--tls-cert', "$dir/cert.pem", '--tls-key', "$dir/key.pem";
	}
	push @command, @{ $arg{options} || [] };
	$self->{run} = IPC::Run::start(\@command, '<pipe', $self->{in} = gensym(),
		'>&', \$self->{log});
	for (1 .. 500)
	{
		last if -s "$dir/ready";
		croak "the local Twilio did not start: $self->{log}" if !$self->{run}->pumpable;
		sleep 0.02;
	}
	open my $ready, '<', "$dir/ready" or croak "the local Twilio did not start";
	my %port = map { chomp; split /=/ } <$ready>;
	close $ready;
	$self->{port} = $port{port};
	$self->{control} = "http://127.0.0.1:$port{control}";
	$self->{http} = HTTP::Tiny->new(timeout => 30);
	return $self;
}

sub url { my $self = shift; return ($self->{tls} ? 'https' : 'http') . "://127.0.0.1:$self->{port}"; }
sub ca_file { my $self = shift; return "$self->{dir}/cert.pem"; }

sub control
{
	my ($self, $path) = @_;
	my $answer = $self->{http}->get("$self->{control}$path");
	croak "the local Twilio answers $path with $answer->{status}: $answer->{content}"
	  if !$answer->{success};
	return $answer->{content};
}

# set('latency' => 100, 'fault:drop-after' => 10, ...)
sub set
{
	my ($self, @settings) = @_;
	my @pairs;
	while (my ($name, $value) = splice @settings, 0, 2)
	{
		$self->{token} = $value =~ s/.*?://r if $name eq 'account';
		push @pairs, join '=', map { s/([^A-Za-z0-9_.:-])/sprintf '%%%02X', ord $1/ger } $name, $value;
	}
	return $self->control('/set?' . join '&', @pairs);
}

# What it counted; messages to the companion (see Campaign.pm) are not in accepted.
sub stats
{
	my $self = shift;
	my $stats = JSON::PP::decode_json($self->control('/stats'));
	$stats->{accepted} -= $self->control('/count?to=%2B18885550000') if $self->{has_companion};
	return $stats;
}

# Rows of what it accepted: hashes with time, sid, account, user, from,
# service, to, body (bytes), extra.
sub ledger
{
	my $self = shift;
	my %unescape = ('n' => "\n", 't' => "\t", 'r' => "\r", 'b' => "\b", 'f' => "\f", '\\' => '\\');
	my @rows;
	for my $line (split /\n/, $self->control('/ledger'))
	{
		my %row;
		@row{qw(time sid account user from service to body extra)} =
		  map { s/\\(u00([0-9A-Fa-f]{2})|.)/defined $2 ? chr hex $2 : $unescape{$1}/ger } split /\t/, $line, -1;
		push @rows, \%row if $row{to} ne $COMPANION;
	}
	return @rows;
}

# How many companions it has taken, see Campaign.pm.
sub companions
{
	my $self = shift;
	return scalar grep { (split /\t/)[6] eq $COMPANION } split /\n/, $self->control('/ledger');
}

# How often each number was sent to: { '+1555...' => 1, ... }
sub count_by_phone
{
	my $self = shift;
	my %count;
	$count{ $_->{to} }++ for $self->ledger;
	return \%count;
}

sub stop
{
	my $self = shift;
	return if !$self->{run};
	$self->{run}->kill_kill(grace => 5);
	delete $self->{run};
}

sub DESTROY { my $self = shift; local ($?, $@); eval { $self->stop }; }

1;
