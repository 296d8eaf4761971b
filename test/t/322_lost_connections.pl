# Citus: the tables have moved away while their campaign is sent, and the connections
# to their node are lost again and again: an aborted tick counts nothing twice, and the
# run goes on.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../perl";
use Campaign;
use Test::More;

plan skip_all => 'CITUS is not set' if !$ENV{CITUS};
require Citus;
require LocalTwilio;
my $twilio = LocalTwilio->start;
my $citus = Citus->new(
	'lost', $twilio,
	workers => 1,
	conf => "sendcampaign.max_concurrency = 10\n");
my ($coordinator, $worker) = $citus->nodes;

my $tenant = $citus->add_tenant('tenant', users => 800, on => 1);
$citus->call_slowly($worker, $tenant);
$citus->move($tenant, 0);
my $ended = 0;
while ($ended < 5 && $citus->accepted($tenant) < 800)
{
	# the job's row is the last that a tick writes: what it has counted is rolled back
	my ($count) = sql($coordinator, <<~"SQL") =~ /(\d+)\z/;
		BEGIN;
		SELECT id FROM tenant.ac_background_jobs WHERE id = $tenant->{job} FOR UPDATE;
		SELECT pg_sleep(0.4);
		SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
		WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()
			AND wait_event_type = 'Lock';
		COMMIT;
		SQL
	$ended += $count;
}
cmp_ok($ended, '>', 3, 'ticks were aborted');
$citus->sent_once($tenant, 'connections are lost');
$citus->stop;
done_testing();
