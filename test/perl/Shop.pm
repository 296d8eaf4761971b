# A role "shop" that may send, and a run of its own that meets with changes of
# the role.
#
#   my $shop = Shop->new('rights');
#   my ($campaign, $job) = $shop->start_held;
#   sql($shop->node, 'DROP ROLE shop');
#   $shop->fails_with(qr/does not exist/, 'dropped in mid-run');
package Shop;

use strict;
use warnings;

use Campaign;
use LocalTwilio;
use Test::More;

# A cluster of this name, with a local Twilio and the role.
sub new
{
	my ($class, $name) = @_;
	my $twilio = LocalTwilio->start;
	my $node = new_cluster($name, $twilio, conf => <<~'CONF');
		sendcampaign.request_timeout = '1s'
		sendcampaign.lookup_delay = '200ms'
		sendcampaign.receipts = off
		log_min_messages = debug1
		CONF
	my $self = bless { twilio => $twilio, node => $node }, $class;
	$self->create_role;
	return $self;
}

sub node { my $self = shift; return $self->{node}; }
sub twilio { my $self = shift; return $self->{twilio}; }

# Creates the role, at the start and once it has been dropped.
sub create_role
{
	my $self = shift;
	sql($self->{node}, <<~'SQL');
		CREATE ROLE shop LOGIN;
		GRANT USAGE ON SCHEMA sendcampaign TO shop;
		GRANT SELECT, INSERT, UPDATE ON ALL TABLES IN SCHEMA public TO shop;
		GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO shop;
		SQL
}

# A run with requests that wait for their answer; returns the campaign and the
# job, as start_queued() does.
sub start_held
{
	my $self = shift;
	my ($campaign, $job) =
	  hold_campaign($self->{node}, $self->{twilio}, users => 3000, role => 'shop');
	@$self{qw(campaign job)} = ($campaign, $job);
	return ($campaign, $job);
}

# A run whose worker cannot do anything before the role is changed.
sub start_queued
{
	my $self = shift;
	my $node = $self->{node};
	my $campaign = create_campaign($node, users => 30);
	$self->{twilio}->set(hold => 0, reset => 1);
	set_and_reload($node, 'sendcampaign.enabled', 'off');
	my $job = start_campaign($node, $campaign, role => 'shop');
	no_worker_is_to_come($node);
	@$self{qw(campaign job)} = ($campaign, $job);
	return ($campaign, $job);
}

# Switches sending on again after start_queued(), and calls wake().
sub switch_on
{
	my $self = shift;
	set_and_reload($self->{node}, 'sendcampaign.enabled', 'on');
	return wake($self->{node});
}

# Tests that the run of the last start fails for this reason.
sub fails_with
{
	my ($self, $reason, $name) = @_;
	my ($node, $twilio, $job) = @$self{qw(node twilio job)};
	$twilio->set(hold => 0);
	my $run = wait_for_run($node, $job);
	is($run->{state}, 'failed', "$name: the run fails");
	like($run->{error}, $reason, "$name: the run has the reason");
	ok(worker_is_gone($node, 20), "$name: the worker ends");
	my @accepted = $twilio->ledger;
	is(run_row($node, $job)->{sent}, scalar @accepted, "$name: what was sent is counted");
}

# Tests that the run goes on when it is called again.
sub goes_on
{
	my ($self, $name) = @_;
	my ($node, $twilio, $campaign, $job) = @$self{qw(node twilio campaign job)};
	start_campaign($node, $campaign, job => $job, role => 'shop');
	sent_once($node, $twilio, $campaign, $job, $name);
	ok(worker_is_gone($node, 20), "$name: the worker ends");
}

1;
