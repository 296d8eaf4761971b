# Each error that people can meet has an SQLSTATE and says what to do; and a
# run says why it waits or has failed in the same words, as sentences.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../perl";
use Campaign;
use LocalTwilio;
use PostgreSQL::Test::Utils;
use Test::More;

# What is in the sources: the arguments of each ereport() at ERROR or above.
sub reports
{
	my $source = shift;
	my @found;
	while ($source =~ /\bereport(\((?:[^()"]|"(?:[^"\\]|\\.)*"|(?1))*\))/g)
	{
		my ($text, $line) = ($1, 1 + (substr($source, 0, $-[0]) =~ tr/\n//));
		push @found, [ $line, $text ] if $text =~ /^\(\s*(?:ERROR|FATAL)/;
	}
	return @found;
}

# Whoever has no memory knows what to do.
my %need_no_hint = map { $_ => 1 } 'out of memory';
my ($reports, @wanting) = (0);
for my $file (glob("$FindBin::RealBin/../../src/*.c"), glob("$FindBin::RealBin/../../src/*/*.c"))
{
	for (reports(slurp_file($file)))
	{
		my ($line, $text) = @$_;
		my ($message) = $text =~ /errmsg\(\s*"([^"]*)/;
		my ($name) = $file =~ m{src/(.*)};
		$reports++;
		push @wanting, "$name:$line: no SQLSTATE: $message" if $text !~ /\berrcode(?:_\w+)?\(/;
		push @wanting, "$name:$line: no hint: $message" if $text !~ /\berrhint\(/ && !$need_no_hint{$message};
		while ($text =~ /\berr(detail|hint)\(\s*((?:"(?:[^"\\]|\\.)*"\s*)+)/g)
		{
			my ($what, $words) = ($1, join '', $2 =~ /"((?:[^"\\]|\\.)*)"/g);
			push @wanting, "$name:$line: the $what is no sentence: $words" if $words !~ /^(?:[A-Z"%]|send)/ || $words !~ /(?:[.;]|%s)$/;
		}
	}
}
is(join("\n", @wanting), '', 'each error has an SQLSTATE and a hint, in sentences');
cmp_ok($reports, '>', 60, 'and they were found');

# What is said to callers of preview() is what the run says, where it is only
# then that it is so.
my $twilio = LocalTwilio->start;
my $node = new_cluster('words', $twilio);
sub sql { return $node->safe_psql('postgres', $_[0]); }
sub says
{
	my ($name, $change, $expected, %arg) = @_;
	my $campaign = create_campaign($node, users => 2);
	sql($arg{before} =~ s/CAMPAIGN/$campaign/gr) if $arg{before};
	my ($list, $group) = split /\|/, sql("SELECT l.id, l.group_id FROM ac_lists l JOIN ac_campaigns c ON c.ac_list_id = l.id WHERE c.id = $campaign");
	s/CAMPAIGN/$campaign/g, s/LIST/$list/g, s/GROUP/$group/g for $change, $expected;
	my $job = sql("SET ROLE app; BEGIN; SELECT send_campaign($campaign); $change; COMMIT");
	$job =~ s/\D.*//s;
	my $run = wait_for_run($node, $job);
	is("$run->{state}: $run->{error}", "failed: $expected", "$name: the run");
	is(sql("SELECT error FROM ac_background_jobs WHERE id = $job"), $expected, "$name: the job");
	my $error = sql_error($node, "SET ROLE app; SELECT * FROM sendcampaign.preview($campaign)");
	$error = join ' ', map { /[.;]$/ ? $_ : "$_." } grep { $_ ne '' } @$error{qw(message detail hint)};
	is($error, $arg{preview} ? $arg{preview} =~ s/CAMPAIGN/$campaign/gr : $expected, "$name: a preview");
}
says('no campaign', 'DELETE FROM ac_campaigns WHERE id = CAMPAIGN',
	'campaign CAMPAIGN no longer exists. Check that it is in "public.ac_campaigns" and that role "app" may see it.',
	preview => 'campaign CAMPAIGN does not exist. Check that it is in "public.ac_campaigns" and that your role may see it.');
says('no list', 'UPDATE ac_campaigns SET ac_list_id = NULL WHERE id = CAMPAIGN',
	'campaign CAMPAIGN has no list. Set its "ac_list_id" to the id of a row in "public.ac_lists".');
says('no such list', 'DELETE FROM ac_lists WHERE id = LIST',
	'list LIST does not exist. It is that of campaign CAMPAIGN. Check that it is in "public.ac_lists" and that role "app" may see it.');
says('no message', q{UPDATE ac_campaigns SET data = '{}' WHERE id = CAMPAIGN},
	'campaign CAMPAIGN has no message. Write its text into the column "data", as the value of the key "message".');
says('a blank message', q{UPDATE ac_campaigns SET data = '{"message": " \n"}' WHERE id = CAMPAIGN},
	'campaign CAMPAIGN has no message. Write its text into the column "data", as the value of the key "message".');
says('no group', 'UPDATE ac_lists SET group_id = NULL WHERE id = LIST',
	'list LIST has no group. Its "group_id" names no row of "public.groups" that role "app" may see.'
	  . ' Set it to the id of the group whose configuration has the Twilio account.');
says('no account', q{UPDATE groups SET configuration = configuration - 'twilioAccountSid' WHERE id = GROUP},
	q{the group's configuration has no "twilioAccountSid". The group is that of list LIST. Add what is missing to the group's}
	  . ' "private_access_configuration" or "configuration", and see that the role that sends may read it.');
says('a long token', q{UPDATE groups SET configuration = configuration || jsonb_build_object('twilioAuthToken', repeat('x', 1001)) WHERE id = GROUP},
	q{the group's configuration has a value of more than 1000 bytes. Shorten its "twilioAuthToken".});
for my $case ([ 'soon' => 'invalid input syntax for type timestamp with time zone: "soon"' ], [ '2027-13-01' => 'date/time field value out of range: "2027-13-01"' ],
	[ '2027-01-31 20:00 Mars/Base' => 'time zone "mars/base" not recognized' ], [ '1e300' => 'invalid input syntax for type timestamp with time zone: "1e300"' ])
{
	my $hint = 'Write "sendUntil" of campaign CAMPAIGN as a date and a time with its zone, such as 2027-01-31 20:00+01.';
	my ($value, $message) = @$case;
	$message .= '.' if $message !~ /\.$/;
	says("an end: $value", "UPDATE ac_campaigns SET data = data || '{\"sendUntil\": \"$value\"}' WHERE id = CAMPAIGN", "$message $hint");
}

is(scalar(my @rows = $twilio->ledger), 0, 'nothing is sent');

# A column of its own is named.
sql('ALTER TABLE ac_campaigns ADD message text');
says('no message in a column', 'UPDATE ac_campaigns SET message = NULL WHERE id = CAMPAIGN',
	'campaign CAMPAIGN has no message. Write its text into the column "message".',
	before => q{UPDATE ac_campaigns SET message = 'Hello' WHERE id = CAMPAIGN});
sql('ALTER TABLE ac_campaigns DROP message');

# What is wrong already is said by send_campaign(), and not where it says that
# nothing is sent a second time.
my $campaign = create_campaign($node, users => 1);
my $job = start_campaign($node, $campaign);
is(wait_for_run($node, $job)->{state}, 'completed', 'sent');
my $wrong = create_campaign($node, users => 1);
for my $case ([ 'no message', q{data = '{}'}, qr/^campaign \d+ has no message$/, qr/"message"/ ],
	[ 'no list', 'ac_list_id = NULL', qr/^campaign \d+ has no list$/, qr/ac_list_id/ ],
	[ 'a brace too few', q[data = '{"message": "Hi {{name}"}'], qr/belongs to no placeholder/, qr/A placeholder is/ ])
{
	my ($name, $set, $message, $hint) = @$case;
	sql("UPDATE ac_campaigns SET $set WHERE id IN ($campaign, $wrong)");
	my $error = sql_error($node, "SET ROLE app; SELECT send_campaign($wrong)");
	like($error->{message}, $message, "$name: refused");
	like($error->{hint}, $hint, "$name: with a hint");
	is($error->{sqlstate}, '55000', "$name: SQLSTATE");
	is(sql("SELECT count(*) FROM sendcampaign.run WHERE campaign_id = $wrong"), 0, "$name: nothing is queued");
	is(start_campaign($node, $campaign, job => $job), $job, "$name: of one that is sent already, no error");
	is(sql_error($node, "SET ROLE app; BEGIN; UPDATE ac_campaigns SET data = '{\"message\": \"Hi\"}', ac_list_id = 1 WHERE id = $wrong;
		SELECT send_campaign($wrong)")->{message}, '', "$name: put right by the same transaction");
	sql("UPDATE ac_campaigns SET data = '{\"message\": \"Hi\"}', ac_list_id = 1 WHERE id IN ($campaign, $wrong)");
}

# Nor for what the statement itself, or a trigger, has just made.
my $made = sql(q{SET ROLE app; WITH c AS (INSERT INTO ac_campaigns (ac_list_id, data)
	SELECT min(id), '{"message": "Made"}' FROM ac_lists WHERE group_id IS NOT NULL RETURNING id) SELECT send_campaign(id) FROM c});
is(wait_for_run($node, $made)->{state}, 'completed', 'made by the same statement');
sql(q{SET ROLE app; CREATE FUNCTION send() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM public.send_campaign(NEW.id); RETURN NULL; END';
	CREATE TRIGGER send AFTER INSERT ON ac_campaigns FOR EACH ROW EXECUTE FUNCTION send()});
sql(q{SET ROLE app; INSERT INTO ac_campaigns (ac_list_id, data) SELECT min(id), '{"message": "Made"}' FROM ac_lists WHERE group_id IS NOT NULL});
ok($node->poll_query_until('postgres', 'SELECT state = $$completed$$ FROM sendcampaign.run WHERE campaign_id = (SELECT max(id) FROM ac_campaigns)'), 'made before a trigger');
like(sql_error($node, q{SET ROLE app; INSERT INTO ac_campaigns (ac_list_id) SELECT min(id) FROM ac_lists})->{message}, qr/has no message/, 'a trigger that calls too early is told');
sql('DROP TRIGGER send ON ac_campaigns');

$node->stop;
done_testing();
