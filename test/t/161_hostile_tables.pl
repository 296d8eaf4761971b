# Hostile tables: what roles make of the application's tables that mean no
# good, at random (Hostile.pm), several at a time, with an ordinary campaign of
# another role beside them.
#
# Whatever they do: the server does not crash; nobody gets a message twice;
# rows and counts add up; every run ends, or says why it does not; no code of
# theirs runs with the rights of others; and the ordinary campaign is sent.
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

my $twilio = LocalTwilio->start(options => [ '--seed', $seed, '--latency', 3, '--list-lag', 100,
	map { ('--fault', $_) } '429=2', 'drop-after=1', '500-before=1', '500-after=1' ]);
my $node = new_cluster('hostile_tables', $twilio, conf => q{
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
});

sub sql { return $node->safe_psql('postgres', $_[0]); }

# All statements, whatever becomes of each; returns what went wrong.
sub try_as
{
	my ($role, $sql) = @_;
	my ($out, $errors, $late) = ('', '', 0);
	$node->psql('postgres', $sql, stdout => \$out, stderr => \$errors, on_error_stop => 0, timeout => 120,
		timed_out => \$late, extra_params => $role ? [ '-U', $role ] : []);
	fail("the statements of $role end: " . substr $sql, 0, 500) if $late;
	return $errors;
}

sql('CREATE ROLE boss SUPERUSER; CREATE SCHEMA canary; CREATE TABLE canary.seen (n integer);'
	  . 'GRANT USAGE ON SCHEMA canary TO PUBLIC; GRANT INSERT ON canary.seen TO app;'
	  . join '', map { "CREATE ROLE $_ LOGIN; GRANT USAGE ON SCHEMA sendcampaign TO $_; GRANT CREATE ON DATABASE postgres TO $_;"
		  . "GRANT CREATE ON SCHEMA public TO $_; GRANT EXECUTE ON ALL ROUTINES IN SCHEMA sendcampaign, public TO $_;" } @roles);
# The ordinary campaign waits for an answer to its control question, and its
# jobs have numbers of their own: helpers look for them in all schemas.
sql(q{ALTER ROLE app SET sendcampaign.lookup_timeout = '10min'});
sql('ALTER SEQUENCE ac_background_jobs_id_seq RESTART 900000000');
my $started = sql('SELECT pg_postmaster_start_time()');

my ($refused, $states, $messages) = (0, {}, 0);

# One case's run: { state, counts, ... }, or undef where the call was refused.
sub state_of
{
	my $case = shift;
	my $row = sql(qq{SELECT to_json(r) FROM sendcampaign.run r WHERE campaign_id = $case->{campaign} AND test_phone IS NULL});
	return $row eq '' ? undef : JSON::PP::decode_json($row);
}

sub has_ended { my $run = shift; return !$run || $run->{state} !~ /^(queued|running)$/ && !($run->{state} eq 'cancelled' && !defined $run->{finished_at}); }

# Rows of the extension's that are of this run
sub of_run { my ($table, $run) = @_; return "sendcampaign.$table WHERE " . (exists $run->{id} ? "run_id = $run->{id}" : "job_id = $run->{job_id}"); }

# The first list users that are claimed and have no outcome
sub unknown_of
{
	my $run = shift;
	return sql('SELECT array(SELECT unnest(list_user_ids) FROM ' . of_run('claim', $run) . ' EXCEPT SELECT list_user_id FROM '
		  . of_run('message', $run) . ' ORDER BY 1 LIMIT 10)');
}

# What is not as it should be with the rows of a run that has ended.
sub check_rows
{
	my ($case, $run, $accepted) = @_;
	my (@wrong, %row);
	my %status = map { split /\|/ } split /\n/, sql('SELECT status, count(*) FROM ' . of_run('message', $run) . ' GROUP BY 1');
	my $whole = $run->{state} eq 'completed' || $run->{state} eq 'cancelled';
	my $sum = 0;

	for (qw(sent failed skipped in_doubt))
	{
		my $rows = $status{$_} || 0;
		$sum += $rows;
		push @wrong, "$run->{$_} are $_, but $rows rows are" if $run->{$_} != $rows;
	}
	push @wrong, "$sum rows of $run->{total} recipients" if $whole && defined $run->{total} && $sum != $run->{total};
	$row{$_} = 1 for split /\n/, sql('SELECT list_user_id FROM ' . of_run('message', $run));
	$row{$_} = 1 for $whole ? () : split /\n/, sql('SELECT unnest(list_user_ids) FROM ' . of_run('claim', $run));
	push @wrong, "list user $_ has a message and no row" for grep { !$row{$_} } keys %$accepted;
	return @wrong;
}

