# Several senders: each phone always has its messages from the same one, and
# none of them waits for another.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../perl";
use Campaign;
use LocalTwilio;
use List::Util qw(max min sum);
use PostgreSQL::Test::Utils;
use Test::More;

my $users = 600;
my @senders = ('+15559990001', '+15559990002', '+15559990003');
my $twilio = LocalTwilio->start;
my $node = new_cluster('senders', $twilio, conf => qq{
	restart_after_crash = on
	sendcampaign.request_timeout = '1s'
	sendcampaign.lookup_delay = '100ms'
});

sub campaign_from
{
	my ($numbers, %arg) = @_;
	my $campaign = create_campaign($node, users => $users, base_url => undef, %arg);
	configure($campaign, $numbers);
	return $campaign;
}

sub configure
{
	my ($campaign, $numbers) = @_;
	$node->safe_psql('postgres', qq{UPDATE groups SET configuration = configuration || '{"twilioFromSmsNumber": $numbers}'
		WHERE id = (SELECT group_id FROM ac_lists l JOIN ac_campaigns c ON c.ac_list_id = l.id WHERE c.id = $campaign)});
}

# The sender of each phone's newest message.
sub sender_of { return map { $_->{to} => $_->{from} } $twilio->ledger; }

sub counts
{
	my %count;
	$count{$_}++ for @_;
	return %count;
}

my $three = '["+15559990001", "+1 555-999-0002", "0015559990003"]';
wait_for_run($node, start_campaign($node, campaign_from($three)));
my %sender = sender_of();
my %count = counts(values %sender);
is(join(' ', sort keys %count), "@senders", 'sent from all of them, in E.164');
cmp_ok(min(values %count), '>', $users / 3 * 0.7, 'and about as much from each');
is((grep { $_ != 1 } values %{ $twilio->count_by_phone }), 0, 'each phone has it once');

# the same ones, whatever the order, after a restart, and in another role's worker
$node->restart;
$twilio->set(reset => 1);
wait_for_run($node, start_campaign($node, campaign_from('["+15559990003", "+15559990001", "+15559990002", "+15559990001", null, "", "  "]')));
is_deeply({ sender_of() }, \%sender, 'the same ones after a restart, in another order, with nulls and blanks');

# one more or one less: most keep theirs
$twilio->set(reset => 1);
wait_for_run($node, start_campaign($node, campaign_from('["+15559990001", "+15559990002"]')));
my %two = sender_of();
is((grep { $sender{$_} ne $senders[2] && $sender{$_} ne $two{$_} } keys %two), 0, 'one less: only its own ones have another');

