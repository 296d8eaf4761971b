# reconcile(): a row for each difference between Twilio's list and what is
# recorded of a run, and none if all is well.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../perl";
use Campaign;
use LocalTwilio;
use Session;
use Sweeps;
use Test::More;

my $template = 'HX00000000000000000000000000000001';
my $twilio = LocalTwilio->start(options => [ '--content', "$template={{1}}" ]);
my $node = new_cluster('reconcile', $twilio);
$twilio->set('sent-after' => 0, 'deliver-after' => 0, 'price-after' => 0);

# The differences of a job, a line each, without the columns that no test knows.
sub differences
{
	my ($job, %arg) = @_;
	return sql($node, <<~"SQL", role => 'app', %arg);
		SELECT difference, substr(phone, 9) AS phone, recorded, listed
		FROM sendcampaign.reconcile($job)
		SQL
}

# Changes what is recorded of the user with this number, as nobody should.
sub change
{
	my ($job, $number, $change) = @_;
	sql($node, <<~"SQL");
		UPDATE sendcampaign.message_data SET $change
		WHERE run_id = ${\run_of($job)} AND phone = '+1555' || lpad('$number', 7, '0')
		SQL
}

sub sid_of
{
	my ($job, $number) = @_;
	return sql($node, <<~"SQL");
		SELECT sid FROM sendcampaign.message
		WHERE job_id = $job AND phone = '+1555' || lpad('$number', 7, '0')
		SQL
}

my $nobodys = 'SM' . '0' x 32;

subtest 'all is well' => sub {
	my $run = run_campaign($node, create_campaign($node, users => 1500));
	my $job = $run->{job};
	my $lists = $twilio->stats->{lists};
	is(differences($job), '', 'there is no difference, whatever receipts are known');
	cmp_ok($twilio->stats->{lists} - $lists, '>=', 2, 'two pages are read');
	sweep_now($node, $job);
	is(differences($job), '', 'nor after a sweep');
	my $log = log_of($node);
	unlike($log, qr/\Q$LocalTwilio::TOKEN\E/, 'the token is not in the log');
	my $other = run_campaign($node, create_campaign($node, users => 3));
	is(differences($_), '', 'nor is there with other runs in the list') for $job, $other->{job};
};

