# Twilio's regions: a group's account is asked in its region and nowhere else,
# whatever is asked; another server never gets what is meant for a region.
#
# All requests go through a proxy here, which notes the host that is asked for,
# and leads them to the local Twilio.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../perl";
use Campaign;
use IO::Select;
use IO::Socket::INET;
use LocalTwilio;
use POSIX ();
use PostgreSQL::Test::Utils;
use Sweeps;
use Test::More;

my $dir = PostgreSQL::Test::Utils::tempdir();
my @hosts = map { "api$_.twilio.com" } '', '.dublin.ie1', '.dublin.us1', '.sydney.au1';
my $names = join ',', map { "DNS:$_" } @hosts;
system_or_bail(split ' ', <<~"COMMAND");
	openssl req -x509 -newkey rsa:2048 -nodes -days 2 -batch
	-subj /CN=twilio.com -addext subjectAltName=$names
	-keyout $dir/key.pem -out $dir/cert.pem
	COMMAND
my $twilio =
  LocalTwilio->start(options => [ '--tls-cert', "$dir/cert.pem", '--tls-key', "$dir/key.pem" ]);
my $other = LocalTwilio->start;

# Copies what comes from either side to the other, until one has ended.
sub tunnel
{
	my @sides = @_;
	my $select = IO::Select->new(@sides);
	while (my @ready = $select->can_read)
	{
		for my $from (@ready)
		{
			my ($to) = grep { $_ != $from } @sides;
			sysread($from, my $bytes, 65536) or return;
			while (length $bytes)
			{
				my $written = syswrite($to, $bytes) or return;
				substr($bytes, 0, $written, '');
			}
		}
	}
}

# Answers "CONNECT host:port" of one connection, and notes the host.
sub serve_connection
{
	my ($client, $port) = @_;
	my $request = '';
	sysread($client, $request, 4096, length $request) or return while $request !~ /\r\n\r\n\z/;
	my ($host) = $request =~ /^CONNECT (\S+) / or return;
	open my $file, '>>', "$dir/hosts" or return;
	syswrite $file, "$host\n";
	my $server = IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $port) or return;
	syswrite $client, "HTTP/1.1 200 Connection established\r\n\r\n";
	tunnel($client, $server);
}

# A proxy that leads all to this port; returns its process and its own port.
sub start_proxy
{
	my $port = shift;
	my $listener = IO::Socket::INET->new(Listen => 128, LocalAddr => '127.0.0.1', LocalPort => 0)
	  or die "cannot listen: $!";
	my $pid = fork() // die "cannot fork: $!";
	return ($pid, $listener->sockport) if $pid;
	setpgrp 0, 0;
	local $SIG{CHLD} = 'IGNORE';
	while (my $client = $listener->accept)
	{
		my $child = fork() // POSIX::_exit(1);
		next if $child;
		eval { serve_connection($client, $port) };
		POSIX::_exit(0);
	}
	POSIX::_exit(0);
}

my ($proxy, $proxy_port) = start_proxy($twilio->{port});
my $owner = $$;

END
{
	if ($proxy && $owner == $$)
	{
		local $?;
		kill 'KILL', -$proxy, $proxy;
		waitpid $proxy, 0;
	}
}

# The hosts that were asked since this was last asked, without their ports.
my $seen = 0;

sub hosts_asked
{
	my $bytes = -s "$dir/hosts" ? slurp_file("$dir/hosts", $seen) : '';
	$seen += length $bytes;
	my %hosts = map { $_ => 1 } $bytes =~ /^(\S+):443$/mg;
	return join ' ', sort keys %hosts;
}

$ENV{https_proxy} = "http://127.0.0.1:$proxy_port";
my $node = new_cluster('region', $twilio, conf => <<~"CONF");
	sendcampaign.api_url = 'https://api.twilio.com'
	sendcampaign.ca_file = '$dir/cert.pem'
	sendcampaign.request_timeout = '5s'
	sendcampaign.lookup_delay = 0
	sendcampaign.receipts = off
	restart_after_crash = on
	CONF

# A campaign whose group has these keys besides.
sub campaign_in
{
	my ($keys, %arg) = @_;
	my $campaign = create_campaign($node, %arg);
	configure($node, $campaign, "configuration || '$keys'");
	return $campaign;
}

my $dublin = '{"twilioRegion": "ie1", "twilioEdge": "dublin"}';
my $dublin_host = 'api.dublin.ie1.twilio.com';

# Nothing goes to another host, neither messages nor what is asked about them.
my $campaign = create_campaign($node, users => 5);
my $job = start_campaign($node, $campaign);
sent_once($node, $twilio, $campaign, $job, 'no region', total => 5);
is(hosts_asked(), 'api.twilio.com', 'without a region, the host is that of the setting');
wait_for_no_worker($node);

