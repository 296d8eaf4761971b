# Runs in all states, each in a database of its own with a Twilio of its own, named
# after the state; while an administrator replaces what they run on.
package MidRun;

use strict;
use warnings;

use Campaign;
use Exporter 'import';
use LocalTwilio;
use Test::More;

our @EXPORT = qw($patient_conf state_names make_states ended end_states all_sent_once call_in);

# Requests that are cut off are soon looked up, and a doubt is not given up.
our $patient_conf = <<~'CONF';
	max_worker_processes = 40
	sendcampaign.request_timeout = '2s'
	sendcampaign.lookup_delay = '200ms'
	sendcampaign.lookup_timeout = '10min'
	sendcampaign.max_concurrency = 20
	sendcampaign.receipts = off
	CONF

# So slow that the run lasts until end_states() lets it go on.
sub start_and_wait
{
	my ($node, $db, $twilio, $users) = @_;
	my $campaign = create_campaign($node, db => $db, users => $users);
	$twilio->set(latency => 400);
	my $job = start_campaign($node, $campaign, db => $db);
	wait_until($node, "SELECT sent > 20 FROM sendcampaign.run WHERE job_id = $job", db => $db);
	return ($campaign, $job);
}

# A function that the role "app" calls
sub call_in
{
	my ($node, $db, $call) = @_;
	return sql($node, "SELECT sendcampaign.$call", db => $db, role => 'app');
}

my @states = (
	{
		name => 'queued',
		make => sub {
			my ($node, $db, $twilio) = @_;
			sql($node, "ALTER DATABASE $db SET sendcampaign.enabled = off");
			my $campaign = create_campaign($node, db => $db, users => 100);
			my $job = start_campaign($node, $campaign, db => $db);
			return ($campaign, $job);
		},
		end => sub {
			my ($node, $db) = @_;
			sql($node, "ALTER DATABASE $db RESET sendcampaign.enabled");
			sql($node, 'SELECT sendcampaign.wake()', db => $db);
		}
	},
	{
		name => 'paused',
		make => sub {
			my ($node, $db, $twilio) = @_;
			my ($campaign, $job) = start_and_wait(@_, 1500);
			call_in($node, $db, "pause($job)");
			return ($campaign, $job);
		},
		end => sub {
			my ($node, $db, $twilio, $job) = @_;
			call_in($node, $db, "resume($job)");
		}
	},
	{
		name => 'held',
		make => sub {
			my ($node, $db, $twilio) = @_;
			my $campaign = create_campaign($node, db => $db, users => 200);
			$twilio->set(hold => 1);
			my $job = start_campaign($node, $campaign, db => $db);
			wait_for_flight($twilio, 20);
			return ($campaign, $job);
		},
		end => sub { $_[2]->set(hold => 0) }
	},
	{
		name => 'in_doubt',
		make => sub {
			my ($node, $db, $twilio) = @_;
			$twilio->set('fault:drop-after' => 30, 'fault:drop-before' => 10);
			$twilio->set('fault:list-500' => 100);
			my $campaign = create_campaign($node, db => $db, users => 200);
			my $job = start_campaign($node, $campaign, db => $db);
			wait_until($node,
				"SELECT sent + in_doubt > 20 FROM sendcampaign.run WHERE job_id = $job",
				db => $db);
			return ($campaign, $job);
		},
		end => sub { $_[2]->set(fault => 'none') }
	},
	{
		name => 'read_back',
		make => sub {
			my ($node, $db, $twilio) = @_;
			my ($campaign, $job) = start_and_wait(@_, 1500);
			call_in($node, $db, "pause($job)");
			wait_until($node, q{SELECT count(*) = 0 FROM sendcampaign.claim}, db => $db);
			$twilio->set('fault:list-500' => 100);
			sql($node, "UPDATE sendcampaign.run_data SET timeline = '9/lost'", db => $db);
			call_in($node, $db, "resume($job)");
			return ($campaign, $job);
		},
		end => sub { $_[2]->set(fault => 'none') }
	},
	{
		name => 'long_list',
		make => sub {
			my ($node, $db, $twilio) = @_;
			my $campaign = create_campaign($node, db => $db, users => 12000);
			$twilio->set(latency => 400);
			my $job = start_campaign($node, $campaign, db => $db);
			return ($campaign, $job);
		},
		end => sub { }
	},
	{ name => 'sending', make => sub { start_and_wait(@_, 5000) }, end => sub { } });

# Makes all states; returns the runs: [ state, Twilio, campaign, job ].
sub make_states
{
	my $node = shift;
	my @runs;
	for my $state (@states)
	{
		my $db = $state->{name};
		my $twilio = LocalTwilio->start;
		clone_database($node, $db, $twilio);
		push @runs, [ $state, $twilio, $state->{make}->($node, $db, $twilio) ];
	}
	return @runs;
}

sub state_names
{
	return map { $_->{name} } @states;
}

# The runs that have ended, although they should not have
sub ended
{
	my $node = shift;
	my $has_ended = 'SELECT count(*) > 0 FROM sendcampaign.run WHERE finished_at IS NOT NULL';
	return join ' ', grep { sql($node, $has_ended, db => $_) eq 't' } state_names();
}

sub end_states
{
	my ($node, @runs) = @_;
	for my $run (@runs)
	{
		my ($state, $twilio, undef, $job) = @$run;
		$twilio->set(latency => 0);
		$state->{end}->($node, $state->{name}, $twilio, $job);
	}
}

sub all_sent_once
{
	my ($node, $name, @runs) = @_;
	for my $run (@runs)
	{
		my ($state, $twilio, $campaign, $job) = @$run;
		sent_once($node, $twilio, $campaign, $job, "$name, $state->{name}", db => $state->{name});
	}
}

1;
