# The worker cannot write for a while, since someone locks the extension's own
# tables: it tries again, no second worker comes up beside it, and each
# recipient has the message once.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../perl";
use Campaign;
use LocalTwilio;
use Session;
use Test::More;

my $twilio = LocalTwilio->start(options => [ '--latency', 60 ]);
my $node = new_cluster('failed_record', $twilio, conf => <<~'CONF');
	sendcampaign.request_timeout = '30s'
	sendcampaign.lookup_delay = 0
	sendcampaign.max_concurrency = 10
	CONF
my $campaign = create_campaign($node, users => 6000);

my $job = start_campaign($node, $campaign);
my @workers;
my $tries_again = qr/sendcampaign: could not record or claim messages, trying again: /;
my $waits = qr/sendcampaign: job \d+ waits for the database: /;
for my $table (qw(batch claim message_data))
{
	my $offset = -s $node->logfile;
	my $accepted = $twilio->stats->{accepted};
	ok(poll(sub { $twilio->stats->{accepted} >= $accepted + 200 }),
		"$table: messages are being sent");
	my $sent = run_row($node, $job)->{sent};
	ok(poll(sub { run_row($node, $job)->{sent} > $sent }), "$table: and recorded");
	my $session = Session->open($node);
	$session->query("BEGIN; LOCK TABLE sendcampaign.$table IN ACCESS EXCLUSIVE MODE");
	$node->wait_for_log(qr/$tries_again|$waits/, $offset);
	wake($node) for 1 .. 3;
	push @workers, worker_pids($node);
	$session->query('COMMIT');
}
$twilio->set(latency => 0);
is((grep { $_ != $workers[0] } @workers), 0, 'no second worker was started');
sent_once($node, $twilio, $campaign, $job, 'tables of the extension locked');
is(sql($node, "SELECT max(attempts) FROM sendcampaign.message WHERE job_id = $job"),
	1, 'nothing was in doubt');
$node->stop;

done_testing();
