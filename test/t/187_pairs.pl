# Features that meet in the same moment: doubt, lost commits, and what people
# do to the runs meanwhile.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../perl";
use Campaign;
use LocalTwilio;
use Test::More;

my $twilio = LocalTwilio->start;
my $node = new_cluster('pairs', $twilio, conf => qq{
	sendcampaign.request_timeout = '2s'
	sendcampaign.lookup_delay = 0
	sendcampaign.lookup_timeout = '20s'
});
$twilio->{has_companion} = 1;
sub sql { my $sql = shift; return $node->safe_psql('postgres', $sql); }
sub as_app { return sql("SET ROLE app; $_[0]"); }
sub status_of { return sql("SELECT coalesce((SELECT string_agg(status, ' ' ORDER BY list_user_id) FROM sendcampaign.message WHERE schema = 'public' AND job_id = $_[0]), 'none')"); }
sub settled { my $job = shift; return wait_for_run($node, $job); }

# A run is forgotten, and the campaign is sent again; what is in doubt then is
# not taken for what the forgotten run has sent.
for my $how ('forget', 'forget_recipient')
{
	my $campaign = create_campaign($node, users => 1, message => $how, phone => '+15550007001', base_url => "https://example.org/$how");
	$twilio->set(reset => 1, 'clock-skew' => -60);
	my $first = start_campaign($node, $campaign);
	is(settled($first)->{sent}, 1, "$how(): the first run has sent");
	wait_for_no_worker($node);
	is(as_app($how eq 'forget' ? q{SELECT sendcampaign.forget(now()) > 0} : q{SELECT sendcampaign.forget_recipient('+15550007001') > 0}), 't', "$how(): it is forgotten");
	$twilio->set('clock-skew' => 0, 'fault:drop-before' => '#1', 'to-fault' => "$LocalTwilio::COMPANION=spared");
	my $second = start_campaign($node, $campaign);
	settled($second);
	my $accepted = sent_with($twilio, $how);
	my $status = status_of($second);
	ok(($accepted == 2 && $status eq 'sent') || ($accepted == 1 && $status eq 'in_doubt'), "$how(): the second run's message is no earlier one")
	  or diag("accepted $accepted, status $status");
}

# After lost commits, one of a batch is known to be sent, the other is skipped:
# nothing is claimed any more.
{
	my $campaign = create_campaign($node, users => 2, message => 'Claim', base_url => 'https://example.org/claim');
	$twilio->set(reset => 1);
	as_app("UPDATE ac_list_users SET data = data || '{\"sms\": \"none\"}' WHERE id = (SELECT max(id) FROM ac_list_users)");
	my $job = start_campaign($node, $campaign);
	is(settled($job)->{sent}, 1, 'one is sent to, one is skipped');
	wait_for_no_worker($node);
	sql("UPDATE sendcampaign.run_data SET skipped = skipped - 1 WHERE id = ${\ run_of($job)}");
	lose_commits($node, $job, 2);
	is(status_of($job), 'sent skipped', 'after lost commits: the same');
	is(sent_with($twilio, 'Claim'), 1, '... and Twilio has one');
	is(sql("SELECT count(*) FROM sendcampaign.claim WHERE run_id = ${\ run_of($job)}"), 0, '... and nothing is claimed');
}

# The number has changed since what was lost was sent: a person says that the
# new one has nothing, and has it sent.
{
	my $campaign = create_campaign($node, users => 1, message => 'Moved', phone => '+15550007003', base_url => 'https://example.org/moved');
	$twilio->set(reset => 1);
	my $job = start_campaign($node, $campaign);
	settled($job);
	wait_for_no_worker($node);
	as_app("UPDATE ac_list_users SET data = data || '{\"sms\": \"+15550007004\"}' WHERE data->>'sms' = '+15550007003'");
	lose_commits($node, $job, 1);
	is(status_of($job), 'in_doubt', 'to another number: in doubt');
	wait_for_no_worker($node);
	as_app("SELECT sendcampaign.settle(m.job_id, m.list_user_id, false) FROM sendcampaign.message m WHERE m.job_id = $job");
	as_app("SELECT sendcampaign.retry_failed($job)");
	settled($job);
	is(status_of($job), 'sent', '... settled as not sent and tried again: it is sent') or diag(sql("SELECT error_message FROM sendcampaign.message WHERE job_id = $job"));
}

