# After lost commits, what Twilio's list has is not taken for a run's message where
# it is another role's, whose campaign and list user have the same numbers.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../perl";
use Campaign;
use LocalTwilio;
use Test::More;

my $twilio = LocalTwilio->start;
my $node = new_cluster('twin_read_back', $twilio, conf => qq{
	sendcampaign.request_timeout = '2s'
	sendcampaign.lookup_delay = 0
	sendcampaign.lookup_timeout = '1s'
});
sub sql { my $sql = shift; return $node->safe_psql('postgres', $sql); }

sub send_as { return "SET ROLE $_[0]; SET sendcampaign.schema = $_[0]; SELECT send_campaign(1)"; }
sub run_of_tenant { return "(SELECT id FROM sendcampaign.run WHERE schema = '$_[0]' AND campaign_id = 1)"; }
sub state_of { return sql("SELECT state || ' ' || sent || ' ' || in_doubt FROM sendcampaign.run WHERE id = " . run_of_tenant(shift)); }

sub send_and_wait
{
	my ($tenant, $state) = @_;
	sql(send_as($tenant));
	poll(sub { state_of($tenant) =~ /completed/ });
	is(state_of($tenant), $state, "$tenant: $state");
}

# Nothing is known any more of what both have sent, as after commits that were lost.
sub lose
{
	for my $run (map { run_of_tenant($_) } @_)
	{
		sql(qq{UPDATE sendcampaign.run_data SET sent = 0, failed = 0, state = 'running', finished_at = NULL, timeline = '0/0' WHERE id = $run;
			INSERT INTO sendcampaign.batch (run_id, number, list_user_ids) SELECT run_id, 1, array_agg(list_user_id) FROM sendcampaign.message_data WHERE run_id = $run GROUP BY 1;
			DELETE FROM sendcampaign.message_data WHERE run_id = $run});
	}
	sql('SELECT sendcampaign.wake()');
	my @tenants = @_;
	poll(sub { !grep { state_of($_) !~ /completed/ } @tenants });
}

make_tenant($node, $_) for qw(rain snow fog frost);
$twilio->set(reset => 1, 'fault:code:21211' => '#1');
send_and_wait('rain', 'completed 0 0');
send_and_wait('snow', 'completed 1 0');
lose(qw(rain snow));

# Where the other one's is known again by then, this one is sent once more.
like(state_of('rain'), qr/^completed (0 1|1 0)$/, 'Twilio has refused it: in doubt, or sent now');
is(state_of('snow'), 'completed 1 0', '... and the other one has its own');
is(sql("SELECT count(DISTINCT m.sid) FROM sendcampaign.run_data r JOIN sendcampaign.message_data m ON m.run_id = r.id WHERE r.schema IN ('rain', 'snow')"),
	$twilio->stats->{accepted}, '... each message of Twilio\'s is one recipient\'s');
is(sql("SELECT sum(sent) FROM sendcampaign.run WHERE schema IN ('rain', 'snow')"), $twilio->stats->{accepted}, '... and nobody is recorded as sent without one');

$twilio->set(reset => 1);
send_and_wait($_, 'completed 1 0') for qw(fog frost);
my $sids = "SELECT string_agg(r.schema || ' ' || m.sid, ', ' ORDER BY r.id) FROM sendcampaign.run_data r JOIN sendcampaign.message_data m ON m.run_id = r.id WHERE r.schema IN ('fog', 'frost')";
my $before = sql($sids);
lose(qw(fog frost));
is(sql($sids), $before, 'Twilio has taken both: each has its own SID again');
is($twilio->stats->{accepted}, 2, '... and nothing is sent again');
$node->stop;
done_testing();
