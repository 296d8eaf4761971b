# What each of Twilio's error codes does to the message and to the run.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../perl";
use Campaign;
use LocalTwilio;
use Test::More;

my @stop = qw(20003 20005 20006 20403 20404 20008 21212 21219 21601 21603 21606 21608 21609 21624
  21654 21655 21659 21701 21704 21705 21910 30002 30032 30033 30034 30035 63001 63007 63008 63020
  63027 63038 572002 572006);
my @recipient = qw(21211 21214 21217 21265 21266 21421 21612 21614 21635 30004 30005 30006
  30007 30009 30010 30011 30012 30018 30019 30023 30024 30036 21610 21408 21703 63003 63015 63024
  63031 63032 63033);
my @text = qw(21602 21604 21617 21619 21620 21623 21656 35114 35115 35117 63005 63013
  63016 63021 63028 63030);
my @unknown = qw(21999 60200);
my @retry = qw(20429 20503 30003 30008 30017 30022 30410 30450 30453 63017);
my @queue_full = qw(21611 21730 30001 63018);
my @doubt = qw(20500);

my $twilio = LocalTwilio->start;
my $node = new_cluster('classes', $twilio, conf => <<~'CONF');
	sendcampaign.receipts = off
	sendcampaign.request_timeout = '3s'
	sendcampaign.lookup_delay = 0
	sendcampaign.max_attempts = 2
	CONF

# Sends a campaign whose first recipients get these codes, in their order.
# Returns its run, and its messages by the recipients' numbers: an array of
# status, code, attempts and error.
sub send_with_codes
{
	my ($users, @codes) = @_;
	my $campaign = create_campaign($node, users => $users);
	my @settings = ('reset' => 1, 'fault' => 'none');
	for my $i (0 .. $#codes)
	{
		push @settings, 'to-fault' => sprintf('+1555%07d=code:%d', $i + 1, $codes[$i]);
	}
	$twilio->set(@settings);
	my $run = run_campaign($node, $campaign);
	my $messages = sql($node, <<~"SQL");
		SELECT phone, status, error_code, attempts, error_message FROM sendcampaign.message
		WHERE job_id = $run->{job}
		SQL
	my %message;
	for my $line (split /\n/, $messages)
	{
		my ($phone, @columns) = split /\|/, $line, 5;
		my $number = substr($phone, 5) + 0;
		$message{$number} = \@columns;
	}
	return ($run, \%message);
}

# These are of one recipient: it fails, the others have the message.
my @codes = (@recipient, @text, @unknown);
my ($run, $message) = send_with_codes(60, @codes);
is( "$run->{state} $run->{sent} $run->{failed}",
	'completed ' . (60 - @codes) . ' ' . @codes,
	'codes of one recipient leave the others alone');
for my $i (0 .. $#codes)
{
	my ($status, $code, $attempts, $error) = @{ $message->{ $i + 1 } };
	is("$status|$code|$attempts", "failed|$codes[$i]|1", "$codes[$i] fails");
	like($error, qr/\w/, "$codes[$i] has a message");
}
is($twilio->stats->{lists}, 0, 'a refusal is no doubt');

# These may be gone later: tried again, in the end a failure with their name.
# A full queue of the sender slows its run down, so these have runs of their own.
for my $codes ([ @retry, @doubt ], map { [$_] } @queue_full)
{
	my $failed = @$codes;
	($run, $message) = send_with_codes(20, @$codes);
	is( "$run->{state} $run->{sent} $run->{failed}",
		'completed ' . (20 - $failed) . " $failed",
		"codes that may pass leave the others alone: @$codes");
	for my $i (0 .. $#$codes)
	{
		my $expected = $codes->[$i];
		my ($status, $code, $attempts, $error) = @{ $message->{ $i + 1 } };
		is("$status|$code|$attempts", "failed|$expected|2", "$expected is tried again");
		like($error, qr/^given up after 2 attempts: \w/,
			"$expected is a named failure in the end");
	}
	my $has_doubt = grep { $_ == 20500 } @$codes;
	is($twilio->stats->{lists} > 0, $has_doubt > 0, 'only 20500 is looked up');
}

# The same text for all: where all fail with it, the run stops.
my $text_is_refused =
	' It was refused for the first \d+ recipients\.'
  . " Change the campaign's message"
  . ' and call send_campaign\(\) with the same campaign and job\.';
for my $code (@text)
{
	($run) = send_with_codes(100, ($code) x 100);
	is($run->{state}, 'failed', "$code for all stops the run");
	like(
		$run->{error},
		qr/^Twilio refuses the text: $code \S.*\.$text_is_refused$/,
		"$code is named");
	cmp_ok($run->{failed}, '<', 100, "$code for all: not all are tried");
}

# These are of the account or the sender: they stop their run, and no other.
my (%campaign, %job);
$twilio->set('reset' => 1, 'fault' => 'none');
for my $code (@stop)
{
	my $campaign = $campaign{$code} = create_campaign($node, users => 3);
	my $list = list_of($campaign);
	my $phones = sql($node, <<~"SQL");
		UPDATE ac_list_users SET data = jsonb_build_object('sms', '+1666$code' || id)
		WHERE ac_list_id = $list
		RETURNING data->>'sms'
		SQL
	$twilio->set(map { ('to-fault' => "$_=code:$code") } split /\n/, $phones);
}
my $good = create_campaign($node, users => 300);
my $good_job = start_campaign($node, $good);
$job{$_} = start_campaign($node, $campaign{$_}) for @stop;
my $account_is_refused = " Fix the Twilio account or the group's configuration,"
  . ' and call send_campaign\(\) with the same campaign and job\.';
for my $code (@stop)
{
	my $run = wait_for_run($node, $job{$code});
	is($run->{state}, 'failed', "$code stops the run");
	like(
		$run->{error},
		qr/^Twilio refuses the account or sender: $code \S.*\.$account_is_refused$/,
		"$code is named");
	is("$run->{sent} $run->{failed} $run->{skipped} $run->{in_doubt}",
		'0 0 0 0', "$code fails no recipient");
}
sent_once($node, $twilio, $good, $good_job, 'a run beside them');

# Once the cause is gone, they go on.
$twilio->set('fault' => 'none');
start_campaign($node, $campaign{$_}, job => $job{$_}) for @stop;
for my $code (@stop)
{
	wait_for_run($node, $job{$code}, state => 'completed');
	sent_once($node, $twilio, $campaign{$code}, $job{$code}, "$code, once it is gone");
}

$node->stop;
done_testing();