$twilio->set('fault:drop-after' => '#3', 'fault:drop-before' => '#3');
$campaign = campaign_in($dublin, users => 300);
$job = start_campaign($node, $campaign);
is(wait_for_run($node, $job, alone => 1)->{state}, 'completed', 'a region: the run ends');
sent_once($node, $twilio, $campaign, $job, 'a region, with doubt', total => 300);
cmp_ok($twilio->stats->{lists}, '>=', 6, 'messages in doubt were looked up');
my $many = $job;
is(hosts_asked(), $dublin_host, 'all of that in the region');
wait_for_no_worker($node);

my $edge = campaign_in('{"twilioEdge": "dublin"}', users => 2);
$job = start_campaign($node, $edge);
sent_once($node, $twilio, $edge, $job, 'an edge alone', total => 2);
is(hosts_asked(), 'api.dublin.us1.twilio.com', 'an edge alone is for the region us1');
wait_for_no_worker($node);

# A crash, and commits that were lost: what was sent is asked for in the region.
$twilio->set(hold => 1, 'hold-after' => 1, reset => 1);
$campaign = campaign_in($dublin, users => 10);
$job = start_campaign($node, $campaign);
wait_for_flight($twilio, 10);
kill_worker($node);
$twilio->set(hold => 0);
wake($node);
is(wait_for_run($node, $job, alone => 1)->{state}, 'completed', 'a crash: the run ends');
sent_once($node, $twilio, $campaign, $job, 'a crash', total => 10);
change_conf($node, "sendcampaign.lookup_timeout = '3s'");
wait_for_no_worker($node);
lose_commits($node, $job, 5, undef, alone => 1);
is($twilio->stats->{accepted}, 10, 'lost commits: nobody has it twice');
is(hosts_asked(), $dublin_host, 'all of that in the region');
wait_for_no_worker($node);

# Groups with the same account, in two regions, at the same time
change_conf($node, "sendcampaign.request_timeout = '60s'");
$twilio->set(hold => 1, 'hold-after' => 0, reset => 1);
my @campaigns = map { campaign_in($_, users => 10) } $dublin,
  '{"twilioRegion": "au1", "twilioEdge": "sydney"}';
my @jobs = map { start_campaign($node, $_) } @campaigns;
wait_for_flight($twilio, 20);
is(scalar(worker_pids($node)), 1, 'one worker has both');
is(hosts_asked(), "$dublin_host api.sydney.au1.twilio.com", 'each in its region');
$twilio->set(hold => 0);
sent_once($node, $twilio, $campaigns[$_], $jobs[$_], "region $_", total => 10) for 0, 1;
wait_for_no_worker($node);
hosts_asked();

# So is what became of their messages, one by one; and of many, in the list.
$twilio->set('deliver-after' => 0);
change_conf($node, 'sendcampaign.receipts = on');
sql($node, <<~"SQL");
	UPDATE sendcampaign.run_data SET sweep_at = now() WHERE job_id IN ($jobs[0], $jobs[1]);
	SELECT sendcampaign.wake()
	SQL
ok(wait_for_sweep($node, $_), 'a sweep') for @jobs;
is(receipts_of($node, $jobs[$_]), 'delivered 10', "region $_: what became of them") for 0, 1;
is(hosts_asked(), "$dublin_host api.sydney.au1.twilio.com", 'each is asked in its region');
sweep_now($node, $many);
is(hosts_asked(), $dublin_host, 'so is the list');
change_conf($node, 'sendcampaign.receipts = off');
wait_for_no_worker($node);

# The region is changed while a message is in doubt: it is not in the new
# region's list, which proves nothing.
$twilio->set('fault:never-after' => '#1', reset => 1);
$campaign = campaign_in($dublin, users => 1);
$job = start_campaign($node, $campaign);
ok(poll(sub { $twilio->stats->{accepted} == 1 }), 'a message is under way');
configure($node, $campaign, q(configuration || '{"twilioRegion": "us1"}'));
terminate_workers($node);
wait_for_no_worker($node);
change_conf($node, "sendcampaign.request_timeout = '5s'");
wake($node);
wait_for_run($node, $job, alone => 1);
is(sql($node, <<~"SQL"), 'in_doubt', 'sent in another region: it stays in doubt')
	SELECT status FROM sendcampaign.message
	WHERE job_id = $job AND error_message
	      ~ 'it was sent to an account that the group no longer has'
	SQL
  or diag(sql($node, "SELECT * FROM sendcampaign.message WHERE job_id = $job"));
is($twilio->stats->{accepted}, 1, 'and is not sent again');
wait_for_no_worker($node);
hosts_asked();

