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
my $node = new_cluster('operations', $twilio, no_extension => 1, conf => q{
	shared_preload_libraries = 'pg_cron'
	cron.database_name = 'operations'
	sendcampaign.request_timeout = '1s'
	sendcampaign.lookup_delay = '200ms'
	sendcampaign.max_attempts = 1
});

# What the text between the blocks tells, by a block's first line that has
# arguments, and how often it has come: done before it, and after.
my (%before, %after, %times);
sub twilio { my @settings = @_; return sub { $twilio->set(@settings); }; }
sub has_ended { my ($db, $job, @state) = @_; return sub { wait_for_run($node, $job, db => $db, @state); }; }

sub mark_of
{
	my $block = shift;
	my ($line) = grep { !/^--|\(\);$/ } split /\n/, $block->{text};
	return $line . ' #' . ++$times{ $block->{name} =~ s/:.*//r . $line };
}

sub follow
{
	my ($db, $block, $role) = @_;
	my $mark = mark_of($block);

	$before{"$db $mark"}->() if $before{"$db $mark"};
	my ($stdout, $stderr) = run_block($node, $db, $block, $role);
	note $stdout, $stderr;
	unlike($stderr, qr/ERROR|FATAL|WARNING/, "$block->{name} $mark");
	is(without_padding($stdout . $stderr), without_padding($block->{output}), "$block->{name} prints what is shown")
	  if defined $block->{output};
	$after{"$db $mark"}->() if $after{"$db $mark"};
}

# README.md, from the installed package on
$node->safe_psql('postgres', 'CREATE DATABASE readme');
$after{'readme CREATE ROLE app LOGIN; #1'} = has_ended('readme', 1);
$after{'readme INSERT INTO ac_background_jobs (progress) VALUES (5) RETURNING id;   -- 2, say #1'} = has_ended('readme', 2);
follow('readme', $_) for grep { $_->{language} eq 'sql' && $_->{section} !~ /^(sendcampaign|See it)$/ } blocks_of('README.md');
wait_for_run($node, -1, db => 'readme');
is($node->safe_psql('readme', 'SELECT string_agg(state, \' \') FROM sendcampaign.run'), 'completed completed completed', 'README.md sends twice, and a test message');
is_deeply([ sort map { "$_->{to} $_->{body}" } grep { $_->{to} ne '+15550009999' } $twilio->ledger ],
	[ map { my $user = $_; ("+1555000000$user How was the meeting? Three questions: https://example.org/survey?yu=$user&yc=1") x 2 } 1 .. 2 ],
	'... with the link that it shows');

# docs/operations.md
my @blocks = blocks_of('docs/operations.md');
$node->safe_psql('postgres', 'CREATE DATABASE operations');
$node->safe_psql('operations', 'CREATE EXTENSION sendcampaign; GRANT CREATE ON SCHEMA public TO app;'
	  . 'GRANT USAGE ON SCHEMA sendcampaign TO app; GRANT EXECUTE ON ALL ROUTINES IN SCHEMA sendcampaign TO app;'
	  . 'GRANT EXECUTE ON FUNCTION send_campaign TO app');
$twilio->set(reset => 1);
$before{'operations SELECT send_campaign(1); #2'} = $before{'operations SELECT send_campaign(1); #3'} = twilio(hold => 1);
$before{'operations SELECT sendcampaign.resume(2); #1'} = twilio(hold => 0);
$after{'operations SELECT sendcampaign.cancel(3); #1'} = twilio(hold => 0);
$before{'operations SELECT send_campaign(1); #4'} = sub {
	$twilio->set('to-fault', $_) for '+15550000001=code:20503', '+15550000007=code:21614';
};
$before{'operations SELECT sendcampaign.retry_failed(4); #1'} = twilio('to-fault' => '+15550000001=none');
$before{'operations SELECT send_campaign(1); #5'} = sub {
	$twilio->set('to-fault', $_) for '+15550000001=drop-after', '+15550000007=none';
	$twilio->set('fault:list-403' => 100);
};
$after{"operations CALL sendcampaign.wait(5, '1 minute'); #1"} = twilio('to-fault' => '+15550000001=none', 'fault:list-403' => 0);
$after{q{operations ALTER ROLE app SET sendcampaign.failure_threshold = 5; #1}} = sub { wait_for_no_worker($node); };
$before{'operations INSERT INTO ac_lists (group_id) VALUES (1); #1'} = twilio('fault:code:21614' => 100);
$after{'operations INSERT INTO ac_lists (group_id) VALUES (1); #1'} = sub {
	my $run = wait_for_run($node, 6, db => 'operations', state => 'paused');
	my ($said) = slurp_file("$FindBin::RealBin/../../docs/operations.md") =~ /its `error` says why: `(.*?)`/;
	is($run->{error} =~ s/\d+ of \d+|\(\d+\)/N/gr, $said =~ s/\d+ of \d+|\(\d+\)/N/gr, 'the error is as it is quoted');
	$twilio->set('fault:code:21614' => 0);
};
$after{q{operations INSERT INTO ac_list_users (ac_list_id, data) VALUES (1, '{"sms": "+1 555 000 0031", "name": "Hal"}'); #1}} = has_ended('operations', 8);
follow('operations', $_, 'app') for grep { $_->{language} eq 'sql' } @blocks;
is_deeply([ grep { !$times{ /^readme/ ? 'README.md' . s/^readme | #\d+$//gr : 'docs/operations.md' . s/^operations | #\d+$//gr } } keys %before, keys %after ],
	[], 'nothing else is told between them');

# the queries of a collector, by its role
my ($yaml) = grep { $_->{language} eq 'yaml' } @blocks;
my $queries = CPAN::Meta::YAML->read_string($yaml->{text})->[0];
cmp_ok(scalar keys %$queries, '>=', 4, "$yaml->{name} has queries");
sub collected
{
	my $name = shift;
	my $csv = $node->safe_psql('operations', "SET ROLE monitor; $queries->{$name}{query}", extra_params => [ '--csv', '-P', 'tuples_only=off' ]);
	return split /\n/, $csv;
}
for my $name (sort keys %$queries)
{
	my ($heading, @rows) = collected($name);
	is($heading, join(',', map { keys %$_ } @{ $queries->{$name}{metrics} }), "$name: its columns are its metrics");
	cmp_ok(scalar @rows, '>=', 1, "$name: rows");
}
# a job of another schema that has the number of one with a failed message
$node->safe_psql('operations', q{
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
});
$node->poll_query_until('operations', q{SELECT state = 'completed' FROM sendcampaign.run WHERE schema = 'other'});
my (undef, @codes) = collected('sendcampaign_failures');
my $failures = 0;
$failures += (split /,/)[1] for @codes;
is($failures, $node->safe_psql('operations', q{SELECT count(*) FROM sendcampaign.message WHERE status = 'failed'}), 'a failed message is counted once, whatever jobs of other schemas have its number');
wait_for_no_worker($node);
sub trouble { return (collected('sendcampaign_trouble'))[1] =~ s/^(\d+),[^,]*,/$1,/r; }
is(trouble(), '0,0,0', 'no trouble: no run without a worker, no doubt, no worker');
$twilio->set(hold => 1, reset => 1);
my $job = start_campaign($node, 2, db => 'operations');
wait_for_flight($twilio, 1);
is(trouble(), '0,0,1', 'a run goes on: one worker');
set_and_reload($node, 'sendcampaign.enabled', 'off');
$twilio->set(hold => 0);
ok(worker_is_gone($node, 20), 'switched off');
is(trouble(), '1,0,0', 'a run has no worker');
set_and_reload($node, 'sendcampaign.enabled', 'on');
$node->safe_psql('operations', "SELECT sendcampaign.pause($job)");
is(trouble(), '0,0,0', 'paused, it wants none');
ok(scalar(grep { $_ eq 'paused,1' } collected('sendcampaign_runs')), 'it is counted as paused');

$node->stop;
done_testing();
