# What became of messages: statuses go forward only, whatever order reports come
# in; counts are exact; only the role and the group whose credentials are proven
# may say it.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../perl";
use Campaign;
use LocalTwilio;
use PostgreSQL::Test::Utils;
use Receipts;
use Test::More;

my $twilio = LocalTwilio->start;
my $node = new_cluster('receipts', $twilio, conf => 'sendcampaign.receipts = off');
install_receipts($node);

# Sends a campaign to so many; returns its job and the SIDs.
sub send_to
{
	my ($users) = @_;
	my $campaign = create_campaign($node, users => $users);
	my $run = run_campaign($node, $campaign);
	wait_for_no_worker($node);
	return ($run->{job}, sids($node, $run->{job}));
}

my ($job, @sid) = send_to(4);
is(sql($node, "SELECT account, group_id FROM sendcampaign.run WHERE job_id = $job"),
	"$LocalTwilio::ACCOUNT|1", "the run has its account and group");
is(deliveries($node, $job), '-, -, -, -', 'nothing is known at first');

# One message, its statuses in all orders.  The last one is what stays.
my @ways = (
	'queued sent delivered = delivered',
	'delivered sent queued = delivered',
	'sent undelivered delivered = undelivered',
	'delivered undelivered = delivered',
	'read delivered = read',
	'delivered read = read',
	'undelivered read = undelivered',
	'sent sent queued = sent',
	'failed sent = failed',
	'canceled delivered = canceled',
	'unknown delivered = unknown',
	'sent unknown undelivered = unknown');
my %kind = (
	delivered => '1 0 0',
	read => '1 0 0',
	undelivered => '0 1 0',
	failed => '0 1 0',
	canceled => '0 1 0',
	unknown => '0 0 1',
	sent => '0 0 0');
