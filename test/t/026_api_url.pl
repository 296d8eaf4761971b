# Where credentials go is a superuser's to say, and only to a safe place.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../perl";
use Campaign;
use LocalTwilio;
use PostgreSQL::Test::Utils;
use Test::More;

my $twilio = LocalTwilio->start;
my $evil = LocalTwilio->start;
my $node = new_cluster('api_url', $twilio);
my $load = 'SELECT sendcampaign.version();';

sub set_to { return sql_error($node, "$load SET sendcampaign.api_url = '$_[0]'"); }

is(set_to($_)->{message}, '', "allowed: $_") for
  'https://api.twilio.com', 'https://api.ie1.twilio.com/', 'https://proxy.example.org:8443/twilio',
  'https://[2001:db8::1]', 'http://127.0.0.1', 'http://127.0.0.1:8080/', 'http://127.8.9.10:80',
  'http://localhost:8080', 'http://[::1]:8080';

for my $url (
	'http://api.twilio.com', 'http://10.0.0.1', 'http://192.168.1.1:8080', 'http://0.0.0.0', 'http://example.org',
	'http://127.0.0.1@evil', 'http://127.0.0.1:80@evil.example', 'http://localhost.evil', 'http://127.0.0.1.evil',
	'http://evil/127.0.0.1', 'http://evil#127.0.0.1', 'http://evil?127.0.0.1', 'http://localhost\\@evil',
	'http://user@127.0.0.1', 'http://user:password@127.0.0.1', 'http://:password@127.0.0.1', 'http://@127.0.0.1',
	'https://user@api.twilio.com', 'https://user:password@api.twilio.com', 'https://:password@api.twilio.com',
	'ftp://127.0.0.1', 'file:///etc/passwd', 'gopher://127.0.0.1', '127.0.0.1', 'api.twilio.com', 'https://', 'https:', '', ' ')
{
	my $error = set_to($url);
	is($error->{sqlstate}, '22023', "refused: '$url'");
	like($error->{detail}, qr/^Credentials are sent there: it must be an https: URL/, "refused: '$url': detail") if $url eq 'http://api.twilio.com';
}

# not in a session of another role, nor as a setting of the role
my $evil_url = $evil->url;
my $campaign = create_campaign($node, users => 2, message => 'secret');
my $refused = qr/^permission denied to set parameter "sendcampaign\.(api_url|ca_file|enabled)"$/;
for my $setting ("api_url = '$evil_url'", "ca_file = '/tmp/evil'", 'enabled = off')
{
	like(sql_error($node, "SET ROLE app; $load SET sendcampaign.$setting")->{message}, $refused, "a session: $setting");
	like(sql_error($node, "SET ROLE app; ALTER ROLE app SET sendcampaign.$setting")->{message}, $refused, "ALTER ROLE: $setting");
	like(sql_error($node, "SET ROLE app; $load ALTER ROLE app SET sendcampaign.$setting")->{message}, $refused, "ALTER ROLE, library loaded: $setting");
}

# set before the library is loaded: as good as not set
my ($out, $err);
$node->psql('postgres', "SET sendcampaign.api_url = '$evil_url'; SELECT send_campaign($campaign); SHOW sendcampaign.api_url",
	stdout => \$out, stderr => \$err, extra_params => [ '-U', 'app' ]);
like($err, qr/WARNING:  permission denied to set parameter "sendcampaign\.api_url"/, 'set before the library is loaded: a warning');
my ($job, $url) = split /\n/, $out;
is($url, $twilio->url, 'and no effect');
is(wait_for_run($node, $job)->{sent}, 2, 'sent');
is(sent_with($twilio, 'secret'), 2, 'to where the configuration says');

# a superuser may, for a database or a role
$node->safe_psql('postgres', "ALTER ROLE app SET sendcampaign.api_url = '$evil_url'");
is(wait_for_run($node, start_campaign($node, $campaign))->{sent}, 2, 'ALTER ROLE by a superuser: sent');
is(sent_with($evil, 'secret'), 2, 'to where that says');
$node->safe_psql('postgres', 'ALTER ROLE app RESET sendcampaign.api_url');

# a path before Twilio's own, and slashes at the end
wait_for_no_worker($node);
$node->safe_psql('postgres', "ALTER DATABASE postgres SET sendcampaign.api_url = '" . $twilio->url . "//'");
is(wait_for_run($node, start_campaign($node, $campaign))->{sent}, 2, 'slashes at the end: sent');

# a name that is misspelt is no setting
like(sql_error($node, "$load SET sendcampaign.api_uri = 'x'")->{message}, qr/^invalid configuration parameter name "sendcampaign\.api_uri"$/,
	'an unknown setting is refused');

wait_for_no_worker($node);
$node->stop;
done_testing();
