# A role "shop" that may send, and a run of its that meets with changes of the role.
package Shop;

use strict;
use warnings;

use Campaign;
use Exporter 'import';
use LocalTwilio;
use Test::More;

our @EXPORT = qw($twilio $node $rights $campaign $job set_up_shop start_held start_queued wake fails_with goes_on);
our ($twilio, $node, $campaign, $job);
our $rights = q{
	GRANT USAGE ON SCHEMA sendcampaign TO shop;
	GRANT SELECT, INSERT, UPDATE ON ALL TABLES IN SCHEMA public TO shop;
	GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO shop;
};

sub set_up_shop
{
	$twilio = LocalTwilio->start;
	$node = new_cluster(shift, $twilio, conf => q{
		sendcampaign.request_timeout = '1s'
		sendcampaign.lookup_delay = '200ms'
	});
	$node->safe_psql('postgres', "CREATE ROLE shop LOGIN; $rights");
}

sub start_held { ($campaign, $job) = hold_campaign($node, $twilio, users => 3000, role => 'shop'); }

# A run whose worker cannot do anything before the role is changed
sub start_queued
{
	$campaign = create_campaign($node, users => 30);
	$twilio->set(hold => 0, reset => 1);
	set_and_reload($node, 'sendcampaign.enabled', 'off');
	$job = start_campaign($node, $campaign, role => 'shop');
	worker_is_gone($node, 20);
}

sub wake
{
	set_and_reload($node, 'sendcampaign.enabled', 'on');
	return $node->safe_psql('postgres', 'SELECT sendcampaign.wake()');
}

sub fails_with
{
	my ($reason, $name) = @_;
	$twilio->set(hold => 0);
	my $run = wait_for_run($node, $job);
	is($run->{state}, 'failed', "$name: the run fails");
	like($run->{error}, $reason, 'with the reason');
	ok(worker_is_gone($node, 20), 'the worker ends');
	is(run_row($node, $job)->{sent}, scalar(() = $twilio->ledger), 'what was sent is counted');
}

sub goes_on
{
	my ($name, $role) = @_;
	start_campaign($node, $campaign, job => $job, role => $role || 'shop');
	sent_once($node, $twilio, $campaign, $job, $name);
	ok(worker_is_gone($node, 20), 'the worker ends');
}

1;
