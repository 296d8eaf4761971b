# A server that answers with broken, endless and misleading bytes: each message
# has an outcome with a name, none is sent twice, the worker survives it all
# and takes no more memory for it.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../perl";
use Campaign;
use HostileServer;
use IO::Compress::Gzip qw(gzip);
use LocalTwilio;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $created = 'HTTP/1.1 201 Created';
my $chunked = "$created\r\nTransfer-Encoding: chunked\r\n\r\n";

# A chunked answer, with what comes after its last chunk.
sub chunks { my ($c, $end) = @_; my $body = $c->message; return sprintf "%s%x\r\n%s\r\n0\r\n%s", $chunked, length $body, $body, $end; }

# The whole of an answer, with its first line and further headers given.
sub whole
{
	my ($c, $first, @headers) = @_;
	my $body = $c->message;
	return join "\r\n", $first, @headers, 'Content-Length: ' . length $body, '', $body;
}

# The message is taken, and the answer is this.
my %oddity = (
	'first header begins with a blank' => sub { $_[0]->raw(whole($_[0], $created, ' blank: first')) },
	'first header begins with a tab' => sub { $_[0]->raw(whole($_[0], $created, "\tblank: first")) },
	'folded headers' => sub { $_[0]->raw(whole($_[0], $created, 'Folded: a', ' b', "\tc: d")) },
	'a header of folded lines without end' => sub { $_[0]->raw("$created\r\nFolded: a\r\n"); $_[0]->endless((' ' . 'x' x 1000 . "\r\n") x 64) },
	'a header without a colon' => sub { $_[0]->raw(whole($_[0], $created, 'no colon')) },
	'a header without a name' => sub { $_[0]->raw(whole($_[0], $created, ': no name')) },
	'a NUL in a header' => sub { $_[0]->raw(whole($_[0], $created, "Date: Wed\0nesday")) },
	'a header line of 1 MB' => sub { $_[0]->raw(whole($_[0], $created, 'Long: ' . 'x' x 1e6)) },
	'a header line without end' => sub { $_[0]->raw("$created\r\nLong: "); $_[0]->endless('x' x 65536) },
	'20,000 headers' => sub { $_[0]->raw(whole($_[0], $created, map { "Header-$_: $_" } 1 .. 20000)) },
	'headers without end' => sub { $_[0]->raw("$created\r\n"); $_[0]->endless("Header: one of many\r\n" x 4096) },
	'tiny headers without end' => sub { $_[0]->raw("$created\r\n"); $_[0]->endless("a:\r\n" x 16384) },
	'trailers without end' => sub { $_[0]->raw(chunks($_[0], '')); $_[0]->endless("Trailer: one of many\r\n" x 4096) },
	'a trailer without end' => sub { $_[0]->raw(chunks($_[0], 'Trailer: ')); $_[0]->endless('x' x 65536) },
	'trailers' => sub { $_[0]->raw(chunks($_[0], "Trailer: a\r\n folded: b\r\n\r\n")) },
	'the first trailer begins with a blank' => sub { $_[0]->raw(chunks($_[0], " Trailer: a\r\n\r\n")) },
	'100 Continue without end' => sub { $_[0]->endless("HTTP/1.1 100 Continue\r\n\r\n" x 4096) },
	'103 Early Hints without end' => sub { $_[0]->endless("HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" x 1024) },
	'103 Early Hints' => sub { $_[0]->raw("HTTP/1.1 103 Early Hints\r\n blank: first\r\n\r\n", whole($_[0], $created)) },
	'a chunk size that is none' => sub { $_[0]->raw("${chunked}garbage\r\n") },
	'a negative chunk size' => sub { $_[0]->raw("$chunked-5\r\nabcde\r\n") },
	'an enormous chunk size' => sub { $_[0]->raw("${chunked}FFFFFFFFFFFFFFFFFF\r\n", 'x' x 1000); $_[0]->finish },
	'a chunk extension without end' => sub { $_[0]->raw("${chunked}5;extension="); $_[0]->endless('x' x 65536) },
	'chunks that stop' => sub { $_[0]->raw("${chunked}64\r\n{"); $_[0]->finish },
	'chunks and a length' => sub { my $body = $_[0]->message; $_[0]->raw(sprintf "%s\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n", $created, length $body, $body) },
	'a negative length' => sub { $_[0]->raw("$created\r\nContent-Length: -5\r\n\r\n", $_[0]->message); $_[0]->finish },
	'an enormous length' => sub { $_[0]->raw("$created\r\nContent-Length: 99999999999999999999999\r\n\r\n", $_[0]->message); $_[0]->finish },
	'two lengths' => sub { $_[0]->raw(whole($_[0], $created, 'Content-Length: 3')) },
	'a length too small' => sub { $_[0]->raw("$created\r\nContent-Length: 10\r\n\r\n", $_[0]->message) },
	'a length too large' => sub { $_[0]->raw("$created\r\nContent-Length: 100000\r\n\r\n", $_[0]->message); $_[0]->finish },
	'no length' => sub { $_[0]->raw("$created\r\n\r\n", $_[0]->message); $_[0]->finish },
	'no status line' => sub { $_[0]->raw($_[0]->message); $_[0]->finish },
	'HTTP/0.9 without end' => sub { $_[0]->endless('x' x 65536) },
	'nothing but line ends' => sub { $_[0]->endless("\r\n" x 4096) },
	'another protocol' => sub { $_[0]->raw(whole($_[0], 'ICY 201 Created')) },
	'HTTP/2 in text' => sub { $_[0]->raw(whole($_[0], 'HTTP/2 201')) },
	'HTTP/2 in text, a negative status' => sub { $_[0]->raw(whole($_[0], 'HTTP/2 -201')) },
	'HTTP/2 in text, an enormous status' => sub { $_[0]->raw(whole($_[0], 'HTTP/2 99999999999')) },
	'HTTP/9.9' => sub { $_[0]->raw(whole($_[0], 'HTTP/9.9 201 Created')) },
	'a status of four digits' => sub { $_[0]->raw(whole($_[0], 'HTTP/1.1 2011 Created')) },
	'a negative status' => sub { $_[0]->raw(whole($_[0], 'HTTP/1.1 -201 Created')) },
	'a status of two digits' => sub { $_[0]->raw(whole($_[0], 'HTTP/1.1 20 Created')) },
	'status 999' => sub { $_[0]->raw(whole($_[0], 'HTTP/1.1 999 Odd')) },
	'status 101' => sub { $_[0]->raw(whole($_[0], 'HTTP/1.1 101 Switching Protocols', 'Upgrade: h2c', 'Connection: Upgrade')); $_[0]->finish },
	'status 204' => sub { $_[0]->raw(whole($_[0], 'HTTP/1.1 204 No Content')) },
	'status 304' => sub { $_[0]->raw(whole($_[0], 'HTTP/1.1 304 Not Modified')) },
	'status 417' => sub { $_[0]->raw("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\n\r\n") },
	(map { my $status = $_; ("redirected by $status" => sub { $_[0]->answer("$status Elsewhere", $_[0]->message, "Location: $_[0]{request}{path}?elsewhere") }) } 301, 302, 303, 307, 308),
	'cookies' => sub { $_[0]->ok(map { "Set-Cookie: cookie-$_=" . 'x' x 1000 } 1 .. 10) },
	'an encoding that is not' => sub { $_[0]->ok('Content-Encoding: gzip') },
	'a compressed answer' => sub { my $body = $_[0]->message; gzip(\$body, \my $out); $_[0]->answer('201 Created', $out, 'Content-Encoding: gzip') },
	'1 GB, compressed' => sub { my $zip = ''; { my $out = IO::Compress::Gzip->new(\$zip); $out->print('x' x 1e6) for 1 .. 50; $out->close; } $_[0]->answer('201 Created', $zip, 'Transfer-Encoding: gzip'); $_[0]->finish },
	'a body without end' => sub { $_[0]->raw("$created\r\n\r\n"); $_[0]->endless('x' x 65536) },
	'a body of NULs' => sub { $_[0]->answer('201 Created', "\0" x 1000) },
	'a NUL in JSON' => sub { $_[0]->answer('201 Created', $_[0]->message =~ s/,/,\0/r) },
	'100,000 brackets' => sub { $_[0]->answer('201 Created', '[' x 60000) },
	'a SID that is a list' => sub { $_[0]->answer('201 Created', '{"sid": ["SM1"]}') },
	'a SID that is empty' => sub { $_[0]->answer('201 Created', '{"sid": ""}') },
	'a SID that is null' => sub { $_[0]->answer('201 Created', '{"sid": null}') },
	'a SID with a NUL' => sub { $_[0]->answer('201 Created', '{"sid": "SM1\u0000"}') },
	'a SID with a line end' => sub { $_[0]->answer('201 Created', '{"sid": "SM1\n"}') },
	'a SID that is not UTF-8' => sub { $_[0]->answer('201 Created', "{\"sid\": \"SM\xff\"}") },
	'a SID that is not ASCII' => sub { $_[0]->answer('201 Created', "{\"sid\": \"SM\xc3\xa4\"}") },
	'a SID of 60,000 characters' => sub { $_[0]->answer('201 Created', '{"sid": "' . 'S' x 60000 . '"}') },
	'a header that drips for ever' => sub { $_[0]->raw("$created\r\nDrip: "); $_[0]->endless('x', 0.1) },
	'a body that drips for ever' => sub { $_[0]->raw("$created\r\nContent-Length: 1000000\r\n\r\n"); $_[0]->endless('x', 0.1) },
	'closed without an answer' => sub { $_[0]->finish },
	'reset without an answer' => sub { $_[0]->reset },
	'reset in mid-answer' => sub { $_[0]->raw("$created\r\nContent-Len"); $_[0]->reset },
	'a second answer at once' => sub { $_[0]->raw(whole($_[0], $created), whole($_[0], $created) =~ s/"SM/"XX/r) },
);
my @oddities = sort keys %oddity;
my $usual = 4;    # usual answers before each odd one: handles and connections are used again

