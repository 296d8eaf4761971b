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

# The odd answers, by name: functions that are called with the client once the
# message is taken.  Most of them come from the tables that follow.
my %oddity;

# The bytes of a whole answer with this first line and these further headers.
sub whole_answer
{
	my ($client, $first_line, @headers) = @_;
	my $body = $client->message;
	my $length = length $body;
	return join "\r\n", $first_line, @headers, "Content-Length: $length", '', $body;
}

# The bytes of a chunked answer, with what comes after its last chunk.
sub chunked_answer
{
	my ($client, $end) = @_;
	my $body = $client->message;
	return sprintf "%s%x\r\n%s\r\n0\r\n%s", $chunked, length $body, $body, $end;
}

# Header lines in an answer that is in order otherwise
my %header_lines = (
	'first header begins with a blank' => [' blank: first'],
	'first header begins with a tab' => ["\tblank: first"],
	'folded headers' => [ 'Folded: a', ' b', "\tc: d" ],
	'a header without a colon' => ['no colon'],
	'a header without a name' => [': no name'],
	'a NUL in a header' => ["Date: Wed\0nesday"],
	'a header line of 1 MB' => [ 'Long: ' . 'x' x 1e6 ],
	'20,000 headers' => [ map { "Header-$_: $_" } 1 .. 20000 ],
	'two lengths' => ['Content-Length: 3']);
for my $name (keys %header_lines)
{
	$oddity{$name} = sub {
		my $client = shift;
		$client->raw(whole_answer($client, $created, @{ $header_lines{$name} }));
	};
}

# First lines of an answer that is in order otherwise
my %first_line = (
	'another protocol' => 'ICY 201 Created',
	'HTTP/2 in text' => 'HTTP/2 201',
	'HTTP/2 in text, a negative status' => 'HTTP/2 -201',
	'HTTP/2 in text, an enormous status' => 'HTTP/2 99999999999',
	'HTTP/9.9' => 'HTTP/9.9 201 Created',
	'a status of four digits' => 'HTTP/1.1 2011 Created',
	'a negative status' => 'HTTP/1.1 -201 Created',
	'a status of two digits' => 'HTTP/1.1 20 Created',
	'status 999' => 'HTTP/1.1 999 Odd',
	'status 204' => 'HTTP/1.1 204 No Content',
	'status 304' => 'HTTP/1.1 304 Not Modified');
for my $name (keys %first_line)
{
	$oddity{$name} = sub {
		my $client = shift;
		$client->raw(whole_answer($client, $first_line{$name}));
	};
}

my $folded_line = ' ' . 'x' x 1000 . "\r\n";

# Answers without end: what they begin with, what follows again and again, and
# the seconds in between
my %endless = (
	'a header of folded lines without end' => [ "$created\r\nFolded: a\r\n", $folded_line x 64 ],
	'a header line without end' => [ "$created\r\nLong: ", 'x' x 65536 ],
	'headers without end' => [ "$created\r\n", "Header: one of many\r\n" x 4096 ],
	'tiny headers without end' => [ "$created\r\n", "a:\r\n" x 16384 ],
	'100 Continue without end' => [ '', "HTTP/1.1 100 Continue\r\n\r\n" x 4096 ],
	'103 Early Hints without end' =>
	  [ '', "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" x 1024 ],
	'a chunk extension without end' => [ "${chunked}5;extension=", 'x' x 65536 ],
	'HTTP/0.9 without end' => [ '', 'x' x 65536 ],
	'nothing but line ends' => [ '', "\r\n" x 4096 ],
	'a body without end' => [ "$created\r\n\r\n", 'x' x 65536 ],
	'a header that drips for ever' => [ "$created\r\nDrip: ", 'x', 0.1 ],
	'a body that drips for ever' => [ "$created\r\nContent-Length: 1000000\r\n\r\n", 'x', 0.1 ]);
