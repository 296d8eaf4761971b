# The library works with the objects of 1.0, where the extension has not been updated:
# some tests pass in such databases.  With EXTENSION_VERSION=1.0, script/test runs others.
use strict;
use warnings;
use FindBin;
use PostgreSQL::Test::Utils;
use Test::More;

my @tests = qw(053_doubt 065_retry_failed 261_send_message 280_track);

# The same tests may be running elsewhere at this moment.
$ENV{TESTDATADIR} .= '/objects_of_1_0';
$ENV{TESTLOGDIR} .= '/objects_of_1_0';
$ENV{EXTENSION_VERSION} = '1.0';
for my $test (@tests)
{
	my $output = '';
	my $passed = IPC::Run::run([ $^X, "$FindBin::RealBin/$test.pl" ], '>&', \$output);
	ok($passed, "$test, with the objects of 1.0") or diag($output);
}
done_testing();