# Names that could lead elsewhere, and those that are missing
my @wrong = (
	'IE1', 'ie1.evil.org/', 'evil.org#', 'ie1@evil', '.', 'ie1.',
	'-ie1', 'ie1-', 'ie 1', "ie\\n1", 'i' x 33);
for my $name (@wrong)
{
	my $region = campaign_in(qq({"twilioRegion": "$name", "twilioEdge": "dublin"}));
	my $error = sql_error($node, "SELECT sendcampaign.preview($region)", role => 'app');
	is($error->{sqlstate}, '22023', "region '$name' is refused");
	my $with_edge = campaign_in(qq({"twilioRegion": "ie1", "twilioEdge": "$name"}));
	$error = sql_error($node, "SELECT sendcampaign.preview($with_edge)", role => 'app');
	is($error->{sqlstate}, '22023', "edge '$name' is refused");
}

# The error of preview() for a group with these keys
sub error_of
{
	my $campaign = campaign_in(shift);
	return sql_error($node, "SELECT sendcampaign.preview($campaign)", role => 'app');
}

is_deeply(
	error_of('{"twilioRegion": "IE1", "twilioEdge": "dublin"}'),
	{
		sqlstate => '22023',
		message => q{invalid value for "twilioRegion" in the group's configuration: "IE1"},
		detail => '',
		hint => q{Use the name of one of Twilio's regions, such as "ie1".}
	},
	'a wrong region: the error');
is( error_of('{"twilioEdge": "Dublin"}')->{hint},
	q{Use the name of one of Twilio's edges, such as "dublin".},
	'a wrong edge: the hint');
is_deeply(
	error_of('{"twilioRegion": "ie1"}'),
	{
		sqlstate => '55000',
		message => q{the group's configuration has "twilioRegion", but no "twilioEdge"},
		detail => '',
		hint => q{Use the name of one of Twilio's edges, such as "dublin".}
	},
	'a region without an edge: the error');
is(error_of('{"twilioRegion": " ie1 ", "twilioEdge": " dublin "}')->{message},
	'', 'blanks around the names are no error');

# Another server than Twilio's: with a region, nothing is sent to either.
my $message = q{the group configures a region or an edge of Twilio,}
  . q{ but "sendcampaign.api_url" is not Twilio's};
my $hint = q{Remove "twilioRegion" and "twilioEdge" from the group's configuration,}
  . q{ or reset "sendcampaign.api_url".};
change_conf($node, "sendcampaign.request_timeout = '60s'");
$twilio->set(reset => 1, hold => 1);
$campaign = campaign_in($dublin, users => 100);
$job = start_campaign($node, $campaign);
wait_for_flight($twilio, 10);
change_conf($node, "sendcampaign.api_url = '" . $other->url . "'");
$twilio->set(hold => 0);
my $run = wait_for_all_of_run($node, $job, alone => 1);
is($run->{state}, 'failed', 'the setting is changed in mid-run: the run fails');
like($run->{error}, qr/\Q$message\E.*\Q$hint\E/, 'and says why');
my $sent = sent_of($twilio, $campaign);
is($run->{sent}, $sent, 'what was on its way is recorded');
cmp_ok($sent, '<', 100, 'the rest is not sent');
is($other->stats->{requests}, 0, 'nothing is sent to the other server');
is_deeply(
	error_of($dublin),
	{ sqlstate => '55000', message => $message, detail => '', hint => $hint },
	'the error of preview()');
$job = start_campaign($node, campaign_in('{"twilioEdge": "dublin"}', users => 2));
is(wait_for_run($node, $job, alone => 1)->{state}, 'failed', 'a new run fails');
like(run_row($node, $job)->{error}, qr/\Q$message\E/, 'and says why');
change_conf($node, 'sendcampaign.receipts = on');
sweep_now($node, $jobs[0]);
is($other->stats->{requests}, 0, 'nothing is sent to the other server');
is(hosts_asked(), $dublin_host, 'nor anywhere else');
change_conf($node, 'sendcampaign.receipts = off');

# Twilio's own address, written differently
wait_for_no_worker($node);
$twilio->set(reset => 1);
for my $url ('https://API.twilio.com:443', 'https://api.twilio.com//')
{
	change_conf($node, "sendcampaign.api_url = '$url'");
	is(error_of($dublin)->{message}, '', "$url is Twilio's");
}
for my $url (
	'https://api.twilio.com.example.org', 'https://api.twilio.com/x',
	'https://api.twilio.com:8443', 'https://api.dublin.ie1.twilio.com')
{
	change_conf($node, "sendcampaign.api_url = '$url'");
	is(error_of($dublin)->{message}, $message, "$url is not");
}

$node->stop;
my $of_crash = qr/.*(?:terminating connection because of crash|terminated by signal 9).*\n?/;
is(worker_errors($node) =~ s/$of_crash//gr, '', 'no worker complains');
done_testing();
