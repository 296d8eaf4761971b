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
my $proxy = IPC::Run::start([ 'nghttpx', '--no-location-rewrite', '--workers=1', '--single-process',
		'--errorlog-file=/dev/null', "--accesslog-file=$log", '--accesslog-format=$alpn $status $remote_port',
		"--frontend=127.0.0.1,$port", "--backend=127.0.0.1,$twilio->{port}",
		"$certificate->{dir}/key.pem", "$certificate->{dir}/cert.pem" ], \$in, '>&', \$out);
my $node = new_cluster('http2', $twilio, conf => "sendcampaign.api_url = 'https://127.0.0.1:$port'\n"
	  . "sendcampaign.ca_file = '" . $certificate->ca_file . "'\n");

my $campaign = create_campaign($node, users => 500);
my $job = $node->safe_psql('postgres', "SET ROLE app; SELECT send_campaign($campaign)");
my $run = wait_for_run($node, $job);
is("$run->{state} $run->{sent}", 'completed 500', 'all are sent');
is(scalar(keys %{ $twilio->count_by_phone }), 500, 'each once');
my @lines = split /\n/, slurp_file($log);
is((grep { !/^h2 201 / } @lines), 0, 'each over HTTP/2');
my %connections = map { (split / /)[2] => 1 } @lines;
is(scalar(keys %connections), 1, 'on one connection');

$proxy->kill_kill(grace => 5);
$node->stop;
done_testing();
