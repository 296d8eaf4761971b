# Compares what the tables say with what the local Twilio accepted, which is
# the truth.
package Ledger;

use strict;
use warnings;

use Campaign;
use Exporter 'import';
use Test::More;

our @EXPORT = qw(is_exactly_once wrongs);

# Everything that is wrong with a run of texts with a link, as a list of lines;
# an empty list where each recipient has the message once, and the tables say so.
sub wrongs
{
	my ($node, $twilio, $job, %arg) = @_;
	my $db = $arg{db} || 'postgres';
	my @wrongs;
	my $run = run_row($node, $job, $db);
	my ($campaign, $list) = split /\|/, $node->safe_psql($db,
		"SELECT campaign_id, list_id FROM sendcampaign.run WHERE job_id = $job");

	my %accepted;
	for my $message ($twilio->ledger)
	{
		my ($user, $of) = $message->{body} =~ /yu=(\d+)&yc=(\d+)$/;
		push @{ $accepted{$user} }, $message->{sid} if defined $of && $of == $campaign;
	}
	my %sids = map { split /\|/, $_, 2 } split /\n/, $node->safe_psql($db,
		"SELECT list_user_id, status || ' ' || coalesce(sid, '') FROM sendcampaign.message WHERE job_id = $job");
	my %counts = map { split /\|/, $_, 2 } split /\n/, $node->safe_psql($db,
		"SELECT id, coalesce((data->>'sentCount')::int, 0) FROM ac_list_users WHERE ac_list_id = $list");

	for my $user (sort { $a <=> $b } keys %counts)
	{
		my @sids = @{ delete $accepted{$user} || [] };
		my $row = $sids{$user} // 'no row';
		push @wrongs, "DUPLICATE: list user $user has it as @sids" if @sids > 1;
		push @wrongs, "LOSS: list user $user has it not, its row says: $row" if @sids == 0;
		push @wrongs, "list user $user has it as @sids, its row says: $row"
		  if @sids == 1 && $row ne "sent $sids[0]";
		push @wrongs, "sentCount of list user $user is $counts{$user}" if $counts{$user} != @sids;
	}
	push @wrongs, map { "list user $_ is not in the list, but has it" } sort keys %accepted;

	my %by_status;
	$by_status{ (split / /)[0] }++ for values %sids;
	push @wrongs, "run is $run->{state} with error $run->{error}" if $run->{state} ne 'completed';
	push @wrongs, "run counts $run->{$_} $_" for grep { $run->{$_} != ($by_status{$_} // 0) } qw(sent failed skipped in_doubt);
	push @wrongs, "run has a total of $run->{total}" if $run->{total} != keys %counts;
	my $job_row = $node->safe_psql($db,
		"SELECT progress, data->>'sent' FROM ac_background_jobs WHERE id = $job");
	push @wrongs, "job has progress and count $job_row" if $job_row ne "100|$run->{sent}";
	for my $table (qw(claim batch))
	{
		my $left = $node->safe_psql($db, "SELECT count(*) FROM sendcampaign.$table WHERE job_id = $job");
		push @wrongs, "$left rows are left in sendcampaign.$table" if $left != 0;
	}
	return @wrongs;
}

# A test that each recipient of the run has its message exactly once.
sub is_exactly_once
{
	my ($node, $twilio, $job, $name, %arg) = @_;
	my @wrongs = wrongs($node, $twilio, $job, %arg);
	ok(!@wrongs, $name) and return 1;
	diag($_) for @wrongs > 12 ? (@wrongs[0 .. 11], 'and ' . (@wrongs - 12) . ' more') : @wrongs;
	return 0;
}

1;