my ($ways, @of_way) = send_to(scalar @ways);
my ($pages, @of_page) = send_to(scalar @ways);
for my $i (0 .. $#ways)
{
	my ($reports) = split / = /, $ways[$i];
	report($node, $ways, "$of_way[$i] $_") for split / /, $reports;
	report($node, $pages, map { "$of_page[$i] $_" } split / /, $reports);
}
my @stays = map { /= (.*)/ } @ways;
is(deliveries($node, $ways), join(', ', @stays), 'in whatever order: what stays');
my %count;
$count{ $kind{$_} }++ for @stays;
is( receipt_counts($node, $ways),
	join(' ', scalar @ways, map { $count{$_} } '1 0 0', '0 1 0', '0 0 1'),
	'and is counted');
my @in_page = split /, /, deliveries($node, $pages);
is($in_page[3], 'delivered', 'of two final ones in a page, the first counts');
is($in_page[4], 'read', 'otherwise the one that has come further');

# A price comes later, even if the status is old by then; so does a code.
report($node, $job, "$sid[0] read", "$sid[1] undelivered", "$sid[2] sent segments=1");
report(
	$node, $job,
	"$sid[0] delivered price=0.0079 unit=USD segments=2",
	"$sid[1] undelivered code=30007");
report($node, $job, "$sid[0] read price=9.99 unit=EUR", "$sid[1] failed code=30003 price=0.01");
is(sql($node, <<~"SQL"), <<~'ROWS' =~ s/\n\z//r, 'price, segments, code and its meaning');
	SELECT delivery, delivery_code, delivery_error, price, price_unit, segments
	FROM sendcampaign.message
	WHERE job_id = $job
	ORDER BY list_user_id
	SQL
	read|||0.0079|USD|2
	undelivered|30007|message filtered|0.01||1
	sent|||||1
	|||||1
	ROWS
is(receipt_counts($node, $job), '4 1 1 0', 'nothing is counted twice');
is(report($node, $job, "$sid[1] delivered code=30003 at=2026-01-01", 'SMunknown delivered'),
	1, 'an unknown SID is no message');
is(sql($node, 'SELECT count(*) FROM sendcampaign.receipt_data WHERE sid = $$SMunknown$$'),
	0, 'and nothing of it is stored');
is(receipt_counts($node, $job), '4 1 1 0', 'nor counted');

# The last receipt completes them, once.
my $announcement = qq({"schema" : "public", "job_id" : $job, "campaign_id" : 1,)
  . ' "state" : "completed", "receipts" : "complete"}';
is(report($node, $job, "$sid[2] delivered at=2027-01-02_03:04:05+00"), 1, 'one is open');
is(report($node, $job, "$sid[3] delivered"), "1 $announcement", 'the last one is announced');
is(report($node, $job, "$sid[3] read"), 1, 'once');
is(sql($node, <<~"SQL"), '2027-01-02 03:04:05', 'the time is that of the report');
	SELECT delivery_at AT TIME ZONE 'UTC' FROM sendcampaign.message WHERE sid = '$sid[2]'
	SQL

# What nobody reports stays unknown.
my ($silent, @silent) = send_to(3);
report($node, $silent, "$silent[0] delivered", "$silent[1] sent");
like(close_receipts($node, $silent), qr/^1 .*"receipts" : "complete"/, 'asking ends');
is(deliveries($node, $silent), 'delivered, unknown, unknown', 'the others are unknown');
is(receipt_counts($node, $silent), '3 1 0 2', 'and are counted');
is(report($node, $silent, "$silent[1] delivered"), 1, 'what comes later');
is(deliveries($node, $silent), 'delivered, unknown, unknown', 'does not change that');

# Scope: who may say something of which message.
my ($ours, $sid) = send_to(1);
my $app = sql($node, q{SELECT 'app'::regrole::oid});
my $group = sql($node, "SELECT group_id FROM sendcampaign.run WHERE job_id = $ours");
my $other = sql($node, q{CREATE ROLE other; SELECT 'other'::regrole::oid});
my $account = "'$LocalTwilio::ACCOUNT'";
my %wrong = (
	'another role' => "$other, $account, NULL, NULL",
	'another account' => "$app, 'AC2', NULL, NULL",
	'another group' => "$app, $account, 'public', $group + 1",
	'the group of another schema' => "$app, $account, 'shop', $group");
for my $name (sort keys %wrong)
{
	my $reports = qq('[{"sid": "$sid", "status": "delivered"}]');
	is(sql($node, "SELECT store_receipts($wrong{$name}, $reports, false)"),
		0, "$name proves nothing");
}
is(deliveries($node, $ours), '-', 'nothing is changed by these');
is( sql($node, qq(SELECT store_receipts($app, $account, NULL, NULL,
   '[{"sid": "$sid", "status": "delivered"}]', false))) =~ s/ .*//r,
	1,
	'the account is enough for its own list');
is(deliveries($node, $ours), 'delivered', 'which proves it');

# Runs that were loaded are not at home here.
my ($loaded, $loaded_sid) = send_to(1);
sql($node, "UPDATE sendcampaign.run_data SET database = 1 WHERE job_id = $loaded");
is(report($node, $loaded, "$loaded_sid delivered"), 0, 'a run of another database is left alone');

# At random, against a model: messages, reports in pages, one after the other.
my $seed = $ENV{SEED} || int(rand(1 << 31));
note("SEED=$seed");
srand($seed);
my ($many, @many) = send_to(60);
my %rank = (queued => 0, sent => 1, read => 3);
my @statuses = qw(queued queued sent sent sent delivered undelivered failed read canceled);
my %model;

sub is_later
{
	my ($new, $old) = @_;
	return 1 if !defined $old;
	return ($rank{$new} // 2) > ($rank{$old} // 2)
	  && ($old =~ /^(?:queued|sent)$/ || "$old $new" eq 'delivered read');
}
for my $page (1 .. 40)
{
	my (@page, %best);
	for (1 .. 1 + int rand 30)
	{
		my $sid = rand() < 0.05 ? 'SMother' : $many[ rand @many ];
		my $status = $statuses[ rand @statuses ];
		push @page, "$sid $status";
		# of several rows in one page, the one that has come furthest, the first of these
		$best{$sid} = $status
		  if !defined $best{$sid} || ($rank{$status} // 2) > ($rank{ $best{$sid} } // 2);
	}
	report($node, $many, @page);
	for my $sid (grep { $_ ne 'SMother' } keys %best)
	{
		$model{$sid} = $best{$sid} if is_later($best{$sid}, $model{$sid});
	}
}
is(deliveries($node, $many), join(', ', map { $model{$_} // '-' } @many), 'as in the model');
%count = ();
$count{ /delivered|read/ && !/^un/ ? 'delivered' : /queued|sent/ ? 'open' : 'undelivered' }++
  for values %model;
is( receipt_counts($node, $many),
	join(' ', 60, $count{delivered} // 0, $count{undelivered} // 0, 0),
	'so are the counts');

$node->stop;
done_testing();
