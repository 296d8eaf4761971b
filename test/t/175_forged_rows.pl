# The owner of the database may load rows into the extension's tables, as a
# restore does.  Whatever they say of a run that is under way: nobody gets a
# message twice, and nothing crashes.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../perl";
use Campaign;
use LocalTwilio;
use PostgreSQL::Test::Utils;
use Test::More;

my $twilio = LocalTwilio->start;
my $node = new_cluster('forged', $twilio, no_extension => 1, conf => <<~'CONF');
	restart_after_crash = on
	max_worker_processes = 16
	sendcampaign.request_timeout = '2s'
	sendcampaign.lookup_delay = '200ms'
	sendcampaign.lookup_timeout = '20s'
	CONF
sql($node, 'CREATE ROLE owner LOGIN; CREATE DATABASE one OWNER owner');
install_extension($node, 'one');

# All but the beginning is in that database.
sub query
{
	my ($sql, %arg) = @_;
	return sql($node, $sql, db => 'one', %arg);
}

# The same, whatever comes of it; returns whether nothing went wrong.
sub try_query
{
	my $sql = shift;
	my $errors = '';
	return $node->psql('one', $sql, stderr => \$errors) == 0;
}

query('GRANT USAGE ON SCHEMA sendcampaign TO owner');
my $started = query('SELECT pg_postmaster_start_time()');

# A campaign of app's of which half is under way, and the rest in batches.  The
# last recipient has the phone of the first.  Returns its job, the id of its run
# and its text.
my $users = 600;
my $phones = $users - 1;
my $number = 0;

sub begin
{
	my $message = 'To ' . ++$number;
	$twilio->set(hold => 1);
	my $campaign = create_campaign($node, db => 'one', users => $users, message => $message);
	query(<<~SQL);
		UPDATE ac_list_users
		SET data = data || '{"sms": "+15550000001"}'
		WHERE id = (
		    SELECT max(u.id)
		    FROM ac_list_users u
		    JOIN ac_campaigns c USING (ac_list_id)
		    WHERE c.id = $campaign)
		SQL
	my $job = start_campaign($node, $campaign, db => 'one');
	wait_for_flight($twilio, 10);
	return ($job, query('SELECT ' . run_of($job)), $message);
}

sub end_worker
{
	my ($worker) = worker_pids($node) or return;
	try_query("SELECT pg_terminate_backend($worker)");
	poll(sub {
		return !grep { $_ == $worker } worker_pids($node);
	});
}

# The run goes on, called again where it has failed, and others are sent besides.
sub go_on
{
	my ($job, $id) = @_;
	my $campaign = query("SELECT campaign_id FROM sendcampaign.run WHERE id = $id");
	my $ended = "SELECT state FROM sendcampaign.run WHERE id = $id AND finished_at IS NOT NULL";
	my $tries = 0;
	$twilio->set(hold => 0);
	for (1 .. 60)
	{
		try_query('SELECT sendcampaign.wake()');
		send_companion($node, $twilio, 'one');
		poll(sub { query($ended) ne '' }, 1);
		my $state = query($ended);
		last if $state eq 'completed' || $state eq 'cancelled';
		next if $state ne 'failed';
		last if ++$tries > 3;
		try_query("SET ROLE app; SELECT send_campaign($campaign, $job)");
	}
}

# The same, and what has failed is sent again; returns how the run ended.
sub go_on_and_retry
{
	my ($job, $id) = @_;
	go_on($job, $id);
	go_on($job, $id) if try_query("SET ROLE app; SELECT sendcampaign.retry_failed($job)");
	return query(<<~SQL);
		SELECT concat_ws(', ', state, sent || ' sent', in_doubt || ' in doubt', error)
		FROM sendcampaign.run
		WHERE id = $id
		SQL
}

# Checks the messages with this text, and returns how many phones have one.
sub check_once
{
	my ($name, $message) = @_;
	my %count;
	my @ledger = $twilio->ledger;
	$count{ $_->{to} }++ for grep { $_->{body} =~ /^$message\b/ } @ledger;
	is(join(' ', grep { $count{$_} > 1 } sort keys %count), '', "$name: nobody gets it twice");
	my @forged = grep { $_->{to} =~ /^\+1555000999[89]$/ } @ledger;
	is(scalar(@forged), 0, "$name: nothing goes to another phone");
	is(query('SELECT pg_postmaster_start_time()'), $started, "$name: the server stays up");
	return scalar keys %count;
}