for my $name (keys %endless)
{
	$oddity{$name} = sub {
		my $client = shift;
		my ($beginning, $repeated, $pause) = @{ $endless{$name} };
		$client->raw($beginning);
		$client->endless($repeated, $pause);
	};
}

# Lengths that are not that of the body, after which the connection is closed
my %length = (
	'a negative length' => '-5',
	'an enormous length' => '99999999999999999999999',
	'a length too large' => '100000');
for my $name (keys %length)
{
	$oddity{$name} = sub {
		my $client = shift;
		$client->raw("$created\r\nContent-Length: $length{$name}\r\n\r\n", $client->message);
		$client->finish;
	};
}

# Bodies that are not what Twilio answers
my %body = (
	'a body of NULs' => "\0" x 1000,
	'60,000 brackets' => '[' x 60000,
	'a SID that is a list' => '{"sid": ["SM1"]}',
	'a SID that is empty' => '{"sid": ""}',
	'a SID that is null' => '{"sid": null}',
	'a SID with a NUL' => '{"sid": "SM1\u0000"}',
	'a SID with a line end' => '{"sid": "SM1\n"}',
	'a SID that is not UTF-8' => qq({"sid": "SM\xff"}),
	'a SID that is not ASCII' => qq({"sid": "SM\xc3\xa4"}),
	'a SID of 60,000 characters' => '{"sid": "' . 'S' x 60000 . '"}');
for my $name (keys %body)
{
	$oddity{$name} = sub {
		my $client = shift;
		$client->answer('201 Created', $body{$name});
	};
}

for my $status (301, 302, 303, 307, 308)
{
	$oddity{"redirected by $status"} = sub {
		my $client = shift;
		my $location = "$client->{request}{path}?elsewhere";
		$client->answer("$status Elsewhere", $client->message, "Location: $location");
	};
}

# Trailers

$oddity{'trailers'} = sub {
	my $client = shift;
	$client->raw(chunked_answer($client, "Trailer: a\r\n folded: b\r\n\r\n"));
};

$oddity{'the first trailer begins with a blank'} = sub {
	my $client = shift;
	$client->raw(chunked_answer($client, " Trailer: a\r\n\r\n"));
};

$oddity{'trailers without end'} = sub {
	my $client = shift;
	$client->raw(chunked_answer($client, ''));
	$client->endless("Trailer: one of many\r\n" x 4096);
};

$oddity{'a trailer without end'} = sub {
	my $client = shift;
	$client->raw(chunked_answer($client, 'Trailer: '));
	$client->endless('x' x 65536);
};

# Chunks and lengths

$oddity{'a chunk size that is none'} = sub {
	my $client = shift;
	$client->raw("${chunked}garbage\r\n");
};

$oddity{'a negative chunk size'} = sub {
	my $client = shift;
	$client->raw("$chunked-5\r\nabcde\r\n");
};

$oddity{'an enormous chunk size'} = sub {
	my $client = shift;
	$client->raw("${chunked}FFFFFFFFFFFFFFFFFF\r\n", 'x' x 1000);
	$client->finish;
};

$oddity{'chunks that stop'} = sub {
	my $client = shift;
	$client->raw("${chunked}64\r\n{");
	$client->finish;
};

$oddity{'chunks and a length'} = sub {
	my $client = shift;
	my $body = $client->message;
	my $size = sprintf '%x', length $body;
	my $headers = "Content-Length: 3\r\nTransfer-Encoding: chunked";
	$client->raw("$created\r\n$headers\r\n\r\n$size\r\n$body\r\n0\r\n\r\n");
};

$oddity{'a length too small'} = sub {
	my $client = shift;
	$client->raw("$created\r\nContent-Length: 10\r\n\r\n", $client->message);
};

$oddity{'no length'} = sub {
	my $client = shift;
	$client->raw("$created\r\n\r\n", $client->message);
	$client->finish;
};

# Statuses