# a number as a number, none, and the messaging service
for my $case ([ 'one as a number', '15559990001', qr/^$/, '15559990001' ], [ 'an empty array', '[]', qr/has no "twilioFromSmsNumber"/ ],
	[ 'blanks and nulls only', '[null, "", " \t"]', qr/has no "twilioFromSmsNumber"/ ], [ 'null', 'null', qr/has no "twilioFromSmsNumber"/ ])
{
	my ($what, $numbers, $error, $from) = @$case;
	$twilio->set(reset => 1);
	my $campaign = campaign_from($numbers, users => 1);
	my $run = wait_for_run($node, start_campaign($node, $campaign));
	like($run->{error}, $error, "senders: $what");
	is(join(' ', map { $_->{from} } $twilio->ledger), $from // '', "senders: $what: from");
}
my $service = campaign_from('[null, " "]', users => 3);
$node->safe_psql('postgres', q{UPDATE groups SET configuration = configuration || '{"twilioMessagingServiceSid": "MG00000000000000000000000000000001"}'
	WHERE id = (SELECT max(id) FROM groups)});
$twilio->set(reset => 1);
wait_for_run($node, start_campaign($node, $service));
is(join(' ', map { $_->{service} } $twilio->ledger), join(' ', ('MG00000000000000000000000000000001') x 3), 'no number: the messaging service');

# In doubt after a crash: looked up by the sender that had it, also where the
# group has others meanwhile.
for my $numbers ($three, '["+15559990002"]', '["+15559990009", "+15559990008"]')
{
	for my $after (1, 0)
	{
		my $what = "now $numbers, " . ($after ? 'taken' : 'not taken');
		my $campaign = campaign_from($three, users => 60, message => 'In doubt');
		$twilio->set('reset' => 1, 'hold-after' => $after, 'hold' => 1);
		my $job = start_campaign($node, $campaign);
		wait_for_flight($twilio, 10);
		my %before = sender_of();
		kill_worker($node);
		$twilio->set('hold' => 0, 'hold-after' => 0);
		configure($campaign, $numbers);
		$node->poll_query_until('postgres', 'SELECT sendcampaign.wake() >= 0');
		my $run = wait_for_run($node, $job);
		my %now = sender_of();
		my $count = $twilio->count_by_phone;
		is("$run->{sent} $run->{in_doubt}", '60 0', "$what: all are sent");
		is(scalar(keys %$count) . ' ' . (grep { $_ != 1 } values %$count), '60 0', "$what: each once");
		is((grep { $now{$_} ne $before{$_} } keys %before), 0, "$what: from the sender that had it");
		is((grep { $now{$_} ne $sender{$_} } keys %now), 0, "$what: always the same") if $numbers eq $three;
	}
}

# rates are those of each number
$node->safe_psql('postgres', "ALTER ROLE app SET sendcampaign.segments_per_second = 25");
wait_for_no_worker($node);
$twilio->set(reset => 1);
my $job = start_campaign($node, campaign_from($three, users => 300));
is(wait_for_run($node, $job)->{sent}, 300, 'a rate: all are sent');
my @ledger = $twilio->ledger;
for my $from (@senders)
{
	my @times = sort { $a <=> $b } map { $_->{time} / 1e6 } grep { $_->{from} eq $from } @ledger;
	my $most = max(map { my $i = $_; scalar grep { $_ >= $times[$i] && $_ < $times[$i] + 1 } @times } 0 .. $#times);
	cmp_ok($most, '<=', 28, "$from: no second has more than its rate");
}
my @times = sort { $a <=> $b } map { $_->{time} / 1e6 } @ledger;
my $mean = $#times / ($times[-1] - $times[0]);
cmp_ok($mean, '>', 35, 'together they are faster than one');
diag(sprintf '%.1f a second from three numbers of 25', $mean);
$node->safe_psql('postgres', "ALTER ROLE app RESET sendcampaign.segments_per_second");
wait_for_no_worker($node);

# one's queue is full: the others go on
$twilio->set(reset => 1);
my $campaign = campaign_from($three, users => 3000);
my %plan = map { split /\|/ } split /\n/, $node->safe_psql('postgres', "SET ROLE app; SELECT phone, sender FROM sendcampaign.preview($campaign, NULL)");
my @full = grep { $plan{$_} eq $senders[0] } keys %plan;
$twilio->set(map { ('to-fault' => "$_=code:21611") } splice @full, 0, 100) while @full;
$job = start_campaign($node, $campaign);
my $others = grep { $_ ne $senders[0] } values %plan;
ok(poll(sub { $twilio->stats->{accepted} == $others }, 15), "one's queue is full: the others send all they have")
  or diag($twilio->stats->{accepted} . " of $others");
is((grep { $_->{from} eq $senders[0] } $twilio->ledger), 0, 'and the one nothing');
is(run_row($node, $job)->{state}, 'running', 'the run goes on');
$twilio->set('fault' => 'none');
is(wait_for_run($node, $job)->{sent}, 3000, 'when it is not full any more: all are sent');
is_deeply({ sender_of() }, \%plan, 'each from its own sender, as the preview says');
is((grep { $_ != 1 } values %{ $twilio->count_by_phone }), 0, 'each once');
$node->stop;
done_testing();