subtest 'each difference' => sub {
	my $campaign = create_campaign($node, users => 12);
	my $job = run_campaign($node, $campaign)->{job};
	sweep_now($node, $job);
	sql($node, "DELETE FROM sendcampaign.message_data WHERE sid = '${\sid_of($job, 1)}'");
	change($job, 2, "status = 'in_doubt', sid = NULL");
	change($job, 3, "sid = '$nobodys'");
	change($job, 4, "status = 'sent', sid = NULL");
	my $fifth = sid_of($job, 5);
	change($job, 6, "sid = '$fifth'");
	my %receipts = (
		7 => 'segments = 3',
		8 => 'price = 0.01',
		9 => "price_unit = 'EUR'",
		10 => "status = 'undelivered', error_code = 30003");
	for my $number (keys %receipts)
	{
		sql($node, <<~"SQL");
			UPDATE sendcampaign.receipt_data SET $receipts{$number}
			WHERE sid = '${\sid_of($job, $number)}'
			SQL
	}
	is(differences($job), <<~"ROWS" =~ s/\n\z//r, 'is found');
		unrecorded|0001||delivered
		unrecorded|0002|in_doubt|delivered
		missing|0003|sent|
		twice|0003|$nobodys|delivered
		shared|0005|list user ${\user($campaign, 6)} of job $job|delivered
		shared|0006|list user ${\user($campaign, 5)} of job $job|delivered
		twice|0006|$fifth|delivered
		segments|0007|3|1
		price|0008|0.01 USD|0.00750 USD
		price|0009|0.00750 EUR|0.00750 USD
		status|0010|undelivered|delivered
		ROWS
	is(sql($node, <<~"SQL", role => 'app'), '11|10|10', 'with list users, SIDs and times');
		SELECT count(list_user_id), count(DISTINCT sid), count(created_at)
		FROM sendcampaign.reconcile($job)
		SQL
};

# The id of a campaign's list user, by place in the list.
sub user
{
	my ($campaign, $number) = @_;
	return sql($node, <<~"SQL");
		SELECT id FROM ac_list_users
		WHERE ac_list_id = ${\list_of($campaign)} ORDER BY id OFFSET $number - 1 LIMIT 1
		SQL
}

subtest 'a message that was not delivered, and sent again' => sub {
	$twilio->set('reset' => 1, 'to-delivery' => '+15550000002=undelivered:30003');
	my $job = run_campaign($node, create_campaign($node, users => 3))->{job};
	wait_for_no_worker($node);
	sweep_now($node, $job);
	$twilio->set('to-delivery' => '+15550000002=none');
	is(sql($node, <<~"SQL", role => 'app'), 1, 'one is sent again');
		SET sendcampaign.retry_undelivered_after = 0;
		SELECT sendcampaign.retry_failed($job)
		SQL
	wait_for_run($node, $job);
	is(scalar(grep { $_->{to} eq '+15550000002' } $twilio->ledger), 2, 'Twilio has both');
	is(differences($job), '', 'which is no difference');
	change($job, 2, "status = 'in_doubt', sid = NULL");
	is(differences($job), 'unrecorded|0002|in_doubt|delivered', 'the first one is not the second');
};

# No sweep reads the list from here on.
set_and_reload($node, 'sendcampaign.receipts', 'off');

subtest 'a second run that nobody has recorded' => sub {
	my $campaign = create_campaign($node, users => 3);
	my $job = run_campaign($node, $campaign)->{job};
	my $second = run_campaign($node, $campaign)->{job};
	is(differences($_), '', 'two runs of a campaign do not disturb each other') for $job, $second;
	lose_all($node, $second);
	my @rows = split /\n/, differences($second);
	is(@rows, 3, 'what it has sent is reported');
	like($_, qr/^unrecorded\|000\d\|\|delivered$/, 'as not recorded') for @rows;
};

subtest 'texts without a link' => sub {
	my %text = (message => 'Your parcel is here', base_url => undef);
	my $campaign = create_campaign($node, users => 3, %text);
	my $job = run_campaign($node, $campaign)->{job};
	my $other = run_campaign($node, create_campaign($node, users => 5, %text))->{job};
	is(differences($_), '', 'no difference') for $job, $other;
	change($job, 1, "status = 'failed', sid = NULL, error_code = 30003");
	is(differences($job), 'unrecorded|0001|failed|delivered', 'they are known by their numbers');
};

subtest 'a list that lags, and one that is redacted' => sub {
	my $campaign = create_campaign($node, users => 30);
	$twilio->set('list-lag' => 3_600_000);
	my $job = run_campaign($node, $campaign)->{job};
	my $fetches = $twilio->stats->{fetches};
	is(differences($job), '', 'what the list does not show is asked for by its SID');
	is($twilio->stats->{fetches} - $fetches, 30, 'one by one');
	change($job, 7, "sid = '$nobodys'");
	is(differences($job), 'missing|0007|sent|', 'what Twilio has not got is missing');
	$twilio->set('list-lag' => 0, redact => 1);
	change($job, 8, "status = 'in_doubt', sid = NULL");
	my (undef, $stderr) =
	  sql_output($node, "SELECT * FROM sendcampaign.reconcile($job)", role => 'app');
	like(
		$stderr,
		qr/WARNING:  messages that are not recorded cannot be found\nDETAIL:  Twilio's list shows /,
		'a redacted list cannot show what is not recorded');
	$twilio->set(redact => 0);
};

subtest 'while it is sent' => sub {
	my ($campaign, $job) = hold_campaign($node, $twilio, users => 40);
	is(differences($job), '', 'nothing has arrived yet');
	$twilio->set('hold-after' => 1);
	$twilio->set(hold => 0);
	wait_for_run($node, $job);
	is(differences($job), '', 'all has');
	$twilio->set(hold => 1, 'hold-after' => 1, reset => 1);
	$campaign = create_campaign($node, users => 20);
	$job = start_campaign($node, $campaign);
	ok(poll(sub { $twilio->stats->{accepted} >= 10 }), 'Twilio has accepted some, unknown to us');
	is(differences($job), '', 'which are on their way');
	$twilio->set(hold => 0, 'hold-after' => 0);
	wait_for_run($node, $job);
	is(differences($job), '', 'and arrive');
};

subtest 'a test message, and a run that has sent nothing' => sub {
	my $campaign = create_campaign($node, users => 1);
	my $test = sql($node, "SELECT sendcampaign.send_test($campaign, '+15559999999')",
		role => 'app');
	wait_for_run($node, $test);
	is(differences($test), '', 'a test is compared, too');
	my $lists = $twilio->stats->{lists};
	my $empty = run_campaign($node, create_campaign($node, users => 0))->{job};
	is(differences($empty), '', 'no difference');
	is($twilio->stats->{lists}, $lists, 'and Twilio is not asked');
	is(sql($node, 'SELECT count(*) FROM sendcampaign.reconcile(NULL)'), 0, 'NULL: no rows');
};

subtest 'settled, and forgotten' => sub {
	my $campaign = create_campaign($node, users => 3);
	my $job = run_campaign($node, $campaign)->{job};
	change($job, 1, "status = 'in_doubt', sid = NULL");
	sql($node, "SELECT sendcampaign.settle($job, ${\user($campaign, 1)}, true)", role => 'app');
	is(differences($job), '', 'what a person has settled as sent is known');
	sql($node, "SELECT sendcampaign.forget_recipient('+15550000002')", role => 'app');
	is(differences($job), '', 'so is what was erased');
	sql($node, "SELECT sendcampaign.forget(now() + interval '1 day')", role => 'app');
	my $error = call_error($node, "reconcile($job)");
	is($error->{message}, "there is no run of background job $job", 'a forgotten run: an error');
};

subtest 'errors' => sub {
	my $campaign = create_campaign($node, users => 3);
	my $job = run_campaign($node, $campaign)->{job};
	my $error;

	$twilio->set('fault:list-403' => 100);
	$error = call_error($node, "reconcile($job)");
	is($error->{sqlstate}, '08006', 'refused by Twilio: SQLSTATE');
	is($error->{message}, "could not read Twilio's list of messages: HTTP status 403", 'message');
	is( $error->{hint},
		'Nothing was compared. Call the function again once Twilio can be reached with the'
		  . " group's credentials.",
		'hint');
	$twilio->set(fault => 'none', 'fault:list-500' => '#2');
	is(differences($job), '', 'what passes is tried again');

	my $session = Session->open($node);
	$session->query('SET ROLE app; SET statement_timeout = 1000');
	$twilio->set('fault:list-never' => 100);
	is($session->query("SELECT * FROM sendcampaign.reconcile($job)"), '', 'it waits');
	like($session->errors, qr/canceling statement due to statement timeout/, 'until cancelled');
	$twilio->set(fault => 'none');
	$session->query('RESET statement_timeout');
	is($session->query("SELECT count(*) FROM sendcampaign.reconcile($job)"),
		0, 'it works again in the same session');
	$session->close;

	$error = sql_error($node, <<~"SQL", role => 'app');
		BEGIN ISOLATION LEVEL REPEATABLE READ;
		SELECT sendcampaign.reconcile($job);
		SQL
	is($error->{message},
		'sendcampaign.reconcile() needs the isolation level READ COMMITTED', 'snapshot');
	is($error->{detail},
		'Otherwise it would not see what is recorded while it reads Twilio\'s list.', 'detail');
	is($error->{hint}, 'Call it in a transaction that is READ COMMITTED.', 'hint');

	configure($node, $campaign, q(configuration || '{"twilioAccountSid": "ACother"}'));
	$error = call_error($node, "reconcile($job)");
	is( $error->{message},
		'the group no longer has the Twilio account to which the messages were sent',
		'another account: refused');
	is($error->{detail}, "They were sent with the account $LocalTwilio::ACCOUNT.", 'detail');
	is( $error->{hint},
		"Compare them with that account's list while the group has its credentials.",
		'hint');
};

subtest 'a content template' => sub {
	my $campaign = create_campaign($node, users => 3, base_url => undef);
	my $job;
	sql($node, <<~"SQL");
		UPDATE ac_campaigns
		SET data = '{"contentSid": "$template", "contentVariables": {"1": "Hello"}}'
		WHERE id = $campaign
		SQL
	$job = run_campaign($node, $campaign)->{job};
	change($job, 2, "status = 'in_doubt', sid = NULL");
	change($job, 3, "sid = '$nobodys'");
	my ($rows, $stderr) =
	  sql_output($node, "SELECT difference FROM sendcampaign.reconcile($job)", role => 'app');
	is($rows, 'missing', 'SIDs are compared');
	like(
		$stderr,
		qr/WARNING:  messages that are not recorded cannot be found\nDETAIL:  (.*)/,
		'a warning');
	my ($detail) = $stderr =~ /DETAIL:  (.*)/;
	is( $detail,
		"Twilio's list shows the texts of a content template, which are not known here, and they"
		  . ' have no tracking link.',
		'its texts are not known');
};

subtest 'other roles' => sub {
	my $campaign = create_campaign($node, users => 3);
	my $job = run_campaign($node, $campaign)->{job};
	sql($node, 'CREATE ROLE stranger LOGIN; GRANT USAGE ON SCHEMA sendcampaign TO stranger');
	my $lists = $twilio->stats->{lists};
	my $error = call_error($node, "reconcile($job)", role => 'stranger');
	is($error->{message}, "there is no run of background job $job", 'a stranger sees no run');
	is($twilio->stats->{lists}, $lists, 'and Twilio is not asked');
	sql($node, 'GRANT app TO stranger');
	is(differences($job, role => 'stranger'), '', 'a member of the role may compare');
	is(differences($job, role => undef), '', 'a superuser, too');
	is(sql($node, <<~"SQL"), 't', 'and stays one');
		BEGIN;
		SELECT FROM sendcampaign.reconcile($job);
		SELECT current_user = session_user;
		COMMIT
		SQL
	sql($node, <<~'SQL');
		CREATE SCHEMA other AUTHORIZATION app;
		ALTER DATABASE postgres SET sendcampaign.schema = 'other';
		SQL
	$error = call_error($node, "reconcile($job)");
	is($error->{message}, "there is no run of background job $job", 'the schema counts');
	sql($node, 'ALTER DATABASE postgres RESET sendcampaign.schema');

	make_tenant($node, 'gone');
	sql($node, "SET sendcampaign.schema = 'gone'; SELECT send_campaign(1)", user => 'gone');
	wait_until($node, <<~"SQL");
		SELECT state = 'completed' FROM sendcampaign.run WHERE id = ${\run_of_tenant('gone')}
		SQL
	wait_for_no_worker($node);
	$job = sql($node, "SELECT job_id FROM sendcampaign.run WHERE schema = 'gone'");
	sql($node, 'REASSIGN OWNED BY gone TO app; DROP OWNED BY gone; DROP ROLE gone');
	$error = sql_error($node,
		"SET sendcampaign.schema = 'gone'; SELECT sendcampaign.reconcile($job)");
	is($error->{message}, "the role of the run of background job $job does not exist",
		'a role that is gone: an error');
	is( $error->{hint},
		"Its messages can only be compared with Twilio's list by hand.",
		'with a hint');
};

is(worker_errors($node), '', 'workers have no errors');
$node->stop;
done_testing();