# Number n is an odd one where it is a multiple; the others get the usual answer.
my $take = sub {
	my ($client, $request) = @_;
	my ($number) = $request->{to} =~ /^\+1555(\d+)$/;
	my $name = $number % ($usual + 1) ? undef : $oddities[ $number / ($usual + 1) - 1 ];

	return $client->ok if !defined $name;
	$client->take;
	$oddity{$name}->($client);
};
my $server = HostileServer->start(answer => $take);
my $users = @oddities * ($usual + 1);
my $node = new_cluster('hostile', $server, conf => qq{
	restart_after_crash = on
	sendcampaign.max_concurrency = 5
	sendcampaign.request_timeout = '2s'
	sendcampaign.lookup_delay = 0
	sendcampaign.max_failures = ''
});
my $started = $node->safe_psql('postgres', 'SELECT pg_postmaster_start_time()');
sub memory { my ($peak) = (-e "/proc/$_[0]/status" ? slurp_file("/proc/$_[0]/status") : '') =~ /^VmHWM:\s+(\d+)/m; return ($peak // 0) / 1024; }
sub rows { my ($job, $what) = @_; return $node->safe_psql('postgres', "SELECT $what FROM sendcampaign.message WHERE job_id = $job ORDER BY list_user_id"); }
sub name_of { return $_[0] % ($usual + 1) ? 'a usual answer' : $oddities[ $_[0] / ($usual + 1) - 1 ]; }

# Waits for the end of a run; the most memory that its worker took.
sub watch
{
	my $job = shift;
	my $peak = 0;
	poll(sub {
		for my $pid (worker_pids($node)) { my $now = memory($pid); $peak = $now if $now > $peak; }
		return $node->safe_psql('postgres', "SELECT finished_at IS NOT NULL OR state = 'failed' FROM sendcampaign.run WHERE job_id = $job") eq 't';
	}, 300);
	return $peak;
}

# What was taken is found, whatever was answered.
my $campaign = create_campaign($node, users => $users);
my $job = start_campaign($node, $campaign);
my $peak = watch($job);
my $run = run_row($node, $job);
is("$run->{state} $run->{sent}", "completed $users", 'all are sent') or diag($run->{error});
my %taken = map { $_->{to} => $_->{sid} } $server->taken;
my @wrong;
for (split /\n/, rows($job, 'phone, status, sid'))
{
	my ($phone, $status, $sid) = split /\|/;
	push @wrong, substr(name_of(substr $phone, 5) . ": $_", 0, 200) if "$status $sid" ne "sent $taken{$phone}";
}
is_deeply([ @wrong[0 .. ($#wrong > 9 ? 9 : $#wrong)] ], [], 'each under its SID');
is_deeply([ grep { $_ != 1 } values %{ $server->attempts } ], [], 'each was asked for once');
my @requests = $server->requests;
is((grep { $_->{path} =~ /elsewhere/ } @requests), 0, 'no redirect was followed');
is((grep { $_->{headers}{cookie} } @requests), 0, 'no cookie was sent');
cmp_ok($peak, '<', 60, 'the memory of the worker is bounded');
note("the worker took $peak MB");

is($node->safe_psql('postgres', 'SELECT pg_postmaster_start_time()'), $started, 'the server has not restarted');
is(worker_errors($node), '', 'nor does the log tell of errors');
$node->stop;
$server->stop;
done_testing();
