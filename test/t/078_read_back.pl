# What was sent is read back, and must not be taken for something else.
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
my $node = new_cluster('read_back', $twilio, conf => <<~CONF);
    restart_after_crash = on
    sendcampaign.request_timeout = '2s'
    sendcampaign.lookup_delay = '1s'
    sendcampaign.lookup_timeout = '1s'
CONF

# Shows the first messages of a job.
sub show_rows
{
	my ($job, %arg) = @_;
	diag(sql($node, <<~SQL, %arg));
	    SELECT list_user_id, phone, status, sid, error_message
	    FROM sendcampaign.message
	    WHERE job_id = $job
	    ORDER BY 1
	    LIMIT 5
	SQL
}

# The status of the first message of a job.
sub first_status
{
	my $job = shift;
	return sql($node, <<~SQL);
	    SELECT status
	    FROM sendcampaign.message
	    WHERE job_id = $job
	    ORDER BY list_user_id
	    LIMIT 1
	SQL
}

subtest 'LATIN1, no link' => sub {
	my @latin1 = (db => 'latin1');
	$twilio->set(reset => 1);
	sql($node, "CREATE DATABASE latin1 ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0");
	install_extension($node, 'latin1');
	my $campaign = create_campaign($node, @latin1, users => 5, base_url => undef);
	sql($node, <<~'SQL', @latin1);
	    UPDATE ac_campaigns SET data = jsonb_build_object('message', 'H' || chr(233))
	SQL
	my $run = run_campaign($node, $campaign, @latin1);
	lose_commits($node, $run->{job}, 5, 'latin1');
	show_rows($run->{job}, @latin1);
	is($twilio->num_twice, 0, 'nobody has it twice');
};

subtest 'another message to the same phone' => sub {
	$twilio->set(reset => 1);
	my $campaign = create_campaign($node, users => 2, base_url => undef, message => 'Hi {{name}}');
	sql($node, q(UPDATE ac_list_users SET data = data || '{"name": "Ann"}'));
	$twilio->set('to-fault' => '+15550000001=code:21211');
	my $run = run_campaign($node, $campaign);
	$twilio->set('fault' => 'none');

	my $http = HTTP::Tiny->new;
	my $url = $twilio->url =~ s{//}{//$LocalTwilio::ACCOUNT:$LocalTwilio::TOKEN@}r;
	my $response = $http->post_form(
		"$url/2010-04-01/Accounts/$LocalTwilio::ACCOUNT/Messages.json",
		{
			To => '+15550000001',
			From => $LocalTwilio::SENDER,
			Body => 'Hi Ann, your code is 1234'
		});
	is($response->{status}, 201, 'the application sends something else')
	  or diag(explain $response);

	lose_commits($node, $run->{job}, 1);
	show_rows($run->{job});
	is(first_status($run->{job}), 'in_doubt', 'it may be this one: a person has to look');
};

subtest 'a test message that is forgotten' => sub {
	$twilio->set(reset => 1);
	my $campaign = create_campaign($node, users => 2);
	my $test = sql($node, <<~SQL, role => 'app');
	    SELECT sendcampaign.send_test($campaign, '+15559999999')
	SQL
	wait_for_run($node, $test);
	sql($node, "SELECT sendcampaign.forget(now() + '1 day')", role => 'app');
	$twilio->set('to-fault' => '+15550000001=code:21211');
	my $run = run_campaign($node, $campaign);
	$twilio->set('fault' => 'none');
	lose_commits($node, $run->{job}, 1);
	show_rows($run->{job});
	is(first_status($run->{job}), 'in_doubt', "it is not taken for the first recipient's");
};

$node->stop;
done_testing();
