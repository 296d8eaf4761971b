# Messages of which it is not known whether Twilio took them: looked up, never
# guessed, and shown where nobody can tell.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../perl";
use Campaign;
use LocalTwilio;
use Test::More;

my $twilio = LocalTwilio->start;
my $node = new_cluster('doubt', $twilio, conf => <<~'CONF');
	sendcampaign.receipts = off
	sendcampaign.request_timeout = '1s'
	sendcampaign.lookup_delay = 0
	CONF

# Columns of a job's messages, in the order of the first column.
sub messages
{
	my ($job, $columns) = @_;
	return sql($node, <<~"SQL");
		SELECT $columns FROM sendcampaign.message WHERE job_id = $job ORDER BY 1
		SQL
}

# The SIDs that Twilio gave, as messages() returns them.
sub accepted_sids
{
	my @messages = @_ ? @_ : $twilio->ledger;
	return join "\n", sort map { $_->{sid} } @messages;
}

# How many messages Twilio took.
sub accepted
{
	my @messages = $twilio->ledger;
	return scalar @messages;
}

# Sends a campaign while Twilio has these faults; returns the job and the
# campaign.  Twilio forgets what was before, except with again => id of a
# campaign.
sub run_with_faults
{
	my ($faults, %arg) = @_;
	my $campaign = $arg{again} || create_campaign($node, %arg);
	$twilio->set($arg{again} ? () : ('reset' => 1), %$faults);
	my $run = run_campaign($node, $campaign);
	return ($run->{job}, $campaign);
}

#
# Found, or not
#
my ($job, $campaign) =
  run_with_faults({ 'fault:drop-after' => '#1', 'fault:drop-before' => '#1' }, users => 3);
sent_once($node, $twilio, $campaign, $job, 'one was taken, one was not');
is(messages($job, 'attempts'), "1\n1\n2", 'only the one that was not taken is sent again');
cmp_ok($twilio->stats->{lists}, '<=', 9, 'there are few lookups');

#
# Two texts that are alike to one number
#

# A run without a link whose two list users get the same number after its
# start, while it is night there: it sleeps until wake_twins.
sub start_twins
{
	my $campaign = create_campaign($node, users => 2, base_url => undef, @_);
	my $list = list_of($campaign);
	configure($node, $campaign, <<~'SQL');
		configuration || jsonb_build_object(
			'timeZone', 'UTC',
			'quietHours', jsonb_build_object(
				'from', to_char(now() AT TIME ZONE 'UTC' - interval '1 hour', 'HH24:MI'),
				'to', to_char(now() AT TIME ZONE 'UTC' + interval '1 hour', 'HH24:MI')))
		SQL
	my $job = start_campaign($node, $campaign);
	wait_until($node, "SELECT next_at IS NOT NULL FROM sendcampaign.run WHERE job_id = $job");
	sql($node, <<~"SQL");
		UPDATE ac_list_users SET data = '{"sms": "+15550001111"}' WHERE ac_list_id = $list
		SQL
	configure($node, $campaign, "configuration - 'quietHours'");
	return $job;
}

# Its morning comes now, with these faults.
sub wake_twins
{
	my ($job, $faults) = @_;
	my $run_id = run_of($job);
	$twilio->set('reset' => 1, %$faults);
	sql($node, <<~"SQL");
		UPDATE sendcampaign.batch SET due = now() WHERE run_id = $run_id;
		UPDATE sendcampaign.run SET next_at = now() WHERE job_id = $job;
		SELECT sendcampaign.wake();
		SQL
}

# Both in one; returns the job and the run's row.
sub twins_with_faults
{
	my ($faults, %arg) = @_;
	my $job = start_twins(%arg);
	wake_twins($job, $faults);
	return ($job, wait_for_run($node, $job));
}

my $run;
($job, $run) = twins_with_faults({ 'fault:drop-after' => '#2' });
is(messages($job, 'status'),
	"in_doubt\nin_doubt", 'two alike, both taken: nobody can tell which is which');
is("$run->{state} $run->{sent} $run->{in_doubt}", 'completed 0 2', 'the run ends and counts them');
my $several = "Twilio's list has several messages that may be this one";
like($run->{error}, qr/^2 of 2 messages in doubt: .*$several/, 'and says so');
is(accepted(), 2, 'none was sent again');
my $settled = $job;

