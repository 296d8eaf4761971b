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
my $node = new_cluster('read_back', $twilio, conf => qq{
	restart_after_crash = on
	sendcampaign.request_timeout = '2s'
	sendcampaign.lookup_delay = '1s'
	sendcampaign.lookup_timeout = '1s'
});
sub sql { return $node->safe_psql($_[1] || 'postgres', $_[0]); }

sub twice { my $c = $twilio->count_by_phone; return scalar grep { $_ > 1 } values %$c; }
sub rows { diag $node->safe_psql($_[1] || 'postgres', "SELECT list_user_id, phone, status, sid, error_message FROM sendcampaign.message WHERE job_id = $_[0] ORDER BY 1 LIMIT 5"); }

subtest 'LATIN1, no link' => sub {
	$twilio->set(reset => 1);
	sql("CREATE DATABASE latin1 ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0");
	install_extension($node, 'latin1');
	my $campaign = create_campaign($node, db => 'latin1', users => 5, base_url => undef);
	sql("UPDATE ac_campaigns SET data = jsonb_build_object('message', 'H' || chr(233))", 'latin1');
	my $job = start_campaign($node, $campaign, db => 'latin1');
	wait_for_run($node, $job, db => 'latin1');
	lose_commits($node, $job, 5, 'latin1');
	rows($job, 'latin1');
	is(twice(), 0, 'nobody has it twice');
};

subtest 'another message to the same phone' => sub {
	$twilio->set(reset => 1);
	my $campaign = create_campaign($node, users => 2, base_url => undef, message => 'Hi {{name}}');
	sql(qq{UPDATE ac_list_users SET data = data || '{"name": "Ann"}'});
	$twilio->set('to-fault' => '+15550000001=code:21211');
	my $job = start_campaign($node, $campaign);
	wait_for_run($node, $job);
	$twilio->set('fault' => 'none');
	my $http = HTTP::Tiny->new;
	my $url = $twilio->url;
	$url =~ s{//}{//$LocalTwilio::ACCOUNT:$LocalTwilio::TOKEN@};
	my $r = $http->post_form("$url/2010-04-01/Accounts/$LocalTwilio::ACCOUNT/Messages.json",
		{ To => '+15550000001', From => $LocalTwilio::SENDER, Body => 'Hi Ann, your code is 1234' });
	is($r->{status}, 201, 'the application sends something else') or diag explain $r;
	lose_commits($node, $job, 1);
	rows($job);
	is(sql("SELECT status FROM sendcampaign.message WHERE job_id = $job ORDER BY list_user_id LIMIT 1"), 'in_doubt',
		'it may be this one: a person has to look');
};

subtest 'a test message that is forgotten' => sub {
	$twilio->set(reset => 1);
	my $campaign = create_campaign($node, users => 2);
	wait_for_run($node, sql("SET ROLE app; SELECT sendcampaign.send_test($campaign, '+15559999999')"));
	sql("SET ROLE app; SELECT sendcampaign.forget(now() + '1 day')");
	$twilio->set('to-fault' => '+15550000001=code:21211');
	my $job = start_campaign($node, $campaign);
	wait_for_run($node, $job);
	$twilio->set('fault' => 'none');
	lose_commits($node, $job, 1);
	rows($job);
	is(sql("SELECT status FROM sendcampaign.message WHERE job_id = $job ORDER BY list_user_id LIMIT 1"), 'in_doubt',
		'it is not taken for the first recipient\'s');
};

$node->stop;
done_testing();
