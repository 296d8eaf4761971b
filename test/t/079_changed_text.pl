# Senders and texts that change in mid-run, and bytes that are no text.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../perl";
use Campaign;
use HTTP::Tiny;
use LocalTwilio;
use PostgreSQL::Test::Utils;
use Test::More;

my $twilio = LocalTwilio->start;
my $node = new_cluster('changed_text', $twilio, conf => qq{
	restart_after_crash = on
	sendcampaign.request_timeout = '6s'
	sendcampaign.lookup_delay = '1s'
	sendcampaign.lookup_timeout = '1s'
});
sub sql { return $node->safe_psql($_[1] || 'postgres', $_[0]); }

sub twice { my $c = $twilio->count_by_phone; return scalar grep { $_ > 1 } values %$c; }
sub rows { diag $node->safe_psql($_[1] || 'postgres', "SELECT list_user_id, phone, status, sid, error_message FROM sendcampaign.message WHERE job_id = $_[0] ORDER BY 1 LIMIT 5"); }

subtest 'sender replaced before the run goes on in another history' => sub {
	$twilio->set(reset => 1);
	my $campaign = create_campaign($node, users => 5);
	my $job = start_campaign($node, $campaign);
	wait_for_run($node, $job);
	sql(qq{UPDATE groups SET configuration = configuration || '{"twilioFromSmsNumber": "+15557770000"}' WHERE id = ${\ group_of($campaign)}});
	diag explain lose_commits($node, $job, 5);
	rows($job); diag join " ", map { "$_->{to}:$_->{from}" } $twilio->ledger;
	is(twice(), 0, 'nobody has it twice');
};

subtest 'text changed while some are in doubt' => sub {
	$twilio->set(reset => 1, 'hold-after' => 1, hold => 1);
	my $campaign = create_campaign($node, users => 5, base_url => undef);
	my $job = start_campaign($node, $campaign);
	ok(poll(sub { $twilio->stats->{accepted} == 5 }), 'accepted, not answered');
	ok(kill_worker($node), 'killed');
	diag join '|', run_row($node, $job)->@{qw(state sent)};
	sql('REVOKE CONNECT ON DATABASE postgres FROM PUBLIC');
	$node->poll_query_until('postgres', 'SELECT sendcampaign.wake() >= 0');
	is(run_row($node, $job)->{state}, 'failed', 'failed');
	sql('GRANT CONNECT ON DATABASE postgres TO PUBLIC');
	$twilio->set('hold-after' => 0, hold => 0);
	sql(qq{UPDATE ac_campaigns SET data = '{"message": "Corrected"}' WHERE id = $campaign});
	start_campaign($node, $campaign, job => $job);
	poll(sub { run_row($node, $job)->{state} eq 'running' }, 5);
	sql("SELECT sendcampaign.pause($job)");
	wait_for_no_worker($node);
	sql("SELECT sendcampaign.resume($job)");
	diag explain wait_for_run($node, $job);
	rows($job);
	diag join ' ', map { "$_->{to}:$_->{body}" } $twilio->ledger;
	is(twice(), 0, 'nobody has it twice');
};

subtest 'one bad byte' => sub {
	$twilio->set(reset => 1);
	sql("CREATE DATABASE win1252 ENCODING 'WIN1252' LOCALE 'C' TEMPLATE template0");
	install_extension($node, 'win1252');
	my $campaign = create_campaign($node, db => 'win1252', users => 5, message => 'Hi {{name}}');
	sql(q{UPDATE ac_list_users SET data = data || jsonb_build_object('name', CASE id WHEN 3 THEN convert_from('\x81', 'WIN1252') ELSE 'Ann' END)}, 'win1252');
	my $job = start_campaign($node, $campaign, db => 'win1252');
	my $run = wait_for_run($node, $job, db => 'win1252');
	is("$run->{state} $run->{sent}", 'completed 4', 'the others are sent') or diag $run->{error};
};

$node->stop;
done_testing();
