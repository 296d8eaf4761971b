# reconcile() of a list of many pages takes no more memory than of one page.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../perl";
use Campaign;
use LocalTwilio;
use PostgreSQL::Test::Utils;
use Session;
use Test::More;

my $twilio = LocalTwilio->start;
my $node = new_cluster('long_reconcile', $twilio, conf => <<~'CONF');
	sendcampaign.receipts = off
	work_mem = '1MB'
	CONF
my $job = run_campaign($node, create_campaign($node, users => 15000))->{job};
wait_for_no_worker($node);
my $session = Session->open($node);
my $pid = $session->query('SELECT pg_backend_pid()');

# The most memory that the session's process has had, in kB
sub peak
{
	my ($peak) = slurp_file("/proc/$pid/status") =~ /^VmHWM:\s+(\d+)/m;
	return $peak;
}

# By then, all is loaded that such a call needs.
my $reconcile = "SELECT count(*) FROM sendcampaign.reconcile($job)";
$session->query('BEGIN');
$session->query("UPDATE sendcampaign.message_data SET created_at = now() + interval '1 day'");
$session->query("UPDATE sendcampaign.run_data SET started_at = now() + interval '1 day'");
$session->query("SELECT count(*) FROM sendcampaign.message_data, sendcampaign.receipt_data");
$session->query($reconcile);
$session->query('ROLLBACK');
my $before = peak();
is($session->query($reconcile), 0, 'all is well');
my $growth = peak() - $before;
note("$growth kB");
cmp_ok($growth, '<', 10240, 'the memory does not grow with the list');
$session->close;
unlike(log_of($node), qr/leak/, 'nor is a file left open');

is(worker_errors($node), '', 'workers have no errors');
$node->stop;
done_testing();
