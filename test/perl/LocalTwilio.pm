# The local Twilio as a test sees it: started, set, asked, and always ended.
package LocalTwilio;

use strict;
use warnings;

use Carp;
use Cwd qw(abs_path);
use Digest::SHA qw(hmac_sha1);
use File::Basename qw(dirname);
use File::Temp qw(tempdir);
use HTTP::Tiny;
use IPC::Run ();
use JSON::PP ();
use MIME::Base64 qw(encode_base64);
use Symbol qw(gensym);
use Time::HiRes qw(sleep time);

# The account that it has, its token and its number; the phone of companions, see
# Campaign.pm.  Read-only.
our ($ACCOUNT, $TOKEN, $SENDER, $COMPANION);
*ACCOUNT = \'AC00000000000000000000000000000001';
*TOKEN = \'the-secret-auth-token-of-the-tests';
*SENDER = \'+15005550006';
*COMPANION = \'+18885550000';

my $program = dirname(abs_path(__FILE__)) . '/../twilio/twilio';

# LocalTwilio->start(tls => 1, options => [...]): ends with the object.  The
# server also ends when this process does, as its standard input closes.
sub start
{
	my ($class, %arg) = @_;
	my $dir = tempdir(CLEANUP => 1);
	my $self = bless { dir => $dir, log => '', tls => $arg{tls} }, $class;
	$self->{tokens} = { $ACCOUNT => $TOKEN };
	my @command = ($program, qw(--port 0 --control-port 0 --die-with-stdin));
	push @command, '--ready-file', "$dir/ready", '--account', "$ACCOUNT:$TOKEN";

	chmod 0755, $dir;
	if ($arg{tls})
	{
		create_certificate($dir);
		push @command, '--tls-cert', "$dir/cert.pem", '--tls-key', "$dir/key.pem";
	}
	push @command, @{ $arg{options} || [] };
	$self->{in} = gensym();
	$self->{run} = IPC::Run::start(\@command, '<pipe', $self->{in}, '>&', \$self->{log});
	for (1 .. 3000)
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

sub create_certificate
{
	my $dir = shift;
	my @command = split ' ', <<~"COMMAND";
		openssl req -x509 -newkey rsa:2048 -nodes -days 2 -batch
		-subj /CN=localhost -addext subjectAltName=IP:127.0.0.1,DNS:localhost
		-keyout $dir/key.pem -out $dir/cert.pem
		COMMAND
	IPC::Run::run(\@command, '>', '/dev/null', '2>', '/dev/null') or croak 'openssl failed';
}

sub url
{
	my $self = shift;
	my $scheme = $self->{tls} ? 'https' : 'http';
	return "$scheme://127.0.0.1:$self->{port}";
}

sub ca_file
{
	my $self = shift;
	return "$self->{dir}/cert.pem";
}

# What the control port answers to a path.
sub control
{
	my ($self, $path) = @_;
	my $answer = $self->{http}->get("$self->{control}$path");
	croak "the local Twilio answers $path with $answer->{status}: $answer->{content}"
	  if !$answer->{success};
	return $answer->{content};
}

# Changes settings: set('latency' => 100, 'fault:drop-after' => 10, ...)
sub set
{
	my ($self, @settings) = @_;
	my @pairs;
	while (my ($name, $value) = splice @settings, 0, 2)
	{
		if ($name eq 'account')
		{
			my ($account, $token) = split /:/, $value, 2;
			$self->{token} = $self->{tokens}{$account} = $token;
		}
		push @pairs, escaped($name) . '=' . escaped($value);
	}
	return $self->control('/set?' . join '&', @pairs);
}

# A string in a URL.
sub escaped
{
	my $text = shift;
	return $text =~ s/([^A-Za-z0-9_.:-])/sprintf '%%%02X', ord $1/ger;
}

# What it counted; messages to the companion (see Campaign.pm) are not in accepted.
sub stats
{
	my $self = shift;
	my $companions = -1;
	my $stats;

	# one may be accepted in between
	while ($self->companions != $companions)
	{
		$companions = $self->companions;
		$stats = JSON::PP::decode_json($self->control('/stats'));
	}
	$stats->{accepted} -= $companions;
	return $stats;
}

# What it accepted, without companions: hashes with time, sid, account, user,
# from, service, to, body (bytes), extra.
sub ledger
{
	my $self = shift;
	my @rows;
	for my $line (split /\n/, $self->control('/ledger'))
	{
		my %row;
		@row{qw(time sid account user from service to body extra)} =
		  map { unescaped($_) } split /\t/, $line, -1;
		push @rows, \%row if $row{to} ne $COMPANION;
	}
	return @rows;
}

# A value of the ledger without the escapes of JSON.
sub unescaped
{
	my $text = shift;
	my %char = ('n' => "\n", 't' => "\t", 'r' => "\r", 'b' => "\b", 'f' => "\f", '\\' => '\\');
	return $text =~ s/\\(u00([0-9A-Fa-f]{2})|.)/defined $2 ? chr hex $2 : $char{$1}/ger;
}

# Receives a message, as if somebody had written one, and returns its SID.
# Arguments: from, to, body, service, account; those with a capital letter, such
# as OptOutType, are in the callback.  By default it is to the number that it has.
sub inbound
{
	my ($self, %arg) = @_;
	my %message = (account => $ACCOUNT, to => $SENDER, %arg);
	my $query = join '&', map { escaped($_) . '=' . escaped($message{$_}) } sort keys %message;
	chomp(my $sid = $self->control("/inbound?$query"));
	return $sid;
}

# What Twilio would have posted until now, but for the first $since: hashes with
# url, body (a form), params (of the body) and signature (the header
# X-Twilio-Signature).
sub callbacks
{
	my ($self, $since) = @_;
	$since //= 0;
	my @callbacks;
	for my $line (split /\n/, $self->control("/callbacks?since=$since"))
	{
		my ($url, $body) = split /\t/, $line;
		my $params = form_params($body);
		my $token = $self->{tokens}{ $params->{AccountSid} };
		croak "the token of $params->{AccountSid} is not known" if !defined $token;
		push @callbacks,
		  {
			url => unescaped($url),
			body => $body,
			params => $params,
			signature => sign(unescaped($url), $params, $token)
		  };
	}
	return @callbacks;
}

# The parameters of a form, as bytes; those that it repeats are arrays.
sub form_params
{
	my $form = shift;
	my %params;
	for my $pair (split /&/, $form)
	{
		my ($name, $value) =
		  map { tr/+/ /r =~ s/%([0-9A-Fa-f]{2})/chr hex $1/ger } split(/=/, $pair, 2), '';
		my $before = $params{$name};
		$params{$name} = !defined $before ? $value : [ ref $before ? @$before : $before, $value ];
	}
	return \%params;
}

# LocalTwilio::sign($url, \%params, $token): what Twilio writes into the header
# X-Twilio-Signature.  The parameters are bytes; the values of one that is repeated
# are an array.  Of a body that is not a form, only the URL is signed.
sub sign
{
	my ($url, $params, $token) = @_;
	my $signed = $url;
	for my $name (sort keys %$params)
	{
		my %seen = map { $_ => 1 } ref $params->{$name} ? @{ $params->{$name} } : $params->{$name};
		$signed .= $name . $_ for sort keys %seen;
	}
	return encode_base64(hmac_sha1($signed, $token), '');
}

# How many companions it has accepted.
sub companions
{
	my $self = shift;
	return $self->{has_companion} ? $self->control('/count?to=' . escaped($COMPANION)) : 0;
}

# How many messages it accepted for a number.
sub num_to
{
	my ($self, $phone) = @_;
	return scalar grep { $_->{to} eq $phone } $self->ledger;
}

# How many numbers it accepted more than one message for.
sub num_twice
{
	my $self = shift;
	return scalar grep { $_ > 1 } values %{ $self->count_by_phone };
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

sub DESTROY
{
	my $self = shift;
	local ($?, $@);
	eval { $self->stop };
}

1;
