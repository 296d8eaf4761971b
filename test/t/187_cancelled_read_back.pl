# After lost commits, a recipient who may have been sent to is not skipped when
# the run is cancelled, though what Twilio's list has may be another run's.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../perl";
use Campaign;
use LocalTwilio;
use Test::More;

my $twilio = LocalTwilio->start;
my $node = new_cluster('cancelled_read_back', $twilio, conf => <<~'CONF');
	sendcampaign.request_timeout = '30s'
	sendcampaign.lookup_delay = 0
	sendcampaign.lookup_timeout = '1s'
	CONF

sub send_as
{
	my $tenant = shift;
	sql($node, "SET sendcampaign.schema = $tenant; SELECT send_campaign(1)", role => $tenant);
}

# The state of that run, and its counts
sub state_of
{
	my $tenant = shift;
	my $run = run_of_tenant($tenant);
	return sql($node, <<~SQL);
		SELECT concat_ws(' ', state,
		    sent || ' sent', skipped || ' skipped', in_doubt || ' in doubt')
		FROM sendcampaign.run
		WHERE id = $run
		SQL
}

# The first one's run is not known to have been sent, and is cancelled, while the
# second one has a message to the same phone under way.  Its recipient may have been
# put off until a time (as SQL).  Returns the state that the first one comes to.
sub cancel_beside
{
	my ($first, $second, $due) = @_;
	$due //= 'NULL';
	my $run = run_of_tenant($first);
	$twilio->set(hold => 1);
	send_as($second);
	wait_for_flight($twilio, 1);
	sql($node, <<~SQL);
		UPDATE sendcampaign.run_data
		SET sent = 0, failed = 0, state = 'cancelled', finished_at = NULL, timeline = '0/0'
		WHERE id = $run;
		INSERT INTO sendcampaign.batch (run_id, number, list_user_ids, due)
		SELECT run_id, 1, array_agg(list_user_id), $due
		FROM sendcampaign.message_data
		WHERE run_id = $run
		GROUP BY 1;
		DELETE FROM sendcampaign.message_data WHERE run_id = $run;
		ALTER SYSTEM SET sendcampaign.request_timeout = '2s';
		SQL
	$node->reload;
	sql($node, 'SELECT sendcampaign.wake()');
	my $ended = "SELECT finished_at IS NOT NULL FROM sendcampaign.run WHERE id = $run";
	poll(sub { sql($node, $ended) eq 't' });
	my $state = state_of($first);
	$twilio->set(hold => 0);
	sql($node, 'ALTER SYSTEM RESET ALL');
	$node->reload;
	poll(sub { state_of($second) =~ /^completed/ });
	return $state;
}

# The base URLs of both, and what becomes of the first one's message
my @cases = (
	{
		name => 'links of their own',
		base_urls => [ 'https://example.org/a', 'https://example.org/b' ],
		counts => '1 sent 0 skipped 0 in doubt'
	},
	{
		name => 'put off',
		base_urls => [ 'https://example.org/c', 'https://example.org/d' ],
		due => "now() + interval '1 day'",
		counts => '1 sent 0 skipped 0 in doubt'
	},
	{
		name => 'the same link',
		base_urls => [ 'https://example.org', 'https://example.org' ],
		counts => '0 sent 0 skipped 1 in doubt'
	},
	{
		name => 'the same text',
		base_urls => [ undef, undef ],
		counts => '0 sent 0 skipped 1 in doubt'
	});
# Which of the two is a matter of time: whether the list had been read when the
# run was cancelled.
my $lost = 'commits that may have recorded it were lost;';
my $found =
	"Twilio's list has a message that may be this one,"
  . ' and the run was cancelled before that was known';
my $of_another =
  "Twilio's list has a message that may be another run's," . ' whose outcome is not known yet';
for my $case (@cases)
{
	my $name = $case->{name};
	my @tenants = map { "t$_" . ($name =~ s/\W//gr) } 1, 2;
	for my $i (0, 1)
	{
		make_tenant(
			$node, $tenants[$i],
			message => 'Hello',
			base_url => $case->{base_urls}[$i]);
	}
	send_as($tenants[0]);
	poll(sub { state_of($tenants[0]) =~ /^completed 1 sent/ });
	is( cancel_beside(@tenants, $case->{due}),
		"cancelled $case->{counts}",
		"$name: the recipient was sent to");
	next if $case->{counts} !~ /1 in doubt/;
	my $run = run_of_tenant($tenants[0]);
	like(sql($node, <<~SQL), qr/^$lost (?:$found|$of_another)$/, '... with the reason');
		SELECT error_message
		FROM sendcampaign.message_data
		WHERE status = 'in_doubt' AND run_id = $run
		SQL
}

# Nothing was sent: that is known.
make_tenant($node, $_, base_url => "https://example.org/$_") for qw(refused other);
$twilio->set('fault:code:21211' => '#1', reset => 1);
send_as('refused');
poll(sub { state_of('refused') =~ /^completed/ });
like(
	cancel_beside('refused', 'other'),
	qr/^cancelled 0 sent 1 skipped 0 in doubt/,
	'a recipient who was not sent to is skipped');
$node->stop;
done_testing();
