# send_message(): list, campaign, users and job in the caller's transaction;
# those who cannot be sent to are skipped with the reason.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../perl";
use Campaign;
use LocalTwilio;
use Test::More;

my $twilio = LocalTwilio->start;
my $node = new_cluster('message', $twilio);
create_campaign($node, users => 0);
my $group = sql($node, 'SELECT max(id) FROM groups');

sub as_app
{
	my $sql = shift;
	return sql($node, $sql, role => 'app');
}

# Phones to job
my $job = as_app(<<~SQL);
	SELECT sendcampaign.send_message($group, 'The meeting is at 8',
	    '{+15550000001,+1 555 000 0002}'::text[])
	SQL
is(wait_for_run($node, $job, alone => 1)->{sent}, 2, 'a message is sent to two phones');
is_deeply(
	[ sort map { "$_->{to} $_->{body}" } $twilio->ledger ],
	[ '+15550000001 The meeting is at 8', '+15550000002 The meeting is at 8' ],
	'... with its text');
is(as_app("SELECT string_agg(data->>'sentCount', ',') FROM ac_list_users"),
	'1,1', '... and counted');

# Rolled back
as_app("BEGIN; SELECT sendcampaign.send_message($group, 'x', '{+15550000003}'::text[]); ROLLBACK");
is(as_app("SELECT count(*) FROM ac_campaigns WHERE data->>'message' = 'x'"),
	0, 'nothing is left of a call that is rolled back');

# Those who cannot be sent to
my ($output, $errors) = sql_output($node, <<~SQL, role => 'app');
	SELECT sendcampaign.send_message($group, 'Hello', ARRAY['+15550000004', '12345', NULL,
	    '+1 555 0000004'], 'https://example.org')
	SQL
like(
	$errors,
	qr/WARNING:  3 of 4 recipients will be skipped/,
	'a warning says how many are skipped');
like(
	$errors,
	qr/DETAIL:  Position 2: phone number is not in E\.164 form\./,
	'... and why the first is');
like(
	$errors,
	qr/HINT:  sendcampaign\.message has each of them, with the reason, once the run has begun\./,
	'... and where the others are');
is(wait_for_run($node, $output)->{skipped}, 3, 'they are skipped');
is(as_app(<<~SQL), <<~'ROWS' =~ s/\n\z//r, '... with the reasons');
	SELECT status, phone, error_message
	FROM sendcampaign.message WHERE job_id = $output ORDER BY list_user_id
	SQL
	sent|+15550000004|
	skipped|12345|phone number is not in E.164 form
	skipped||no phone number
	skipped|+15550000004|duplicate: another list user has the same phone number
	ROWS
like(sent_with($twilio, 'Hello https://example.org?yu='), qr/^1$/, '... and the link is sent');

# Personal texts
my $personal = as_app(<<~SQL);
	SELECT sendcampaign.send_message($group, 'Hi {{name}}!', users =>
	    '[{"sms": "+15550000005", "name": "Ann"}, "nobody", {"sms": "+15550000006", "name": "Ben"}]')
	SQL
is(wait_for_run($node, $personal)->{sent}, 2, 'users with names');
is(sent_with($twilio, 'Hi Ann!') + sent_with($twilio, 'Hi Ben!'), 2, '... get personal texts');

# A superuser's call has the rights of the owner of the tables
sql($node, <<~'SQL');
	CREATE TABLE seen (who name);
	GRANT INSERT ON seen TO app;
	SET ROLE app;
	CREATE FUNCTION see() RETURNS trigger LANGUAGE plpgsql AS $$
	BEGIN
	    INSERT INTO public.seen VALUES (current_user);
	    RETURN NEW;
	END $$;
	CREATE TRIGGER see BEFORE INSERT ON ac_lists FOR EACH ROW EXECUTE FUNCTION see();
	CREATE TRIGGER see BEFORE INSERT ON ac_list_users FOR EACH ROW EXECUTE FUNCTION see();
	CREATE TRIGGER see BEFORE INSERT ON ac_campaigns FOR EACH ROW EXECUTE FUNCTION see();
	SQL
my $super = sql($node, "SELECT sendcampaign.send_message($group, 'S', '{+15550000007}'::text[])");
is(wait_for_run($node, $super)->{sent}, 1, 'a superuser sends a message');
is(sql($node, 'SELECT DISTINCT who FROM seen'), 'app', "... with the owner's rights");

# Errors
my @errors = (
	[
		"send_message(NULL, 'x', '{+15550000001}'::text[])" => 'group_id must not be null',
		'Pass a value for it.'
	],
	[
		"send_message($group, NULL, '{+15550000001}'::text[])" => 'message must not be null',
		'Pass a value for it.'
	],
	[
		"send_message(999, 'x', '{+15550000001}'::text[])" => 'group 999 does not exist',
		'Check that it is in "public.groups" and that your role may see it.'
	],
	[
		"send_message($group, 'x', '{}'::text[])" => 'there is nobody to send the message to',
		'Pass at least one phone number.'
	],
	[
		"send_message($group, 'x', '{1,2}'::text[])" => 'none of the phone numbers can be sent to',
		'Write each with a plus sign and the country code, such as +15550000001, or set'
		  . ' "countryCode" in the group\'s configuration.'
	],
	[
		qq(send_message($group, 'x', '{+15550000001}'::text[], columns => '{"no": 1}')) =>
		  'none of the tables has a column "no"',
		'Remove it from "columns". Values that have no column of their own belong into its'
		  . ' "data", if there is such a column.'
	]);
for my $case (@errors)
{
	my ($call, $message, $hint) = @$case;
	my $error = call_error($node, $call);
	is($error->{message}, $message, "$call: the error");
	is($error->{hint}, $hint, '... and its hint');
}
is( call_error($node, "send_message($group, 'x', '{1,2}'::text[])")->{detail},
	'Position 1: phone number is not in E.164 form.',
	'... and why');
ok(wait_for_no_worker($node) || 1, 'the workers end');
$node->stop;
done_testing();