# What is wrong with a case after its end.
sub check
{
	my ($case, $run, @ledger) = @_;
	my (@wrong, %accepted, %phone);

	for (@ledger)
	{
		next if $_->{to} =~ /^\+1999/;    # a test message
		if ($_->{body} =~ /yu=(-?\d+)&yc=$case->{campaign}(?!\d)/) { $accepted{$1}++; }
		elsif ($_->{to} !~ /^\+16$case->{digits}/) { next; }
		$phone{ $_->{to} }++;
	}
	push @wrong, "list user $_ got it $accepted{$_} times" for grep { $accepted{$_} > 1 } sort keys %accepted;
	push @wrong, "phone $_ got it $phone{$_} times" for grep { !$case->{wild} && $phone{$_} > 1 } sort keys %phone;
	push @wrong, 'there are messages and no run' if !$run && %phone;
	return @wrong if !$run;
	$states->{ $run->{state} }++;
	push @wrong, "it is still $run->{state}: " . JSON::PP->new->canonical->encode($run) . ' without an outcome: ' . unknown_of($run)
	  if !has_ended($run) && !defined $run->{error};
	push @wrong, "$run->{state} without a reason" if $run->{state} =~ /failed|paused/ && !defined $run->{error};
	push @wrong, check_rows($case, $run, \%accepted) if has_ended($run);
	return @wrong;
}

# Makes the tables of some cases, and has all of them sent at once.
sub start
{
	my $errors = '';
	for my $case (@_)
	{
		$errors .= try_as($case->{role}, $case->{make});
		try_as($case->{role}, "$case->{set} $case->{before}") if $case->{before};
		$case->{refusal} = try_as($case->{role}, "$case->{set} $case->{send}");
	}
	$refused += () = $errors =~ /ERROR:/g;
	for my $case (@_)
	{
		try_as($case->{role}, "$case->{set} $case->{during}") if $case->{during};
		$case->{answers} = try_as('', "$case->{set} $case->{boss}") if $case->{boss};
	}
}

# Has its run ended, or said for some time why it does not?
sub has_settled
{
	my $case = shift;
	my $run = state_of($case);
	return 1 if has_ended($run);
	$case->{told} = defined $run->{error} ? ($case->{told} || 0) + 1 : 0;
	return $case->{told} > 40;
}

# A worker that a trigger has ended comes back by somebody's wake()
sub wait_for_ends
{
	my @left = @_;
	my $looks = 0;
	poll(sub {
		sql('SELECT sendcampaign.wake()') if ++$looks % 20 == 0;
		@left = grep { !has_settled($_) } @left;
		select undef, undef, undef, 0.1;
		return !@left;
	}, $ENV{TIMEOUT} || 60);
}

sub clean_up
{
	for my $case (@_)
	{
		my $drops = "DROP SCHEMA IF EXISTS $case->{schema} CASCADE";
		try_as('', "$drops; $drops; ALTER ROLE $case->{role} RESET ALL;");
		try_as('', "SELECT sendcampaign.cancel(job_id) FROM sendcampaign.run WHERE campaign_id = $case->{campaign} AND finished_at IS NULL");
	}
}

sub batch
{
	my @cases = @_;
	my $campaign = create_campaign($node, users => 20);
	my $offset = -s $node->logfile;

	start(@cases);
	my $job = sql("SET ROLE app; SELECT send_campaign(${campaign}::bigint)");
	wait_for_run($node, $job);
	wait_for_ends(@cases);
	# what they have put into the public schema must not be called from here
	sql(join '', map { $_->{drop} } @cases);
	sent_once($node, $twilio, $campaign, $job, "the ordinary campaign beside cases $cases[0]{number} to $cases[-1]{number}", total => 20);
	my @ledger = $twilio->ledger;
	for my $case (@cases)
	{
		my $run = state_of($case);
		my @wrong = check($case, $run, @ledger);
		is(join("\n", @wrong), '', "case $case->{number}: @{$case->{what}}")
		  or diag("SEED=$seed CASE=$case->{number}: $case->{text}\n$case->{send} $case->{during} boss: $case->{boss}\n$case->{refusal}");
	}
	my $log = slurp_file($node->logfile, $offset);
	my @accidents = $log =~ /^.*(?:PANIC:|TRAP:|terminated by signal|reinitializing|canary: ).*$/mg;
	is(join("\n", @accidents[ 0 .. ($#accidents > 4 ? 4 : $#accidents) ]), '', 'no accident, and no rights of others')
	  or diag(join "\n", map { "SEED=$seed case $_->{number}: $_->{text} $_->{send} $_->{during} boss: $_->{boss}" } @cases);
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

is(sql('SELECT pg_postmaster_start_time()'), $started, 'the server has not been restarted');
is(sql('SELECT count(*) FROM canary.seen'), 0, 'nobody else has written where only others may');
is(sql(q{SELECT string_agg(rolname, ' ') FROM pg_roles r WHERE rolname LIKE 'rogue%' AND (rolsuper OR rolcreaterole OR pg_has_role(oid, 'app', 'MEMBER'))}),
	'', 'nobody has become somebody else');
diag("hostile tables: SEED=$seed: $count cases, $messages messages, $refused changes refused; runs: "
	  . join(', ', map { "$_ $states->{$_}" } sort keys %$states));
$node->stop('immediate');
done_testing();
