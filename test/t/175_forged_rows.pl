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
my $node = new_cluster('forged', $twilio, no_extension => 1, conf => q{
	restart_after_crash = on
	max_worker_processes = 16
	sendcampaign.request_timeout = '2s'
	sendcampaign.lookup_delay = '200ms'
	sendcampaign.lookup_timeout = '3s'
});
$node->safe_psql('postgres', 'CREATE ROLE owner LOGIN; CREATE DATABASE one OWNER owner');
install_extension($node, 'one');
$node->safe_psql('one', 'GRANT USAGE ON SCHEMA sendcampaign TO owner');
my $started = $node->safe_psql('one', 'SELECT pg_postmaster_start_time()');

sub sql { return $node->safe_psql('one', $_[0]); }
sub try_sql { return $node->psql('one', $_[0], on_error_stop => 0, stderr => \my $errors); }
sub can_sql { return $node->psql('one', $_[0], stderr => \my $errors) == 0; }

# A campaign of app's of which half is under way, and the rest in batches.  The
# last recipient has the phone of the first.
my $users = 600;
my $phones = $users - 1;
my $number = 0;
sub begin
{
	my $message = 'To ' . ++$number;
	$twilio->set(hold => 1);
	my $campaign = create_campaign($node, db => 'one', users => $users, message => $message);
	sql(qq{UPDATE ac_list_users SET data = data || '{"sms": "+15550000001"}' WHERE id = (SELECT max(u.id)
		FROM ac_list_users u JOIN ac_campaigns c USING (ac_list_id) WHERE c.id = $campaign)});
	my $run = start_campaign($node, $campaign, db => 'one');
	wait_for_flight($twilio, 10);
	return ($run, sql("SELECT id FROM sendcampaign.run WHERE job_id = $run AND schema = 'public'"), $message);
}

sub end_worker
{
	my ($worker) = worker_pids($node) or return;
	try_sql("SELECT pg_terminate_backend($worker)");
	poll(sub { !grep { $_ == $worker } worker_pids($node) });
}

# It goes on, called again where it has failed, and others are sent besides.
sub go_on
{
	my ($run, $id) = @_;
	my $campaign = sql("SELECT campaign_id FROM sendcampaign.run WHERE id = $id");
	my $tries = 0;
	$twilio->set(hold => 0);
	for (1 .. 60)
	{
		try_sql('SELECT sendcampaign.wake()');
		send_companion($node, $twilio, 'one');
		my $state = '';
		poll(sub { ($state = sql("SELECT state FROM sendcampaign.run WHERE id = $id AND finished_at IS NOT NULL")) ne '' }, 1);
		last if $state eq 'completed' || $state eq 'cancelled' || $state eq 'failed' && ++$tries > 3;
		try_sql("SET ROLE app; SELECT send_campaign($campaign, $run)") if $state eq 'failed';
	}
}

# As go_on, and what has failed is sent again.
sub go_on_and_retry
{
	my ($run, $id) = @_;
	go_on($run, $id);
	go_on($run, $id) if can_sql("SET ROLE app; SELECT sendcampaign.retry_failed($run)");
	return sql("SELECT concat_ws(', ', state, sent || ' sent', in_doubt || ' in doubt', error) FROM sendcampaign.run WHERE id = $id");
}

sub check_once
{
	my ($name, $message) = @_;
	my %count;
	my @ledger = $twilio->ledger;
	$count{ $_->{to} }++ for grep { $_->{body} =~ /^$message\b/ } @ledger;
	is(join(' ', grep { $count{$_} > 1 } sort keys %count), '', "$name: nobody gets it twice");
	is(scalar(grep { $_->{to} =~ /^\+1555000999[89]$/ } @ledger), 0, "$name: nothing goes to another phone");
	is(sql('SELECT pg_postmaster_start_time()'), $started, "$name: the server stays up");
	return scalar keys %count;
}

# Rows for a run under way; u are those claimed, r those in batches.
my %rows = (
	'a claim without senders' => q{claim SELECT id, 9999, u[1:2], ARRAY['+15550009998', '+15550009999'], account, '{}', now(), 0},
	'a claim without phones' => q{claim SELECT id, 9999, u[1:2], ARRAY[NULL, NULL]::text[], account, senders, now(), 0},
	'a claim with other phones' => q{claim SELECT id, 9999, ARRAY[u[1] + 100000, u[1]], ARRAY['+15550009998', '+15550009999'], account, senders, now(), 0},
	'a claim with other phones, before all' => q{claim SELECT id, -1, u[1:2], ARRAY['+15550009998', '+15550009999'], account, senders, now(), 0},
	'a claim of those in batches' => q{claim SELECT id, 9999, r[1:2], ARRAY['+15550009998', '+15550009999'], account, senders, now(), 0},
	'two claims of those in batches' => q{claim SELECT id, 9999 + i, r[1:2], ARRAY['+15550009998', '+15550009999'], account, senders, now(), 0 FROM generate_series(1, 2) i},
	'a batch of those claimed' => q{batch SELECT id, 9999, u[1:20]},
	'a batch of those in batches' => q{batch SELECT id, 9999, r[1:20]},
	'two batches with nulls' => q{batch SELECT id, 9999 + i, r[1:20] || ARRAY[NULL, r[1], r[1]] FROM generate_series(1, 2) i},
	'a batch that is never due' => q{batch SELECT id, -1, r[1:20], NULL, NULL, '-infinity'},
	'a batch of the last, before the others' => q{batch SELECT id, 1, r[1:1]},
	'the first is skipped' => q{message_data SELECT id, u[1], NULL, 'skipped'},
	'the first is skipped, answered' => q{message_data SELECT id, u[1], NULL, 'skipped'},
	'messages of those claimed, answered' => q{message_data SELECT id, x, NULL, 'failed' FROM unnest(u[1:3] || r[1:3]) x},
	'messages of those claimed' => q{message_data SELECT id, x, NULL, 'failed' FROM unnest(u[1:3] || r[1:3]) x});
sub load
{
	my ($id, $rows) = @_;
	my ($table, $select) = $rows =~ /^(\w+) (.*)/;
	$select =~ s/ FROM / FROM c, / or $select .= ' FROM c';
	# as a restore does: the owner sees the rows, and loads others
	return "SET ROLE owner; WITH c AS (SELECT run_id AS id, array_agg(u ORDER BY u) AS u, min(account) AS account, min(senders) AS senders,
			(SELECT array_agg(r ORDER BY r DESC) FROM sendcampaign.batch b, unnest(b.list_user_ids) r WHERE b.run_id = $id) AS r
			FROM sendcampaign.claim, unnest(list_user_ids) u WHERE run_id = $id GROUP BY run_id)
		INSERT INTO sendcampaign.$table $select";
}
for my $name (sort keys %rows)
{
	my ($run, $id, $message) = begin();
	sql(load($id, $rows{$name}));
	end_worker() if $name !~ /answered/;
	my $end = go_on_and_retry($run, $id);
	note($end);
	like($end, qr/^completed, $phones sent/, "$name: the run ends") if $name =~ /never due/;
	my $sent = check_once($name, $message);
	is($sent, $phones, "$name: all have it") if $name =~ /claim with|two claims|claim of those/;
}
$node->stop;
done_testing();
