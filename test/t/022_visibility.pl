# Who sees a run, and who touches it.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../perl";
use Campaign;
use LocalTwilio;
use PostgreSQL::Test::Utils;
use Test::More;

my $twilio = LocalTwilio->start;
my $node = new_cluster('visibility', $twilio);
$node->safe_psql('postgres', q{
	CREATE ROLE stranger LOGIN;
	CREATE ROLE member LOGIN NOINHERIT;
	CREATE ROLE blind LOGIN;
	GRANT app TO member;
	GRANT USAGE ON SCHEMA sendcampaign TO stranger, member});

sub as { my ($role, $sql) = @_; return $node->safe_psql('postgres', $sql, extra_params => [ '-U', $role ]); }

# The SQLSTATE and the message of what a role is refused; what it prints else.
sub refused
{
	my ($role, $sql) = @_;
	my ($out, $err);
	$node->psql('postgres', "\\set VERBOSITY verbose\n$sql", stdout => \$out, stderr => \$err,
		extra_params => [ '-U', $role ]);
	return $err =~ /ERROR:  (.*)/ ? $1 : "no error: $out";
}

my $campaign = create_campaign($node, users => 3);
my $job = as('app', "SELECT send_campaign($campaign)");
wait_for_run($node, $job);

my %rows = (run => 1, message => 3, progress => 1);
for my $table (sort keys %rows)
{
	my $count = "SELECT count(*) FROM sendcampaign.$table";
	is(as('app', $count), $rows{$table}, "$table: the role that sent sees it");
	is(as('member', $count), $rows{$table}, "$table: so does a member");
	is(as('stranger', $count), 0, "$table: another role does not");
	like(refused('blind', $count), qr/^42501: permission denied for schema sendcampaign/, "$table: nor one without USAGE");
	like(refused('app', "DELETE FROM sendcampaign.$table"), qr/^(42501: permission denied|55000: cannot delete)/, "$table: nobody changes it");
}
like(refused('app', "SELECT FROM sendcampaign.$_"), qr/^42501: permission denied for table $_/, "$_: is the extension's own")
  for 'claim', 'batch';
like(refused('app', "INSERT INTO sendcampaign.run (job_id, campaign_id, role, schema) VALUES (99, $campaign, 'postgres', 'public')"),
	qr/^42501: permission denied for view run/, 'a run cannot be forged');

# a function that tells what it is shown sees nothing either
is(as('stranger', q{
	CREATE FUNCTION pg_temp.tell(text) RETURNS boolean LANGUAGE plpgsql COST 0.0001
		AS $$ BEGIN RAISE EXCEPTION 'seen: %', $1; END $$;
	SELECT count(*) FROM sendcampaign.progress WHERE pg_temp.tell(state);
	SELECT count(*) FROM sendcampaign.message WHERE pg_temp.tell(phone)}), "0\n0", 'nothing leaks through a function');

# What is done to a run: for a stranger, there is none.
for my $call ("resume(JOB)", "settle(JOB, 1, true)")
{
	my ($real, $unknown) = map { $call =~ s/JOB/$_/r } $job, 4711;
	my $error = refused('stranger', "SELECT sendcampaign.$real");
	like($error, qr/^P0002: there is no run of background job $job$/, "$real: refused to a stranger");
	is($error =~ s/$job$//r, refused('stranger', "SELECT sendcampaign.$unknown") =~ s/4711$//r,
		"$real: with the words for one that does not exist");
	unlike(refused('member', "SELECT sendcampaign.$real"), qr/there is no run/, "$real: a member finds it");
}

# a queued run without a worker: wake() is for members
change_conf($node, 'sendcampaign.enabled = off');
$node->poll_query_until('postgres', q{SELECT sendcampaign.version() IS NOT NULL AND current_setting('sendcampaign.enabled') = 'off'});
$job = as('app', "SELECT send_campaign($campaign)");
wait_for_no_worker($node);
change_conf($node, 'sendcampaign.enabled = on');
$node->poll_query_until('postgres', q{SELECT sendcampaign.version() IS NOT NULL AND current_setting('sendcampaign.enabled') = 'on'});
is(as('stranger', 'SELECT sendcampaign.wake()'), 0, 'wake(): not for a stranger');
is(run_row($node, $job)->{state}, 'queued', 'the run stays queued');
is(as('member', 'SELECT sendcampaign.wake()'), 1, 'wake(): for a member');
is(wait_for_run($node, $job)->{sent}, 3, 'and the run is sent');
is($node->safe_psql('postgres', "SELECT role FROM sendcampaign.run WHERE job_id = $job"), 'app', 'with the rights of its own role');

# to send, a role needs no USAGE on the schema sendcampaign
$node->safe_psql('postgres', q{
	GRANT SELECT ON groups, ac_lists, ac_campaigns TO blind;
	GRANT SELECT, UPDATE, INSERT ON ac_list_users, ac_background_jobs TO blind;
	GRANT USAGE ON SEQUENCE ac_background_jobs_id_seq TO blind});
is(wait_for_run($node, as('blind', "SELECT send_campaign($campaign)"))->{sent}, 3, 'sent without USAGE on the schema');

# rights that are taken back in mid-run end it, with the reason
$twilio->set(latency => 300);
$campaign = create_campaign($node, users => 1000);
$job = as('blind', "SET sendcampaign.max_concurrency = 1; SELECT send_campaign($campaign)");
$node->poll_query_until('postgres', "SELECT sent > 0 FROM sendcampaign.run WHERE job_id = $job");
$node->safe_psql('postgres', 'REVOKE UPDATE ON ac_list_users FROM blind');
my $run = wait_for_run($node, $job);
like("$run->{state}: $run->{error}", qr/^failed: permission denied for table ac_list_users/, 'a right taken back: failed');
$node->safe_psql('postgres', 'GRANT UPDATE ON ac_list_users TO blind');
$twilio->set(latency => 0);
is(as('blind', "SELECT send_campaign($campaign, $job)"), $job, 'given again: the same call goes on');
sent_once($node, $twilio, $campaign, $job, 'given again', total => 1000);

wait_for_no_worker($node);
$node->stop;
done_testing();
