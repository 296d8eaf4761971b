# What README.md and docs/operations.md show: every statement runs, in order,
# and prints what is shown below it.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";

use Campaign;
use CPAN::Meta::YAML;
use Document;
use LocalTwilio;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

plan skip_all => 'pg_cron is not installed'
  if !-e PostgreSQL::Test::Cluster->new('probe')->config_data('--pkglibdir') . '/pg_cron.so';

my $twilio = LocalTwilio->start;
$twilio->set(account => "$LocalTwilio::ACCOUNT:your-auth-token");
my $node = new_cluster(
	'operations', $twilio,
	no_extension => 1,
	conf => <<~CONF);
    shared_preload_libraries = 'pg_cron'
    cron.database_name = 'operations'
    sendcampaign.request_timeout = '15s'
    sendcampaign.lookup_delay = '200ms'
    sendcampaign.max_attempts = 1
CONF

# What the text between the blocks tells is done before or after a block.  A block
# is known by its database, its first line that has arguments, and how many blocks
# with that line there have been, this one included.
my (%before, %after, %times, %followed);

# A block's first line that has arguments, and its number.
sub mark_of
{
	my $block = shift;
	my $document = $block->{name} =~ s/:.*//r;
	my ($line) = grep { !/^--|\(\);$/ } split /\n/, $block->{text};
	my $time = ++$times{"$document $line"};
	return "$line #$time";
}

# Runs a block, with what is to be done before and after it.
sub follow
{
	my ($db, $block, $role) = @_;
	my $mark = mark_of($block);
	my $key = "$db: $mark";

	$followed{$key} = 1;
	$before{$key}->() if $before{$key};
	my ($stdout, $stderr) = run_block($node, $db, $block, $role);
	note $stdout, $stderr;
	unlike($stderr, qr/ERROR|FATAL|WARNING/, "$block->{name} $mark");
	is( without_padding($stdout . $stderr),
		without_padding($block->{output}),
		"$block->{name} prints what is shown") if defined $block->{output};
	$after{$key}->() if $after{$key};
}

# README.md, from the installed package on.
sub wait_in_readme
{
	my $job = shift;
	wait_for_run($node, $job, db => 'readme', alone => 1);
}

sql($node, 'CREATE DATABASE readme');
my $insert_job = 'INSERT INTO ac_background_jobs (progress) VALUES (5) RETURNING id;';
$after{'readme: CREATE ROLE app LOGIN; #1'} = sub { wait_in_readme(1) };
$after{"readme: $insert_job   -- 2, say #1"} = sub { wait_in_readme(2) };
for my $block (blocks_of('README.md'))
{
	next if $block->{language} ne 'sql' || $block->{section} =~ /^(sendcampaign|See it)$/;
	follow('readme', $block);
}
wait_in_readme(-1);
is( sql($node, q{SELECT string_agg(state, ' ') FROM sendcampaign.run}, db => 'readme'),
	'completed completed completed',
	'README.md sends twice, and a test message');
my $question = 'How was the meeting? Three questions: https://example.org/survey';
my @expected = map { ("+1555000000$_ $question?yu=$_&yc=1") x 2 } 1, 2;
my @texts = map { "$_->{to} $_->{body}" } grep { $_->{to} ne '+15550009999' } $twilio->ledger;
is_deeply([ sort @texts ], \@expected, 'with the link that README.md shows');

# docs/operations.md
my @blocks = blocks_of('docs/operations.md');
my @operations = (db => 'operations');
sql($node, 'CREATE DATABASE operations');
sql($node, <<~'SQL', @operations);
    CREATE EXTENSION sendcampaign;
    GRANT CREATE ON SCHEMA public TO app;
    GRANT USAGE ON SCHEMA sendcampaign TO app;
    GRANT EXECUTE ON ALL ROUTINES IN SCHEMA sendcampaign TO app;
    GRANT EXECUTE ON FUNCTION send_campaign TO app;
SQL
$twilio->set(reset => 1);
my $send = 'operations: SELECT send_campaign(1);';
my $hold = sub { $twilio->set(hold => 1) };
my $release = sub { $twilio->set(hold => 0) };
$before{"$send #2"} = $hold;
$before{'operations: SELECT sendcampaign.resume(2); #1'} = $release;
$before{"$send #3"} = $hold;
$after{'operations: SELECT sendcampaign.cancel(3); #1'} = $release;
$before{"$send #4"} = sub {
	$twilio->set('to-fault' => '+15550000001=code:20503');
	$twilio->set('to-fault' => '+15550000007=code:21614');
};
$before{'operations: SELECT sendcampaign.retry_failed(4); #1'} = sub {
	$twilio->set('to-fault' => '+15550000001=none');
};
$before{"$send #5"} = sub {
	$twilio->set('to-fault' => '+15550000001=drop-after');
	$twilio->set('to-fault' => '+15550000007=none');
	$twilio->set('fault:list-403' => 100);
};
$after{"operations: CALL sendcampaign.wait(5, '1 minute'); #1"} = sub {
	$twilio->set('to-fault' => '+15550000001=none', 'fault:list-403' => 0);
};
$after{'operations: ALTER ROLE app SET sendcampaign.failure_threshold = 5; #1'} = sub {
	wait_for_no_worker($node);
};

