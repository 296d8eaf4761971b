# After lost commits, what Twilio's list has is not taken for a run's message where
# it is another role's, whose campaign and list user have the same ids.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../perl";
use Campaign;
use LocalTwilio;
use Test::More;

my $twilio = LocalTwilio->start;
my $node = new_cluster('twin_read_back', $twilio, conf => <<~'CONF');
	sendcampaign.request_timeout = '30s'
	sendcampaign.lookup_delay = 0
	sendcampaign.lookup_timeout = '1s'
	CONF

# The state of that run, and how many are sent and in doubt
sub state_of
{
	my $tenant = shift;
	my $run = run_of_tenant($tenant);
	return sql($node,
		"SELECT state || ' ' || sent || ' ' || in_doubt FROM sendcampaign.run WHERE id = $run");
}

sub wait_for_tenants
{
	my @tenants = @_;
	poll(sub {
		return !grep { state_of($_) !~ /completed/ } @tenants;
	});
}

# Sends a tenant's campaign, which ends in this state.
sub send_and_wait
{
	my ($tenant, $state) = @_;
	sql($node, "SET sendcampaign.schema = $tenant; SELECT send_campaign(1)", role => $tenant);
	wait_for_tenants($tenant);
	is(state_of($tenant), $state, "$tenant: $state");
}

# It is not known any more what these tenants have sent, as after commits that
# were lost.
sub lose
{
	my @tenants = @_;
	for my $tenant (@tenants)
	{
		my $run = run_of_tenant($tenant);
		sql($node, <<~SQL);
			UPDATE sendcampaign.run_data
			SET sent = 0, failed = 0, state = 'running', finished_at = NULL, timeline = '0/0'
			WHERE id = $run;
			INSERT INTO sendcampaign.batch (run_id, number, list_user_ids)
			SELECT run_id, 1, array_agg(list_user_id)
			FROM sendcampaign.message_data
			WHERE run_id = $run
			GROUP BY 1;
			DELETE FROM sendcampaign.message_data WHERE run_id = $run;
			SQL
	}
	# it takes this long until Twilio is asked
	set_and_reload($node, 'sendcampaign.request_timeout', '2s');
	sql($node, 'SELECT sendcampaign.wake()');
	wait_for_tenants(@tenants);
	set_and_reload($node, 'sendcampaign.request_timeout', '30s');
}

make_tenant($node, $_) for qw(rain snow fog frost);
$twilio->set(reset => 1, 'fault:code:21211' => '#1');
send_and_wait('rain', 'completed 0 0');
send_and_wait('snow', 'completed 1 0');
lose(qw(rain snow));

# Where the other one's is known again by then, this one is sent once more.
like(
	state_of('rain'),
	qr/^completed (0 1|1 0)$/,
	'Twilio has refused it: it is in doubt, or sent now');
is(state_of('snow'), 'completed 1 0', '... and the other one has its own');
my $accepted = $twilio->stats->{accepted};
is(sql($node, <<~'SQL'), $accepted, q{... each message of Twilio's is one recipient's});
	SELECT count(DISTINCT m.sid)
	FROM sendcampaign.run_data r
	JOIN sendcampaign.message_data m ON m.run_id = r.id
	WHERE r.schema IN ('rain', 'snow')
	SQL
is(sql($node, "SELECT sum(sent) FROM sendcampaign.run WHERE schema IN ('rain', 'snow')"),
	$accepted, '... and nobody is recorded as sent without one');

$twilio->set(reset => 1);
send_and_wait($_, 'completed 1 0') for qw(fog frost);
my $sids = <<~'SQL';
	SELECT string_agg(r.schema || ' ' || m.sid, ', ' ORDER BY r.id)
	FROM sendcampaign.run_data r
	JOIN sendcampaign.message_data m ON m.run_id = r.id
	WHERE r.schema IN ('fog', 'frost')
	SQL
my $before = sql($node, $sids);
lose(qw(fog frost));
is(sql($node, $sids), $before, 'Twilio has taken both: each has its own SID again');
is($twilio->stats->{accepted}, 2, '... and nothing is sent again');
$node->stop;
done_testing();