# Rows for a run under way: a table, and what is selected for it from "c", which
# has the run's id, account and senders; u are the list users claimed, r those in
# batches.
my $forged = q{ARRAY['+15550009998', '+15550009999']};
my $rest = 'account, senders, now(), 0';
my $twice = 'generate_series(1, 2) i';
my $those = 'unnest(u[1:3] || r[1:3]) x';
my %rows = (
	'a claim without senders' => [ claim => "id, 9999, u[1:2], $forged, account, '{}', now(), 0" ],
	'a claim without phones' => [ claim => "id, 9999, u[1:2], ARRAY[NULL, NULL]::text[], $rest" ],
	'a claim with other phones' =>
	  [ claim => "id, 9999, ARRAY[u[1] + 100000, u[1]], $forged, $rest" ],
	'a claim with other phones, before all' => [ claim => "id, -1, u[1:2], $forged, $rest" ],
	'a claim of those in batches' => [ claim => "id, 9999, r[1:2], $forged, $rest" ],
	'two claims of those in batches' =>
	  [ claim => "id, 9999 + i, r[1:2], $forged, $rest", $twice ],
	'a batch of those claimed' => [ batch => 'id, 9999, u[1:20]' ],
	'a batch of those in batches' => [ batch => 'id, 9999, r[1:20]' ],
	'two batches with nulls' =>
	  [ batch => 'id, 9999 + i, r[1:20] || ARRAY[NULL, r[1], r[1]]', $twice ],
	'a batch that is never due' => [ batch => q{id, -1, r[1:20], NULL, NULL, '-infinity'} ],
	'a batch of the last, before the others' => [ batch => 'id, 1, r[1:1]' ],
	'the first is skipped' => [ message_data => q{id, u[1], NULL, 'skipped'} ],
	'the first is skipped, answered' => [ message_data => q{id, u[1], NULL, 'skipped'} ],
	'messages of those claimed, answered' => [ message_data => q{id, x, NULL, 'failed'}, $those ],
	'messages of those claimed' => [ message_data => q{id, x, NULL, 'failed'}, $those ]);

# Loads such rows as a restore does: the owner sees the rows, and loads others.
sub load
{
	my ($id, $table, $columns, @from) = @_;
	my $from = join ', ', 'c', @from;
	query(<<~SQL, role => 'owner');
		WITH c AS (
		    SELECT run_id AS id,
		        array_agg(u ORDER BY u) AS u,
		        min(account) AS account,
		        min(senders) AS senders,
		        (SELECT array_agg(r ORDER BY r DESC)
		        FROM sendcampaign.batch b, unnest(b.list_user_ids) r
		        WHERE b.run_id = $id) AS r
		    FROM sendcampaign.claim, unnest(list_user_ids) u
		    WHERE run_id = $id
		    GROUP BY run_id)
		INSERT INTO sendcampaign.$table
		SELECT $columns FROM $from
		SQL
}

for my $name (sort keys %rows)
{
	my ($job, $id, $message) = begin();
	load($id, @{ $rows{$name} });
	end_worker() if $name !~ /answered/;
	my $end = go_on_and_retry($job, $id);
	note($end);
	like($end, qr/^completed, $phones sent/, "$name: the run ends") if $name =~ /never due/;
	my $sent = check_once($name, $message);
	is($sent, $phones, "$name: all have it")
	  if $name =~ /claim with|two claims|claim of those/;
}
my $one_claim = qr/sendcampaign: job \d+: 1 loaded claim cannot be its own and is not used/;
my $claims = qr/sendcampaign: job \d+: \d+ loaded claims cannot be its own and are not used/;
like(log_of($node), qr/$one_claim|$claims/, 'the log tells of claims that are not used');
my $were_loaded =
	': recipients of job \d+ were loaded from a dump while it was being sent\.'
  . ' Call send_campaign\(\) with the same campaign and job\.'
  . ' What was sent is read back from Twilio before the run continues\.';
my $rest_of_log = log_of($node) =~ s/$were_loaded//gr;
unlike(
	$rest_of_log,
	qr/were loaded from a dump/,
	'and of batches that were loaded, if it happened');
$node->stop;
done_testing();
