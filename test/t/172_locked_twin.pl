# What is found in Twilio's list is not the one in doubt where it is another
# message, which Twilio has taken and whose outcome waits for a lock.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../perl";
use Campaign;
use LocalTwilio;
use Test::More;

my $twilio = LocalTwilio->start;
my $node = new_cluster('locked_twin', $twilio, conf => <<~'CONF');
	sendcampaign.receipts = off
	sendcampaign.request_timeout = '3s'
	sendcampaign.lookup_delay = 0
	CONF

# Two messages to one phone are under way: the first one's request is lost, and
# the outcome of the second one cannot be recorded for a while.  Arguments: what
# sends both, what locks the second one's list users, and conditions for the runs.
sub lose_first
{
	my ($name, $first, $second, $lock, @runs) = @_;
	my $either = join ' OR ', map { "($_)" } @runs;
	my $lock_session = $node->background_psql('postgres');
	$lock_session->query_safe("BEGIN; $lock");
	$twilio->set(reset => 1, 'fault:drop-before' => '#1');
	sql($node, $first);
	poll(sub { $twilio->stats->{faults}{'drop-before'} }) or diag('no request');
	sql($node, $second);
	poll(sub { $twilio->stats->{lists} > 0 }) or diag('no lookup');

	# it must not complete now, which it is given time for
	my $first_is_completed = "SELECT state = 'completed' FROM sendcampaign.run WHERE $runs[0]";
	poll(sub { sql($node, $first_is_completed) eq 't' }, 2);
	$lock_session->quit;
	my $are_completed = "SELECT bool_and(state = 'completed') FROM sendcampaign.run WHERE $either";
	poll_in_company($node, $twilio, sub { sql($node, $are_completed) eq 't' });
	is($twilio->stats->{accepted}, 2, "$name: Twilio has taken both");
	is(sql($node, "SELECT sum(sent), sum(in_doubt) FROM sendcampaign.run WHERE $either"),
		'2|0', "$name: both are recorded as sent");
	is(sql($node, <<~SQL), 2, "$name: each with its SID");
		SELECT count(DISTINCT sid)
		FROM sendcampaign.message_data m
		JOIN sendcampaign.run r ON r.id = m.run_id
		WHERE $either
		SQL
}

# SQL that sends the campaign 1 of a schema
sub send_in
{
	my $schema = shift;
	return "SET ROLE app; SET sendcampaign.schema = $schema; SELECT send_campaign(1)";
}

# The same text to the same phone, without a link
my @same =
  map { create_campaign($node, users => 1, message => 'The same', base_url => undef) } 1 .. 2;
my $lock_list = <<~SQL;
	SELECT
	FROM ac_list_users
	WHERE ac_list_id = (SELECT ac_list_id FROM ac_campaigns WHERE id = $same[1])
	FOR UPDATE;
	SQL
lose_first(
	'same text',
	"SET ROLE app; SELECT send_campaign($same[0])",
	"SET ROLE app; SELECT send_campaign($same[1])",
	$lock_list, map { "campaign_id = $_ AND schema = 'public'" } @same);

# Tenants whose campaigns have the same number and the same base URL
make_tenant($node, $_, role => 'app') for qw(north south);
lose_first(
	'same link', send_in('north'), send_in('south'),
	'SELECT FROM south.ac_list_users FOR UPDATE;',
	"schema = 'north'",
	"schema = 'south'");
$node->stop;
done_testing();
