# Only a superuser says where credentials go, and only to a safe place.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../perl";
use Campaign;
use LocalTwilio;
use Test::More;

my $twilio = LocalTwilio->start;
my $evil = LocalTwilio->start;
my $node = new_cluster('api_url', $twilio);
my $load = 'SELECT sendcampaign.version();';

# The error of setting it, in a session that has loaded the library.
sub set_to
{
	my $url = shift;
	return sql_error($node, "$load SET sendcampaign.api_url = '$url'");
}

my @allowed = (
	'https://api.twilio.com', 'https://api.ie1.twilio.com/',
	'https://proxy.example.org:8443/twilio', 'https://[2001:db8::1]',
	'http://127.0.0.1', 'http://127.0.0.1:8080/',
	'http://127.8.9.10:80', 'http://localhost:8080',
	'http://[::1]:8080');
is(set_to($_)->{message}, '', "'$_' is allowed") for @allowed;

my @refused = (
	# not encrypted, and not on this machine
	'http://api.twilio.com',
	'http://10.0.0.1',
	'http://192.168.1.1:8080',
	'http://0.0.0.0',
	'http://example.org',
	# only looks as if it were
	'http://127.0.0.1@evil',
	'http://127.0.0.1:80@evil.example',
	'http://localhost.evil',
	'http://127.0.0.1.evil',
	'http://evil/127.0.0.1',
	'http://evil#127.0.0.1',
	'http://evil?127.0.0.1',
	'http://localhost\\@evil',
	# has a user or password
	'http://user@127.0.0.1',
	'http://user:password@127.0.0.1',
	'http://:password@127.0.0.1',
	'http://@127.0.0.1',
	'https://user@api.twilio.com',
	'https://user:password@api.twilio.com',
	'https://:password@api.twilio.com',
	# another scheme, or no URL
	'ftp://127.0.0.1',
	'file:///etc/passwd',
	'gopher://127.0.0.1',
	'127.0.0.1',
	'api.twilio.com',
	'https://',
	'https:',
	'',
	' ');
is(set_to($_)->{sqlstate}, '22023', "'$_' is refused") for @refused;
like(
	set_to('http://api.twilio.com')->{detail},
	qr/^Credentials are sent to it, so it must be an https: URL/,
	'and the detail says why');

# not in a session of another role, nor as a setting of the role
my $evil_url = $evil->url;
my $campaign = create_campaign($node, users => 2, message => 'secret');
my $refused = qr/^permission denied to set parameter "sendcampaign\.(api_url|ca_file|enabled)"$/;
for my $setting ("api_url = '$evil_url'", "ca_file = '/tmp/evil'", 'enabled = off')
{
	my $alter = "ALTER ROLE app SET sendcampaign.$setting";
	like(sql_error($node, "$load SET sendcampaign.$setting", role => 'app')->{message},
		$refused, "$setting is refused in a session");
	like(sql_error($node, $alter, role => 'app')->{message},
		$refused, "$setting is refused with ALTER ROLE");
	like(sql_error($node, "$load $alter", role => 'app')->{message},
		$refused, "$setting is refused with ALTER ROLE, with the library loaded");
}

# set before the library is loaded: it has no effect
my ($out, $err) = sql_output($node, <<~"SQL", user => 'app');
	SET sendcampaign.api_url = '$evil_url';
	SELECT send_campaign($campaign);
	SHOW sendcampaign.api_url;
	SQL
like(
	$err,
	qr/WARNING:  permission denied to set parameter "sendcampaign\.api_url"/,
	'set before the library is loaded: there is a warning');
my ($job, $url) = split /\n/, $out;
is($url, $twilio->url, 'and it has no effect');
is(wait_for_run($node, $job)->{sent}, 2, 'the campaign is sent');
is(sent_with($twilio, 'secret'), 2, 'to where the configuration says');

# a superuser may set it for a database or a role
wait_for_no_worker($node);
sql($node, "ALTER ROLE app SET sendcampaign.api_url = '$evil_url'");
is(run_campaign($node, $campaign)->{sent}, 2, 'ALTER ROLE by a superuser: it is sent');
is(sent_with($evil, 'secret'), 2, 'to where that says');
sql($node, 'ALTER ROLE app RESET sendcampaign.api_url');

# slashes at the end, before Twilio's own path
wait_for_no_worker($node);
my $with_slashes = $twilio->url . '//';
sql($node, "ALTER DATABASE postgres SET sendcampaign.api_url = '$with_slashes'");
is(run_campaign($node, $campaign)->{sent}, 2, 'slashes at the end: it is sent');

# a name that is misspelled is no setting
like(
	sql_error($node, "$load SET sendcampaign.api_uri = 'x'")->{message},
	qr/^invalid configuration parameter name "sendcampaign\.api_uri"$/,
	'an unknown setting is refused');

wait_for_no_worker($node);
$node->stop;
done_testing();
