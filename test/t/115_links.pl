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
my $node = new_cluster('links', $twilio, conf => qq{
	sendcampaign.request_timeout = '1s'
	sendcampaign.lookup_delay = 0
});
my $url = 'https://example.org/s';

sub sql { return $node->safe_psql('postgres', $_[0]); }
sub list_users { return split /\n/, sql("SELECT id FROM ac_list_users WHERE ac_list_id = (SELECT ac_list_id FROM ac_campaigns WHERE id = $_[0]) ORDER BY id"); }
sub value_of { my ($id, $value) = @_; sql("UPDATE ac_list_users SET data = data || jsonb_build_object('ref', " . Campaign::quoted($value) . ") WHERE id = $id"); }
sub messages { return sql("SELECT status, attempts FROM sendcampaign.message WHERE job_id = $_[0] ORDER BY list_user_id"); }
sub accepted { return scalar(my @rows = $twilio->ledger); }

# A campaign whose users' values come from a function of number, id and campaign.
sub campaign_with
{
	my ($users, $value, %arg) = @_;
	my $campaign = create_campaign($node, users => $users, message => '{{ref|none}} {{link}}', base_url => $url, %arg);
	my @ids = list_users($campaign);
	value_of($ids[$_], $value->($_, \@ids, $campaign)) for 0 .. $#ids;
	return $campaign;
}

# Something that begins with the recipient's own link goes before it.
my %before = (
	'another campaign whose number begins so' => sub { my ($n, $ids, $c) = @_; return "$url?yu=$ids->[$n]&yc=${c}7" },
	'the link without its end' => sub { my ($n, $ids, $c) = @_; return "$url?yu=$ids->[$n]" },
	'a list user whose number begins so' => sub { my ($n, $ids, $c) = @_; return "$url?yu=$ids->[$n]9&yc=${c}1" },
	'the beginning alone, twice' => sub { return "$url?yu=$url?yu=" },
	'the link itself' => sub { my ($n, $ids, $c) = @_; return "$url?yu=$ids->[$n]&yc=$c" },
	'a number in other words' => sub { my ($n, $ids, $c) = @_; return "$url?yu=0$ids->[$n]&yc=$c $url?yu=99999999999999999999&yc=$c $url?yu=-&yc=$c" });
for my $what (sort keys %before)
{
	my $campaign = campaign_with(3, $before{$what});
	$twilio->set(reset => 1, 'fault:drop-after' => '#3');
	my $job = start_campaign($node, $campaign);
	wait_for_run($node, $job);
	is(messages($job), "sent|1\nsent|1\nsent|1", "looked up: $what");
	is(accepted(), 3, "looked up: $what: none was sent again");
	is($twilio->stats->{lists}, 3, "looked up: $what: all were");

	my $run = lose_commits($node, $job, 3);
	is("$run->{state} $run->{sent}", 'completed 3', "read back: $what");
	is(accepted(), 3, "read back: $what: none was sent again");
}

# The link of another recipient is in the text as well: nobody can tell.
my $campaign = campaign_with(3, sub { my ($n, $ids, $c) = @_; return $n == 1 ? "none" : "$url?yu=$ids->[1]&yc=$c" });
$twilio->set(reset => 1, 'fault:drop-after' => '#3');
my $job = start_campaign($node, $campaign);
my $run = wait_for_run($node, $job);
is(messages($job), "in_doubt|1\nsent|1\nin_doubt|1", "looked up: another's link: in doubt");
is(accepted(), 3, "looked up: another's link: none was sent again");
like($run->{error}, qr/with its link and another recipient's/, 'and says why');

$campaign = campaign_with(3, sub { my ($n, $ids, $c) = @_; return $n == 0 ? "$url?yu=$ids->[1]&yc=$c" : 'none' });
$twilio->set(reset => 1, 'to-fault' => '+15550000002=code:21211');
$job = start_campaign($node, $campaign);
wait_for_run($node, $job);
is(messages($job), "sent|1\nfailed|1\nsent|1", 'the second one is refused');
$twilio->set(fault => 'none');
lose_commits($node, $job, 3);
is(sql("SELECT string_agg(status, ' ' ORDER BY list_user_id) FROM sendcampaign.message WHERE job_id = $job"), 'in_doubt in_doubt sent',
	"read back: a message with another's link is neither's for certain");
is(accepted(), 2, 'read back: and none was sent again');

# The same where both have their own message: these are theirs.
$campaign = campaign_with(2, sub { my ($n, $ids, $c) = @_; return $n == 0 ? "$url?yu=$ids->[1]&yc=$c" : 'none' });
$twilio->set(reset => 1);
$job = start_campaign($node, $campaign);
wait_for_run($node, $job);
my $sid = sql("SELECT max(sid) FROM sendcampaign.message WHERE job_id = $job AND list_user_id = (SELECT max(list_user_id) FROM sendcampaign.message WHERE job_id = $job)");
lose_commits($node, $job, 2);
is(sql("SELECT string_agg(status || coalesce(' ' || sid, ''), ',' ORDER BY list_user_id) FROM sendcampaign.message WHERE job_id = $job"),
	"in_doubt,sent $sid", 'read back: a message of its own goes before one that only names it') or diag sql("TABLE sendcampaign.read_back_message");
is(accepted(), 2, 'read back: none was sent again');

# Base URLs that look like links, and fragments; negative numbers.
for my $base ('https://example.org/?yu=5&yc=1', 'https://example.org/#yu=1&yc=9', 'https://example.org/?yu=', 'yu=yu=', 'https://example.org/x#1')
{
	my $campaign = create_campaign($node, users => 3, base_url => $base);
	my ($id) = list_users($campaign);
	sql("UPDATE ac_list_users SET id = -$id WHERE id = $id");
	$twilio->set(reset => 1, 'fault:drop-after' => '#3');
	my $job = start_campaign($node, $campaign);
	wait_for_run($node, $job);
	is(messages($job), "sent|1\nsent|1\nsent|1", "looked up: $base");
	my $run = lose_commits($node, $job, 3);
	is("$run->{state} $run->{sent} " . accepted(), 'completed 3 3', "read back: $base");
}

$node->stop;
done_testing();
