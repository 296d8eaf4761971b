# Torture: campaigns of thousands against a Twilio with all its faults on at
# once, the worker and the server killed at random moments, the network cut.
# Its list of messages lags, and has another order in each round.  In every other
# round, what became of messages is asked all the time.  In the end each recipient
# has the message once, the tables say so, and so does reconcile().
#
# SEED chooses what happens (within what timing lets be repeated), COUNT how
# many kills and cuts there are; script/torture makes 1,000.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";

use Campaign;
use LocalTwilio;
use PostgreSQL::Test::Utils;
use Session;
use Sweeps;
use Test::More;

my $seed = $ENV{SEED} || time ^ $$ << 8;
my $count = $ENV{COUNT} || 30;
diag("torture: SEED=$seed COUNT=$count");
srand($seed);

# How often each fault of Twilio comes, in percent of the requests.
my %percent = (
	'429' => 3,
	'503' => 2,
	'500-before' => 2,
	'500-after' => 2,
	'5xx-plain' => 2,
	'drop-before' => 2,
	'drop-after' => 2,
	'never-before' => 1,
	'never-after' => 1,
	'slow' => 0.5,
	'truncated' => 1,
	'garbage' => 1,
	'no-sid' => 1,
	'huge' => 0.2,
	'list-500' => 2,
	'list-429' => 2,
	'list-garbage' => 2,
	'list-drop' => 2,
	'list-never' => 1);
my @faults = map { ('--fault', "$_=$percent{$_}") } sort keys %percent;
my $twilio = LocalTwilio->start(
	options => [
		'--seed', $seed, '--latency', 10, '--latency-spread', 10,
		'--concurrency', 40, '--list-lag', 200, @faults
	]);
my $linger = $ENV{LINGER} // (0, 300, 5000)[ rand 3 ];
my $node = new_cluster('torture', $twilio, linger => $linger, conf => <<~CONF);
    shared_preload_libraries = 'sendcampaign'
    sendcampaign.launcher_interval = 1
    sendcampaign.request_timeout = '1s'
    sendcampaign.lookup_delay = '300ms'
    sendcampaign.lookup_timeout = '600s'
    restart_after_crash = on
    log_statement = 'none'
    deadlock_timeout = '100ms'
CONF

# What is done to them: how often, and by which function.
my %attack = (
	kill_worker => [ 4, sub { kill_worker($node) } ],
	terminate_worker => [ 4, sub { kill 'TERM', worker_pids($node) } ],
	stop_immediately => [ 3, sub { restart('immediate') } ],
	stop_fast => [ 3, sub { restart('fast') } ],
	power_failure => [ 2, \&power_failure ],
	drop_connections => [ 3, sub { $twilio->set('drop' => 1) } ],
	twilio_down => [ 2, \&twilio_down ],
	lock_tables => [ 2, \&lock_tables ],
	pause => [ 2, \&pause ],
	sweep => [ 6, \&sweep ],
	wake => [ 1, sub { sql($node, 'SELECT sendcampaign.wake()') } ]);
my @attacks = map { ($_) x $attack{$_}[0] } sort keys %attack;
my @plan = map { $attacks[ rand @attacks ] } 1 .. $count;

# Waits for a random number of messages, or for so many seconds.
sub advance
{
	my $seconds = shift;
	my $accepted = $twilio->stats->{accepted} + int rand 200;
	poll(sub { $twilio->stats->{accepted} >= $accepted }, $seconds);
}

sub restart
{
	my $mode = shift;
	$node->stop($mode);
	$node->start;
}

# All processes of the server end at once.
sub power_failure
{
	kill_server($node);
	$node->start;
}

# Twilio takes no connection for a moment.
sub twilio_down
{
	$twilio->set('refuse' => 1, 'drop' => 1);
	advance(1);
	$twilio->set('refuse' => 0);
}

# Somebody holds what the worker needs to write, for a moment.
sub lock_tables
{
	my @tables = qw(
	  sendcampaign.message sendcampaign.claim sendcampaign.run
	  ac_list_users ac_background_jobs);
	my $table = $tables[ rand @tables ];
	my $session = Session->open($node);
	$session->query("BEGIN; LOCK TABLE $table IN EXCLUSIVE MODE");
	advance(1);
	$session->query('ROLLBACK');
}

# One of the runs is paused; perhaps the worker is killed then; it goes on.
sub pause
{
	my $job = sql($node, <<~'SQL');
	    SELECT job_id
	    FROM sendcampaign.run
	    WHERE state IN ('queued', 'running')
	    ORDER BY random()
	    LIMIT 1
	SQL
	# it may have ended by now
	return if $job eq '' || $node->psql('postgres', "SELECT sendcampaign.pause($job)") != 0;
	advance(0.5);
	kill_worker($node) if rand() < 0.3;
	sql($node, "SELECT sendcampaign.resume($job)");
}

# What became of messages is asked now; perhaps the worker is killed meanwhile.
sub sweep
{
	sql($node, <<~'SQL');
	    UPDATE sendcampaign.run_data SET sweep_at = now()
	    WHERE id IN (
	        SELECT id FROM sendcampaign.run_data
	        WHERE sweep_at IS NOT NULL
	        FOR NO KEY UPDATE SKIP LOCKED);
	    SELECT sendcampaign.wake()
	SQL
	advance(0.5);
	kill_worker($node) if rand() < 0.3;
}

