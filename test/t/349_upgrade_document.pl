# docs/upgrade.md: every statement runs, and prints what is shown below it. What
# after_pg_upgrade() takes over, and what it leaves alone: the cluster's system
# identifier is made another one in the rows.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../perl";
use Campaign;
use Document;
use LocalTwilio;
use Test::More;

my $twilio = LocalTwilio->start;
my $node = new_cluster('upgrade', $twilio, version => '1.0', conf => <<~'CONF');
	sendcampaign.request_timeout = '15s'
	sendcampaign.lookup_delay = '200ms'
	sendcampaign.max_concurrency = 5
	sendcampaign.receipts = off
	CONF

sub query { return sql($node, @_) }

# The rows look as if pg_upgrade had brought them here.
sub leave_cluster
{
	query(<<~'SQL');
		UPDATE sendcampaign.run_data SET system_identifier = 1;
		UPDATE sendcampaign.opt_out_data SET system_identifier = 1;
		UPDATE sendcampaign.unreachable_data SET system_identifier = 1;
		UPDATE sendcampaign.reply_data SET system_identifier = 1;
		SQL
}

# Of 1.0: a run that has ended, and one in progress
my $done = create_campaign($node, users => 3);
my $done_job = start_campaign($node, $done);
wait_for_run($node, $done_job, alone => 1);
query("SELECT sendcampaign.opt_out('+15559999999')", role => 'app');
query(<<~'SQL');
	INSERT INTO sendcampaign.unreachable_data (phone, error_code, role, role_oid, updated_at)
	VALUES ('+15558888888', 30006, 'app', 'app'::regrole, now());
	SQL
my $campaign = create_campaign($node, users => 600);
# so slow that it lasts
$twilio->set(latency => 3000);
my $job = start_campaign($node, $campaign);
wait_until($node, "SELECT sent > 0 FROM sendcampaign.run WHERE job_id = $job");

my @blocks = grep { $_->{language} eq 'sql' } blocks_of('docs/upgrade.md');
my $moved;
for my $block (@blocks)
{
	if ($block->{text} =~ /after_pg_upgrade/ && !$moved++)
	{
		terminate_workers($node);
		wait_for_no_worker($node);
		$twilio->set(latency => 0);
		leave_cluster();
		query('SELECT sendcampaign.wake()');
		wait_until($node, "SELECT state = 'paused' FROM sendcampaign.run WHERE job_id = $job");
	}
	my ($stdout, $stderr) = run_block($node, 'postgres', $block);
	unlike($stderr, qr/ERROR|FATAL|WARNING/, "$block->{name} runs");
	is( without_padding($stdout . $stderr),
		without_padding($block->{output}),
		"$block->{name} prints what is shown") if defined $block->{output};
}
ok($moved, 'the document calls after_pg_upgrade()');
sent_once($node, $twilio, $campaign, $job, 'in progress', total => 600);
wait_for_no_worker($node);

my $at_home = 'system_identifier = (SELECT system_identifier FROM pg_control_system())';
my $of_done = "FROM sendcampaign.run_data WHERE job_id = $done_job";
is(query("SELECT $at_home $of_done"), 't', 'the run that has ended is at home');
query('ALTER ROLE app RENAME TO application');
is(query('SELECT count(*) FROM sendcampaign.opt_out', role => 'application'),
	1, 'opt-outs are those of the role, whatever its name');
is(query('SELECT count(*) FROM sendcampaign.unreachable', role => 'application'),
	1, 'and so are phones that SMS does not reach');
query('ALTER ROLE application RENAME TO app');

# Runs that are not taken over
leave_cluster();
query("UPDATE sendcampaign.run_data SET database = 1 WHERE job_id = $done_job");
is( query('SELECT sendcampaign.after_pg_upgrade()'),
	query("SELECT count(*) FROM sendcampaign.run_data WHERE job_id <> $done_job"),
	'those of this database are taken over');
is(query("SELECT $at_home $of_done"), 'f', 'one of another database is not');
query(<<~'SQL');
	SET session_replication_role = replica;
	UPDATE sendcampaign.run_data SET written_in = '1', system_identifier = 1;
	SQL
is(query('SELECT sendcampaign.after_pg_upgrade()'), 0, 'nor are rows that a dump has brought');

is_deeply(
	call_error($node, 'after_pg_upgrade()'),
	{
		sqlstate => '42501',
		message => 'only a superuser may call sendcampaign.after_pg_upgrade()',
		detail => '',
		hint => 'Have a superuser call it, once the old cluster cannot send any more.'
	},
	'only a superuser may say so');
$node->stop;
is(worker_errors($node), '', 'no worker met an error');
done_testing();
