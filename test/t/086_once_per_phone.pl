# A phone gets one message a run, however often and in whatever notation it is
# in the list.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../perl";
use Campaign;
use LocalTwilio;
use PostgreSQL::Test::Utils;
use Test::More;

my $duplicate = 'duplicate: an earlier list user has the same phone';
my $form = 'phone number is not in E.164 form';
my $twilio = LocalTwilio->start;
my $node = new_cluster('once', $twilio, init => { extra => [ '--encoding=UTF8', '--locale=C' ] });

# A campaign to these phones, in this order; undef is none.
sub campaign_to
{
	my @phones = @_;
	my $campaign = create_campaign($node, users => scalar @phones);
	my $n = 0;
	my $rows = join ', ', map { '(' . ++$n . ', ' . (defined $_ ? Campaign::quoted($_) : 'NULL::text') . ')' } @phones;
	$node->safe_psql('postgres', qq{UPDATE ac_list_users u SET data = jsonb_build_object('sms', v.phone)
		FROM (VALUES $rows) v(n, phone), (SELECT id, row_number() OVER (ORDER BY id) AS n FROM ac_list_users
			WHERE ac_list_id = (SELECT ac_list_id FROM ac_campaigns WHERE id = $campaign)) i
		WHERE i.n = v.n AND u.id = i.id});
	return $campaign;
}

# "sent", or why not, of each, in their order; they add up.
sub outcomes
{
	my ($campaign, $name) = @_;
	$twilio->set(reset => 1);
	my $job = start_campaign($node, $campaign);
	my $run = wait_for_run($node, $job);
	is("$run->{state} $run->{total}", 'completed ' . ($run->{sent} + $run->{failed} + $run->{skipped}), "$name: the counts add up");
	is((grep { $_ != 1 } values %{ $twilio->count_by_phone }), 0, "$name: no phone has it twice");
	return split /\n/, $node->safe_psql('postgres', qq{SELECT CASE status WHEN 'skipped' THEN error_message ELSE status END
		FROM sendcampaign.message WHERE job_id = $job ORDER BY list_user_id});
}

my @notations = ('+15551230001', '+1 555 123 0001', '+1-555-123-0001', '+1.555.123.0001', '+1 (555) 123-0001', '0015551230001',
	'00 1 555 123 0001', "  +15551230001\n", "\t+1555\r1230001", '(+1)5551230001', '0-01 5551230001', "+1\xc2\xa0555\xe2\x80\x91123\xe2\x80\x930001");
