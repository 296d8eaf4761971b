# Hostile tables: what roles that mean no good make of the application's tables,
# at random (Hostile.pm), several at a time, with an ordinary campaign of another
# role beside them.
#
# Whatever they do: the server does not crash; nobody gets a message twice; rows
# and counts add up; every run ends, or says why it does not; no code of theirs
# runs with the rights of others; and the ordinary campaign is sent.
#
# SEED chooses the cases, COUNT says how many, CASE=n tries that one alone;
# "script/torture hostile" tries 1,000.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../perl";
use Campaign;
use Hostile;
use LocalTwilio;
use PostgreSQL::Test::Utils;
use Test::More;

my $seed = $ENV{SEED} || (time ^ $$ << 8) & 0x7fffffff;
my $count = $ENV{COUNT} || 18;
my @numbers = $ENV{CASE} ? ($ENV{CASE}) : (1 .. $count);
my @roles = map { "rogue$_" } 1 .. 6;
diag("hostile tables: SEED=$seed COUNT=$count");

my @faults = map { ('--fault', $_) } qw(429=2 drop-after=1 500-before=1 500-after=1);
my $twilio = LocalTwilio->start(
	options => [ '--seed' => $seed, '--latency' => 3, '--list-lag' => 100, @faults ]);
my $node = new_cluster('hostile_tables', $twilio, conf => <<~'CONF');
	sendcampaign.request_timeout = '1s'
	sendcampaign.lookup_delay = '300ms'
	sendcampaign.lookup_timeout = '3s'
	max_worker_processes = 24
	max_prepared_transactions = 0
	restart_after_crash = on
	log_statement = 'none'
	log_min_messages = log
	statement_timeout = '30s'
	lock_timeout = '10s'
	deadlock_timeout = '200ms'
	CONF

# Runs all statements as a role, or as the superuser, whatever becomes of each;
# returns what went wrong.
sub try_as
{
	my ($role, $sql) = @_;
	my ($out, $errors, $late) = ('', '', 0);
	$node->psql(
		'postgres', $sql,
		stdout => \$out,
		stderr => \$errors,
		on_error_stop => 0,
		timeout => 120,
		timed_out => \$late,
		extra_params => $role ? [ '-U', $role ] : []);
	fail("the statements of $role end: " . substr $sql, 0, 500) if $late;
	return $errors;
}

sql($node, <<~'SQL');
	CREATE ROLE boss SUPERUSER;
	CREATE SCHEMA canary;
	CREATE TABLE canary.seen (n integer);
	GRANT USAGE ON SCHEMA canary TO PUBLIC;
	GRANT INSERT ON canary.seen TO app;
	SQL
sql($node, <<~SQL) for @roles;
	CREATE ROLE $_ LOGIN;
	GRANT USAGE ON SCHEMA sendcampaign TO $_;
	GRANT CREATE ON DATABASE postgres TO $_;
	GRANT CREATE ON SCHEMA public TO $_;
	GRANT EXECUTE ON ALL ROUTINES IN SCHEMA sendcampaign, public TO $_;
	SQL

# The ordinary campaign waits for an answer to its control question, and its
# jobs have ids of their own: helpers look for them in all schemas.
sql($node, q{ALTER ROLE app SET sendcampaign.lookup_timeout = '10min'});
sql($node, 'ALTER SEQUENCE ac_background_jobs_id_seq RESTART 900000000');
my $started = sql($node, 'SELECT pg_postmaster_start_time()');

my $refused = 0;
my $messages = 0;
my %runs_in_state;

# The run of one case: { state, counts, ... }, or undef where the call was refused
sub run_of_case
{
	my $case = shift;
	my $row = sql($node, <<~SQL);
		SELECT to_json(r)
		FROM sendcampaign.run r
		WHERE campaign_id = $case->{campaign} AND test_phone IS NULL
		SQL
	return $row eq '' ? undef : JSON::PP::decode_json($row);
}

# Has a run ended, or is there none?
sub has_ended
{
	my $run = shift;
	return 1 if !$run;
	return 0 if $run->{state} eq 'queued' || $run->{state} eq 'running';
	return $run->{state} ne 'cancelled' || defined $run->{finished_at};
}

