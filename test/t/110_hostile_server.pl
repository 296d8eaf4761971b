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
my $usual = 4;    # usual answers before each odd one: connections are used again
my $users = @oddities * ($usual + 1);

# The oddity that a number gets; undef for the usual answer.
sub oddity_of
{
	my ($number) = $_[0] =~ /^\+1555(\d+)$/;
	return $number % ($usual + 1) ? undef : $oddities[ $number / ($usual + 1) - 1 ];
}

sub take_oddly
{
	my ($client, $request) = @_;
	my $name = oddity_of($request->{to});
	return $client->ok if !defined $name;
	$client->take;
	$oddity{$name}->($client);
}

# Values of Retry-After that mean nothing, or "now".
my @soon = ('-5', '0', '1', 'Mon, 01 Jan 1900 00:00:00 GMT', 'Sun, 06 Nov 1994 08:49:37 GMT', 'Thu, 01 Jan 1970 00:00:00 GMT',
	'garbage', '', '1e9', '0x7fffffff', '2147483648x', '1' x 2000, "1\r\nRetry-After: 86400", 'Mon, 99 Foo 2099 99:99:99 GMT');
my @late = ('86400', '2147483648', '99999999999999999999', 'Fri, 31 Dec 9999 23:59:59 GMT');

# The first time it is asked to wait.
sub ask_to_wait
{
	my ($client, $request, @values) = @_;
	my ($number) = $request->{to} =~ /(\d{7})$/;
	return $client->ok if $request->{attempt} > 1;
	$client->answer('429 Too Many Requests', '{"code": 20429, "message": "Too many", "status": 429}', "Retry-After: $values[$number - 1]");
}

# Refusals whose words are not fit to be stored.
my $long = "\\u0007\\n" . "\xc3\xa4" x 30000;
my @refusals = (qq({"code": 21211, "message": "$long"}), '{"code": -5, "message": null}', '{"code": 99999999999}',
	'{"code": [21211], "message": {"a": 1}}', '{"code": 21211, "message": "\u0000"}', '{"code": 21211, "message": "' . "\xff" . '"}');

# Every second message is taken and has no answer.
sub answer_every_second { my ($client, $request) = @_; return $client->ok if $request->{to} =~ /[02468]$/; $client->take; $client->finish; }

# A server and a database for each, all at the same time.
my %server = (
	postgres => HostileServer->start(answer => \&take_oddly),
	no_list => HostileServer->start(answer => \&take_oddly, list => '404 Not Found'),
	soon => HostileServer->start(answer => sub { ask_to_wait(@_, @soon) }),
	late => HostileServer->start(answer => sub { ask_to_wait(@_, @late) }),
	future => HostileServer->start(answer => \&answer_every_second, date => 'Fri, 31 Dec 9999 23:59:59 GMT'),
	past => HostileServer->start(answer => \&answer_every_second, date => 'Thu, 01 Jan 1970 00:00:01 GMT'),
	no_date => HostileServer->start(answer => \&answer_every_second, date => 'Mon, 99 Foo 2099 99:99:99 GMT'),
	bad_list => HostileServer->start(answer => \&answer_every_second, list_sid => ['SM1']),
	refused => HostileServer->start(answer => sub {
		$_[0]->answer('401 Unauthorized', qq({"code": 20003, "message": "$long"}),
			map({ "WWW-Authenticate: $_" } 'Basic realm="a"', 'Digest realm="a", nonce="b"', 'NTLM', 'Negotiate'));
	}),
	failed => HostileServer->start(answer => sub {
		my ($client, $request) = @_;
		my ($number) = $request->{to} =~ /(\d{7})$/;
		$client->answer('400 Bad Request', $refusals[ $number - 1 ]);
	}),
	# answers that nobody has asked for yet: which is whose cannot be known
	early => HostileServer->start(
		on_connect => sub { $_[0]->raw("$created\r\nContent-Length: 14\r\n\r\n{\"sid\": \"XX1\"}") },
		answer => sub {
			my ($client, $request) = @_;
			$client->ok;
			select undef, undef, undef, 0.01;
			$client->raw("$created\r\nContent-Length: 14\r\n\r\n{\"sid\": \"XX2\"}") if $request->{to} =~ /5$/;
		}));