is_deeply([ outcomes(campaign_to(@notations), 'notations') ], [ 'sent', ($duplicate) x $#notations ], 'notations: the first one has it');
is_deeply([ outcomes(campaign_to(reverse @notations), 'backwards') ], [ 'sent', ($duplicate) x $#notations ], 'backwards: the first one has it');
is_deeply([ outcomes(campaign_to('+15550000001', '+15550000002', '+15550000001', '+15550000003', '+15550000001', '+15550000002'), 'mixed') ],
	[ 'sent', 'sent', $duplicate, 'sent', $duplicate, $duplicate ], 'two and three the same');
is_deeply([ outcomes(campaign_to('5551234', '5551234', undef, undef, '', ' ', '15550000001', '+15550000001', 'x', '+1555000000A', '+1555000000A'), 'no phones') ],
	[ $form, $form, ('no phone number') x 4, $form, 'sent', $form, $form, $form ], 'what is no phone is no duplicate');
is_deeply([ outcomes(campaign_to('+15550000001', '+155500000010', '+1555000000'), 'parts') ], [ ('sent') x 3 ], 'a part of a number is another number');

# across batches
my @many = map { sprintf '+1555%07d', $_ } 1 .. 700;
my @outcomes = outcomes(campaign_to(@many, (map { s/^\+1/001-/r } @many), @many[0 .. 99]), 'batches');
is(join(' ', map { scalar grep { $_ eq 'sent' } @outcomes[ $_->[0] .. $_->[1] ] } [ 0, 699 ], [ 700, 1499 ]), '700 0', 'batches: the first ones have it');
is((grep { $_ eq $duplicate } @outcomes), 800, 'batches: the others are duplicates');
@outcomes = outcomes(campaign_to(('+15550000001') x 1000), 'a thousand times');
is_deeply([ @outcomes[0, 1, 255, 256, 999], scalar @outcomes ], [ 'sent', ($duplicate) x 4, 1000 ], 'one phone a thousand times');

# the first one fails or is skipped
$twilio->set('to-fault' => '+15550000001=code:21610');
is_deeply([ outcomes(campaign_to('+15550000001', '+1 555 0000001', '+15550000002'), 'failing') ], [ 'failed', $duplicate, 'sent' ], 'the first one fails: the other is not tried');
$node->safe_psql('postgres', "SET ROLE app; SELECT sendcampaign.opt_out('+15559990011')");
is_deeply([ outcomes(campaign_to('+15559990011', '+1 555 9990011'), 'opted out') ], [ 'opted out', 'opted out' ], 'the first one has opted out: the other has, too');
$twilio->set('to-fault' => '+15550000001=none');

# in two runs, each of them may have it
my @campaigns = map { campaign_to('+15550000009', '0015550000009') } 1 .. 2;
is_deeply([ outcomes($_, 'one of two runs') ], [ 'sent', $duplicate ], 'one of two runs') for @campaigns;

# lost answers, a worker that leaves, a rate: the phone has it once
$twilio->set('fault:drop-after' => 10, 'fault:drop-before' => 10);
set_and_reload($node, 'sendcampaign.request_timeout', '1s');
set_and_reload($node, 'sendcampaign.lookup_delay', '0');
@outcomes = outcomes(campaign_to(@many[0 .. 99], @many[0 .. 99]), 'in doubt');
is(join(' ', map { scalar grep { $_ eq $duplicate } @outcomes[ $_->[0] .. $_->[1] ] } [ 0, 99 ], [ 100, 199 ]), '0 100', 'in doubt: the same ones have it');
$twilio->set('fault:drop-after' => 0, 'fault:drop-before' => 0, reset => 1, hold => 1);
my $job = start_campaign($node, campaign_to(@many[0 .. 299], @many[0 .. 299]));
wait_for_flight($twilio, 5);
$node->safe_psql('postgres', "SELECT pg_terminate_backend($_)") for worker_pids($node);
wait_for_no_worker($node);
$twilio->set(hold => 0);
$node->safe_psql('postgres', 'SELECT sendcampaign.wake()');
my $run = wait_for_run($node, $job);
is("$run->{sent} $run->{skipped}", '300 300', 'a worker that leaves: the others are duplicates still');
is((grep { $_ != 1 } values %{ $twilio->count_by_phone }), 0, 'and nobody has it twice');
$node->safe_psql('postgres', q{UPDATE groups SET configuration = configuration || '{"twilioSegmentsPerSecond": 40}'});
my $slow = campaign_to(@many[0 .. 39], @many[0 .. 39]);
$node->safe_psql('postgres', q{UPDATE groups SET configuration = configuration || '{"twilioSegmentsPerSecond": 40}'});
@outcomes = outcomes($slow, 'a rate');
is(join(' ', map { scalar grep { $_ eq $duplicate } @outcomes[ $_->[0] .. $_->[1] ] } [ 0, 39 ], [ 40, 79 ]), '0 40', 'a rate: batches are cut, duplicates stay so');

# a column of the application, of a type of its own
$node->safe_psql('postgres', q{ALTER TABLE ac_list_users ADD sms varchar(40)});
my $columns = create_campaign($node, users => 4);
$node->safe_psql('postgres', qq{UPDATE ac_list_users SET sms = CASE id % 2 WHEN 0 THEN '+15550000001' ELSE '+1 555 000 0001' END
	WHERE ac_list_id = (SELECT ac_list_id FROM ac_campaigns WHERE id = $columns)});
is_deeply([ outcomes($columns, 'a column') ], [ 'sent', ($duplicate) x 3 ], 'a column');
wait_for_no_worker($node);
is(worker_errors($node), '', 'no worker complained');
$node->stop;
done_testing();
