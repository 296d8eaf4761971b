# What each of Twilio's error codes does to the message and to the run.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../perl";
use Campaign;
use LocalTwilio;
use Test::More;

my @stop = qw(20003 20005 20006 20403 20404 20008 21212 21219 21601 21603 21606 21608 21609 21624
  21659 21701 21704 21705 21910 30002 30032 30033 30034);
my @recipient = qw(21211 21214 21217 21265 21266 21421 21612 21614 21635 30004 30005 30006
  21610 21408 21703);
my @text = qw(21602 21604 21617 21619 21620 21623 35114 35115 35117);
my @unknown = qw(21999 60200);
my @retry = qw(20429 20503 30003 30008 30017 30022 30410 30450 30453);
my @queue_full = qw(21611 21730 30001);
my @doubt = qw(20500);

my $twilio = LocalTwilio->start;
my $node = new_cluster('classes', $twilio, conf => qq{
	sendcampaign.request_timeout = '1s'
	sendcampaign.lookup_delay = 0
	sendcampaign.max_attempts = 2
});

# The first recipients of a campaign get these codes, in their order.
sub send_with_codes
{
	my ($users, @codes) = @_;
	my $campaign = create_campaign($node, users => $users);
	$twilio->set('reset' => 1, 'fault' => 'none',
		map { ('to-fault' => sprintf('+1555%07d=code:%d', $_ + 1, $codes[$_])) } 0 .. $#codes);
	my $job = start_campaign($node, $campaign);
	my $run = wait_for_run($node, $job);
	my %row = map { my ($phone, @row) = split /\|/, $_, 5; (substr($phone, 5) + 0 => \@row) }
	  split /\n/, $node->safe_psql('postgres', qq{
		SELECT phone, status, error_code, attempts, error_message FROM sendcampaign.message WHERE job_id = $job});
	return ($run, \%row, $job, $campaign);
}

# These are of one recipient: it fails, the others have the message.
my @codes = (@recipient, @text, @unknown);
my ($run, $row) = send_with_codes(50, @codes);
is("$run->{state} $run->{sent} $run->{failed}", 'completed ' . (50 - @codes) . ' ' . @codes,
	'codes of one recipient leave the others alone');
for my $i (0 .. $#codes)
{
	is(join('|', @{ $row->{ $i + 1 } }[0 .. 2]), "failed|$codes[$i]|1", "$codes[$i] fails");
	like($row->{ $i + 1 }[3], qr/\w/, "$codes[$i] has a message");
}
is($twilio->stats->{lists}, 0, 'a refusal is no doubt');

# These may be gone later: tried again, in the end a failure with their name.
# A full queue of the sender slows its run down, so these have runs of their own.
for my $codes ([ @retry, @doubt ], map { [$_] } @queue_full)
{
	my $failed = @$codes;
	($run, $row) = send_with_codes(20, @$codes);
	is("$run->{state} $run->{sent} $run->{failed}", 'completed ' . (20 - $failed) . " $failed",
		"codes that may pass leave the others alone: @$codes");
	for my $i (0 .. $#$codes)
	{
		my ($code, $message) = ($codes->[$i], $row->{ $i + 1 });
		is(join('|', @$message[0 .. 2]), "failed|$code|2", "$code is tried again");
		like($message->[3], qr/given up after 2 attempts/, "$code is a named failure in the end");
	}
	is($twilio->stats->{lists} > 0, scalar grep({ $_ == 20500 } @$codes) > 0, 'only 20500 is looked up');
}

# The same text for all: where all fail with it, the run stops.
my ($job, $campaign);
for my $code (@text)
{
	($run, $row, $job, $campaign) = send_with_codes(100, ($code) x 100);
	is($run->{state}, 'failed', "$code for all stops the run");
	like($run->{error}, qr/refuses the text: $code\b/, "$code is named");
	cmp_ok($run->{failed}, '<', 100, "$code for all: not all are tried");
}

# These are of the account or the sender: they stop their run, and no other.
my %run_of;
$twilio->set('reset' => 1, 'fault' => 'none');
for my $code (@stop)
{
	my $campaign = create_campaign($node, users => 3);
	$node->safe_psql('postgres', qq{UPDATE ac_list_users SET data = jsonb_build_object('sms', '+1666$code' || id)
		WHERE ac_list_id = (SELECT ac_list_id FROM ac_campaigns WHERE id = $campaign)});
	my @phones = split /\n/, $node->safe_psql('postgres', qq{SELECT data->>'sms' FROM ac_list_users
		WHERE ac_list_id = (SELECT ac_list_id FROM ac_campaigns WHERE id = $campaign)});
	$twilio->set(map { ('to-fault' => "$_=code:$code") } @phones);
	$run_of{$code} = { campaign => $campaign };
}
my $good = create_campaign($node, users => 300);
my $good_job = start_campaign($node, $good);
$_->{job} = start_campaign($node, $_->{campaign}) for values %run_of;
for my $code (@stop)
{
	my $run = wait_for_run($node, $run_of{$code}{job});
	is($run->{state}, 'failed', "$code stops the run");
	like($run->{error}, qr/refuses the account or sender: $code\b/, "$code is named");
	is("$run->{sent} $run->{failed} $run->{skipped} $run->{in_doubt}", '0 0 0 0', "$code fails no recipient");
}
sent_once($node, $twilio, $good, $good_job, 'a run beside them');

# Mended, they go on.
$twilio->set('fault' => 'none');
start_campaign($node, $_->{campaign}, job => $_->{job}) for values %run_of;
for my $code (@stop)
{
	wait_for_run($node, $run_of{$code}{job}, state => 'completed');
	sent_once($node, $twilio, $run_of{$code}{campaign}, $run_of{$code}{job}, "$code, mended");
}

$node->stop;
done_testing();
