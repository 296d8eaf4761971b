# Who the server is counts: with a certificate of a stranger, or for another
# name, nothing is sent, and the credentials stay at home.
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
system_or_bail('openssl', 'req', '-x509', '-newkey', 'rsa:2048', '-nodes', '-days', 2, '-batch',
	'-subj', '/CN=example.org', '-addext', 'subjectAltName=DNS:example.org',
	'-keyout', "$wrong_name/key.pem", '-out', "$wrong_name/cert.pem");

my $node = new_cluster('tls', $twilio);

# With these settings nothing is sent and the run says why; with those it is.
sub refused_then_mended
{
	my ($name, $bad, $error, $good, @refusing) = @_;
	$_->set('reset' => 1) for $twilio, @refusing;
	wait_for_no_worker($node);
	change_conf($node, $bad);
	my $campaign = create_campaign($node, users => 20);
	my $job = start_campaign($node, $campaign);
	ok($node->poll_query_until('postgres', "SELECT error ~ '^Twilio cannot be reached: .*$error'
			FROM sendcampaign.run WHERE job_id = $job"), "$name: the run says so")
	  or diag(run_row($node, $job)->{error});
	is(run_row($node, $job)->{state}, 'running', "$name: it waits");
	is($_->stats->{requests}, 0, "$name: no request left") for $twilio, @refusing;
	change_conf($node, $good);
	sent_once($node, $twilio, $campaign, $job, "$name, mended");
}

refused_then_mended('authority not trusted', "sendcampaign.ca_file = '$wrong_ca'", 'certificate',
	"sendcampaign.ca_file = '$good_ca'");
refused_then_mended('certificates of the system', "sendcampaign.ca_file = ''", 'certificate',
	"sendcampaign.ca_file = '$good_ca'");
refused_then_mended('no file with certificates', "sendcampaign.ca_file = '/nonexistent'", '(certificate|file)',
	"sendcampaign.ca_file = '$good_ca'");
my $named = LocalTwilio->start(options => [ '--tls-cert', "$wrong_name/cert.pem", '--tls-key', "$wrong_name/key.pem" ]);
refused_then_mended('certificate for another name',
	"sendcampaign.api_url = 'https://127.0.0.1:$named->{port}'\nsendcampaign.ca_file = '$wrong_name/cert.pem'",
	'(certificate|subject|127.0.0.1)',
	"sendcampaign.api_url = '" . $twilio->url . "'\nsendcampaign.ca_file = '$good_ca'", $named);
$node->stop;

done_testing();