$oddity{'no status line'} = sub {
	my $client = shift;
	$client->raw($client->message);
	$client->finish;
};

$oddity{'103 Early Hints'} = sub {
	my $client = shift;
	my $hints = "HTTP/1.1 103 Early Hints\r\n blank: first\r\n\r\n";
	$client->raw($hints, whole_answer($client, $created));
};

$oddity{'status 101'} = sub {
	my $client = shift;
	my @headers = ('Upgrade: h2c', 'Connection: Upgrade');
	$client->raw(whole_answer($client, 'HTTP/1.1 101 Switching Protocols', @headers));
	$client->finish;
};

$oddity{'status 408 after 100'} = sub {
	my $client = shift;
	my $timeout = "HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\n\r\n";
	$client->raw("HTTP/1.1 100 Continue\r\n\r\n$timeout");
};

# Cookies and encodings

$oddity{'cookies'} = sub {
	my $client = shift;
	$client->ok(map { "Set-Cookie: cookie-$_=" . 'x' x 1000 } 1 .. 10);
};

$oddity{'an encoding that is not'} = sub {
	my $client = shift;
	$client->ok('Content-Encoding: gzip');
};

$oddity{'a compressed answer'} = sub {
	my $client = shift;
	my $body = $client->message;
	gzip(\$body, \my $compressed);
	$client->answer('201 Created', $compressed, 'Content-Encoding: gzip');
};

$oddity{'50 MB, compressed'} = sub {
	my $client = shift;
	my $compressed = '';
	my $gzip = IO::Compress::Gzip->new(\$compressed);
	$gzip->print('x' x 1e6) for 1 .. 50;
	$gzip->close;
	$client->answer('201 Created', $compressed, 'Transfer-Encoding: gzip');
	$client->finish;
};

$oddity{'a NUL in JSON'} = sub {
	my $client = shift;
	my $body = $client->message;
	$body =~ s/,/,\0/;
	$client->answer('201 Created', $body);
};

# Connections

$oddity{'closed without an answer'} = sub {
	my $client = shift;
	$client->finish;
};

$oddity{'reset without an answer'} = sub {
	my $client = shift;
	$client->reset;
};

$oddity{'reset in mid-answer'} = sub {
	my $client = shift;
	$client->raw("$created\r\nContent-Len");
	$client->reset;
};

$oddity{'a second answer at once'} = sub {
	my $client = shift;
	my $answer = whole_answer($client, $created);
	my $second = $answer =~ s/"SM/"XX/r;
	$client->raw($answer, $second);
};

my @oddities = sort keys %oddity;
my $usual = 4;    # usual answers before each odd one: connections are used again
my $users = @oddities * ($usual + 1);

# The name of the oddity that a number gets; undef for the usual answer.
sub oddity_of
{
	my $phone = shift;
	my ($number) = $phone =~ /^\+1555(\d+)$/;
	return undef if $number % ($usual + 1);
	return $oddities[ $number / ($usual + 1) - 1 ];
}

sub take_oddly
{
	my ($client, $request) = @_;
	my $name = oddity_of($request->{to});
	return $client->ok if !defined $name;
	$client->take;
	$oddity{$name}->($client);
}

# The n of list user n of a campaign.
sub number_of
{
	my $request = shift;
	my ($number) = $request->{to} =~ /(\d{7})$/;
	return $number;
}

# Values of Retry-After that mean nothing, or "now"
my @soon = (
	# numbers
	'-5', '0', '1', '1' x 2000, "1\r\nRetry-After: 86400",
	# dates
	'Mon, 01 Jan 1900 00:00:00 GMT',
	'Sun, 06 Nov 1994 08:49:37 GMT',
	'Thu, 01 Jan 1970 00:00:00 GMT',
	# neither
	'garbage', '', '1e9', '0x7fffffff', '2147483648x',
	'Mon, 99 Foo 2099 99:99:99 GMT');

