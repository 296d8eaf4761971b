# Phones: put right where that is safe, otherwise skipped with the reason; the
# others are sent.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../perl";
use Campaign;
use LocalTwilio;
use Test::More;

my $twilio = LocalTwilio->start;
my $node =
  new_cluster('phones', $twilio, init => { extra => [ '--encoding=UTF8', '--locale=C' ] });

my $form = 'phone number is not in E.164 form';
my $none = 'no phone number';

# As JSON, what is in the list => the number it is sent to, or the reason why it
# is skipped
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
	my $json = $cases[$i][0] =~ s/'/''/gr;
	sql($node, <<~"SQL");
		UPDATE ac_list_users SET data = jsonb_set(data, '{sms}', '$json') WHERE id = $i + 1
		SQL
}
my ($without_phone, $without_data) = (@cases + 1, @cases + 2);
sql($node, "UPDATE ac_list_users SET data = data - 'sms' WHERE id = $without_phone");
sql($node, "UPDATE ac_list_users SET data = NULL WHERE id = $without_data");

my $run = run_campaign($node, $campaign);
my $job = $run->{job};
my $sent = grep { $_->[1] =~ /^\+/ } @cases;
my $skipped = @cases + 2 - $sent;
is( "$run->{state} $run->{sent} $run->{skipped} $run->{failed}",
	"completed $sent $skipped 0",
	'good numbers are sent to, the others skipped');
my $count = $twilio->count_by_phone;
is(scalar(keys %$count), $sent, 'nobody else is sent to');

for my $i (0 .. $#cases)
{
	my ($json, $expected) = @{ $cases[$i] };
	my $is_sent = $expected =~ /^\+/;
	my $name = 'phone ' . substr $json, 0, 40;
	my $row = sql($node, <<~"SQL");
		SELECT status, coalesce(error_message, phone), attempts FROM sendcampaign.message
		WHERE job_id = $job AND list_user_id = $i + 1
		SQL
	is($row, $is_sent ? "sent|$expected|1" : "skipped|$expected|0", $name);
	is($count->{$expected}, 1, "$name: the message arrives") if $is_sent;
}
is(sql($node, <<~"SQL"), "skipped|$none", 'a list user without phone or data is skipped');
	SELECT DISTINCT status, error_message FROM sendcampaign.message
	WHERE list_user_id IN ($without_phone, $without_data)
	SQL
is(sql($node, <<~"SQL"), '5551230013', 'what is skipped is shown as it is in the list');
	SELECT phone FROM sendcampaign.message WHERE job_id = $job AND list_user_id = 15
	SQL
is(sql($node, "SELECT count(*) FROM ac_list_users WHERE data ? 'sentCount'"),
	$sent, 'what is skipped is not counted in sentCount');
is(job_row($node, $job, "progress, error IS NULL, data->>'skipped'"),
	'100|t|25', 'the job says how many are skipped');

wait_for_no_worker($node);
$node->stop;
done_testing();