($job) = twins_with_faults({ 'fault:drop-after' => '#1', 'fault:drop-before' => '#1' },
	message => 'One of two');
is(messages($job, 'status'),
	"in_doubt\nin_doubt", 'two alike, one taken: nobody can tell which one');
is(accepted(), 1, 'none was sent again');

($job) = twins_with_faults({ 'fault:drop-before' => '#2' }, message => 'None of two');
is(messages($job, 'status, attempts'),
	"sent|2\nsent|2", 'two alike, none taken: both are sent again');
is(messages($job, 'sid'), accepted_sids(), 'each under a SID of its own');

($job) = twins_with_faults({ 'fault:drop-before' => '#1' }, message => 'The other');
is(messages($job, 'status, attempts'),
	"sent|1\nsent|2", 'two alike, one in doubt: the other is not taken for it');
is(messages($job, 'sid'), accepted_sids(), 'each under a SID of its own');

# One of two is sent again and on its way while the other is looked up.
change_conf($node, "sendcampaign.request_timeout = '3s'");
$job = start_twins(message => 'Under way');
wake_twins($job, { 'fault:drop-before' => '#2', 'fault:list-500' => '#1' });
ok(poll(sub { $twilio->stats->{faults}{'drop-before'} == 2 }), 'two alike are in doubt');
# good answers let more requests be in flight at once
run_campaign($node, create_campaign($node, users => 10));
$twilio->set('hold' => 1, 'hold-after' => 1);
ok(poll(sub { $twilio->stats->{lists} >= 3 }), 'one lookup fails and is made again');
$twilio->set('hold' => 0);
$run = wait_for_run($node, $job);
is(messages($job, 'count(sid) - count(DISTINCT sid)'), 0, 'a SID belongs to one message');
cmp_ok(sent_with($twilio, 'Under way'), '>=', $run->{sent}, 'what says that it was sent was sent');
is($run->{sent} + $run->{in_doubt}, 2, 'no message is lost');
change_conf($node, "sendcampaign.request_timeout = '1s'");

#
# Two runs with one text to one number
#

# Returns their jobs, as a list in SQL.
sub two_runs_with_faults
{
	my ($text, %faults) = @_;
	my @campaigns =
	  map { create_campaign($node, users => 1, base_url => undef, message => $text) } 1 .. 2;
	my $campaigns = join ', ', @campaigns;
	$twilio->set('reset' => 1, %faults);
	my $started = sql($node, <<~"SQL", role => 'app');
		SELECT send_campaign(c) FROM unnest(ARRAY[$campaigns]) c
		SQL
	my @jobs = split /\n/, $started;
	wait_for_run($node, $_) for @jobs;
	return join ', ', @jobs;
}

sub messages_of_both
{
	my ($jobs, $columns) = @_;
	return sql($node, <<~"SQL");
		SELECT $columns FROM sendcampaign.message WHERE job_id IN ($jobs) ORDER BY 1, attempts
		SQL
}

my $jobs = two_runs_with_faults('Two runs, both taken', 'fault:drop-after' => '#2');
is(messages_of_both($jobs, 'status'),
	"in_doubt\nin_doubt", 'two runs, both taken: nobody can tell which is which');
is(accepted(), 2, 'none was sent again');

$jobs = two_runs_with_faults(
	'Two runs, one taken',
	'fault:drop-after' => '#1',
	'fault:drop-before' => '#1');
is(messages_of_both($jobs, 'status'),
	"in_doubt\nin_doubt", 'two runs, one taken: nobody can tell which one');
is(accepted(), 1, 'none was sent again');

$jobs = two_runs_with_faults('Two runs, none taken', 'fault:drop-before' => '#2');
is(messages_of_both($jobs, 'status, attempts'),
	"sent|2\nsent|2", 'two runs, none taken: both are sent again');
is(messages_of_both($jobs, 'sid'), accepted_sids(), 'each under a SID of its own');

$jobs = two_runs_with_faults('Two runs, the other', 'fault:drop-before' => '#1');
is(messages_of_both($jobs, 'status, attempts'),
	"sent|1\nsent|2", 'two runs, one in doubt: the other is not taken for it');
is(messages_of_both($jobs, 'sid'), accepted_sids(), 'each under a SID of its own');

