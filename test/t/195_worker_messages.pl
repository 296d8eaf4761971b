# What workers and the launcher say: in sendcampaign.message, in the run, in the
# job and in the server's log.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../perl";
use Campaign;
use HTTP::Tiny;
use LocalTwilio;
use PostgreSQL::Test::Utils;
use Session;
use Test::More;
use Time::HiRes qw(sleep);

my $twilio = LocalTwilio->start;
my $node = new_cluster('worker_messages', $twilio, conf => <<~'END');
	sendcampaign.receipts = off
	sendcampaign.request_timeout = '1s'
	sendcampaign.lookup_delay = '500ms'
	sendcampaign.lookup_timeout = '5s'
	log_min_messages = debug1
	END
my $phone = '+15550000001';

sub query
{
	my ($sql, $db) = @_;
	return sql($node, $sql, db => $db);
}

sub query_as_app
{
	my $sql = shift;
	return sql($node, $sql, role => 'app');
}

sub reasons
{
	my ($job, $db) = @_;
	return query(<<~END, $db);
		SELECT string_agg(DISTINCT error_message, ' | ')
		FROM sendcampaign.message WHERE job_id = $job AND status = 'in_doubt'
		END
}

# Something that is no run's.
sub post
{
	my ($body, $from) = @_;
	my $url = $twilio->url =~ s{//}{//$LocalTwilio::ACCOUNT:$LocalTwilio::TOKEN@}r;
	my $answer = HTTP::Tiny->new->post_form(
		"$url/2010-04-01/Accounts/$LocalTwilio::ACCOUNT/Messages.json",
		{ To => $phone, From => $from // $LocalTwilio::SENDER, Body => $body });
	die "not accepted: $answer->{content}" if $answer->{status} != 201;
}

sub reset_twilio
{
	$twilio->set(reset => 1, fault => 'none', 'to-fault' => "$LocalTwilio::COMPANION=spared", @_);
}

# A message of a run with these faults stays in doubt for this reason.  before
# and after are called before the run is started and once Twilio was asked.
sub stays_in_doubt
{
	my ($name, $faults, $reason, %arg) = @_;
	my ($job, $found);

	# on a busy machine the list may be asked too late to show anything
	for (1 .. 5)
	{
		my $campaign = create_campaign($node, users => 1, message => $name, %arg);
		reset_twilio();
		$arg{before}->($campaign) if $arg{before};
		$twilio->set(@$faults);
		$job = start_campaign($node, $campaign, %arg);
		poll(sub { $twilio->stats->{create_requests} > 0 });
		$arg{after}->($campaign, $job) if $arg{after};
		wait_for_run($node, $job, alone => 1, %arg);
		$found = reasons($job, $arg{db});
		last if $found =~ /\Q$reason\E$/;
	}
	like($found, qr/(?:^|; )\Q$reason\E$/, $name);
	return $job;
}

# Answers without an outcome, and a list that may not be read
my %answer = (
	'no-sid' => 'answer contains no SID',
	'garbage' => 'answer is not valid JSON',
	'huge' => 'answer too long');
stays_in_doubt(
	"An answer: $_",
	[ "fault:$_" => '#1', 'fault:list-403' => 100 ],
	"$answer{$_}; its lookup failed: HTTP status 403") for sort keys %answer;

# A connection that was used before is closed.
set_and_reload($node, 'sendcampaign.max_concurrency', 1);
stays_in_doubt(
	'Closed',
	[ 'to-fault' => '+15550000002=drop-after', 'fault:list-403' => 100 ],
	'the connection was closed before an answer came; its lookup failed: HTTP status 403',
	users => 2);
set_and_reload($node, 'sendcampaign.max_concurrency', 100);

# What the list has
my @lost = ('fault:drop-before' => '#1', 'fault:list-403' => 0);
my %no_link = (base_url => undef);
stays_in_doubt(
	'From another sender',
	\@lost, "Twilio's list has its text from another sender",
	%no_link, after => sub { post('From another sender', '+15551112222') });
stays_in_doubt('Sent before', \@lost,
	"Twilio's list has a message with its text, dated before it was claimed",
	%no_link, before => sub { post('Sent before'); sleep 4; });
stays_in_doubt(
	'Its link',
	\@lost,
	"Twilio's list has a message with its link, dated before it was claimed",
	before => sub {
		my $campaign = shift;
		my $id = query('SELECT max(id) FROM ac_list_users');
		post("Its link https://example.org/survey?yu=$id&yc=$campaign");
		sleep 4;
	});
stays_in_doubt('Too many', \@lost, "Twilio's list has too many messages that may be this one",
	%no_link, after => sub { post('Too many') for 1 .. 17 });
stays_in_doubt('Neither', \@lost, "Twilio's list shows neither this message nor any sent later");
my $send_another = sub {
	# it is a later message once the other one can no longer be under way
	poll(sub { $twilio->stats->{lists} > 0 });
	my $campaign = create_campaign(
		$node,
		users => 1,
		message => 'Also https://example.org/page',
		base_url => undef,
		phone => '+15557770000');
	start_campaign($node, $campaign);
};
stays_in_doubt(
	'See https://example.org/page',
	[ @lost, 'shorten-links' => 1 ],
	"Twilio's list shows a text that differs from what was sent",
	%no_link, after => $send_another);
$twilio->set('shorten-links' => 0);
my $change_account = sub {
	my ($campaign, $job) = @_;
	my $group = group_of($campaign);
	query_as_app("SELECT sendcampaign.pause($job)");
	wait_for_no_worker($node);
	query(<<~"SQL");
		UPDATE groups
		SET configuration = configuration || '{"twilioAccountSid": "AC2"}'
		WHERE id = $group
		SQL
	query_as_app("SELECT sendcampaign.resume($job)");
};
stays_in_doubt(
	'Another account',
	\@lost,
	"the worker ended before Twilio's answer;"
	  . ' it was sent to an account that the group no longer has',
	after => $change_account);
my $looking_up =
  'sendcampaign: job \d+: looking up 1 message that an earlier worker left in doubt';
like(log_of($node), qr/LOG:  $looking_up$/m, 'the log tells of what is looked up');
query("CREATE DATABASE latin1 ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0");
install_extension($node, 'latin1');
my $change_text = sub {
	query(<<~'SQL', 'latin1');
		UPDATE ac_campaigns SET data = jsonb_build_object('message', 'Caf' || chr(233))
		SQL
};
stays_in_doubt(
	'Caf', \@lost, "its text cannot be compared with Twilio's list", %no_link,
	db => 'latin1',
	before => $change_text);

# Commits that were lost
reset_twilio();
my $campaign = create_campaign($node, users => 1, message => 'Moved');
my $job = run_campaign($node, $campaign)->{job};
my $list = list_of($campaign);
query(<<~"SQL");
	UPDATE ac_list_users
	SET data = '{"sms": "+15550000002"}'
	WHERE ac_list_id = $list
	SQL
my $offset = -s $node->logfile;
lose_commits($node, $job, 1, undef, alone => 1);
is( reasons($job),
	"Twilio's list has this recipient's message, to another number",
	'read back: another number');
my $log = slurp_file($node->logfile, $offset);
my $reading_back = "sendcampaign: job $job: commits may have been lost;"
  . ' reading back from Twilio what was sent';
my $read_back =
  "sendcampaign: job $job: what was sent has been read back from Twilio;" . ' the run continues';
like($log, qr/LOG:  $reading_back$/m, 'the log says that it is read back');
like($log, qr/LOG:  $read_back$/m, 'and that it has been');

reset_twilio();
$campaign = create_campaign($node, users => 1, message => 'Twice', %no_link);
$job = run_campaign($node, $campaign)->{job};
post('Twice');
lose_commits($node, $job, 1, undef, alone => 1);
is( reasons($job),
	"Twilio's list has a message with this text to this number,"
	  . " but not certainly this recipient's",
	'read back: the same text twice');

reset_twilio();
$campaign = create_campaign($node, users => 1, message => 'Hi {{name}}', %no_link);
query(q{UPDATE ac_list_users SET data = data || '{"name": "Ann"}'});
$twilio->set('to-fault' => "$phone=code:21211");
$job = run_campaign($node, $campaign)->{job};
$twilio->set(fault => 'none');
post('Hi Ann, your code is 1234');
lose_commits($node, $job, 1, undef, alone => 1);
is( reasons($job),
	"Twilio's list has a text to this number that may be this message",
	'read back: another text');

reset_twilio();
$campaign = create_campaign($node, users => 1, message => 'Endless');
$job = run_campaign($node, $campaign)->{job};
$twilio->set('fault:list-endless' => 100, 'next-page' => 'http://127.0.0.1:1');
lose_commits($node, $job, 1, undef, state => 'paused', alone => 1);
my $endless = "Twilio's list of messages does not end";
my $not_read_back = "what was sent before commits were lost cannot be read back: $endless";
is( run_row($node, $job)->{error},
	'commits may have been lost, and what was sent cannot be read back from Twilio:'
	  . " $endless. When this has been fixed, call sendcampaign.resume().",
	'no end: the run is paused');
query_as_app("SELECT sendcampaign.cancel($job)");
wait_until($node, "SELECT finished_at IS NOT NULL FROM sendcampaign.run WHERE job_id = $job");
like(run_row($node, $job)->{error}, qr/^cancelled by app\. $not_read_back\./, 'and cancelled');
$twilio->set('fault:list-endless' => 0, 'next-page' => 'path');

# Counts that somebody has changed
reset_twilio(hold => 1);
$job = start_campaign($node, create_campaign($node, users => 3));
wait_for_flight($twilio, 3);
query("UPDATE sendcampaign.run SET total = total + 1 WHERE job_id = $job");
$twilio->set(hold => 0);
my $wrong = 'internal error: the outcomes do not add up to the number of recipients';
is(wait_for_run($node, $job, alone => 1)->{error}, $wrong, 'counts that are wrong');
my $to_continue =
  'Fix the cause and call send_campaign() with the same campaign and job to continue.';
like(
	log_of($node),
	qr/LOG:  sendcampaign: job $job has failed: $wrong\n.*HINT:  \Q$to_continue\E$/m,
	'the log has it');

# A trigger that releases the worker's lock
query_as_app(<<~'SQL');
	CREATE FUNCTION unlock() RETURNS trigger LANGUAGE plpgsql AS $$
	BEGIN
	    PERFORM pg_advisory_unlock_all();
	    RETURN NEW;
	END $$;
	CREATE TRIGGER unlock BEFORE UPDATE ON ac_list_users
	    FOR EACH ROW EXECUTE FUNCTION unlock();
	SQL
reset_twilio(latency => 100);
$job = start_campaign($node, create_campaign($node, users => 500));
my $lost_lock = qr/FATAL:  sendcampaign worker has lost its lock/;
my $no_unlock = "Triggers on the application's tables must not call pg_advisory_unlock_all().";
$node->wait_for_log(qr/$lost_lock\n.*HINT:  \Q$no_unlock\E$/m);
pass('a lock that is lost');
query('DROP FUNCTION unlock() CASCADE');
wait_for_no_worker($node);
$twilio->set(latency => 0);
query('SELECT sendcampaign.wake()');
is(wait_for_run($node, $job)->{sent}, 500, 'and it goes on without the trigger');

# Opt-outs that cannot be recorded
reset_twilio('fault:code:21610' => '#1');
my $session = Session->open($node);
$session->query('BEGIN; LOCK TABLE sendcampaign.opt_out_data IN SHARE ROW EXCLUSIVE MODE');
$job = start_campaign($node, create_campaign($node, users => 1));
$node->wait_for_log(
	qr/LOG:  sendcampaign: could not record opt-outs because other sessions have locked them$/m);
$session->query('COMMIT');
is(wait_for_run($node, $job)->{failed}, 1, 'opt-outs are locked');

# A role that may not connect, and an error of its own in the way
reset_twilio();
set_and_reload($node, 'sendcampaign.enabled', 'off');
$job = start_campaign($node, create_campaign($node, users => 1));
ok(no_worker_is_to_come($node), 'its worker has ended');
set_and_reload($node, 'sendcampaign.enabled', 'on');
query(<<~'SQL');
	REVOKE CONNECT ON DATABASE postgres FROM PUBLIC;
	CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN RAISE 'no'; END$$;
	CREATE TRIGGER refuse BEFORE UPDATE ON sendcampaign.run_data
	    FOR EACH ROW EXECUTE FUNCTION refuse();
	SQL
my (undef, $warning) = sql_output($node, 'SELECT sendcampaign.wake()');
like($warning, qr/WARNING:  sendcampaign: could not continue the campaigns of role "app": no\b/,
	'wake() warns');
query('DROP FUNCTION refuse() CASCADE; SELECT sendcampaign.wake()');
my $reason = 'role "app" has no CONNECT privilege on database "postgres"';
is(run_row($node, $job)->{error}, $reason, 'it has failed');
like(log_of($node), qr/LOG:  sendcampaign: campaigns have failed: $reason$/m, 'the log has it');
query('GRANT CONNECT ON DATABASE postgres TO PUBLIC');

# A table of the extension that is missing when a worker looks for runs
$session->close;
reset_twilio();
$campaign = create_campaign($node, users => 3);
wait_for_no_worker($node);
($job) = split /\n/, sql($node, <<~SQL, role => 'app');
	BEGIN;
	SELECT send_campaign($campaign);
	RESET ROLE;
	ALTER TABLE sendcampaign.run_data RENAME TO missing;
	COMMIT;
	SQL
my $is_missing =
	'sendcampaign: could not record or claim messages, trying again:'
  . ' relation "sendcampaign.run_data" does not exist';
$node->wait_for_log(qr/LOG:  \Q$is_missing\E/);
my $gives_up = qr/ERROR:  sendcampaign worker gives up: /;
my $continue_later = 'Unfinished campaigns continue after the next call'
  . ' of send_campaign() or sendcampaign.wake().';
{
	# after twenty tries, with pauses of 0 to 16 s
	local $PostgreSQL::Test::Utils::timeout_default =
	  3 * $PostgreSQL::Test::Utils::timeout_default;
	$node->wait_for_log(qr/$gives_up.*\n.*HINT:  \Q$continue_later\E$/m);
}
sql($node, 'ALTER TABLE sendcampaign.missing RENAME TO run_data');
wait_for_no_worker($node);
query('SELECT sendcampaign.wake()');
is(wait_for_run($node, $job)->{sent}, 3, 'given up, and gone on with');
wait_for_no_worker($node);
$node->stop;

# A role's share of the slots, which is half of them
$node = new_cluster('share', $twilio, conf => 'max_worker_processes = 4');
$campaign = create_campaign($node, users => 1);
query("CREATE DATABASE $_ TEMPLATE postgres") for 'second', 'third';
reset_twilio(hold => 1);
start_campaign($node, $campaign, db => $_) for 'postgres', 'second';
wait_for_flight($twilio, 2);
(undef, $warning) =
  sql_output($node, "SELECT send_campaign($campaign)", db => 'third', role => 'app');
my $its_share = 'The role already has 2 workers in other databases,'
  . ' the most that "max_worker_processes" allows for one role.';
my $not_started = "WARNING:  could not start a sendcampaign worker\n"
  . "DETAIL:  $its_share\nHINT:  Unfinished runs continue after";
like($warning, qr/\Q$not_started\E/, 'no more than its share');
$twilio->set(hold => 0);
wait_for_no_worker($node);

# No slot for the launcher's scan
$node->append_conf('postgresql.conf', <<~'CONF');
	shared_preload_libraries = 'sendcampaign'
	max_worker_processes = 2
	CONF
$node->restart;
my $cannot_look =
  'sendcampaign: could not look for unfinished campaigns: no background worker slot is free';
my $increase = qr/HINT:  Consider increasing "max_worker_processes"\.$/m;
$node->wait_for_log(qr/LOG:  $cannot_look\n.*$increase/);
pass('no slot for the launcher');
$node->stop;
done_testing();
