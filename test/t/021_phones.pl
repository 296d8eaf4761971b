# Phones: put right where that is safe, else skipped with the reason; the
# others are sent.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../perl";
use Campaign;
use LocalTwilio;
use PostgreSQL::Test::Utils;
use Test::More;

my $twilio = LocalTwilio->start;
my $node = new_cluster('phones', $twilio, init => { extra => [ '--encoding=UTF8', '--locale=C' ] });

my $form = 'phone number is not in E.164 form';
my $none = 'no phone number';

# in the list => the number it is sent to, or the reason why it is not; NULL
# and other JSON as they are written there
my @cases = (
	[ '"+15551230001"' => '+15551230001' ],
	[ '"+1 555 123 0002"' => '+15551230002' ],
	[ '"+1-555-123-0003"' => '+15551230003' ],
	[ '"+1.555.123.0004"' => '+15551230004' ],
	[ '"+1 (555) 123-0005"' => '+15551230005' ],
	[ '"0015551230006"' => '+15551230006' ],
	[ '"00 1 555 123 0007"' => '+15551230007' ],
	[ '"  +15551230008\n"' => '+15551230008' ],
	[ '"(+1) 555 1230009"' => '+15551230009' ],
	[ qq("+1\xc2\xa0555\xe2\x80\x91123\xe2\x80\x930010") => '+15551230010' ],
	[ '"+354 581 2345"' => '+3545812345' ],
	[ '"+123456789012345"' => '+123456789012345' ],
	[ '"15551230011"' => $form ],
	[ '15551230012' => $form ],
	[ '"5551230013"' => $form ],
	[ '"05551230014"' => $form ],
	[ '"+05551230015"' => $form ],
	[ '"+1555123A016"' => $form ],
	[ '"call me"' => $form ],
	[ '"+"' => $form ],
	[ '"00"' => $form ],
	[ '"+1+5551230017"' => $form ],
	[ '"+15551230018 ext 5"' => $form ],
	[ '"+1555123001\u0669"' => $form ],
	[ '"+1555123,0019"' => $form ],
	[ '"+1234567890123456"' => $form ],
	[ '"+' . '1' x 2000 . '"' => $form ],
	[ '"\'; DROP TABLE ac_list_users; --"' => $form ],
	[ '"whatsapp:+15551230020"' => $form ],
	[ '["+15551230021"]' => $form ],
	[ '{"n": "+15551230022"}' => $form ],
	[ 'true' => $form ],
	[ '""' => $none ],
	[ '"  \t "' => $none ],
	[ 'null' => $none ]);

my $campaign = create_campaign($node, users => @cases + 2);
for my $i (0 .. $#cases)
{
	(my $json = $cases[$i][0]) =~ s/'/''/g;
	$node->safe_psql('postgres', "UPDATE ac_list_users SET data = jsonb_set(data, '{sms}', '$json') WHERE id = $i + 1");
}
my @no_phone = (@cases + 1, @cases + 2);
$node->safe_psql('postgres', "UPDATE ac_list_users SET data = data - 'sms' WHERE id = $no_phone[0];
	UPDATE ac_list_users SET data = NULL WHERE id = $no_phone[1]");

my $job = start_campaign($node, $campaign);
my $run = wait_for_run($node, $job);
my $sent = grep { $_->[1] =~ /^\+/ } @cases;
is("$run->{state} $run->{sent} $run->{skipped} $run->{failed}", "completed $sent " . (@cases + 2 - $sent) . ' 0', 'sent and skipped');
my $count = $twilio->count_by_phone;
is(scalar(keys %$count), $sent, 'and nobody else is sent to');

for my $i (0 .. $#cases)
{
	my ($json, $expected) = @{ $cases[$i] };
	my $name = 'phone ' . substr $json, 0, 40;
	my $row = $node->safe_psql('postgres', qq{SELECT status, coalesce(error_message, phone), attempts
		FROM sendcampaign.message WHERE job_id = $job AND list_user_id = $i + 1});
	is($row, $expected =~ /^\+/ ? "sent|$expected|1" : "skipped|$expected|0", $name);
	is($count->{$expected}, 1, "$name: arrived") if $expected =~ /^\+/;
}
is($node->safe_psql('postgres', "SELECT DISTINCT status, error_message FROM sendcampaign.message WHERE list_user_id IN ($no_phone[0], $no_phone[1])"),
	"skipped|$none", 'no phone, or no data: skipped');
is($node->safe_psql('postgres', "SELECT phone FROM sendcampaign.message WHERE job_id = $job AND list_user_id = 15"),
	'5551230013', 'what is skipped is shown as it is in the list');
is($node->safe_psql('postgres', q{SELECT count(*) FROM ac_list_users WHERE data ? 'sentCount'}), $sent, 'those skipped are not counted');
is($node->safe_psql('postgres', "SELECT progress, error IS NULL, data->>'skipped' FROM ac_background_jobs WHERE id = $job"),
	'100|t|25', 'the job says how many');

wait_for_no_worker($node);
$node->stop;
done_testing();