# Each message has its receipt, nothing is counted twice, and Twilio's list has
# what the tables have.
sub compare_with_twilio
{
	my ($run, $name) = @_;
	$twilio->set('sent-after' => 0, 'deliver-after' => 0, 'list-lag' => 0);
	poll(sub {
		sweep_now($node, $run->{job});
		my ($sent, @others) = split /\|/, counts_of($node, $run->{job});
		return "@others" eq "$sent 0 0";
	});
	my ($sent) = split /\|/, counts_of($node, $run->{job});
	is(counts_of($node, $run->{job}), "$sent|$sent|0|0", "$name: all is delivered, by the counts");
	is(receipts_of($node, $run->{job}), "delivered $sent", "$name: and by the messages");
	is(sql($node, "SELECT * FROM sendcampaign.reconcile($run->{job})"),
		'', "$name: Twilio's list says the same");
}

# A personal text, and the recipients spread over several senders.
sub make_personal
{
	my $campaign = shift;
	my $group = group_of($campaign);
	sql($node, <<~SQL);
	    UPDATE ac_campaigns
	    SET data = data || '{"message": "Hello {{sms}}, {{name|friend}}"}'
	    WHERE id = $campaign;

	    UPDATE groups
	    SET configuration = configuration
	        || '{"twilioFromSmsNumber": ["+15005550006", "+4790000001", "+4790000002"]}'
	    WHERE id = $group;
	SQL
}

# How Twilio lists messages, in this round.
sub choose_list
{
	my %list = (
		'list-order' => (qw(created sent none))[ rand 3 ],
		'list-nulls' => (qw(first last))[ rand 2 ],
		'next-page' => (qw(path absolute))[ rand 2 ],
		'list-lag' => (200, 200, 1500, 4000)[ rand 4 ],
		'sent-after' => (0, 500)[ rand 2 ],
		'deliver-after' => (-1, 0, 1000)[ rand 3 ]);
	note(join ', ', map { "$_ $list{$_}" } sort keys %list);
	$twilio->set(%list);
}

my %done;
my %hits;
my ($lists, $accepted) = (0, 0);
for (my ($attacks, $round) = (0, 1); $attacks < $count; $round++)
{
	choose_list();
	# commits of outcomes wait for the disk in every other round
	my $synchronous_commit = $round % 2 ? 'off' : 'on';
	my $receipts = $round % 2 ? 'on' : 'off';
	sql($node, "ALTER ROLE app SET synchronous_commit = $synchronous_commit");
	sql($node, "ALTER ROLE app SET sendcampaign.receipts = $receipts");
	my @runs = map { { campaign => create_campaign($node, users => 400 + int rand 600) } } 1, 2;
	make_personal($runs[1]{campaign});
	$_->{job} = start_campaign($node, $_->{campaign}) for @runs;
	my $jobs = join ',', map { $_->{job} } @runs;
	my $all_have_ended = <<~SQL;
	    SELECT bool_and(state NOT IN ('queued', 'running'))
	    FROM sendcampaign.run
	    WHERE job_id IN ($jobs)
	SQL

	while ($attacks < $count)
	{
		advance(rand 2);
		last if sql($node, $all_have_ended) eq 't';
		my $attack = $plan[ $attacks++ ];
		note(sprintf '%s after %d messages', $attack, $twilio->stats->{accepted});
		$attack{$attack}[1]->();
		$done{$attack}++;
	}
	for my $run (@runs)
	{
		my $name = "round $round, job $run->{job}";
		sent_once($node, $twilio, $run->{campaign}, $run->{job}, $name);
		compare_with_twilio($run, $name) if $receipts eq 'on';
	}
	my $stats = $twilio->stats;
	$hits{$_} += $stats->{faults}{$_} for keys %{ $stats->{faults} };
	$lists += $stats->{lists};
	$accepted += $stats->{accepted};
	$twilio->set('reset' => 1);
	last if !Test::More->builder->is_passing;
}

my $log = log_of($node);
my $accident = qr/PANIC|TRAP|terminated by signal (?!9\b)\d+|gives up|already held/;
unlike($log, $accident, 'no other accidents');

# a message that is in doubt when the next kill comes counts again
my $doubtful = 0;
$doubtful += $hits{$_} for grep { !/^(429|503|list-)/ } keys %hits;
$doubtful += $_ for $log =~ /looking up (\d+) messages? that an earlier worker left in doubt/g;
my $faults = 0;
$faults += $_ for values %hits;
my $attacks_done = join ', ', map { "$_ $done{$_}" } sort keys %done;
diag("torture: SEED=$seed: $accepted messages; $attacks_done");
my $lists_per_doubt = $doubtful ? $lists / $doubtful : 0;
diag(sprintf 'torture: %d faults of Twilio; %d doubts, %d lookups, %.2f for each',
	$faults, $doubtful, $lists, $lists_per_doubt);
$node->stop;

done_testing();
