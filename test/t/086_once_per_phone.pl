# A phone number gets one message per run, however often and in whatever notation
# it is in the list.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";

use Campaign;
use LocalTwilio;
use PostgreSQL::Test::Utils;
use Test::More;

my $duplicate = 'duplicate: another list user has the same phone number';
my $form = 'phone number is not in E.164 form';
my $none = 'no phone number';
my $twilio = LocalTwilio->start;
my $node = new_cluster('once', $twilio, init => { extra => [ '--encoding=UTF8', '--locale=C' ] });

# A campaign to these phones, in this order; undef is none.
sub campaign_to
{
	my @phones = @_;
	my $campaign = create_campaign($node, users => scalar @phones);
	my @rows;
	for my $phone (@phones)
	{
		my $number = @rows + 1;
		my $value = defined $phone ? Campaign::quoted($phone) : 'NULL::text';
		push @rows, "($number, $value)";
	}
	my $rows = join ', ', @rows;
	sql($node, <<~SQL);
	    UPDATE ac_list_users u
	    SET data = jsonb_build_object('sms', v.phone)
	    FROM (VALUES $rows) v(n, phone),
	        (SELECT id, row_number() OVER (ORDER BY id) AS n
	        FROM ac_list_users
	        WHERE ac_list_id = (SELECT ac_list_id FROM ac_campaigns WHERE id = $campaign)) i
	    WHERE i.n = v.n AND u.id = i.id
	SQL
	return $campaign;
}

# How many phones have a message more than once.
sub not_once
{
	return scalar grep { $_ != 1 } values %{ $twilio->count_by_phone };
}

# Sends a campaign; for each recipient "sent", or why not, in their order.
sub outcomes
{
	my ($campaign, $name) = @_;
	$twilio->set(reset => 1);
	my $run = run_campaign($node, $campaign);
	my $sum = $run->{sent} + $run->{failed} + $run->{skipped};
	is("$run->{state} $run->{total}", "completed $sum", "$name: the counts add up");
	is(not_once(), 0, "$name: no phone has it twice");
	return split /\n/, sql($node, <<~SQL);
	    SELECT CASE status WHEN 'skipped' THEN error_message ELSE status END
	    FROM sendcampaign.message
	    WHERE job_id = $run->{job}
	    ORDER BY list_user_id
	SQL
}

# How often an outcome is among the first so many and among the others, as
# "first others".
sub counts_of
{
	my ($outcome, $first, @outcomes) = @_;
	my $in_first = grep { $_ eq $outcome } splice @outcomes, 0, $first;
	my $in_others = grep { $_ eq $outcome } @outcomes;
	return "$in_first $in_others";
}

my @notations = (
	'+15551230001', '+1 555 123 0001',
	'+1-555-123-0001', '+1.555.123.0001',
	'+1 (555) 123-0001', '0015551230001',
	'00 1 555 123 0001', "  +15551230001\n",
	"\t+1555\r1230001", '(+1)5551230001',
	'0-01 5551230001', "+1\xc2\xa0555\xe2\x80\x91123\xe2\x80\x930001");
