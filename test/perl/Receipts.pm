# Reports of what became of messages, as Twilio's list or a callback would bring
# them, but stored at the will of a test: by the module test/modules/receipts.
package Receipts;

use strict;
use warnings;

use Campaign;
use Exporter 'import';
use Fcntl qw(:flock);
use FindBin;
use PostgreSQL::Test::Utils;

our @EXPORT = qw(install_receipts sids report report_early take_early close_receipts
  deliveries receipt_counts);

# The functions in a database, which a superuser may call.  report(job, ...)
# names the messages of a job by their place in the list, from 1 on.
sub install_receipts
{
	my ($node, $db) = @_;
	my $dir = "$FindBin::RealBin/../modules/receipts";
	# other tests that need it may be building it at this moment
	open my $makefile, '<', "$dir/Makefile" or die "could not open $dir/Makefile: $!";
	flock $makefile, LOCK_EX or die "could not lock $dir/Makefile: $!";
	system_or_bail('make', '-s', '-C', $dir, 'with_llvm=no');
	close $makefile;
	sql($node, <<~"SQL", db => $db);
		CREATE FUNCTION store_receipts(role oid, account text, schema text, group_id bigint,
		    reports jsonb, early boolean) RETURNS text
		    AS '$dir/receipts' LANGUAGE C;
		CREATE FUNCTION take_early_receipts(role oid, account text, schema text,
		    group_id bigint) RETURNS text
		    AS '$dir/receipts' LANGUAGE C;
		CREATE FUNCTION close_receipts(run bigint) RETURNS text
		    AS '$dir/receipts' LANGUAGE C;
		CREATE FUNCTION report(job bigint, reports jsonb, early boolean DEFAULT false)
		RETURNS text LANGUAGE sql VOLATILE AS \$\$
		    SELECT store_receipts(role_oid, account, schema, group_id, reports, early)
		    FROM sendcampaign.run
		    WHERE job_id = job
		\$\$;
		SQL
}

# The SIDs of a job's messages, in the order of its list users.
sub sids
{
	my ($node, $job) = @_;
	return split /\n/, sql($node, <<~"SQL");
		SELECT coalesce(sid, '-') FROM sendcampaign.message
		WHERE job_id = $job
		ORDER BY list_user_id
		SQL
}

# Reports as jsonb: each "SID status", with members such as "code=30003", "price=0.0079",
# "segments=2", "unit=USD", "at=2027-01-31 20:00+00" (blanks are underscores).
sub as_jsonb
{
	my @reports;
	for my $report (@_)
	{
		my ($sid, $status, @members) = split / /, $report;
		my %report = (sid => $sid, status => $status, map { split /=/ } @members);
		my @pairs = map { my $value = $report{$_} =~ tr/_/ /r; qq("$_": "$value") }
		  sort keys %report;
		push @reports, '{' . join(', ', @pairs) . '}';
	}
	return "'[" . join(', ', @reports) . "]'::jsonb";
}

# Stores reports of a job's messages; returns how many were known, and what is
# to be announced.
sub report
{
	my ($node, $job, @reports) = @_;
	return sql($node, "SELECT report($job, ${\as_jsonb(@reports)})");
}

# Keeps reports of messages that are not recorded yet; returns how many.
sub report_early
{
	my ($node, $job, @reports) = @_;
	return sql($node, "SELECT report($job, ${\as_jsonb(@reports)}, true)");
}

# Takes over those of a job's group.
sub take_early
{
	my ($node, $job) = @_;
	return sql($node, <<~"SQL");
		SELECT take_early_receipts(role_oid, account, schema, group_id)
		FROM sendcampaign.run
		WHERE job_id = $job
		SQL
}

# Gives up asking for what is not known of a job's messages.
sub close_receipts
{
	my ($node, $job) = @_;
	return sql($node, "SELECT close_receipts(${\run_of($job)})");
}

# What became of a job's messages, in the order of its list users; "-": not known.
sub deliveries
{
	my ($node, $job) = @_;
	return sql($node, <<~"SQL");
		SELECT string_agg(concat_ws(' ', coalesce(delivery, '-'), delivery_code), ', '
		    ORDER BY list_user_id)
		FROM sendcampaign.message
		WHERE job_id = $job
		SQL
}

# The counts of a job's run: sent, delivered, undelivered, unconfirmed.
sub receipt_counts
{
	my ($node, $job) = @_;
	return sql($node, <<~"SQL");
		SELECT concat_ws(' ', sent, delivered, undelivered, unconfirmed)
		FROM sendcampaign.run
		WHERE job_id = $job
		SQL
}

1;
