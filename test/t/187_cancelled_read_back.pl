# After lost commits, who may have been sent to is not skipped when the run is
# cancelled, though what Twilio's list has may be another run's.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../perl";
use Campaign;
use LocalTwilio;
use Test::More;

my $twilio = LocalTwilio->start;
my $node = new_cluster('cancelled_read_back', $twilio, conf => qq{
	sendcampaign.request_timeout = '30s'
	sendcampaign.lookup_delay = 0
	sendcampaign.lookup_timeout = '1s'
});
sub sql { my $sql = shift; return $node->safe_psql('postgres', $sql); }
sub send_as { return "SET ROLE $_[0]; SET sendcampaign.schema = $_[0]; SELECT send_campaign(1)"; }
sub run_of_tenant { return "(SELECT id FROM sendcampaign.run WHERE schema = '$_[0]' AND campaign_id = 1)"; }
sub state_of { return sql("SELECT concat_ws(' ', state, sent || ' sent', skipped || ' skipped', in_doubt || ' in doubt') FROM sendcampaign.run WHERE id = " . run_of_tenant(shift)); }

# The first one's run is not known to have been sent, and is cancelled, while the
# second one has a message to the same phone under way.
sub cancel_beside
{
	my ($first, $second) = @_;
	my $run = run_of_tenant($first);
	$twilio->set(hold => 1);
	sql(send_as($second));
	wait_for_flight($twilio, 1);
	sql(qq{UPDATE sendcampaign.run_data SET sent = 0, failed = 0, state = 'cancelled', finished_at = NULL, timeline = '0/0' WHERE id = $run;
		INSERT INTO sendcampaign.batch (run_id, number, list_user_ids) SELECT run_id, 1, array_agg(list_user_id) FROM sendcampaign.message_data WHERE run_id = $run GROUP BY 1;
		DELETE FROM sendcampaign.message_data WHERE run_id = $run;
		ALTER SYSTEM SET sendcampaign.request_timeout = '2s'});
	$node->reload;
	sql('SELECT sendcampaign.wake()');
	poll(sub { sql("SELECT finished_at IS NOT NULL FROM sendcampaign.run WHERE id = $run") eq 't' });
	my $state = state_of($first);
	$twilio->set(hold => 0);
	sql('ALTER SYSTEM RESET ALL');
	$node->reload;
	poll(sub { state_of($second) =~ /^completed/ });
	return $state;
}

for my $case ([ 'links of their own', 'https://example.org/a', 'https://example.org/b', '1 sent 0 skipped 0 in doubt' ],
	[ 'the same link', 'https://example.org', 'https://example.org', '0 sent 0 skipped 1 in doubt' ],
	[ 'the same text', undef, undef, '0 sent 0 skipped 1 in doubt' ])
{
	my ($name, $first_url, $second_url, $state) = @$case;
	my ($first, $second) = map { "t$_" . ($name =~ s/\W//gr) } 1, 2;
	make_tenant($node, $first, message => 'Hello', base_url => $first_url);
	make_tenant($node, $second, message => 'Hello', base_url => $second_url);
	sql(send_as($first));
	poll(sub { state_of($first) =~ /^completed 1 sent/ });
	is(cancel_beside($first, $second), "cancelled $state", "$name: the recipient was sent to");
}

# Nothing was sent: that is known.
make_tenant($node, $_, base_url => "https://example.org/$_") for qw(refused other);
$twilio->set('fault:code:21211' => '#1', reset => 1);
sql(send_as('refused'));
poll(sub { state_of('refused') =~ /^completed/ });
like(cancel_beside('refused', 'other'), qr/^cancelled 0 sent 1 skipped 0 in doubt/, 'who was not sent to is skipped');
$node->stop;
done_testing();
