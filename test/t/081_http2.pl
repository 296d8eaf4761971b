# Over TLS, HTTP/2 is used where the server offers it: many requests in
# flight on one connection.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";

use Campaign;
use IPC::Run ();
use LocalTwilio;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $twilio = LocalTwilio->start(options => [ '--latency', 20 ]);
my $certificate = LocalTwilio->start(tls => 1);    # for its certificate only
my $port = PostgreSQL::Test::Cluster::get_free_port();
my $log = PostgreSQL::Test::Utils::tempdir() . '/nghttpx.log';
my ($in, $out) = ('', '');
my @command = (
	'nghttpx', '--no-location-rewrite',
	'--workers=1', '--single-process',
	'--errorlog-file=/dev/null', "--accesslog-file=$log",
	'--accesslog-format=$alpn $status $remote_port', "--frontend=127.0.0.1,$port",
	"--backend=127.0.0.1,$twilio->{port}", "$certificate->{dir}/key.pem",
	"$certificate->{dir}/cert.pem");
my $proxy = IPC::Run::start(\@command, \$in, '>&', \$out);
my $ca_file = $certificate->ca_file;
my $node = new_cluster('http2', $twilio, conf => <<~CONF);
    sendcampaign.api_url = 'https://127.0.0.1:$port'
    sendcampaign.ca_file = '$ca_file'
CONF

my $campaign = create_campaign($node, users => 500);
my $run = run_campaign($node, $campaign, alone => 1);
is("$run->{state} $run->{sent}", 'completed 500', 'all are sent');
is(scalar(keys %{ $twilio->count_by_phone }), 500, 'each phone number gets it once');
my @lines = split /\n/, slurp_file($log);
is((grep { !/^h2 201 / } @lines), 0, 'each request uses HTTP/2');
my %requests;    # by connection
$requests{ (split / /)[2] }++ for @lines;
ok((grep { $_ == 500 } values %requests), 'all are on one connection');

$proxy->kill_kill(grace => 5);
$node->stop;
done_testing();