my %users = (postgres => $users, no_list => $users, soon => scalar @soon, late => scalar @late, failed => scalar @refusals, early => 100);
my $node = new_cluster('hostile', $server{postgres}, conf => qq{
	restart_after_crash = on
	max_worker_processes = 30
	sendcampaign.max_concurrency = 5
	sendcampaign.request_timeout = '2s'
	sendcampaign.lookup_delay = 0
	sendcampaign.failure_threshold = -1
	fsync = off
});
my $started = $node->safe_psql('postgres', 'SELECT pg_postmaster_start_time()');
my (%campaign, %job, %run);
for my $db (grep { $_ ne 'postgres' } sort keys %server) { clone_database($node, $db, $server{$db}); }
for my $db (sort keys %server) { $campaign{$db} = create_campaign($node, db => $db, users => $users{$db} // 20); }
for my $db (sort keys %server) { $job{$db} = start_campaign($node, $campaign{$db}, db => $db); }

sub memory { my ($peak) = (-e "/proc/$_[0]/status" ? slurp_file("/proc/$_[0]/status") : '') =~ /^VmHWM:\s+(\d+)/m; return ($peak // 0) / 1024; }
sub sql { my ($db, $query) = @_; return $node->safe_psql($db, $query); }
sub messages { my ($db, $what) = @_; return sql($db, "SELECT $what FROM sendcampaign.message WHERE job_id = $job{$db} ORDER BY list_user_id"); }
sub first_ten { return [ map { substr $_, 0, 200 } @_[0 .. ($#_ > 9 ? 9 : $#_)] ]; }

# The most memory that one of the workers took, until all runs have ended.
# A message that is sent later, now and then, shows what is not in the list.
my $peak = 0;
my $looks = 0;
my $later = 15559990001;
my %left = %server;
delete $left{late};
poll(sub {
	if (++$looks % 100 == 0 && $left{postgres})
	{
		sql('postgres', "SELECT sendcampaign.send_test($campaign{postgres}, '+$later')");
		$later += $usual + 1;
	}
	for my $now (map { memory($_) } worker_pids($node)) { $peak = $now if $now > $peak; }
	for my $db (keys %left) { delete $left{$db} if sql($db, "SELECT state IN ('completed', 'failed') FROM sendcampaign.run WHERE job_id = $job{$db}") eq 't'; }
	return !%left;
}, 300) or diag("not ended: @{[ sort keys %left ]}");
$run{$_} = run_row($node, $job{$_}, $_) for keys %server;
# sanitizers take more
cmp_ok($peak, '<', $ENV{ASAN_OPTIONS} ? 300 : 60, 'the memory of the workers is bounded');
note("a worker took $peak MB");

# Everything was asked for once.
for my $db (grep { !/^(soon|late)$/ } sort keys %server)
{
	my $attempts = $server{$db}->attempts;
	is_deeply(first_ten(grep { $attempts->{$_} != 1 } sort keys %$attempts), [], "$db: none was asked for twice");
}
my @requests = map { $server{$_}->requests } 'postgres', 'no_list';
is((grep { $_->{path} =~ /elsewhere/ } @requests), 0, 'no redirect was followed');
is((grep { $_->{headers}{cookie} } @requests), 0, 'no cookie was sent');

# What was taken is found, whatever was answered.
my %taken = map { $_->{to} => $_->{sid} } $server{postgres}->taken;
is("$run{postgres}{state} $run{postgres}{sent}", "completed $users", 'odd answers: all are sent') or diag($run{postgres}{error});
my @wrong;
for (split /\n/, messages('postgres', "phone || ' ' || status || ' ' || sid"))
{
	my ($phone, $status, $sid) = split / /;
	push @wrong, (oddity_of($phone) // 'a usual answer') . ": $_" if "$status $sid" ne "sent $taken{$phone}";
}
is_deeply(first_ten(@wrong), [], 'odd answers: each under its SID');

# Where there is no list, what is in doubt says why.
my @doubts = split /\n/, messages('no_list', "phone || '|' || status || '|' || coalesce(error_message, '')");
is("$run{no_list}{state}", 'completed', 'no list: the run ends') or diag($run{no_list}{error});
is_deeply(first_ten(grep { !/\|sent\|$|\|in_doubt\|[ -~]{10,300}; its look-up failed: HTTP status 404$/ } @doubts), [], 'no list: each outcome has its reason');
cmp_ok((grep { /\|in_doubt\|/ } @doubts), '>=', 40, 'no list: most of the odd answers leave doubt');
for my $name ('headers without end', 'trailers without end', '100 Continue without end', '103 Early Hints without end', 'tiny headers without end')
{
	my ($doubt) = grep { (oddity_of(/^(\S+?)\|/) // '') eq $name } @doubts;
	like($doubt, qr/the headers of the answer are too long/, "no list: $name");
}

is("$run{bad_list}{sent} $run{bad_list}{in_doubt}", '10 10', 'a list with odd SIDs: the doubt stays') or diag($run{bad_list}{error});

# Retry-After
is("$run{soon}{state} $run{soon}{sent}", 'completed ' . @soon, 'Retry-After that means nothing: all are sent') or diag($run{soon}{error});
is_deeply([ sort values %{ $server{soon}->attempts } ], [ (2) x @soon ], 'Retry-After that means nothing: at the second attempt');
ok(poll(sub { keys %{ $server{late}->attempts } == @late }), 'Retry-After far away: all were asked for');
is_deeply([ values %{ $server{late}->attempts } ], [ (1) x @late ], 'Retry-After far away: none a second time yet');
sql('late', "SET ROLE app; SELECT sendcampaign.cancel($job{late})");
my $late = wait_for_run($node, $job{late}, db => 'late');
is("$late->{state} $late->{skipped}", 'cancelled ' . @late, 'Retry-After far away: the run can be cancelled');

# A Date that is wrong does not hide what was taken.
for my $db ('future', 'past', 'no_date')
{
	is("$run{$db}{state} $run{$db}{sent}", 'completed 20', "Date, $db: all are sent") or diag($run{$db}{error});
}

# Refusals
is("$run{refused}{state} $run{refused}{sent}", 'failed 0', '401: the run fails');
like($run{refused}{error}, qr/^Twilio refuses the account or sender: 20003 /, '401: it says why');
cmp_ok(length $run{refused}{error}, '<', 700, '401: in few words');
is("$run{failed}{state} $run{failed}{failed}", 'completed ' . @refusals, '400: all fail');
is(sql('failed', "SELECT bool_and(length(error_message) BETWEEN 5 AND 500 AND error_message !~ '[[:cntrl:]]') FROM sendcampaign.message"), 't',
	'400: with words that can be read');
is(messages('failed', "error_code"), join("\n", 21211, (400) x 5), '400: with codes that can be Twilio\'s');

is("$run{early}{state} $run{early}{sent}", 'completed 100', 'answers too early: all are sent') or diag($run{early}{error});

is(sql('postgres', 'SELECT pg_postmaster_start_time()'), $started, 'the server has not restarted');
is(worker_errors($node), '', 'nor does the log tell of errors');
$node->stop;
$_->stop for values %server;
done_testing();