# ... and those that are far away
my @late = ('86400', '2147483648', '99999999999999999999', 'Fri, 31 Dec 9999 23:59:59 GMT');

# The first request for each number is told to wait.
sub ask_to_wait
{
	my ($client, $request, @values) = @_;
	return $client->ok if $request->{attempt} > 1;
	my $retry_after = $values[ number_of($request) - 1 ];
	my $body = '{"code": 20429, "message": "Too many", "status": 429}';
	$client->answer('429 Too Many Requests', $body, "Retry-After: $retry_after");
}

# Refusals whose words are not fit to be stored
my $long = "\\u0007\\n" . "\xc3\xa4" x 30000;
my @refusals = (
	qq({"code": 21211, "message": "$long"}),
	'{"code": -5, "message": null}',
	'{"code": 99999999999}',
	'{"code": [21211], "message": {"a": 1}}',
	'{"code": 21211, "message": "\u0000"}',
	qq({"code": 21211, "message": "\xff"}));

sub refuse_message
{
	my ($client, $request) = @_;
	$client->answer('400 Bad Request', $refusals[ number_of($request) - 1 ]);
}

sub refuse_account
{
	my $client = shift;
	my @schemes = ('Basic realm="a"', 'Digest realm="a", nonce="b"', 'NTLM', 'Negotiate');
	my $body = qq({"code": 20003, "message": "$long"});
	$client->answer('401 Unauthorized', $body, map { "WWW-Authenticate: $_" } @schemes);
}

# Every second message is taken and has no answer.
sub answer_every_second
{
	my ($client, $request) = @_;
	return $client->ok if $request->{to} =~ /[02468]$/;
	$client->take;
	$client->finish;
}

# An answer that nobody has asked for yet: it cannot be known whose it is.
sub answer_early
{
	my ($client, $sid) = @_;
	my $body = qq({"sid": "$sid"});
	my $length = length $body;
	$client->raw("$created\r\nContent-Length: $length\r\n\r\n$body");
}

sub answer_and_answer_early
{
	my ($client, $request) = @_;
	$client->ok;
	select undef, undef, undef, 0.01;
	answer_early($client, 'XX2') if $request->{to} =~ /5$/;
}

# A server and a database for each, all at the same time
my %server = (
	postgres => HostileServer->start(answer => \&take_oddly),
	no_list => HostileServer->start(answer => \&take_oddly, list => '404 Not Found'),
	soon => HostileServer->start(answer => sub { ask_to_wait(@_, @soon) }),
	late => HostileServer->start(answer => sub { ask_to_wait(@_, @late) }),
	future => HostileServer->start(
		answer => \&answer_every_second,
		date => 'Fri, 31 Dec 9999 23:59:59 GMT'),
	past => HostileServer->start(
		answer => \&answer_every_second,
		date => 'Thu, 01 Jan 1970 00:00:01 GMT'),
	no_date => HostileServer->start(
		answer => \&answer_every_second,
		date => 'Mon, 99 Foo 2099 99:99:99 GMT'),
	bad_list => HostileServer->start(answer => \&answer_every_second, list_sid => ['SM1']),
	refused => HostileServer->start(answer => \&refuse_account),
	failed => HostileServer->start(answer => \&refuse_message),
	early => HostileServer->start(
		on_connect => sub { answer_early(@_, 'XX1') },
		answer => \&answer_and_answer_early));
my %users_of = (
	postgres => $users,
	no_list => $users,
	soon => scalar @soon,
	late => scalar @late,
	failed => scalar @refusals,
	early => 100);

my $node = new_cluster('hostile', $server{postgres}, conf => <<~CONF);
	restart_after_crash = on
	max_worker_processes = 30
	sendcampaign.max_concurrency = 5
	sendcampaign.request_timeout = '10s'
	sendcampaign.lookup_delay = 0
	sendcampaign.failure_threshold = -1
	fsync = off
	CONF
