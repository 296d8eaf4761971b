# Lists, campaigns and messages made in SQL, on tables that Sequelize creates for
# models whose user must not be null, and read by the application.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";

use Campaign;
use Cwd qw(getcwd);
use File::Copy qw(copy);
use JSON::PP qw(decode_json encode_json);
use LocalTwilio;
use PostgreSQL::Test::Utils;
use Test::More;

my $twilio = LocalTwilio->start;
my $node = new_cluster('make_sequelize', $twilio, no_extension => 1);
sql($node, <<~'SQL');
    CREATE EXTENSION sendcampaign;
    CREATE ROLE app LOGIN;
    GRANT CREATE ON SCHEMA public TO app;
    GRANT USAGE ON SCHEMA sendcampaign TO app;
    GRANT EXECUTE ON FUNCTION send_campaign TO app;
    GRANT EXECUTE ON ALL ROUTINES IN SCHEMA sendcampaign TO app;
SQL

my $dir = PostgreSQL::Test::Utils::tempdir();
for my $file (qw(package.json package-lock.json campaigns.js))
{
	copy("$FindBin::RealBin/../node/$file", "$dir/$file") or die "could not copy $file: $!";
}
my $before = getcwd();
chdir $dir;
local $ENV{npm_config_cache} = "$dir/cache";
command_ok([ 'npm', 'ci', '--no-audit', '--no-fund', '--loglevel=error' ],
	'its packages are installed');
local $ENV{PGHOST} = $node->host;
local $ENV{PGPORT} = $node->port;
local $ENV{CONFIGURATION} = encode_json({
	twilioAccountSid => $LocalTwilio::ACCOUNT,
	twilioAuthToken => $LocalTwilio::TOKEN,
	twilioFromSmsNumber => $LocalTwilio::SENDER,
	countryCode => '+354'
});
my ($output, $errors) = run_command([ 'node', 'campaigns.js' ]);
chdir $before;
is($errors, '', 'the application has no errors');
my $seen = decode_json($output || '{}');

is( $seen->{lacking},
	'column "user_id" of "public.ac_lists" needs a value',
	'a user that is missing is named');
is_deeply(
	$seen->{refused},
	[ {
		position => '3',
		phone => 'none',
		refused => 'phone number is neither in E.164 form nor clearly one of +354'
	} ],
	'what is refused is returned');
is_deeply(
	$seen->{list},
	{ name => 'Citizens', user_id => 7, community_id => 3, data => {}, dated => JSON::PP::true },
	'the list is as the application makes its own');
is_deeply(
	[
		map {
			"$_->{user_id} $_->{data}{sms} $_->{data}{name} " . join ' ',
			  map { $_ // 'null' }
			  @{ $_->{data} }{qw(sentCount openCount completeCount)}
		} @{ $seen->{users} }
	],
	[ '7 +15550000001 Ann 1 0 0', '7 +3546123456 Ben 1 0 0' ],
	'so are its users, and their counts');
is($seen->{sent}, 2, 'the campaign is sent');
is($seen->{second}, 1, 'so is the message');
is_deeply(
	[ sort map { "$_->{to} $_->{body}" } $twilio->ledger ],
	[ '+15550000001 Hi Ann!', '+15550000009 Hello', '+3546123456 Hi Ben!' ],
	'each gets one text');
$node->stop;
done_testing();
