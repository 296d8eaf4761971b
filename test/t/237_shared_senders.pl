# Replies to a sender that several groups share: they belong to the group that sent
# the latest message to the phone, a STOP counts for all groups of the role with that
# sender, and it is the same whether they are read with a sweep or posted by Twilio.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../perl";
use Campaign;
use LocalTwilio;
use Session;
use Sweeps;
use Test::More;
use Webhook;

my $twilio = LocalTwilio->start;
my $node = new_cluster('shared', $twilio);
create_webhook_role($node);
$twilio->set('sent-after' => 0, 'deliver-after' => 0);
my $secret = 'the-secret-of-the-key';
$twilio->set(key => "SK1:$secret:$LocalTwilio::ACCOUNT");

# Campaigns of two groups with one sender, of which only the first one has a URL;
# of a third one with another sender, and of a fourth one that has only an API key.
my ($one, $two, $other, $by_key) = map { create_campaign($node, users => 20) } 1 .. 4;
configure($node, $one,
	qq(configuration || '{"twilioStatusCallback": "$URL", "stopWords": "basta"}'));
configure($node, $other, q(configuration || '{"twilioFromSmsNumber": "+15005550007"}'));
configure($node, $by_key, <<~"SQL");
	configuration - 'twilioAuthToken' || '{"twilioApiKeySid": "SK1", "twilioApiKeySecret": "$secret"}'
	SQL
my %name =
  map { sql($node, 'SELECT ' . group_of($_->[0])) => $_->[1] }
  ([ $one, 'one' ], [ $two, 'two' ], [ $other, 'other' ], [ $by_key, 'key' ]);

# Sends them, one after the other; no sweep is due.  Returns the jobs.
sub send_all
{
	my @jobs = map { run_campaign($node, $_, alone => 1)->{job} } @_;
	wait_for_no_worker($node);
	return @jobs;
}

# Forgets all that was answered.
sub forget_replies
{
	sql($node, <<~'SQL');
		UPDATE sendcampaign.reply_data SET sid = NULL, phone = NULL, sender = NULL, body = NULL,
			word = NULL, run_id = NULL, list_user_id = NULL;
		DELETE FROM sendcampaign.opt_out_data
		SQL
}

sub phone
{
	return sprintf '+1555%07d', shift;
}

# Whose replies are stored: group, text, word, and the job that each answers; in the
# order of phones, as times of the list have only seconds.
sub replies
{
	my @rows = split /\n/, sql($node, <<~'SQL');
		SELECT group_id, body, coalesce(word, '-'), coalesce(job_id::text, '-')
		FROM sendcampaign.reply
		ORDER BY phone, received_at, sid, group_id
		SQL
	return join ', ', map { s/^(\d+)/$name{$1}/r =~ tr/|/ /r } @rows;
}

# Which groups a phone has opted out of.
sub opted_out
{
	my @groups = split /\n/, sql($node, <<~"SQL");
		SELECT group_id FROM sendcampaign.opt_out WHERE phone = '${\phone(shift)}'
		SQL
	return join ' ', sort map { $name{$_} } @groups;
}

my $number = 0;
my @ways = (
	[
		'by a sweep',
		sub {
			my ($job, $n, $body) = @_;
			$twilio->inbound(from => phone($n), to => $LocalTwilio::SENDER, body => $body);
			sweep_now($node, $job);
		}
	],
	[
		'as Twilio posts them',
		sub {
			my ($job, $n, $body) = @_;
			receive($node, inbound_form(sprintf('SM%032d', ++$number), phone($n), $body));
		}
	]);

my ($job_one, $job_other, $job_two) = send_all($one, $other, $two);
sql($node,
		"DELETE FROM sendcampaign.message_data WHERE run_id = @{[ run_of($job_two) ]}"
	  . " AND phone > '@{[ phone(9) ]}'");
for my $way (@ways)
{
	my ($how, $answer) = @$way;
	forget_replies();
	$answer->($job_one, 1, 'Hello');
	is(replies(), "two Hello - $job_two", "$how: a reply is to the group that sent last");
	$answer->($job_one, 15, 'Yes!');
	is(replies(), "two Hello - $job_two, one Yes! - $job_one", 'if it sent to that phone');
	$answer->($job_one, 99, 'Who?');
	is( replies(),
		"two Hello - $job_two, one Yes! - $job_one, two Who? - -",
		"a stranger's is to the latest");

	forget_replies();
	$answer->($job_one, 2, 'STOP');
	is(replies(), "two STOP stop $job_two", "$how: a STOP is one reply");
	like(opted_out(2), qr/^one two/, 'and counts for both groups with that sender');
	unlike(opted_out(2), qr/other/, 'and not for another one');
	wait_for_next_second();    # or else the list tells no order, and the STOP counts
	$answer->($job_one, 2, 'START');
	is(opted_out(2), '', 'so does a START');
	$answer->($job_one, 16, 'stop');
	like(opted_out(16), qr/^one two/, 'even for a group that has sent nothing to that phone');
	$answer->($job_one, 3, 'basta');
	is(opted_out(3), 'one', "a group's own word counts for itself");
	like(replies(), qr/two basta - $job_two\b/, 'and not for the one that is answered');
	$answer->($job_one, 17, 'basta');
	like(opted_out(17), qr/^one two/, 'if it is the one that is answered: for all');
}

