# Texts, phones, values and errors of many megabytes: a named failure of that
# run or that recipient, and nothing to the role's other runs.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../perl";
use Campaign;
use LocalTwilio;
use PostgreSQL::Test::Utils;
use Test::More;

my $twilio = LocalTwilio->start;
my $node = new_cluster('enormous', $twilio);
my $long = "repeat('0123456789', 3000000)";
sub sql { return $node->safe_psql('postgres', shift); }
sub error_of { return sql("SELECT left(error, 2000) FROM sendcampaign.run WHERE job_id = $_[0]"); }
sub state_of { return sql("SELECT state, sent, failed, skipped, in_doubt FROM sendcampaign.run WHERE job_id = $_[0]"); }
sub ended { my $job = shift; return $node->poll_query_until('postgres', "SELECT finished_at IS NOT NULL FROM sendcampaign.run WHERE job_id = $job"); }

# Of the campaign
for my $key ('message', 'baseUrl')
{
	my $campaign = create_campaign($node, users => 3);
	sql(qq{UPDATE ac_campaigns SET data = data || jsonb_build_object('$key', $long) WHERE id = $campaign});
	my $other = create_campaign($node, users => 3, message => "Beside a long $key");
	my $job = start_campaign($node, $campaign);
	my $other_job = start_campaign($node, $other);
	ended($job);
	like(state_of($job), qr/^failed/, "$key of 30 MB: the run fails");
	like(error_of($job), qr/^the (message|base URL) of campaign $campaign has more than 16000 characters\b/, 'and says why');
	sent_once($node, $twilio, $other, $other_job, "beside a $key of 30 MB", total => 3);
	cmp_ok(sql("SELECT pg_column_size(r.*) FROM sendcampaign.run r WHERE job_id = $job"), '<', 10000, 'it is stored nowhere');
}
my $campaign = create_campaign($node, users => 3, message => join '', map { sprintf "{{%x}}", $_ } 1 .. 2001);
my $job = start_campaign($node, $campaign);
is(wait_for_run($node, $job)->{error}, "the message of campaign $campaign has more than 2000 different keys. Use fewer placeholders in it.",
	'as are too many keys');

# Of recipients
$campaign = create_campaign($node, users => 8, message => 'Dear {{name|friend}},');
sql(qq{CREATE TEMP TABLE u AS SELECT id, row_number() OVER (ORDER BY id) n FROM ac_list_users
		WHERE ac_list_id = (SELECT ac_list_id FROM ac_campaigns WHERE id = $campaign);
	UPDATE ac_list_users l SET data = data || jsonb_build_object('sms', $long) FROM u WHERE u.id = l.id AND n IN (2, 3);
	UPDATE ac_list_users l SET data = data || jsonb_build_object('sms', '+1555000' || repeat(' ', 200) || '0001') FROM u WHERE u.id = l.id AND n = 4;
	UPDATE ac_list_users l SET data = data || jsonb_build_object('name', $long) FROM u WHERE u.id = l.id AND n = 5;
	UPDATE ac_list_users l SET data = data || jsonb_build_object('name', repeat('x', 1601)) FROM u WHERE u.id = l.id AND n = 6;
	UPDATE ac_list_users l SET data = data || jsonb_build_object('timeZone', $long, 'other', $long) FROM u WHERE u.id = l.id AND n = 7;});
my $other = create_campaign($node, users => 3, message => 'Beside long values');
$job = start_campaign($node, $campaign);
my $other_job = start_campaign($node, $other);
ended($job);
is(state_of($job), 'completed|3|0|5|0', 'values of 30 MB: the others are sent');
is(sql("SELECT string_agg(error_message, '; ' ORDER BY list_user_id) FROM sendcampaign.message WHERE job_id = $job AND status = 'skipped'"),
	join('; ', ('phone number is not in E.164 form') x 3, ('the value of "name" has more than 1600 characters') x 2), 'each with its reason')
  or diag sql("SELECT left(m::text, 500) FROM sendcampaign.message m WHERE job_id = $job");
is((grep { $_->{to} eq '+1555000' } $twilio->ledger), 0, 'no phone is cut short');
is(sql("SELECT max(length(phone)) FROM sendcampaign.message"), 101, 'and none is stored whole');
sent_once($node, $twilio, $other, $other_job, 'beside values of 30 MB', total => 3);
is(sql("SET ROLE app; SELECT string_agg(coalesce(skipped, '-'), '; ') FROM sendcampaign.preview($campaign, 5)"),
	'-; phone number is not in E.164 form; phone number is not in E.164 form; phone number is not in E.164 form; the value of "name" has more than 1600 characters',
	'preview() says so');

# Of the group
$campaign = create_campaign($node, users => 2);
sql(qq{UPDATE groups SET configuration = configuration || jsonb_build_object('twilioAuthToken', $long) WHERE id = ${\ group_of($campaign)}});
$job = start_campaign($node, $campaign);
is(wait_for_run($node, $job)->{error}, q{the group's configuration has a value of more than 1000 bytes. Shorten its "twilioAuthToken".}, 'a token of 30 MB');

# What a trigger raises
sql(q{SET ROLE app;
	CREATE FUNCTION roar() RETURNS trigger LANGUAGE plpgsql AS
		$$BEGIN RAISE EXCEPTION '%', repeat('äöü ', 3000000) USING DETAIL = repeat('0123456789', 3000000); END$$;
	CREATE TRIGGER roar BEFORE UPDATE ON ac_list_users FOR EACH ROW WHEN (OLD.data ? 'roars') EXECUTE FUNCTION roar()});
$campaign = create_campaign($node, users => 3);
sql(qq{UPDATE ac_list_users SET data = data || '{"roars": 1}' WHERE ac_list_id = (SELECT ac_list_id FROM ac_campaigns WHERE id = $campaign)
	AND NOT EXISTS (SELECT FROM ac_list_users o WHERE o.ac_list_id = ac_list_users.ac_list_id AND o.id < ac_list_users.id)});
$other = create_campaign($node, users => 3, message => 'Beside a roar');
$job = start_campaign($node, $campaign);
$other_job = start_campaign($node, $other);
ended($job);
like(state_of($job), qr/^failed/, 'an error of 100 MB: the run fails');
like(error_of($job), qr/^(äöü )+.*\.\.\. (0123456789)+\.\.\.$/, 'with what it begins with');
sent_once($node, $twilio, $other, $other_job, 'beside an error of 100 MB', total => 3);
cmp_ok(sql("SELECT max(length(error)) FROM sendcampaign.run"), '<', 2100, 'no more is kept');

wait_for_no_worker($node);
$node->stop;
is(worker_errors($node), '', 'no worker met an error');
done_testing();