my $started = sql($node, 'SELECT pg_postmaster_start_time()');

my (%campaign, %job, %run);
for my $db (grep { $_ ne 'postgres' } sort keys %server)
{
	clone_database($node, $db, $server{$db});
}
# these servers do answer, be it late on a busy machine
for my $db ('soon', 'late', 'refused', 'failed')
{
	sql($node, "ALTER DATABASE $db SET sendcampaign.request_timeout = '60s'");
}
for my $db (sort keys %server)
{
	$campaign{$db} = create_campaign($node, db => $db, users => $users_of{$db} // 20);
}
for my $db (sort keys %server)
{
	$job{$db} = start_campaign($node, $campaign{$db}, db => $db);
}

# The most memory that a process has taken, in MB; 0 if it is gone.
sub memory_of
{
	my $pid = shift;
	my $status = "/proc/$pid/status";
	return 0 if !-e $status;
	my ($peak) = slurp_file($status) =~ /^VmHWM:\s+(\d+)/m;
	return ($peak // 0) / 1024;
}

# An expression for each message of a run, in the order of list users.
sub messages
{
	my ($db, $expression) = @_;
	return sql($node, <<~SQL, db => $db);
		SELECT $expression
		FROM sendcampaign.message
		WHERE job_id = $job{$db}
		ORDER BY list_user_id
		SQL
}

# The first ten values of a list, shortened.
sub first_ten
{
	my @values = splice @_, 0, 10;
	return [ map { substr $_, 0, 200 } @values ];
}

# "state sent" of a run, as it was at its end.
sub state_and_sent
{
	my $db = shift;
	return "$run{$db}{state} $run{$db}{sent}";
}

# The most memory that one of the workers takes, until all runs have ended but
# the one that waits.  A message that is sent later, now and then, shows what is
# not in the list.
my $peak = 0;
my $looks = 0;
my $later = 15559990001;
my %unfinished = %server;
delete $unfinished{late};

sub look_at_workers_and_runs
{
	if (++$looks % 100 == 0 && $unfinished{postgres})
	{
		sql($node, "SELECT sendcampaign.send_test($campaign{postgres}, '+$later')");
		$later += $usual + 1;
	}
	for my $pid (worker_pids($node))
	{
		my $memory = memory_of($pid);
		$peak = $memory if $memory > $peak;
	}
	for my $db (keys %unfinished)
	{
		my $state = run_row($node, $job{$db}, $db)->{state};
		delete $unfinished{$db} if $state =~ /^(completed|failed)$/;
	}
	return !%unfinished;
}
poll(\&look_at_workers_and_runs, 600)
  or diag('not ended: ' . join ' ', sort keys %unfinished);
$run{$_} = run_row($node, $job{$_}, $_) for keys %server;

# sanitizers take more
cmp_ok($peak, '<', $ENV{ASAN_OPTIONS} ? 300 : 60, 'the memory of the workers is bounded');
note("a worker took $peak MB");

# Everything was asked for once.
for my $db (grep { !/^(soon|late)$/ } sort keys %server)
{
	my $attempts = $server{$db}->attempts;
	my @repeated = grep { $attempts->{$_} != 1 } sort keys %$attempts;
	is_deeply(first_ten(@repeated), [], "$db: no message was asked for twice");
}
my @requests = map { $server{$_}->requests } 'postgres', 'no_list';
is((grep { $_->{path} =~ /elsewhere/ } @requests), 0, 'no redirect was followed');
is((grep { $_->{headers}{cookie} } @requests), 0, 'no cookie was sent');

# What was taken is found, whatever was answered.
my %taken = map { $_->{to} => $_->{sid} } $server{postgres}->taken;
is(state_and_sent('postgres'), "completed $users", 'odd answers: all messages are sent')
  or diag($run{postgres}{error});
my @wrong;
for my $row (split /\n/, messages('postgres', "phone || ' ' || status || ' ' || sid"))
{
	my ($phone, $status, $sid) = split / /, $row;
	next if "$status $sid" eq "sent $taken{$phone}";
	my $name = oddity_of($phone) // 'a usual answer';
	push @wrong, "$name: $row";
}
is_deeply(first_ten(@wrong), [], 'odd answers: each message has its own SID');

# Where there is no list, what is in doubt says why.
my @outcomes =
  split /\n/, messages('no_list', "phone || '|' || status || '|' || coalesce(error_message, '')");
my $known = qr/\|sent\|$/;
my $doubtful = qr/\|in_doubt\|[ -~]{10,300}; its lookup failed: HTTP status 404$/;
is($run{no_list}{state}, 'completed', 'no list: the run ends') or diag($run{no_list}{error});
is_deeply(first_ten(grep { !/$known|$doubtful/ } @outcomes),
	[], 'no list: each outcome has its reason');
cmp_ok((grep { /\|in_doubt\|/ } @outcomes),
	'>=', 40, 'no list: most of the odd answers leave doubt');
for my $name (
	'headers without end',
	'trailers without end',
	'100 Continue without end',
	'103 Early Hints without end',
	'tiny headers without end')
{
	my ($outcome) = grep { (oddity_of(/^(\S+?)\|/) // '') eq $name } @outcomes;
	like($outcome, qr/the headers of the answer are too long/, "no list: $name");
}

is( "$run{bad_list}{sent} $run{bad_list}{in_doubt}",
	'10 10',
	'a list with odd SIDs leaves the doubt') or diag($run{bad_list}{error});

# Retry-After
is( state_and_sent('soon'),
	'completed ' . @soon,
	'Retry-After that means nothing: all messages are sent') or diag($run{soon}{error});
is_deeply(
	[ sort values %{ $server{soon}->attempts } ],
	[ (2) x @soon ],
	'Retry-After that means nothing: at the second attempt');
ok( poll(sub { keys %{ $server{late}->attempts } == @late }),
	'Retry-After far away: all messages were asked for');
is_deeply(
	[ values %{ $server{late}->attempts } ],
	[ (1) x @late ],
	'Retry-After far away: none was asked for a second time yet');
sql($node, "SELECT sendcampaign.cancel($job{late})", db => 'late', role => 'app');
my $late = wait_for_run($node, $job{late}, db => 'late');
is( "$late->{state} $late->{skipped}",
	'cancelled ' . @late,
	'Retry-After far away: the run can be cancelled');

# A Date that is wrong does not hide what was taken.
for my $db ('future', 'past', 'no_date')
{
	is(state_and_sent($db), 'completed 20', "Date, $db: all messages are sent")
	  or diag($run{$db}{error});
}

# Refusals
is(state_and_sent('refused'), 'failed 0', '401: the run fails');
like(
	$run{refused}{error},
	qr/^Twilio refuses the account or sender: 20003 /,
	'401: the error says why');
cmp_ok(length $run{refused}{error}, '<', 700, '401: in few words');
is("$run{failed}{state} $run{failed}{failed}", 'completed ' . @refusals, '400: all messages fail');
my $readable = sql($node, <<~'SQL', db => 'failed');
	SELECT bool_and(length(error_message) BETWEEN 5 AND 500
	                AND error_message !~ '[[:cntrl:]]')
	FROM sendcampaign.message
	SQL
is($readable, 't', '400: with words that can be read');
is( messages('failed', 'error_code'),
	join("\n", 21211, (400) x 3, 21211, 400),
	q{400: with codes that can be Twilio's});

is(state_and_sent('early'), 'completed 100', 'answers that come too early: all messages are sent')
  or diag($run{early}{error});

is(sql($node, 'SELECT pg_postmaster_start_time()'), $started, 'the server has not restarted');
is(worker_errors($node), '', 'the log has no errors');
$node->stop;
$_->stop for values %server;
done_testing();
