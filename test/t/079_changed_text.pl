# Senders and texts that change in mid-run, and bytes that are no text.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";

use Campaign;
use LocalTwilio;
use PostgreSQL::Test::Utils;
use Test::More;

my $twilio = LocalTwilio->start;
my $node = new_cluster('changed_text', $twilio, conf => <<~CONF);
    restart_after_crash = on
    sendcampaign.request_timeout = '6s'
    sendcampaign.lookup_delay = '1s'
    sendcampaign.lookup_timeout = '1s'
CONF

# Shows the first messages of a job, and what Twilio has accepted.
sub show_messages
{
	my $job = shift;
	diag(sql($node, <<~SQL));
	    SELECT list_user_id, phone, status, sid, error_message
	    FROM sendcampaign.message
	    WHERE job_id = $job
	    ORDER BY 1
	    LIMIT 5
	SQL
	diag("$_->{to}, from $_->{from}: $_->{body}") for $twilio->ledger;
}

subtest 'sender replaced before the run goes on in another history' => sub {
	$twilio->set(reset => 1);
	my $campaign = create_campaign($node, users => 5);
	my $group = group_of($campaign);
	my $run = run_campaign($node, $campaign);
	sql($node, <<~SQL);
	    UPDATE groups
	    SET configuration = configuration || '{"twilioFromSmsNumber": "+15557770000"}'
	    WHERE id = $group
	SQL
	diag(explain lose_commits($node, $run->{job}, 5));
	show_messages($run->{job});
	is($twilio->num_twice, 0, 'nobody has it twice');
};

subtest 'text changed while some are in doubt' => sub {
	$twilio->set(reset => 1, 'hold-after' => 1, hold => 1);
	my $campaign = create_campaign($node, users => 5, base_url => undef);
	my $job = start_campaign($node, $campaign);
	ok(poll(sub { $twilio->stats->{accepted} == 5 }), 'five are accepted, and not answered');
	ok(kill_worker($node), 'the worker is killed');
	my $run = run_row($node, $job);
	diag("$run->{state}, $run->{sent} sent");

	# no worker can work
	sql($node, 'REVOKE CONNECT ON DATABASE postgres FROM PUBLIC');
	wait_until($node, 'SELECT sendcampaign.wake() >= 0');
	is(run_row($node, $job)->{state}, 'failed', 'the run fails');
	sql($node, 'GRANT CONNECT ON DATABASE postgres TO PUBLIC');

	$twilio->set('hold-after' => 0, hold => 0);
	sql($node, qq(UPDATE ac_campaigns SET data = '{"message": "Corrected"}' WHERE id = $campaign));
	start_campaign($node, $campaign, job => $job);
	poll(sub { run_row($node, $job)->{state} eq 'running' }, 5);
	sql($node, "SELECT sendcampaign.pause($job)");
	wait_for_no_worker($node);
	sql($node, "SELECT sendcampaign.resume($job)");
	diag(explain wait_for_run($node, $job));
	show_messages($job);
	is($twilio->num_twice, 0, 'nobody has it twice');
};

subtest 'one bad byte' => sub {
	my @win1252 = (db => 'win1252');
	$twilio->set(reset => 1);
	sql($node, "CREATE DATABASE win1252 ENCODING 'WIN1252' LOCALE 'C' TEMPLATE template0");
	install_extension($node, 'win1252');
	my $campaign = create_campaign($node, @win1252, users => 5, message => 'Hi {{name}}');
	sql($node, <<~'SQL', @win1252);
	    UPDATE ac_list_users
	    SET data = data || jsonb_build_object(
	        'name', CASE id WHEN 3 THEN convert_from('\x81', 'WIN1252') ELSE 'Ann' END)
	SQL
	my $run = run_campaign($node, $campaign, @win1252);
	is("$run->{state} $run->{sent}", 'completed 4', 'the others are sent')
	  or diag($run->{error});
	is(sql($node, <<~SQL, @win1252), 'a value cannot be converted to UTF-8', 'that one is not');
	    SELECT error_message
	    FROM sendcampaign.message
	    WHERE job_id = $run->{job} AND status = 'skipped'
	SQL
};

$node->stop;
done_testing();
