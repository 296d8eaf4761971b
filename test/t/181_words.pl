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

# What is wrong when it is called may be put right in the same transaction, as
# where a trigger calls for a campaign that is still being written: it counts
# what is committed.
my $wrong = create_campaign($node, users => 1);
sql("UPDATE ac_campaigns SET data = '{}', ac_list_id = NULL WHERE id = $wrong");
my $job = sql(qq{SET ROLE app; BEGIN; SELECT send_campaign($wrong);
	UPDATE ac_campaigns SET data = '{"message": "Hi"}', ac_list_id = (SELECT max(id) FROM ac_lists) WHERE id = $wrong; COMMIT});
is(wait_for_run($node, $job)->{state}, 'completed', 'put right after the call: sent');

$node->stop;
done_testing();