# What is known from Twilio's call is completed by the sweep, and stored once.
my ($job_key) = send_all($by_key);
forget_replies();
my $sid = $twilio->inbound(from => phone(4), to => $LocalTwilio::SENDER, body => 'STOP');
is(receive($node, inbound_form($sid, phone(4), 'STOP')), 'reply', 'a STOP that is posted');
is(opted_out(4), 'one two', 'proves nothing for a group without a token');
is(replies(), "two STOP stop $job_two", 'nor is it stored for that');
sweep_now($node, $job_one);
is(opted_out(4), 'key one two', 'which the list does');
is(replies(), "two STOP stop $job_two", 'it is still one reply');
sql($node, "SELECT sendcampaign.opt_in('@{[ phone(4) ]}')", role => 'app');
sweep_now($node, $job_one);
is(receive($node, inbound_form($sid, phone(4), 'STOP')), 'known', 'again');
is(opted_out(4), '', 'what a person has removed does not come back');

# Two learn of a STOP at once, of whom the second one knows of one more group.
forget_replies();
my ($first, $second) = map { Session->open($node) } 1, 2;
my $posted = Webhook::call_of(inbound_form('SMatonce', phone(11), 'STOP'));
$_->query('SET ROLE webhook') for $first, $second;
is($first->query("BEGIN; $posted"), 'reply', 'a STOP that is posted, and not committed yet');
configure($node, $by_key,
	qq(configuration - 'twilioApiKeySid' || '{"twilioAuthToken": "$LocalTwilio::TOKEN"}'));
$second->start_query($posted);
ok(waits_for_lock($node, '%receive(%'), '... is posted again');
$first->query('COMMIT');
is($second->finish_query, 'known', '... which is the same reply');
is(opted_out(11), 'key one two', '... and counts for the group of which only that knows');
is($first->errors . $second->errors, '', '... without an error');
configure($node, $by_key, q(configuration - 'twilioAuthToken' || '{"twilioApiKeySid": "SK1"}'));

# A STOP from before a START that another group has.
forget_replies();
$twilio->inbound(from => phone(5), to => $LocalTwilio::SENDER, body => 'STOP');
receive($node, inbound_form('SMstart', phone(5), 'START'));
sql($node, <<~'SQL');
	UPDATE sendcampaign.reply_data SET received_at = received_at + interval '1 minute'
	SQL
sweep_now($node, $job_one);
is(opted_out(5), '', 'a STOP from before a START opts nobody out');

# What was sent after the reply is not what it answers.
forget_replies();
$twilio->inbound(from => phone(6), to => $LocalTwilio::SENDER, body => 'Later');
my ($job_later) = send_all($one);
sql($node, <<~"SQL");
	UPDATE sendcampaign.message_data SET created_at = created_at + interval '5 minutes'
	WHERE run_id = @{[ run_of($job_later) ]}
	SQL
sweep_now($node, $job_one);
is(replies(), "key Later - $job_key", 'a reply is not to what was sent after it');

# A group whose senders are others for that phone did not send it.
forget_replies();
configure(
	$node, $two, qq(configuration
	|| '{"twilioFromSmsNumber": ["$LocalTwilio::SENDER", "+15005550001", "+15005550002"]}'));
send_all($two);
$twilio->inbound(from => phone($_), to => $LocalTwilio::SENDER, body => "n$_") for 1 .. 9;
sweep_now($node, $job_one);
my @from_two = sort map { /two (n\d)/ ? $1 : () } split /, /, replies();
is( "@from_two",
	sql($node, <<~"SQL", role => 'app'),
		SELECT string_agg('n' || right(phone, 1), ' ' ORDER BY phone)
		FROM sendcampaign.preview($two, 9)
		WHERE sender = '$LocalTwilio::SENDER'
		SQL
	'a reply is to the group that sends to the phone from that sender');

# Another role has replies and opt-outs of its own; a token proves nothing for a
# group that has another one.
forget_replies();
make_tenant($node, 'tenant');
sql($node,
		"UPDATE tenant.groups SET configuration = configuration"
	  . qq( || '{"twilioAuthToken": "another", "twilioFromSmsNumber": "$LocalTwilio::SENDER"}'));
my $wrong = create_campaign($node, users => 20);
send_all($wrong);
configure($node, $wrong, q(configuration || '{"twilioAuthToken": "wrong"}'));
$name{ sql($node, 'SELECT ' . group_of($wrong)) } = 'wrong';
receive($node, inbound_form('SMwrong', phone(7), 'STOP'));
unlike(opted_out(7), qr/wrong/, 'a group with another token is not concerned');
is(sql($node, 'SELECT DISTINCT role FROM sendcampaign.opt_out_data'), 'app', 'nor another role');

# The tables, with which the runs began, have code of another role
forget_replies();
sql($node, <<~'SQL');
	CREATE ROLE keeper;
	GRANT ALL ON SCHEMA public TO keeper;
	CREATE FUNCTION keep() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
	ALTER FUNCTION keep() OWNER TO keeper;
	CREATE TRIGGER keep BEFORE UPDATE ON groups FOR EACH ROW EXECUTE FUNCTION keep();
	SQL
receive($node, inbound_form('SMkept', phone(99), 'STOP'));
like(opted_out(99), qr/one two/, 'a STOP of a stranger counts for all, whoever has code there');
sql($node, 'DROP TRIGGER keep ON groups');

# One that cannot be read
configure($node, $wrong, q(configuration || '{"twilioStatusCallback": "nowhere"}'));
$twilio->inbound(from => phone(8), to => $LocalTwilio::SENDER, body => 'STOP');
sweep_now($node, $job_one);
like(opted_out(8), qr/^key one two$/, 'one that cannot be read does not stop the others');
like(
	log_of($node),
	qr/sendcampaign: could not read group \d+ in schema "public" for replies: invalid value/,
	'which the log says');
is(worker_errors($node), '', 'workers have no errors');
$node->stop;
done_testing();
