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

# A string literal in C
my $literal = qr/"(?:[^"\\]|\\.)*"/;

# The calls of ereport() at ERROR or above in a source: [ line, arguments ]
sub reports
{
	my $source = shift;
	my @found;
	while ($source =~ /\bereport(\((?:[^()"]|$literal|(?1))*\))/g)
	{
		my $arguments = $1;
		my $line = 1 + (substr($source, 0, $-[0]) =~ tr/\n//);
		push @found, [ $line, $arguments ] if $arguments =~ /^\(\s*(?:ERROR|FATAL)/;
	}
	return @found;
}

# Those who have no memory know what to do.
my %need_no_hint = map { $_ => 1 } 'out of memory';

# What the arguments of ereport() are wanting in
sub wanting_in
{
	my $arguments = shift;
	my ($message) = $arguments =~ /errmsg\(\s*"([^"]*)/;
	my @wanting;
	push @wanting, "no SQLSTATE: $message" if $arguments !~ /\berrcode(?:_\w+)?\(/;
	push @wanting, "no hint: $message"
	  if $arguments !~ /\berrhint\(/ && !$need_no_hint{$message};
	while ($arguments =~ /\berr(detail|hint)\(\s*((?:$literal\s*)+)/g)
	{
		my ($what, $literals) = ($1, $2);
		my $words = join '', map { substr $_, 1, -1 } $literals =~ /$literal/g;
		push @wanting, "the $what is not a sentence: $words"
		  if $words !~ /^(?:[A-Z"%]|send)/ || $words !~ /(?:[.;]|%s)$/;
	}
	return @wanting;
}

my $root = "$FindBin::RealBin/../..";
my $reports = 0;
my @wanting;
for my $file (glob("$root/src/*.c"), glob("$root/src/*/*.c"))
{
	my ($name) = $file =~ m{src/(.*)};
	for my $report (reports(slurp_file($file)))
	{
		my ($line, $arguments) = @$report;
		$reports++;
		push @wanting, map { "$name:$line: $_" } wanting_in($arguments);
	}
}
is(join("\n", @wanting), '', 'each error has an SQLSTATE and a hint, in sentences');
cmp_ok($reports, '>', 60, 'and they were found');

# What preview() says to its caller is what the run says, when only the run
# meets it.
my $twilio = LocalTwilio->start;
my $node = new_cluster('words', $twilio);

# A text with the ids of a campaign, of its list and of its group
sub with_ids
{
	my ($text, $campaign) = @_;
	my $ids = sql($node, <<~SQL);
		SELECT l.id, l.group_id
		FROM ac_lists l
		JOIN ac_campaigns c ON c.ac_list_id = l.id
		WHERE c.id = $campaign
		SQL
	my ($list, $group) = split /\|/, $ids;
	return $text =~ s/CAMPAIGN/$campaign/gr =~ s/LIST/$list/gr =~ s/GROUP/$group/gr;
}

# An error with its detail and its hint, as sentences
sub sentences
{
	my $error = shift;
	my @parts = grep { $_ ne '' } @$error{qw(message detail hint)};
	return join ' ', map { /[.;]$/ ? $_ : "$_." } @parts;
}

# A campaign that is changed in the transaction that sends it fails with what is
# expected.  Options: before (a change that is made first), preview (what
# preview() says if that is something else).
sub says
{
	my ($name, $change, $expected, %arg) = @_;
	my $campaign = create_campaign($node, users => 2);
	sql($node, with_ids($arg{before}, $campaign)) if $arg{before};
	my $preview = with_ids($arg{preview} || $expected, $campaign);
	$change = with_ids($change, $campaign);
	$expected = with_ids($expected, $campaign);
	my $job = sql($node, <<~SQL, role => 'app');
		BEGIN;
		SELECT send_campaign($campaign);
		$change;
		COMMIT;
		SQL
	my $run = wait_for_run($node, $job);
	is("$run->{state}: $run->{error}", "failed: $expected", "$name: the run");
	is(sql($node, "SELECT error FROM ac_background_jobs WHERE id = $job"),
		$expected, "$name: the job");
	my $error = sql_error($node, "SELECT * FROM sendcampaign.preview($campaign)", role => 'app');
	is(sentences($error), $preview, "$name: a preview");
}
says(
	'no campaign',
	'DELETE FROM ac_campaigns WHERE id = CAMPAIGN',
	'campaign CAMPAIGN no longer exists.'
	  . ' Check that it is in "public.ac_campaigns" and that role "app" may see it.',
	preview => 'campaign CAMPAIGN does not exist.'
	  . ' Check that it is in "public.ac_campaigns" and that your role may see it.');
says(
	'no list',
	'UPDATE ac_campaigns SET ac_list_id = NULL WHERE id = CAMPAIGN',
	'campaign CAMPAIGN has no list.'
	  . ' Set its "ac_list_id" to the id of a row in "public.ac_lists".');
says(
	'no such list',
	'DELETE FROM ac_lists WHERE id = LIST',
	'list LIST does not exist. It is the list of campaign CAMPAIGN.'
	  . ' Check that it is in "public.ac_lists" and that role "app" may see it.');
says(
	'no message',
	q{UPDATE ac_campaigns SET data = '{}' WHERE id = CAMPAIGN},
	'campaign CAMPAIGN has no message.'
	  . ' Write its text into the column "data", as the value of the key "message".');
says(
	'a blank message',
	q{UPDATE ac_campaigns SET data = '{"message": " \n"}' WHERE id = CAMPAIGN},
	'campaign CAMPAIGN has no message.'
	  . ' Write its text into the column "data", as the value of the key "message".');
says(
	'no group',
	'UPDATE ac_lists SET group_id = NULL WHERE id = LIST',
	'list LIST has no group.'
	  . ' Its "group_id" names no row of "public.groups" that role "app" may see.'
	  . ' Set it to the id of the group whose configuration has the Twilio account.');
says(
	'no account',
	q{UPDATE groups SET configuration = configuration - 'twilioAccountSid' WHERE id = GROUP},
	q{the group's configuration has no "twilioAccountSid". This is the group of list LIST.}
	  . q{ Add what is missing to the group's "private_access_configuration" or "configuration",}
	  . ' and make sure that the sending role may read it.');
says(
	'a long token',
	q{UPDATE groups
	SET configuration = configuration || jsonb_build_object('twilioAuthToken', repeat('x', 1001))
	WHERE id = GROUP},
	q{the group's configuration has a value of more than 1000 bytes.}
	  . ' Shorten "twilioAuthToken".');

# Ends that are not times
my @ends = (
	[ 'soon', 'invalid input syntax for type timestamp with time zone: "soon".' ],
	[ '2027-13-01', 'date/time field value out of range: "2027-13-01".' ],
	[ '2027-01-31 20:00 Mars/Base', 'time zone "mars/base" not recognized.' ],
	[ '1e300', 'invalid input syntax for type timestamp with time zone: "1e300".' ]);
my $end_hint = 'Write "sendUntil" of campaign CAMPAIGN as a date and time with a time zone,'
  . ' such as 2027-01-31 20:00+01.';
for my $case (@ends)
{
	my ($value, $message) = @$case;
	says("an end, $value", <<~SQL, "$message $end_hint");
		UPDATE ac_campaigns
		SET data = data || '{"sendUntil": "$value"}'
		WHERE id = CAMPAIGN
		SQL
}
is(scalar(my @rows = $twilio->ledger), 0, 'nothing is sent');

# A column of its own is named.
sql($node, 'ALTER TABLE ac_campaigns ADD message text');
says(
	'no message in a column',
	'UPDATE ac_campaigns SET message = NULL WHERE id = CAMPAIGN',
	'campaign CAMPAIGN has no message. Write its text into the column "message".',
	before => q{UPDATE ac_campaigns SET message = 'Hello' WHERE id = CAMPAIGN});
sql($node, 'ALTER TABLE ac_campaigns DROP message');

# What is wrong at the call may be put right in the same transaction, as where a
# trigger calls for a campaign that is still being written: what is committed
# counts.
my $wrong = create_campaign($node, users => 1);
sql($node, "UPDATE ac_campaigns SET data = '{}', ac_list_id = NULL WHERE id = $wrong");
my $job = sql($node, <<~SQL, role => 'app');
	BEGIN;
	SELECT send_campaign($wrong);
	UPDATE ac_campaigns
	SET data = '{"message": "Hi"}', ac_list_id = (SELECT max(id) FROM ac_lists)
	WHERE id = $wrong;
	COMMIT;
	SQL
is(wait_for_run($node, $job)->{state}, 'completed', 'what is put right after the call is sent');

$node->stop;
done_testing();
