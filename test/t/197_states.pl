# The tables of states and phases in the documentation: what each function does
# to a run in each state, as docs/guarantees.md says, and the phases of a run in
# a worker, as docs/design.md and src/worker/phase.c say.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../perl";
use Campaign;
use LocalTwilio;
use PostgreSQL::Test::Utils;
use Test::More;

my $root = "$FindBin::RealBin/../..";

# The cells of the first table of a document whose head begins with this text,
# one array reference per row; backticks are removed.
sub table_of
{
	my ($file, $head) = @_;
	my $text = slurp_file("$root/$file");
	my ($lines) = $text =~ /^(\Q$head\E.*?)\n\n/ms or die "$file has no table \"$head\"";
	my @rows = map { [ map { s/^\s+|\s+$//gr =~ tr/`//dr } (split /\|/)[ 1 .. tr/|// - 1 ] ] }
	  split /\n/, $lines;
	splice @rows, 1, 1;    # the line below the head
	return @rows;
}

# The rows of an array of phase.c, as table_of() returns them.
sub rows_in_source
{
	my $array = shift;
	my $source = slurp_file("$root/src/worker/phase.c");
	my ($rows) = $source =~ /\Q$array\E.*?= \{\n(.*?)\n\};/s or die "no $array in phase.c";
	my @found;
	while ($rows =~ /^\s*\[(\w+)\]\s*=\s*\{(.*?)\},$/mg)
	{
		my ($phase, $values) = ($1, $2);
		push @found,
		  [ $phase, map { { true => 'yes', false => 'no' }->{$_} // $_ } split /,\s*/, $values ];
	}
	return @found;
}

my (undef, @rules) = table_of('docs/design.md', '| phase | sends |');
my (undef, @changes) = table_of('docs/design.md', '| phase | row is gone |');
is(scalar @rules, 11, 'eleven phases are documented');
is_deeply(
	\@rules,
	[ rows_in_source('phase_rules[NUM_RUN_PHASES]') ],
	'what is done in each phase is documented as it is');
is_deeply(
	\@changes,
	[ rows_in_source('phases_after[NUM_RUN_PHASES]') ],
	'the phases after a change of the state are documented as they are');

my $twilio = LocalTwilio->start;
my $node = new_cluster('states', $twilio);

# Has a run come into a state.  Two recipients; the second one's message fails
# in such a way that it may be sent again.
my %bring_into = (
	queued => sub {
		set_and_reload($node, 'sendcampaign.enabled', 'off');
		my $job = start_campaign($node, shift);
		return $job;
	},
	running => sub {
		$twilio->set(hold => 1);
		my $job = start_campaign($node, shift);
		wait_until($node, "SELECT state = 'running' FROM sendcampaign.run WHERE job_id = $job");
		wait_for_flight($twilio, 2);
		return $job;
	},
	paused => sub {
		$twilio->set(hold => 1);
		my $job = start_campaign($node, shift);
		wait_for_flight($twilio, 2);
		sql($node, "SELECT sendcampaign.pause($job)", role => 'app');
		return $job;
	},
	failed => sub {
		my $campaign = shift;
		sql($node, <<~SQL);
			UPDATE groups SET configuration = configuration || '{"twilioAuthToken": "wrong"}'
			WHERE id = ${\ group_of($campaign)}
			SQL
		return run_campaign($node, $campaign, state => 'failed')->{job};
	},
	completed => sub { return run_campaign($node, shift)->{job}; },
	cancelled => sub {
		$twilio->set(hold => 1);
		my $job = start_campaign($node, shift);
		wait_for_flight($twilio, 2);
		sql($node, "SELECT sendcampaign.cancel($job)", role => 'app');
		$twilio->set(hold => 0);
		wait_until($node,
			"SELECT finished_at IS NOT NULL FROM sendcampaign.run WHERE job_id = $job");
		return $job;
	});

# What a call does to the run, in the words of the table.  It is rolled back.
sub effect_of
{
	my ($call, $state, $job) = @_;
	my $error = sql_error($node, "BEGIN; SELECT $call; ROLLBACK", role => 'app');
	return "$error->{sqlstate} $error->{message}" if $error->{sqlstate} !~ /^(55000|)$/;
	return 'error' if $error->{sqlstate};
	my ($ret, $out, $err) = $node->psql('postgres', <<~SQL);
		SET ROLE app;
		BEGIN;
		DO \$\$ BEGIN PERFORM $call; END \$\$;
		SELECT coalesce((SELECT state FROM sendcampaign.run WHERE job_id = $job), 'deleted');
		ROLLBACK;
		SQL
	return $out if $out ne $state;
	return $err =~ /NOTICE:/ ? 'notice' : 'kept';
}

my ($head, @states) = table_of('docs/guarantees.md', '| state | `pause()` |');
my @functions = map { s/\(\)//r } @$head[ 1 .. $#$head ];
is_deeply(
	[ sort map { $_->[0] } @states ],
	[ sort keys %bring_into ],
	'the functions are documented for each state');
for my $row (@states)
{
	my ($state, @expected) = @$row;
	my $campaign = create_campaign($node, users => 2);
	$twilio->set('to-fault' => '+15550000002=code:20503');
	sql($node, 'ALTER ROLE app SET sendcampaign.max_attempts = 1');
	my $job = $bring_into{$state}->($campaign);
	my %call = (
		(map { $_ => "sendcampaign.$_($job)" } qw(pause resume cancel retry_failed)),
		send_campaign => "send_campaign($campaign, $job)",
		forget => "sendcampaign.forget('infinity')");
	is_deeply([ sort @functions ], [ sort keys %call ], "$state: each function is known");
	is(effect_of($call{ $functions[$_] }, $state, $job),
		$expected[$_], "$functions[$_]() of a run that is $state")
	  for 0 .. $#functions;

	# the next one begins with an idle worker
	sql($node, "SELECT sendcampaign.cancel($job)", role => 'app')
	  if $state =~ /queued|running|paused/;
	$twilio->set(hold => 0);
	set_and_reload($node, 'sendcampaign.enabled', 'on');
	sql($node, 'SELECT sendcampaign.wake()');
	wait_until($node, "SELECT finished_at IS NOT NULL FROM sendcampaign.run WHERE job_id = $job");
	wait_for_no_worker($node);
}

$node->stop;
done_testing();