# As an item of FROM, with its condition: the extension's rows of a run
sub of_run
{
	my ($table, $run) = @_;
	my $condition = exists $run->{id} ? "run_id = $run->{id}" : "job_id = $run->{job_id}";
	return "sendcampaign.$table WHERE $condition";
}

# The first list users that are claimed and have no outcome
sub unknown_of
{
	my $run = shift;
	my $claims = of_run('claim', $run);
	my $outcomes = of_run('message', $run);
	return sql($node, <<~SQL);
		SELECT array(
		    SELECT unnest(list_user_ids) FROM $claims
		    EXCEPT
		    SELECT list_user_id FROM $outcomes
		    ORDER BY 1
		    LIMIT 10)
		SQL
}

# What is not as it should be with the rows of a run that has ended
sub check_rows
{
	my ($case, $run, $accepted) = @_;
	my (@wrong, %has_row);
	my $outcomes = of_run('message', $run);
	my $claims = of_run('claim', $run);
	my $counts = sql($node, "SELECT status, count(*) FROM $outcomes GROUP BY 1");
	my %rows = map { split /\|/ } split /\n/, $counts;
	my $is_whole = $run->{state} eq 'completed' || $run->{state} eq 'cancelled';
	my $sum = 0;

	for my $status (qw(sent failed skipped in_doubt))
	{
		my $rows = $rows{$status} || 0;
		$sum += $rows;
		push @wrong, "$run->{$status} are $status, but $rows rows are"
		  if $run->{$status} != $rows;
	}
	push @wrong, "$sum rows of $run->{total} recipients"
	  if $is_whole && defined $run->{total} && $sum != $run->{total};
	$has_row{$_} = 1 for split /\n/, sql($node, "SELECT list_user_id FROM $outcomes");
	if (!$is_whole)
	{
		$has_row{$_} = 1 for split /\n/, sql($node, "SELECT unnest(list_user_ids) FROM $claims");
	}
	push @wrong, "list user $_ has a message and no row"
	  for grep { !$has_row{$_} } keys %$accepted;
	return @wrong;
}

# What is wrong with a case after its end
sub check
{
	my ($case, $run, @ledger) = @_;
	my (@wrong, %accepted, %phone);

	for my $message (@ledger)
	{
		my ($to, $body) = @$message{qw(to body)};
		next if $to =~ /^\+1999/;    # a test message
		my ($list_user) = $body =~ /yu=(-?\d+)&yc=$case->{campaign}(?!\d)/;
		next if !defined $list_user && $to !~ /^\+16$case->{digits}/;
		$accepted{$list_user}++ if defined $list_user;
		$phone{$to}++;
	}
	push @wrong, "list user $_ got it $accepted{$_} times"
	  for grep { $accepted{$_} > 1 } sort keys %accepted;
	push @wrong, "phone $_ got it $phone{$_} times"
	  for grep { !$case->{wild} && $phone{$_} > 1 } sort keys %phone;
	push @wrong, 'there are messages and no run' if !$run && %phone;
	return @wrong if !$run;
	$runs_in_state{ $run->{state} }++;
	# the tables' own code ends whoever records, at each commit
	my $ends_worker = $case->{text} =~ /INITIALLY DEFERRED [^;]*pg_terminate_backend/;
	if (!has_ended($run) && !defined $run->{error} && !$ends_worker)
	{
		my $row = JSON::PP->new->canonical->encode($run);
		my $unknown = unknown_of($run);
		push @wrong, "it is still $run->{state}: $row without an outcome: $unknown";
	}
	push @wrong, "$run->{state} without a reason"
	  if $run->{state} =~ /failed|paused/ && !defined $run->{error};
	push @wrong, check_rows($case, $run, \%accepted) if has_ended($run);
	return @wrong;
}

# Makes the tables of some cases, and has all of them sent at once.
sub start
{
	my @cases = @_;
	my $errors = '';
	for my $case (@cases)
	{
		$errors .= try_as($case->{role}, $case->{make});
		try_as($case->{role}, "$case->{set} $case->{before}") if $case->{before};
		$case->{refusal} = try_as($case->{role}, "$case->{set} $case->{send}");
	}
	$refused += () = $errors =~ /ERROR:/g;
	for my $case (@cases)
	{
		try_as($case->{role}, "$case->{set} $case->{during}") if $case->{during};
		$case->{answers} = try_as('', "$case->{set} $case->{boss}") if $case->{boss};
	}
}

