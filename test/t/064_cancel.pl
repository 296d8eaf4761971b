# cancel(): from the commit on nothing more is sent, and the counts add up.
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
my $node = new_cluster('cancel', $twilio, conf => qq{
	restart_after_crash = on
	sendcampaign.max_concurrency = 40
	sendcampaign.request_timeout = '2s'
	sendcampaign.lookup_delay = '100ms'
});
$node->safe_psql('postgres', 'CREATE ROLE stranger LOGIN; GRANT USAGE ON SCHEMA sendcampaign TO stranger');

sub call { return sql_error($node, "SET ROLE " . ($_[2] // 'app') . "; SELECT sendcampaign.$_[0]($_[1])"); }

# Waits until it is wound up; compares its rows with what Twilio has accepted.
sub is_wound_up
{
	my ($campaign, $job, $name) = @_;
	$node->poll_query_until('postgres', "SELECT finished_at IS NOT NULL FROM sendcampaign.run WHERE job_id = $job");
	my $run = run_row($node, $job);
	my %accepted = map { $_->{body} =~ /\?yu=(\d+)&yc=$campaign$/ ? ($1 => $_->{sid}) : () } $twilio->ledger;
	my %sent = map { split /\|/ } split /\n/, $node->safe_psql('postgres',
		"SELECT list_user_id, sid FROM sendcampaign.message WHERE job_id = $job AND status = 'sent'");
	is($run->{state}, 'cancelled', "$name: cancelled");
	is($run->{sent} + $run->{failed} + $run->{skipped} + $run->{in_doubt}, $run->{total}, "$name: the counts add up");
	is_deeply(\%sent, \%accepted, "$name: sent is what Twilio took");
	is($node->safe_psql('postgres', qq{SELECT (SELECT count(*) FROM sendcampaign.message WHERE job_id = $job),
		(SELECT count(*) FROM sendcampaign.message WHERE job_id = $job AND status = 'skipped' AND error_message = 'cancelled'),
		(SELECT count(*) FROM sendcampaign.batch WHERE run_id = ${\ run_of($job)}), (SELECT count(*) FROM sendcampaign.claim WHERE run_id = ${\ run_of($job)})}),
		"$run->{total}|$run->{skipped}|0|0", "$name: so are the rows, and nothing is left");
	is($node->safe_psql('postgres', qq{SELECT count(*) FROM ac_list_users u, ac_campaigns c WHERE c.id = $campaign
		AND u.ac_list_id = c.ac_list_id AND u.data->>'sentCount' = '1'}), $run->{sent}, "$name: sentCount too");
	return $run;
}

sub job_row { return $node->safe_psql('postgres', "SELECT progress, error, data->>'sent', data->>'skipped' FROM ac_background_jobs WHERE id = $_[0]"); }

# in the middle of many
my $listener = Session->open($node);
$listener->query('LISTEN sendcampaign');
my $campaign = create_campaign($node, users => 10000);
$twilio->set(latency => 20);
my $job = start_campaign($node, $campaign);
$node->poll_query_until('postgres', "SELECT sent > 500 FROM sendcampaign.run WHERE job_id = $job");
is(call('cancel', $job)->{message}, '', 'cancelled in the middle');
my $run = is_wound_up($campaign, $job, 'in the middle');
is($run->{error}, 'cancelled by app', 'it says by whom');
my ($progress, $error, $sent, $skipped) = split /\|/, job_row($job);
ok($progress >= 5 && $progress < 100, 'the job stays where it was') or diag($progress);
is("$error $sent $skipped", "cancelled by app $run->{sent} $run->{skipped}", 'and says so too');
is(scalar(() = $listener->query('SELECT 1') =~ /"state" : "cancelled"/g), 1, 'one notification');
$listener->close;
is(call('cancel', $job)->{message}, "the run of background job $job is cancelled", 'not cancelled twice');
is(call($_, $job)->{sqlstate}, '55000', "nor can it $_") for qw(pause resume);
my $unknown = call('cancel', 424242)->{message};
is(call('cancel', $job, 'stranger')->{message}, $unknown =~ s/424242/$job/r, "another role's is as one that does not exist");
like((sql_error($node, "SET ROLE app; \\set VERBOSITY verbose\nSELECT send_campaign($campaign, $job)"))->{message}, qr/^$/, 'the same job again is no error');
is(run_row($node, $job)->{state}, 'cancelled', 'and changes nothing');

# the campaign may be sent by another job
$twilio->set(latency => 0, reset => 1);
my $again = start_campaign($node, $campaign);
is(wait_for_run($node, $again)->{sent}, 10000, 'another job sends it to all');
is($twilio->stats->{accepted}, 10000, 'once each');

# while it is in the queue
$campaign = create_campaign($node, users => 5);
$job = $node->safe_psql('postgres', "SET ROLE app; BEGIN; SELECT send_campaign($campaign) AS job \\gset\n"
	  . "SELECT sendcampaign.cancel(:job); COMMIT; SELECT :job") =~ s/\s//gr;
is($node->safe_psql('postgres', "SELECT state, total, finished_at IS NOT NULL, error FROM sendcampaign.run WHERE job_id = $job"),
	'cancelled|0|t|cancelled by app', 'in the queue: it ends at once');
is(job_row($job), '5|cancelled by app|0|0', 'so does the job');
ok(worker_is_gone($node, 20), 'no worker stays');

# a superuser's call does not more than the role may
$campaign = create_campaign($node, users => 5);
$job = $node->safe_psql('postgres', "BEGIN; SELECT send_campaign($campaign) AS job \\gset\n"
	  . "SELECT sendcampaign.cancel(:job); COMMIT; SELECT :job") =~ s/\s//gr;
is(run_row($node, $job)->{state}, 'cancelled', "a superuser's call");

# one that is paused, whose worker is gone
my $held;
($campaign, $held) = hold_campaign($node, $twilio, users => 600);
call('pause', $held);
$twilio->set(hold => 0);
ok(worker_is_gone($node, 20), 'paused');
call('cancel', $held);
cmp_ok(is_wound_up($campaign, $held, 'paused')->{sent}, '<=', 40, 'paused: only what was on its way is sent');

# answers are outstanding
($campaign, $held) = hold_campaign($node, $twilio, users => 600);
call('cancel', $held);
$node->poll_query_until('postgres', "SELECT skipped > 0 FROM sendcampaign.run WHERE job_id = $held");
is($node->safe_psql('postgres', "SELECT finished_at IS NULL FROM sendcampaign.run WHERE job_id = $held"), 't', 'answers are waited for');
$twilio->set(hold => 0);
my $flown = is_wound_up($campaign, $held, 'answers outstanding')->{sent};
ok($flown >= 20 && $flown <= 40, 'and recorded') or diag($flown);

# what is in doubt is looked up; meanwhile no other run of the campaign begins
$twilio->set(reset => 1, 'fault:drop-after' => '#3', 'fault:drop-before' => '#3');
$campaign = create_campaign($node, users => 100);
$twilio->set(latency => 100);
$job = start_campaign($node, $campaign);
ok(poll(sub { ($twilio->stats->{faults}{'drop-after'} // 0) == 3 && ($twilio->stats->{faults}{'drop-before'} // 0) == 3 }), 'in doubt');
call('cancel', $job);
$again = start_campaign($node, $campaign);
is(run_row($node, $again)->{state}, 'queued', 'another job waits');
$run = wait_for_run($node, $again);
is("$run->{sent} of $run->{total}", '100 of 100', 'and goes on when it is settled');
my @sids = split /\n/, $node->safe_psql('postgres',
	"SELECT sid FROM sendcampaign.message WHERE job_id IN ($job, $again) AND status = 'sent' ORDER BY 1");
is_deeply(\@sids, [ sort map { $_->{sid} } $twilio->ledger ], 'each SID is that of one message');
$run = run_row($node, $job);
is($run->{sent} + $run->{skipped} + $run->{in_doubt}, 100, 'what was found is sent, the rest skipped');
cmp_ok($run->{in_doubt}, '<=', 3, 'what was not found stays in doubt, as nothing is sent later');

# the worker is killed
for my $case ('held', 'winding up')
{
	$twilio->set(latency => 0);
	($campaign, $job) = hold_campaign($node, $twilio, users => 30000);
	call('cancel', $job);
	$node->poll_query_until('postgres', "SELECT skipped > 0 FROM sendcampaign.run WHERE job_id = $job") if $case ne 'held';
	kill_worker($node);
	$twilio->set(hold => 0);
	$node->poll_query_until('postgres', 'SELECT sendcampaign.wake() >= 0');
	is_wound_up($campaign, $job, "killed, $case");
}

# sending is switched off meanwhile
($campaign, $job) = hold_campaign($node, $twilio, users => 300);
set_and_reload($node, 'sendcampaign.enabled', 'off');
call('cancel', $job);
$twilio->set(hold => 0);
ok(worker_is_gone($node, 20), 'switched off: the worker leaves');
is(run_row($node, $job)->{state}, 'cancelled', 'the run is cancelled');
set_and_reload($node, 'sendcampaign.enabled', 'on');
$node->safe_psql('postgres', 'SELECT sendcampaign.wake()');
is_wound_up($campaign, $job, 'switched on');

# commits were lost: what was sent is read back first, and not called skipped
($campaign, $job) = hold_campaign($node, $twilio, users => 300);
call('pause', $job);
$twilio->set(hold => 0);
ok(worker_is_gone($node, 20), 'paused');
$node->safe_psql('postgres', qq{UPDATE sendcampaign.run SET timeline = '9/lost' WHERE job_id = $job;
	WITH lost AS (DELETE FROM sendcampaign.message_data WHERE run_id = ${\ run_of($job)} RETURNING list_user_id),
	back AS (INSERT INTO sendcampaign.batch SELECT ${\ run_of($job)}, 99, array_agg(list_user_id) FROM lost),
	uncount AS (UPDATE ac_list_users SET data = data - 'sentCount' WHERE id IN (SELECT list_user_id FROM lost))
	UPDATE sendcampaign.run SET sent = 0 WHERE job_id = $job});
call('cancel', $job);
cmp_ok(is_wound_up($campaign, $job, 'commits lost')->{sent}, '>=', 20, 'what was sent is known again');

# without the application's tables, what is in doubt can be looked up no more
($campaign, $job) = hold_campaign($node, $twilio, users => 300);
kill_worker($node);
$node->safe_psql('postgres', qq{SET ROLE app; ALTER TABLE groups RENAME TO gone; SELECT sendcampaign.cancel($job)});
$twilio->set(hold => 0);
$node->poll_query_until('postgres', 'SELECT sendcampaign.wake() >= 0');
$node->poll_query_until('postgres', "SELECT finished_at IS NOT NULL FROM sendcampaign.run WHERE job_id = $job");
$run = run_row($node, $job);
is($run->{state}, 'cancelled', "without the application's tables it ends");
is($run->{sent} + $run->{skipped} + $run->{in_doubt}, 300, 'and the counts add up');
like($run->{error}, qr/^cancelled by app\. table "public.groups" does not exist/, 'with the reason');
$node->safe_psql('postgres', 'ALTER TABLE gone RENAME TO groups');

# a role that no worker can work for
$node->safe_psql('postgres', q{CREATE ROLE leaver LOGIN; GRANT app TO leaver; GRANT USAGE ON SCHEMA sendcampaign TO leaver;
	GRANT ALL ON ALL TABLES IN SCHEMA public TO leaver; GRANT ALL ON ALL SEQUENCES IN SCHEMA public TO leaver});
($campaign, $job) = hold_campaign($node, $twilio, users => 300, role => 'leaver');
kill_worker($node);
$node->safe_psql('postgres', "SET ROLE leaver; SELECT sendcampaign.pause($job)");
$twilio->set(hold => 0);
$node->safe_psql('postgres', 'DROP OWNED BY leaver; DROP ROLE leaver');
$node->safe_psql('postgres', "SELECT sendcampaign.cancel($job); SELECT sendcampaign.wake()");
$run = run_row($node, $job);
is($run->{sent} + $run->{skipped} + $run->{in_doubt}, 300, 'the role is gone: the counts add up');
like($run->{error}, qr/^cancelled by \w+\. role "leaver" does not exist/, 'with the reason');

$node->stop;
done_testing();
