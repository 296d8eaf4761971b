# The job is the idempotency key: the same call again sends nothing again.
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
my $node = new_cluster('idempotent', $twilio);

sub create_job
{
	return $node->safe_psql('postgres',
		'SET ROLE app; INSERT INTO ac_background_jobs (progress) VALUES (5) RETURNING id');
}

# What a call prints, and its notice.
sub call
{
	my ($campaign, $job) = @_;
	my ($out, $err);
	$node->psql('postgres', "SET ROLE app; SELECT send_campaign($campaign, $job)",
		stdout => \$out, stderr => \$err);
	return ($out, $err);
}

# once more after it is through, and within one transaction
my $campaign = create_campaign($node, users => 3, message => 'twice');
my $job = create_job();
is((call($campaign, $job))[0], $job, 'the first call returns the job');
wait_for_run($node, $job);
my ($out, $err) = call($campaign, $job);
is($out, $job, 'so does the second');
like($err, qr/NOTICE:  campaign $campaign is completed already for background job $job\n/, 'with a notice');
like($err, qr/DETAIL:  Nothing is sent a second time\./, 'that nothing is sent');
wait_for_no_worker($node);
is(sent_with($twilio, 'twice'), 3, 'sent once');

$campaign = create_campaign($node, users => 3, message => 'in one');
$job = create_job();
$node->safe_psql('postgres', qq{SET ROLE app; BEGIN; SELECT send_campaign($campaign, $job);
	SELECT send_campaign($campaign, $job); COMMIT});
wait_for_run($node, $job);
wait_for_no_worker($node);
is(sent_with($twilio, 'in one'), 3, 'twice in a transaction: sent once');

# another job sends it again
wait_for_run($node, start_campaign($node, $campaign, job => create_job()));
is(sent_with($twilio, 'in one'), 6, 'another job: sent again');

# Two connections: the second call waits for the first one's transaction.
my ($first, $second) = map { Session->open($node) } 1 .. 2;
$_->query('SET ROLE app') for $first, $second;

sub call_at_once
{
	my ($end_of_first, $campaign, @jobs) = @_;
	$first->query("BEGIN; SELECT send_campaign($campaign, $jobs[0])");
	$second->start_query("SELECT send_campaign($campaign, $jobs[1])");
	$node->poll_query_until('postgres', q{SELECT count(*) = 1 FROM pg_stat_activity
		WHERE wait_event_type = 'Lock' AND query LIKE 'SELECT send_campaign%'})
	  or diag('the second call does not wait');
	$first->query($end_of_first);
	return $second->finish_query;
}

$campaign = create_campaign($node, users => 3, message => 'committed');
$job = create_job();
is(call_at_once('COMMIT', $campaign, $job, $job), $job, 'first commits: the second returns the job');
like($second->errors, qr/NOTICE:  campaign $campaign is \w+ already for background job $job\n/, 'with a notice');
wait_for_run($node, $job);
wait_for_no_worker($node);
is(sent_with($twilio, 'committed'), 3, 'sent once');

$campaign = create_campaign($node, users => 3, message => 'rolled back');
$job = create_job();
is(call_at_once('ROLLBACK', $campaign, $job, $job), $job, 'first rolls back: the second returns the job');
is(wait_for_run($node, $job)->{sent}, 3, 'and sends');
wait_for_no_worker($node);
is(sent_with($twilio, 'rolled back'), 3, 'once');

$campaign = create_campaign($node, users => 3, message => 'other job');
$job = create_job();
$twilio->set(hold => 1);
is(call_at_once('COMMIT', $campaign, $job, create_job()), '', 'another job at the same time: no result');
like($second->errors, qr/ERROR:  campaign $campaign is being sent already\n/, 'but an error');
$twilio->set(hold => 0);
wait_for_run($node, $job);
wait_for_no_worker($node);
is(sent_with($twilio, 'other job'), 3, 'sent once');

# a transaction that cannot see the first one's run must not send either
$campaign = create_campaign($node, users => 3, message => 'repeatable');
$job = create_job();
$second->query('BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT FROM ac_campaigns');
wait_for_run($node, start_campaign($node, $campaign, job => $job));
$second->query("SELECT send_campaign($campaign, $job); COMMIT");
like($second->errors, qr/ERROR:  could not serialize access/, 'repeatable read: a serialization failure');
wait_for_no_worker($node);
is(sent_with($twilio, 'repeatable'), 3, 'sent once');

$_->close for $first, $second;
$node->stop;
done_testing();
