# The server's identity is checked: with a certificate that is not trusted, or
# that is for another name, nothing is sent, and the credentials stay here.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../perl";
use Campaign;
use LocalTwilio;
use PostgreSQL::Test::Utils;
use Test::More;

my $twilio = LocalTwilio->start(tls => 1);
my $stranger = LocalTwilio->start(tls => 1);
my $good_ca = $twilio->ca_file;
my $wrong_ca = $stranger->ca_file;
my $wrong_name = PostgreSQL::Test::Utils::tempdir();
system_or_bail(split ' ', <<~"COMMAND");
	openssl req -x509 -newkey rsa:2048 -nodes -days 2 -batch
	-subj /CN=example.org -addext subjectAltName=DNS:example.org
	-keyout $wrong_name/key.pem -out $wrong_name/cert.pem
	COMMAND

my $node = new_cluster('tls', $twilio);

# With the settings "bad", nothing is sent and the run says why; with "good", it
# is sent.  Option: refusing (another server, which gets no request either).
sub refused_then_sent
{
	my ($name, %arg) = @_;
	my @servers = ($twilio, $arg{refusing} // ());
	wait_for_no_worker($node);
	$_->set('reset' => 1) for @servers;
	change_conf($node, $arg{bad});
	my $campaign = create_campaign($node, users => 20);
	my $job = start_campaign($node, $campaign);
	ok(wait_until($node, <<~"SQL"), "$name: the run says so")
		SELECT error ~ '^Twilio cannot be reached: .*$arg{error}' FROM sendcampaign.run
		WHERE job_id = $job
		SQL
	  or diag(run_row($node, $job)->{error});
	is(run_row($node, $job)->{state}, 'running', "$name: the run waits");
	is($_->stats->{requests}, 0, "$name: no request is made") for @servers;
	change_conf($node, $arg{good});
	sent_once($node, $twilio, $campaign, $job, "$name, fixed");
}

my $good = "sendcampaign.ca_file = '$good_ca'";
refused_then_sent(
	'authority not trusted',
	bad => "sendcampaign.ca_file = '$wrong_ca'",
	error => 'certificate',
	good => $good);
refused_then_sent(
	'certificates of the system',
	bad => "sendcampaign.ca_file = ''",
	error => 'certificate',
	good => $good);
refused_then_sent(
	'no file with certificates',
	bad => "sendcampaign.ca_file = '/nonexistent'",
	error => '(certificate|file)',
	good => $good);

my $url = $twilio->url;
my $named = LocalTwilio->start(
	options => [ '--tls-cert', "$wrong_name/cert.pem", '--tls-key', "$wrong_name/key.pem" ]);
my $to_named = <<~"CONF";
	sendcampaign.api_url = 'https://127.0.0.1:$named->{port}'
	sendcampaign.ca_file = '$wrong_name/cert.pem'
	CONF
refused_then_sent(
	'certificate for another name',
	bad => $to_named,
	error => '(certificate|subject|127.0.0.1)',
	good => "sendcampaign.api_url = '$url'\n$good",
	refusing => $named);
$node->stop;

done_testing();
