# Several senders: each phone always gets its messages from the same one, and
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
my $node = new_cluster('senders', $twilio, conf => <<~CONF);
    restart_after_crash = on
    sendcampaign.request_timeout = '1s'
    sendcampaign.lookup_delay = '100ms'
CONF

# Sets the senders of the campaign's group, given as JSON.
sub set_senders
{
	my ($campaign, $numbers) = @_;
	my $group = group_of($campaign);
	sql($node, <<~SQL);
	    UPDATE groups
	    SET configuration = configuration || '{"twilioFromSmsNumber": $numbers}'
	    WHERE id = $group
	SQL
}

# A campaign with these senders; options as for create_campaign().
sub campaign_from
{
	my ($numbers, %arg) = @_;
	my $campaign = create_campaign($node, users => $users, base_url => undef, %arg);
	set_senders($campaign, $numbers);
	return $campaign;
}

# The sender of each phone's newest message.
sub sender_of
{
	return map { $_->{to} => $_->{from} } $twilio->ledger;
}

# How many phones have a message more than once.
sub not_once
{
	return scalar grep { $_ != 1 } values %{ $twilio->count_by_phone };
}

my $three = '["+15559990001", "+1 555-999-0002", "0015559990003"]';
run_campaign($node, campaign_from($three));
my %sender = sender_of();
my %count;
$count{$_}++ for values %sender;
is(join(' ', sort keys %count), "@senders", 'it is sent from all of them, in E.164 form');
cmp_ok(min(values %count), '>', $users / 3 * 0.7, 'about as much is sent from each');
is(not_once(), 0, 'each phone gets it once');

# The same ones whatever the order, and after a restart.
$node->restart;
$twilio->set(reset => 1);
my $in_other_order =
  '["+15559990003", "+15559990001", "+15559990002", "+15559990001", null, "", "  "]';
run_campaign($node, campaign_from($in_other_order));
is_deeply({ sender_of() },
	\%sender, 'the same ones after a restart, in another order, with nulls and blanks');

# With one sender less only its phones have another sender.
$twilio->set(reset => 1);
run_campaign($node, campaign_from('["+15559990001", "+15559990002"]'));
my %two = sender_of();
my $changed = grep { $sender{$_} ne $senders[2] && $sender{$_} ne $two{$_} } keys %two;
is($changed, 0, 'with one sender less the others keep their phones');

# What the sender may be: what it is, JSON, the error, and from whom it is sent.
my $no_sender = qr/has neither "twilioFromSmsNumber" nor "twilioMessagingServiceSid"/;
my @sender_cases = (
	[ 'a number', '15559990001', qr/^$/, '15559990001' ],
	[ 'an empty array', '[]', $no_sender, '' ],
	[ 'blanks and nulls only', '[null, "", " \t"]', $no_sender, '' ],
	[ 'null', 'null', $no_sender, '' ]);
for my $case (@sender_cases)
{
	my ($what, $numbers, $error, $from) = @$case;
	$twilio->set(reset => 1);
	my $run = run_campaign($node, campaign_from($numbers, users => 1));
	like($run->{error}, $error, "the sender is $what: the error");
	is(join(' ', map { $_->{from} } $twilio->ledger),
		$from, "the sender is $what: who it is sent from");
}

my $service = 'MG00000000000000000000000000000001';
my $by_service = campaign_from('[null, " "]', users => 3);
sql($node, <<~SQL);
    UPDATE groups
    SET configuration = configuration || '{"twilioMessagingServiceSid": "$service"}'
    WHERE id = (SELECT max(id) FROM groups)
SQL
$twilio->set(reset => 1);
run_campaign($node, $by_service);
is_deeply(
	[ map { $_->{service} } $twilio->ledger ],
	[ ($service) x 3 ],
	'without a sender the messaging service is used');