my @first_only = ('sent', ($duplicate) x $#notations);
is_deeply([ outcomes(campaign_to(@notations), 'notations') ],
	\@first_only, 'notations: the first one gets it');
is_deeply([ outcomes(campaign_to(reverse @notations), 'backwards') ],
	\@first_only, 'backwards: the first one gets it');

# Pairs of a phone in the list and what becomes of it.
my @mixed = (
	[ '+15550000001', 'sent' ],
	[ '+15550000002', 'sent' ],
	[ '+15550000001', $duplicate ],
	[ '+15550000003', 'sent' ],
	[ '+15550000001', $duplicate ],
	[ '+15550000002', $duplicate ]);
is_deeply(
	[ outcomes(campaign_to(map { $_->[0] } @mixed), 'mixed') ],
	[ map { $_->[1] } @mixed ],
	'mixed: a phone that is there twice, and one that is there three times');
my @no_phones = (
	[ '5551234', $form ],
	[ '5551234', $form ],
	[ undef, $none ],
	[ undef, $none ],
	[ '', $none ],
	[ ' ', $none ],
	[ '15550000001', $form ],
	[ '+15550000001', 'sent' ],
	[ 'x', $form ],
	[ '+1555000000A', $form ],
	[ '+1555000000A', $form ]);
is_deeply(
	[ outcomes(campaign_to(map { $_->[0] } @no_phones), 'no phones') ],
	[ map { $_->[1] } @no_phones ],
	'what is no phone is no duplicate');
my @parts = ('+15550000001', '+155500000010', '+1555000000');
is_deeply(
	[ outcomes(campaign_to(@parts), 'parts') ],
	[ ('sent') x 3 ],
	'a part of a number is another number');

# Across batches.
my @many = map { sprintf '+1555%07d', $_ } 1 .. 700;
my @in_other_notation = map { s/^\+1/001-/r } @many;
my @outcomes = outcomes(campaign_to(@many, @in_other_notation, @many[ 0 .. 99 ]), 'batches');
is(counts_of('sent', 700, @outcomes), '700 0', 'batches: the first ones get it');
is((grep { $_ eq $duplicate } @outcomes), 800, 'batches: the others are duplicates');
@outcomes = outcomes(campaign_to(('+15550000001') x 1000), 'a thousand times');
is_deeply(
	[ @outcomes[ 0, 1, 255, 256, 999 ], scalar @outcomes ],
	[ 'sent', ($duplicate) x 4, 1000 ],
	'one phone a thousand times');

# The first one fails or is skipped.
$twilio->set('to-fault' => '+15550000001=code:21610');
@outcomes = outcomes(campaign_to('+15550000001', '+1 555 0000001', '+15550000002'), 'failing');
is_deeply(
	\@outcomes,
	[ 'failed', $duplicate, 'sent' ],
	'where the first one fails the other is not tried');
sql($node, "SELECT sendcampaign.opt_out('+15559990011')", role => 'app');
@outcomes = outcomes(campaign_to('+15559990011', '+1 555 9990011'), 'opted out');
is_deeply(
	\@outcomes,
	[ 'opted out', 'opted out' ],
	'where the first one has opted out the other has, too');
$twilio->set('to-fault' => '+15550000001=none');

# Each of two runs may send it to the same phone.
for my $campaign (map { campaign_to('+15550000009', '0015550000009') } 1 .. 2)
{
	is_deeply(
		[ outcomes($campaign, 'one of two runs') ],
		[ 'sent', $duplicate ],
		'one of two runs');
}

# Lost answers, a worker that leaves, and a rate: the phone gets it once.
$twilio->set('fault:drop-after' => 10, 'fault:drop-before' => 10);
set_and_reload($node, 'sendcampaign.request_timeout', '1s');
set_and_reload($node, 'sendcampaign.lookup_delay', '0');
my @hundred = @many[ 0 .. 99 ];
@outcomes = outcomes(campaign_to(@hundred, @hundred), 'in doubt');
is(counts_of($duplicate, 100, @outcomes), '0 100', 'in doubt: the same ones get it');

$twilio->set('fault:drop-after' => 0, 'fault:drop-before' => 0, reset => 1, hold => 1);
my @three_hundred = @many[ 0 .. 299 ];
my $job = start_campaign($node, campaign_to(@three_hundred, @three_hundred));
wait_for_flight($twilio, 5);
sql($node, "SELECT pg_terminate_backend($_)") for worker_pids($node);
wait_for_no_worker($node);
$twilio->set(hold => 0);
sql($node, 'SELECT sendcampaign.wake()');
my $run = wait_for_run($node, $job);
is("$run->{sent} $run->{skipped}",
	'300 300', 'the worker leaves: the others are still duplicates');
is(not_once(), 0, 'the worker leaves: nobody has it twice');

my @forty = @many[ 0 .. 39 ];
my $slow = campaign_to(@forty, @forty);
sql($node, <<~'SQL');
    UPDATE groups SET configuration = configuration || '{"twilioSegmentsPerSecond": 40}'
SQL
@outcomes = outcomes($slow, 'a rate');
is(counts_of($duplicate, 40, @outcomes),
	'0 40', 'a rate: batches are cut, and duplicates are still duplicates');

# A column of the application, of a type of its own.
sql($node, 'ALTER TABLE ac_list_users ADD sms varchar(40)');
my $columns = create_campaign($node, users => 4);
sql($node, <<~SQL);
    UPDATE ac_list_users
    SET sms = CASE id % 2 WHEN 0 THEN '+15550000001' ELSE '+1 555 000 0001' END
    WHERE ac_list_id = (SELECT ac_list_id FROM ac_campaigns WHERE id = $columns)
SQL
is_deeply(
	[ outcomes($columns, 'a column') ],
	[ 'sent', ($duplicate) x 3 ],
	'the phones are in a column');
wait_for_no_worker($node);
is(worker_errors($node), '', 'no worker complains');
$node->stop;
done_testing();
