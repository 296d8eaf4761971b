# "Not found" in Twilio's list counts only where the list has shown a message
# that was sent later: with a list that lags, that is redacted, or that shows
# other links, nobody gets a message twice.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../perl";
use Campaign;
use List::Util qw(max);
use LocalTwilio;
use Test::More;

my $twilio = LocalTwilio->start;
my $node = new_cluster('freshness', $twilio, conf => <<~CONF);
	sendcampaign.receipts = off
	sendcampaign.request_timeout = '1s'
	sendcampaign.lookup_delay = '200ms'
	CONF

# Sends a new campaign while Twilio is set so, and waits for the end; returns its
# job.  Options: alone, and those of create_campaign().
sub run_with
{
	my ($set, %arg) = @_;
	my $campaign = create_campaign($node, users => 5, %arg);
	$twilio->set(
		'reset' => 1,
		'redact' => 0,
		'shorten-links' => 0,
		'list-lag' => 0,
		'sent-after' => 0,
		@$set);
	return run_campaign($node, $campaign, alone => $arg{alone})->{job};
}

# How many messages of a job have each status: "in_doubt 2 sent 3".
sub outcomes
{
	my $job = shift;
	return sql($node, <<~SQL);
		SELECT string_agg(status || ' ' || n, ' ' ORDER BY status)
		FROM (
		    SELECT status, count(*) AS n
		    FROM sendcampaign.message
		    WHERE job_id = $job
		    GROUP BY status
		) s
		SQL
}

# Why messages of a job are in doubt.
sub reasons
{
	my $job = shift;
	return sql($node, <<~SQL);
		SELECT DISTINCT error_message
		FROM sendcampaign.message
		WHERE job_id = $job AND status = 'in_doubt'
		SQL
}

my $begin = time;
my $job = run_with([ 'fault:drop-before' => '#2' ]);
# the pauses between them grow: one more for each of both where it takes twice as long
my $most = max(12, 6 + 2 * log(1 + time - $begin) / log 2);
is(outcomes($job), 'sent 5', 'not taken: sent again, once a later message is shown');
is($twilio->num_twice, 0, 'not taken: nobody has it twice');
cmp_ok($twilio->stats->{lists}, '<=', $most, 'not taken: a few lookups are enough');

# The list lags for longer than any lookup waits.
for my $base_url ('https://example.org/survey', undef)
{
	my $what = defined $base_url ? 'with a link' : 'without a link';
	$job = run_with(
		[ 'fault:drop-after' => '#2', 'fault:drop-before' => '#1', 'list-lag' => 4000 ],
		base_url => $base_url,
		message => "Lag $what");
	is(outcomes($job), 'sent 5', "the list lags, $what: all are sent");
	is($twilio->num_twice, 0, '... and nobody has it twice');
}

# Redaction: nothing can be told.
my $redaction = "Twilio's list shows messages without their text or number:"
  . ' message redaction is on for the account';
my $nothing_later = 'shows neither this message nor any sent later';
set_and_reload($node, 'sendcampaign.lookup_timeout', '3s');
for my $mode ([ 1, 0 ], [ 'hide', 0 ], [ 1, 300 ], [ 'hide', 300 ])
{
	my ($redact, $sent_after) = @$mode;
	for my $fault ('drop-after', 'drop-before')
	{
		$job =
		  run_with([ "fault:$fault" => '#2', 'redact' => $redact, 'sent-after' => $sent_after ],
			alone => 1);
		is( outcomes($job),
			'in_doubt 2 sent 3',
			"redact=$redact, after $sent_after ms, $fault: two stay in doubt");
		is($twilio->num_twice, 0, '... and nobody has it twice');
		like(reasons($job), qr/$redaction/, '... with the reason')
		  if $redact eq '1' && $fault eq 'drop-after';
		like(reasons($job), qr/message redaction|$nothing_later/, '... with a reason');
	}
}

# Link shortening, likewise
my $shortening = "Twilio's list shows texts with other links:"
  . ' link shortening is on for the account or Messaging Service';
for my $fault ('drop-after', 'drop-before')
{
	$job = run_with([ "fault:$fault" => '#2', 'shorten-links' => 1 ], alone => 1);
	is(outcomes($job), 'in_doubt 2 sent 3', "links are shortened, $fault: two stay in doubt");
	is($twilio->num_twice, 0, '... and nobody has it twice');
	like(reasons($job), qr/$shortening/, '... with the reason') if $fault eq 'drop-after';
}

# Nothing is sent later.
$job = run_with([ 'fault:drop-before' => '#1' ], users => 1, alone => 1);
is(outcomes($job), 'in_doubt 1', 'one recipient, and nothing later: in doubt');
like(reasons($job), qr/Twilio's list $nothing_later/, '... with the reason');
like(run_row($node, $job)->{error}, qr/^1 of 1 message in doubt: /, '... and the run says so');

# ... until something is.
set_and_reload($node, 'sendcampaign.lookup_timeout', '120s');
$job = run_with([ 'fault:drop-before' => '#1' ], users => 1);
is(outcomes($job), 'sent 1', 'one recipient, and others later: sent');

# A list that does not show sent messages yet says nothing of redaction.
$job = run_with([ 'fault:drop-before' => '#1', 'sent-after' => 3000 ], users => 3);
is(outcomes($job), 'sent 3', 'messages are queued at Twilio for a while: sent in the end');

# A person may decide.
set_and_reload($node, 'sendcampaign.resend_lost', 'off');
$job = run_with([ 'fault:drop-before' => '#2', 'fault:drop-after' => '#1' ]);
is(outcomes($job), 'in_doubt 2 sent 3', 'resend_lost is off: what was not taken stays in doubt');
like(
	reasons($job),
	qr/Twilio's list does not have it, and sendcampaign\.resend_lost is off/,
	'... with the reason');

$node->stop;
done_testing();