# In doubt after a crash: a message is looked up by the sender that it was sent
# from, also where the group has others meanwhile.
for my $numbers ($three, '["+15559990002"]', '["+15559990009", "+15559990008"]')
{
	for my $taken (1, 0)
	{
		my $what = "now $numbers, " . ($taken ? 'taken' : 'not taken');
		my $campaign = campaign_from($three, users => 60, message => 'In doubt');
		$twilio->set('reset' => 1, 'hold-after' => $taken, 'hold' => 1);
		my $job = start_campaign($node, $campaign);
		wait_for_flight($twilio, 10);
		my %before = sender_of();
		kill_worker($node);
		$twilio->set('hold' => 0, 'hold-after' => 0);
		set_senders($campaign, $numbers);
		wait_until($node, 'SELECT sendcampaign.wake() >= 0');
		my $run = wait_for_run($node, $job);
		my %now = sender_of();
		my $phones = keys %{ $twilio->count_by_phone };
		my $not_once = not_once();
		is("$run->{sent} $run->{in_doubt}", '60 0', "$what: all are sent");
		is("$phones $not_once", '60 0', "$what: each once");
		is((grep { $now{$_} ne $before{$_} } keys %before),
			0, "$what: from the sender that was used before");
		is((grep { $now{$_} ne $sender{$_} } keys %now), 0, "$what: always the same")
		  if $numbers eq $three;
	}
}

# Each number has a rate of its own.
sql($node, 'ALTER ROLE app SET sendcampaign.segments_per_second = 25');

# The most messages of each sender that any second has seen, and those of a second on
# average of all senders.
sub rates_seen
{
	my @ledger = $twilio->ledger;
	my %most;
	for my $from (@senders)
	{
		my @times = map { $_->{time} / 1e6 } grep { $_->{from} eq $from } @ledger;
		for my $start (@times)
		{
			my $in_second = grep { $_ >= $start && $_ < $start + 1 } @times;
			$most{$from} = max($most{$from} // 0, $in_second);
		}
	}
	my @times = map { $_->{time} / 1e6 } @ledger;
	return (\%most, $#times / (max(@times) - min(@times)));
}

# Where the machine is busy, requests that left in time may arrive together: then they
# get another chance.
my ($most, $mean);
for (1 .. 3)
{
	wait_for_no_worker($node);
	$twilio->set(reset => 1);
	my $run = run_campaign($node, campaign_from($three, users => 300));
	is($run->{sent}, 300, 'a rate: all are sent');
	($most, $mean) = rates_seen();
	last if max(values %$most) <= 28 && $mean > 35;
}
cmp_ok($most->{$_}, '<=', 28, "$_: no second has more than its rate") for @senders;
cmp_ok($mean, '>', 35, 'together they are faster than one');
diag(sprintf '%.1f per second from three numbers of 25', $mean);
sql($node, 'ALTER ROLE app RESET sendcampaign.segments_per_second');
wait_for_no_worker($node);

# The queue of one sender is full: the others go on.
$twilio->set(reset => 1);
my $campaign = campaign_from($three, users => 3000);
my $preview = "SELECT phone, sender FROM sendcampaign.preview($campaign, NULL)";
my %plan = map { split /\|/ } split /\n/, sql($node, $preview, role => 'app');
my @full = grep { $plan{$_} eq $senders[0] } keys %plan;
while (my @part = splice @full, 0, 100)
{
	$twilio->set(map { ('to-fault' => "$_=code:21611") } @part);
}
my $job = start_campaign($node, $campaign);
my $others = grep { $_ ne $senders[0] } values %plan;
my $all_others_are_sent = sub { $twilio->stats->{accepted} == $others };
ok(poll($all_others_are_sent), 'one queue is full: the others send all they have')
  or diag($twilio->stats->{accepted} . " of $others");
is((grep { $_->{from} eq $senders[0] } $twilio->ledger), 0, 'and that one nothing');
is(run_row($node, $job)->{state}, 'running', 'the run goes on');
$twilio->set('fault' => 'none');
is(wait_for_run($node, $job)->{sent}, 3000, 'when it is not full any more all are sent');
is_deeply({ sender_of() }, \%plan, 'each from its own sender, as the preview says');
is(not_once(), 0, 'each once');
$node->stop;
done_testing();
