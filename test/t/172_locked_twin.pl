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
my $node = new_cluster('locked_twin', $twilio, conf => qq{
	sendcampaign.request_timeout = '3s'
	sendcampaign.lookup_delay = 0
});
sub sql { my $sql = shift; return $node->safe_psql('postgres', $sql); }

# Two messages to one phone are under way: the first one's request is lost, and
# the outcome of the second one cannot be recorded for a while.
sub lose_first
{
	my ($name, $first, $second, $lock, @runs) = @_;
	my $lock_session = $node->background_psql('postgres');
	$lock_session->query_safe("BEGIN; $lock");
	$twilio->set(reset => 1, 'fault:drop-before' => '#1');
	sql($first);
	poll(sub { $twilio->stats->{requests} > 0 }) or diag('no request');
	sql($second);
	poll(sub { $twilio->stats->{lists} > 0 }) or diag('no look-up');
	poll(sub { sql("SELECT state = 'completed' FROM sendcampaign.run WHERE $runs[0]") eq 't' }, 2); # as it must not
	$lock_session->quit;
	poll_in_company($node, $twilio, sub { sql("SELECT bool_and(state = 'completed') FROM sendcampaign.run WHERE $runs[0] OR $runs[1]") eq 't' });
	is($twilio->stats->{accepted}, 2, "$name: Twilio has taken both");
	is(sql("SELECT sum(sent), sum(in_doubt) FROM sendcampaign.run WHERE $runs[0] OR $runs[1]"), '2|0', "$name: both are recorded as sent");
	is(sql("SELECT count(DISTINCT sid) FROM sendcampaign.message_data m JOIN sendcampaign.run r ON r.id = m.run_id WHERE ($runs[0] OR $runs[1])"), 2, "$name: each with its SID");
}

sub send_as { return "SET ROLE $_[1]; SET sendcampaign.schema = $_[0]; SELECT send_campaign(1)"; }

# The same text to the same phone, without a link.
my @same = map { create_campaign($node, users => 1, message => 'The same', base_url => undef) } 1 .. 2;
lose_first('same text', "SET ROLE app; SELECT send_campaign($same[0])", "SET ROLE app; SELECT send_campaign($same[1])",
	"SELECT FROM ac_list_users WHERE ac_list_id = (SELECT ac_list_id FROM ac_campaigns WHERE id = $same[1]) FOR UPDATE;",
	map { "(campaign_id = $_ AND schema = 'public')" } @same);

# Tenants whose campaigns have the same number and the same base URL.
make_tenant($node, $_, role => 'app') for qw(north south);
lose_first('same link', send_as('north', 'app'), send_as('south', 'app'), 'SELECT FROM south.ac_list_users FOR UPDATE;',
	"schema = 'north'", "schema = 'south'");
$node->stop;
done_testing();