#
# Settled by hand
#
$job = $settled;
my ($first, $second) = split /\n/, messages($job, 'list_user_id');

sub settle
{
	my ($role, $job, $user, $was_sent) = @_;
	return call_error($node, "settle($job, $user, $was_sent)", role => $role)->{message};
}

sub counts
{
	my $run = run_row($node, $settled);
	return "$run->{sent} $run->{failed} $run->{skipped} $run->{in_doubt}";
}

is(settle('app', $job, $first, 'true'), '', 'settled as sent');
is(counts(), '1 0 0 1', 'the counts follow');
is(settle('app', $job, $second, 'false'), '', 'settled as not sent');
is(counts(), '1 1 0 0', 'the counts follow');
is(messages($job, 'list_user_id, status'), "$first|sent\n$second|failed", 'so do the rows');
is(sql($node, <<~"SQL"), "1\n0", 'so does sentCount');
	SELECT coalesce(data->>'sentCount', '0') FROM ac_list_users
	WHERE id IN ($first, $second)
	ORDER BY id
	SQL
is(job_row($node, $job, "data->>'sent', data->>'failed', data->>'inDoubt'"),
	'1|1|0', 'so does the job');
like(
	settle('app', $job, $first, 'true'),
	qr/is not in doubt/,
	'what is not in doubt cannot be settled');
like(settle('app', $job, 424242, 'true'), qr/is not in doubt/, 'nor what was never sent');
is(counts(), '1 1 0 0', 'nor does that change counts');
sql($node, 'CREATE ROLE stranger LOGIN; GRANT USAGE ON SCHEMA sendcampaign TO stranger');
my $unknown = settle('app', 424242, 1, 'true');
like($unknown, qr/there is no run of background job 424242/, 'an unknown job is an error');
is( settle('stranger', $job, $first, 'true'),
	$unknown =~ s/424242/$job/r,
	"so is another role's, in the same words");

#
# An earlier run of the same campaign is not taken for this one.
#
for my $link ('https://example.org/survey', undef)
{
	my $texts = defined $link ? 'with a link' : 'without a link';
	($job, $campaign) =
	  run_with_faults({}, users => 3, base_url => $link, message => "Again, $texts");
	my %earlier = map { $_->{sid} => 1 } $twilio->ledger;

	($job) = run_with_faults({ 'fault:drop-before' => '#3' }, again => $campaign);
	is(messages($job, 'status, attempts'),
		"sent|2\nsent|2\nsent|2", "not taken in a second run, $texts: sent");
	my @sids = split /\n/, messages($job, 'sid');
	is((grep { $earlier{$_} } @sids), 0, "not under SIDs of the first run, $texts");

	($job) = run_with_faults({ 'fault:drop-after' => '#3' }, again => $campaign);
	is( messages($job, 'status, attempts'),
		"sent|1\nsent|1\nsent|1",
		"taken in a third run, $texts: found");
	my @of_third_run = ($twilio->ledger)[ 6 .. 8 ];
	is(messages($job, 'sid'), accepted_sids(@of_third_run), "under SIDs of that run, $texts");
}

# Not even where its rows are gone: last week's are too old.
$twilio->set('clock-skew' => -7 * 86400);
($job, $campaign) = run_with_faults({}, users => 3, base_url => undef, message => 'Weekly');
wait_for_no_worker($node);
sql($node, 'DELETE FROM sendcampaign.message_data WHERE run_id = ' . run_of($job));
$twilio->set('clock-skew' => 0);
($job) =
  run_with_faults({ 'fault:drop-before' => '#2', 'fault:drop-after' => '#1' }, again => $campaign);
is(messages($job, 'attempts, status'),
	"1|sent\n2|sent\n2|sent", "last week's text to the same number is not taken for today's");
is(accepted(), 6, 'each recipient has both');

# Twilio's clock need not be ours.
for my $skew (-7200, 7200)
{
	my $name = "Twilio's clock is off by $skew s";
	$twilio->set('clock-skew' => $skew);
	($job, $campaign) =
	  run_with_faults({ 'fault:drop-before' => 10, 'fault:drop-after' => 10 }, users => 300);
	sent_once($node, $twilio, $campaign, $job, $name);
	is(messages($job, 'DISTINCT attempts > 1'), "f\nt", "$name: some were sent again");
}
$node->stop;

done_testing();
