# Lists, campaigns and messages made in SQL, on tables that Sequelize creates for
# models whose user must not be null, and read by the application.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";

use Application;
use Campaign;
use LocalTwilio;
use PostgreSQL::Test::Utils;
use Test::More;

my $twilio = LocalTwilio->start;
my $node = new_cluster('make_sequelize', $twilio, no_extension => 1);
install_as_shown($node);

my $seen = run_application($node, 'campaigns.js', countryCode => '+354');

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