# A run that pauses itself, with the error that the document quotes, except for
# the numbers.
my $insert_list = 'operations: INSERT INTO ac_lists (group_id) VALUES (1); #1';
$before{$insert_list} = sub { $twilio->set('fault:code:21614' => 100) };
$after{$insert_list} = sub {
	my $run = wait_for_run($node, 6, @operations, state => 'paused', alone => 1);
	my $document = slurp_file("$FindBin::RealBin/../../docs/operations.md");
	my ($quoted) = $document =~ /its `error` says why: `(.*?)`/;
	my $number = qr/\d+ of \d+|\(\d+\)/;
	is($run->{error} =~ s/$number/N/gr, $quoted =~ s/$number/N/gr, 'the error is as it is quoted');
	$twilio->set('fault:code:21614' => 0);
};

my $insert_user = 'operations: INSERT INTO ac_list_users (ac_list_id, data) VALUES '
  . q{(1, '{"sms": "+1 555 000 0031", "name": "Hal"}'); #1};
$after{$insert_user} = sub { wait_for_run($node, 8, @operations, alone => 1) };
for my $block (grep { $_->{language} eq 'sql' } @blocks)
{
	follow('operations', $block, 'app');
}
is_deeply([ grep { !$followed{$_} } keys %before, keys %after ],
	[], 'nothing else is told between the blocks');

# The queries of a collector, by its role.
my $file = 'examples/prometheus/queries.yaml';
my $queries = CPAN::Meta::YAML->read("$FindBin::RealBin/../../$file")->[0];
cmp_ok(scalar keys %$queries, '>=', 4, "$file has queries");

# The lines that a query gives as CSV, with its heading.
sub collected
{
	my $name = shift;
	my $csv = $node->safe_psql(
		'operations',
		"SET ROLE exporter; $queries->{$name}{query}",
		extra_params => [ '--csv', '-P', 'tuples_only=off' ]);
	return split /\n/, $csv;
}

for my $name (sort keys %$queries)
{
	my ($heading, @rows) = collected($name);
	my $metrics = join ',', map { keys %$_ } @{ $queries->{$name}{metrics} };
	is($heading, $metrics, "$name: its columns are its metrics");
	cmp_ok(scalar @rows, '>=', 1, "$name: it has rows");
}

# A worker that a schedule calls would be counted below.
sql($node, 'UPDATE cron.job SET active = false', @operations);

# A job of another schema that has the number of one with a failed message.
sql($node, <<~'SQL', @operations);
    CREATE SCHEMA other AUTHORIZATION app;

    SET ROLE app;
    SET sendcampaign.schema = 'other';
    SELECT sendcampaign.create_tables('other');
    INSERT INTO other.ac_lists (group_id) VALUES (1);
    INSERT INTO other.groups SELECT * FROM public.groups WHERE id = 1;
    INSERT INTO other.ac_list_users (ac_list_id, data) VALUES (1, '{"sms": "+1 555 000 0041"}');
    INSERT INTO other.ac_campaigns (ac_list_id, data) VALUES (1, '{"message": "Hi"}');
    INSERT INTO other.ac_background_jobs (id) VALUES (4);
    SELECT send_campaign(1, 4);
SQL
wait_until($node, <<~'SQL', @operations);
    SELECT state = 'completed' FROM sendcampaign.run WHERE schema = 'other'
SQL
# The rows of a query as hashes
sub rows_of
{
	my ($heading, @lines) = collected(shift);
	my @names = split /,/, $heading;
	return map {
		my %row;
		@row{@names} = split /,/, $_, -1;
		\%row
	} @lines;
}

sub total
{
	my $total = 0;
	$total += $_ for @_;
	return $total;
}
my @failed = grep { $_->{kind} eq 'failed' } rows_of('sendcampaign_failures');
my $failed = "SELECT count(*) FROM sendcampaign.message WHERE status = 'failed'";
is( total(map { $_->{count} } @failed),
	sql($node, $failed, @operations),
	'a failed message is counted once, whatever jobs of other schemas have its number');
wait_for_no_worker($node);

# Runs without a worker, messages in doubt, and workers.
sub trouble
{
	my @runs = rows_of('sendcampaign_run');
	my ($workers) = rows_of('sendcampaign_workers');
	return join ',', total(map { $_->{without_worker} } @runs),
	  total(map { $_->{in_doubt} } @runs), $workers->{count};
}

is(trouble(), '0,0,0', 'there is no trouble: no run without a worker, no doubt, no worker');
$twilio->set(hold => 1, reset => 1);
my $job = start_campaign($node, 2, @operations);
wait_for_flight($twilio, 1);
is(trouble(), '0,0,1', 'while a run goes on there is one worker');
set_and_reload($node, 'sendcampaign.enabled', 'off');
$twilio->set(hold => 0);
ok(worker_is_gone($node, 20), 'switched off, the worker leaves');
is(trouble(), '1,0,0', 'a run has no worker');
set_and_reload($node, 'sendcampaign.enabled', 'on');
sql($node, "SELECT sendcampaign.pause($job)", @operations);
is(trouble(), '0,0,0', 'a paused run needs no worker');
my ($paused) = grep { $_->{state} eq 'paused' } rows_of('sendcampaign_runs');
is($paused->{count}, 1, 'the run is counted as paused');

$node->stop;
done_testing();
