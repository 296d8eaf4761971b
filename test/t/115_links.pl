# Links in a text: all of them are looked at, and one that begins like a
# recipient's, or is another's, is not taken for it.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../perl";
use Campaign;
use LocalTwilio;
use PostgreSQL::Test::Utils;
use Test::More;

my $twilio = LocalTwilio->start;
my $node = new_cluster('links', $twilio, conf => <<~CONF);
	sendcampaign.receipts = off
	sendcampaign.request_timeout = '1s'
	sendcampaign.lookup_delay = 0
	CONF
my $url = 'https://example.org/s';

# The ids of a campaign's list users, in order.
sub list_users
{
	my $campaign = shift;
	return split /\n/, sql($node, <<~SQL);
		SELECT u.id
		FROM ac_list_users u JOIN ac_campaigns c USING (ac_list_id)
		WHERE c.id = $campaign
		ORDER BY u.id
		SQL
}

# Sets what {{ref}} stands for in the text to a list user.
sub set_ref
{
	my ($id, $ref) = @_;
	my $value = Campaign::quoted($ref);
	sql($node, <<~SQL);
		UPDATE ac_list_users
		SET data = data || jsonb_build_object('ref', $value)
		WHERE id = $id
		SQL
}

# "status|attempts" of each message of a job.
sub messages
{
	my $job = shift;
	return sql($node, <<~SQL);
		SELECT status, attempts
		FROM sendcampaign.message
		WHERE job_id = $job
		ORDER BY list_user_id
		SQL
}

# The statuses of a job's messages, in a line.
sub statuses
{
	my $job = shift;
	return sql($node, <<~SQL);
		SELECT string_agg(status, ' ' ORDER BY list_user_id)
		FROM sendcampaign.message
		WHERE job_id = $job
		SQL
}

# How many messages Twilio has accepted.
sub accepted
{
	return scalar(my @rows = $twilio->ledger);
}

# A campaign whose users' values come from a function of the number of the user,
# all ids, and the campaign.
sub campaign_with
{
	my ($users, $ref_of) = @_;
	my $campaign = create_campaign(
		$node,
		users => $users,
		message => '{{ref|none}} {{link}}',
		base_url => $url);
	my @ids = list_users($campaign);
	set_ref($ids[$_], $ref_of->($_, \@ids, $campaign)) for 0 .. $#ids;
	return $campaign;
}

# A campaign to so many, in which the text to one list user has another one's
# link as well.
sub campaign_with_link_of_other
{
	my ($users, $from, $to) = @_;
	return campaign_with(
		$users,
		sub {
			my ($n, $ids, $campaign) = @_;
			return $n == $from ? "$url?yu=$ids->[$to]&yc=$campaign" : 'none';
		});
}

# Something that begins with the recipient's own link, with id and campaign for
# {yu} and {yc}, goes before it.
my %before = (
	'another campaign whose number begins so' => "$url?yu={yu}&yc={yc}7",
	'the link without its end' => "$url?yu={yu}",
	'a list user whose number begins so' => "$url?yu={yu}9&yc={yc}1",
	'the beginning alone, twice' => "$url?yu=$url?yu=",
	'the link itself' => "$url?yu={yu}&yc={yc}",
	'a number in other words' =>
	  "$url?yu=0{yu}&yc={yc} $url?yu=99999999999999999999&yc={yc} $url?yu=-&yc={yc}");
for my $what (sort keys %before)
{
	my $campaign = campaign_with(
		3,
		sub {
			my ($n, $ids, $campaign) = @_;
			return $before{$what} =~ s/\{yu\}/$ids->[$n]/gr =~ s/\{yc\}/$campaign/gr;
		});
	$twilio->set(reset => 1, 'fault:drop-after' => '#3');
	my $job = start_campaign($node, $campaign);
	wait_for_run($node, $job);
	is(messages($job), "sent|1\nsent|1\nsent|1", "looked up: $what");
	is(accepted(), 3, "looked up: $what: none was sent again");
	cmp_ok($twilio->stats->{lists}, '>=', 3, "looked up: $what: each was looked up");

	my $run = lose_commits($node, $job, 3);
	is("$run->{state} $run->{sent}", 'completed 3', "read back: $what");
	is(accepted(), 3, "read back: $what: none was sent again");
}

# The link of another recipient is in the text as well: nobody can tell.
my $campaign = campaign_with(
	3,
	sub {
		my ($n, $ids, $campaign) = @_;
		return $n == 1 ? 'none' : "$url?yu=$ids->[1]&yc=$campaign";
	});
$twilio->set(reset => 1, 'fault:drop-after' => '#3');
my $run = run_campaign($node, $campaign);
is( messages($run->{job}),
	"in_doubt|1\nsent|1\nin_doubt|1",
	"looked up: messages with another's link are in doubt");
is(accepted(), 3, "looked up: with another's link, none was sent again");
like(
	$run->{error},
	qr/Twilio's list has a message with both its link and another recipient's link/,
	'the error says why');

$campaign = campaign_with_link_of_other(3, 0, 1);
set_and_reload($node, 'sendcampaign.request_timeout', '10s');    # nothing is in doubt
$twilio->set(reset => 1, 'to-fault' => '+15550000002=code:21211');
my $job = run_campaign($node, $campaign)->{job};
set_and_reload($node, 'sendcampaign.request_timeout', '1s');
is(messages($job), "sent|1\nfailed|1\nsent|1", 'the second message is refused');
$twilio->set(fault => 'none');
lose_commits($node, $job, 3);
is( statuses($job),
	'in_doubt in_doubt sent',
	"read back: a message with another's link is neither's for certain");
is(accepted(), 2, "read back: with another's link, none was sent again");

# The same where both have their own message: these are theirs.
$campaign = campaign_with_link_of_other(2, 0, 1);
$twilio->set(reset => 1);
$job = run_campaign($node, $campaign)->{job};
my $sid = sql($node, <<~SQL);
	SELECT sid
	FROM sendcampaign.message
	WHERE job_id = $job
	ORDER BY list_user_id DESC
	LIMIT 1
	SQL
lose_commits($node, $job, 2);
my $outcomes = sql($node, <<~SQL);
	SELECT string_agg(status || coalesce(' ' || sid, ''), ',' ORDER BY list_user_id)
	FROM sendcampaign.message
	WHERE job_id = $job
	SQL
my $expected = "in_doubt,sent $sid";
is($outcomes, $expected, 'read back: a message of its own goes before one that only names it')
  or diag(sql($node, 'TABLE sendcampaign.read_back_message'));
is(accepted(), 2, 'read back: where both have a message, none was sent again');

# Base URLs that look like links, and fragments; negative numbers
my @base_urls = (
	# with parameters of such names
	'https://example.org/?yu=5&yc=1',
	'https://example.org/?yu=',
	'yu=yu=',
	# with fragments
	'https://example.org/#yu=1&yc=9',
	'https://example.org/x#1');
for my $base (@base_urls)
{
	my $campaign = create_campaign($node, users => 3, base_url => $base);
	my ($id) = list_users($campaign);
	sql($node, "UPDATE ac_list_users SET id = -$id WHERE id = $id");
	$twilio->set(reset => 1, 'fault:drop-after' => '#3');
	my $job = run_campaign($node, $campaign)->{job};
	is(messages($job), "sent|1\nsent|1\nsent|1", "looked up: $base");
	my $run = lose_commits($node, $job, 3);
	is("$run->{state} $run->{sent} " . accepted(), 'completed 3 3', "read back: $base");
}

$node->stop;
done_testing();