# Has its run ended, or said for some time why it does not?
sub has_settled
{
	my $case = shift;
	my $run = run_of_case($case);
	return 1 if has_ended($run);
	$case->{told} = defined $run->{error} ? ($case->{told} || 0) + 1 : 0;
	return $case->{told} > 40;
}

# Waits until all have settled.  A worker that a trigger has ended comes back by
# somebody's wake().
sub wait_for_ends
{
	my @left = @_;
	my $looks = 0;
	my $are_settled = sub {
		sql($node, 'SELECT sendcampaign.wake()') if ++$looks % 20 == 0;
		@left = grep { !has_settled($_) } @left;
		select undef, undef, undef, 0.1;
		return !@left;
	};
	poll($are_settled, $ENV{TIMEOUT} || seconds_here($node, 60));
}

sub clean_up
{
	my @cases = @_;
	for my $case (@cases)
	{
		my $drop = "DROP SCHEMA IF EXISTS $case->{schema} CASCADE";
		try_as('', "$drop; $drop; ALTER ROLE $case->{role} RESET ALL;");
		try_as('', <<~SQL);
			SELECT sendcampaign.cancel(job_id)
			FROM sendcampaign.run
			WHERE campaign_id = $case->{campaign} AND finished_at IS NULL
			SQL
	}
}

# All that repeats a case, and what became of its call
sub description
{
	my $case = shift;
	my %text = map { $_ => $case->{$_} // '' } qw(number text send during boss refusal);
	return "SEED=$seed CASE=$text{number}: $text{text}\n"
	  . "$text{send} $text{during} boss: $text{boss}\n$text{refusal}";
}

# Some cases at once, beside the ordinary campaign
sub batch
{
	my @cases = @_;
	my $campaign = create_campaign($node, users => 20);
	my $offset = -s $node->logfile;

	start(@cases);
	my $job = sql($node, "SELECT send_campaign(${campaign}::bigint)", role => 'app');
	wait_for_run($node, $job);
	wait_for_ends(@cases);
	# what they have put into the public schema must not be called from here
	sql($node, join '', map { $_->{drop} } @cases);
	my $numbers = "$cases[0]{number} to $cases[-1]{number}";
	sent_once(
		$node, $twilio, $campaign, $job,
		"the ordinary campaign beside cases $numbers",
		total => 20);
	my @ledger = $twilio->ledger;
	for my $case (@cases)
	{
		my @wrong = check($case, run_of_case($case), @ledger);
		is(join("\n", @wrong), '', "case $case->{number}: @{$case->{what}}")
		  or diag(description($case));
	}
	my $log = slurp_file($node->logfile, $offset);
	my $accident = qr/PANIC:|TRAP:|terminated by signal|reinitializing|canary: /;
	my @accidents = grep { /$accident/ } split /\n/, $log;
	splice @accidents, 5 if @accidents > 5;
	is(join("\n", @accidents), '', 'no accident, and no rights of others')
	  or diag(join "\n", map { description($_) } @cases);
	$messages += @ledger;
	clean_up(@cases);
	$twilio->set(reset => 1);
}

while (my @batch = splice @numbers, 0, scalar @roles)
{
	my @cases;
	for my $i (0 .. $#batch)
	{
		srand($seed ^ $batch[$i] * 7919);
		push @cases, hostile_case($batch[$i], $roles[$i]);
	}
	batch(@cases);
}

is(sql($node, 'SELECT pg_postmaster_start_time()'), $started, 'the server has not been restarted');
is(sql($node, 'SELECT count(*) FROM canary.seen'),
	0, 'nobody else has written where only others may');
is(sql($node, <<~'SQL'), '', 'nobody has become somebody else');
	SELECT string_agg(rolname, ' ')
	FROM pg_roles r
	WHERE rolname LIKE 'rogue%'
	    AND (rolsuper OR rolcreaterole OR pg_has_role(oid, 'app', 'MEMBER'))
	SQL
my $states = join ', ', map { "$_ $runs_in_state{$_}" } sort keys %runs_in_state;
diag("hostile tables: SEED=$seed: $count cases, $messages messages, $refused changes refused");
diag("hostile tables: runs: $states");
$node->stop('immediate');
done_testing();
