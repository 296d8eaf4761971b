# An application with Sequelize 6 makes the tables, fills them, calls
# send_campaign() in a transaction and reads the job as its users see it.
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
my $node = new_cluster('sequelize', $twilio, no_extension => 1);
install_as_shown($node);

my $seen = run_application($node, 'application.js');

is($seen->{abandoned}, 'rolled back', 'one transaction is rolled back');
is($seen->{job}{progress}, 100, 'the job has ended');
is($seen->{job}{error}, undef, 'the job has no error');
is_deeply(
	$seen->{job}{data},
	{
		kept => JSON::PP::true,
		state => 'completed',
		total => 50,
		sent => 50,
		failed => 0,
		skipped => 0,
		inDoubt => 0,
		delivered => 0,
		undelivered => 0,
		unconfirmed => 0
	},
	'the job has the counts beside what the application keeps there');
is_deeply($seen->{sentCounts}, [ (1) x 50 ], 'sentCount of each is 1');
my @ledger = $twilio->ledger;
is(scalar @ledger, 50, 'each gets one message');
my $text = qr/Hall\xc3\xb3, \xc3\x9e\xc3\xb3r!/;
my $link = qr{https://example\.org/survey\?yu=\d+&yc=\d+};
like($ledger[0]{body}, qr/^$text $link$/, 'the text arrives byte for byte');
is(sql($node, 'SELECT count(*) FROM ac_background_jobs'),
	1, 'there is no job of the abandoned transaction');
$node->stop;
done_testing();