# After lost commits a message is found that waits for what becomes of another
# run's, and then its run is cancelled.
for my $case ([ 'cancel' ], [ 'pause', 'cancel' ], [ 'pause', 'resume' ])
{
	my $what = join '', @$case;
	my ($first, $second) = ("east$what", "west$what");
	make_tenant($node, $_, message => "From $_", base_url => "https://example.org/$what") for $first, $second;
	my $run = "(SELECT id FROM sendcampaign.run WHERE schema = '$first')";
	my $send = sub { sql("SET ROLE $_[0]; SET sendcampaign.schema = $_[0]; SELECT send_campaign(1)") };
	my $state = sub { sql("SELECT state || ' ' || sent || ' ' || skipped || ' ' || in_doubt FROM sendcampaign.run WHERE schema = '$_[0]'") };
	$twilio->set(reset => 1, 'clock-skew' => -7000);
	$send->($first);
	poll(sub { $state->($first) =~ /completed/ });
	wait_for_no_worker($node);
	sql("UPDATE sendcampaign.run_data SET queued_at = queued_at - interval '2 hours', started_at = started_at - interval '2 hours' WHERE id = $run");
	$twilio->set('clock-skew' => 0);
	# the other one's request is held, and its outcome not known
	my $lock_session = $node->background_psql('postgres');
	$lock_session->query_safe("BEGIN; SELECT FROM $second.ac_list_users FOR UPDATE;");
	$twilio->set('fault:drop-before' => '#1', 'to-fault' => "$LocalTwilio::COMPANION=spared");
	$send->($second);
	poll(sub { sql("SELECT count(*) FROM sendcampaign.claim c JOIN sendcampaign.run r ON r.id = c.run_id WHERE r.schema = '$second'") eq '1' });
	sql(qq{SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = 'sendcampaign worker'});
	wait_for_no_worker($node);
	sql(qq{UPDATE sendcampaign.run_data SET sent = 0, state = 'running', finished_at = NULL, timeline = '0/0' WHERE id = $run;
		INSERT INTO sendcampaign.batch (run_id, number, list_user_ids) SELECT run_id, 1, ARRAY[list_user_id] FROM sendcampaign.message_data WHERE run_id = $run;
		DELETE FROM sendcampaign.message_data WHERE run_id = $run;});
	sql(q{SET ROLE } . $second . qq{; SET sendcampaign.schema = $second; SELECT sendcampaign.pause((SELECT job_id FROM sendcampaign.run WHERE schema = '$second'))});
	my $lists = $twilio->stats->{lists};
	sql('SELECT sendcampaign.wake()');
	poll(sub { sql("SELECT count(*) FROM sendcampaign.claim WHERE run_id = $run") eq '1' }) or diag('not claimed');
	$lists = $twilio->stats->{lists};
	poll(sub { $twilio->stats->{lists} > $lists }) or diag('not looked up');
	poll(sub { $twilio->stats->{lists} > $lists + 1 }) or diag('not looked up again');
	my $job = sql("SELECT job_id FROM sendcampaign.run WHERE schema = '$first'");
	my $act = "SET ROLE $first; SET sendcampaign.schema = $first; SELECT sendcampaign.";
	for my $order (@$case)
	{
		sql("$act$order($job)");
		wait_for_no_worker($node) if $order eq 'pause';
	}
	poll(sub { $state->($first) =~ /completed|cancelled/ && sql("SELECT finished_at IS NOT NULL FROM sendcampaign.run WHERE schema = '$first'") eq 't' }) or diag('no end');
	isnt(sql("SELECT status FROM sendcampaign.message WHERE schema = '$first'"), 'skipped', "$what: a message that Twilio has is not skipped")
	  or diag($state->($first));
	is($twilio->stats->{accepted}, 1, "$what: ... and it has it once");
	$lock_session->quit;
	sql("SET ROLE $second; SET sendcampaign.schema = $second; SELECT sendcampaign.cancel((SELECT job_id FROM sendcampaign.run WHERE schema = '$second'))");
	poll(sub { sql("SELECT finished_at IS NOT NULL FROM sendcampaign.run WHERE schema = '$second'") eq 't' }) or diag('no end');
}
$node->stop;
done_testing();
