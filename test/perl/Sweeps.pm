# What became of messages: time passes, runs are swept, receipts are counted.
package Sweeps;

use strict;
use warnings;

use Campaign;
use Exporter 'import';

our @EXPORT = qw(sweep_now let_time_pass receipts_of counts_of next_sweep wait_for_sweep
  wait_for_next_second);

# So much time has passed since a job's run: '5 minutes'.  Its next sweep is not
# due because of that.  Options: db.
sub let_time_pass
{
	my ($node, $job, $time, %arg) = @_;
	sql($node, <<~"SQL", %arg);
		UPDATE sendcampaign.run_data SET
			queued_at = queued_at - interval '$time',
			started_at = started_at - interval '$time',
			finished_at = finished_at - interval '$time',
			last_sent_at = last_sent_at - interval '$time',
			swept_at = swept_at - interval '$time'
		WHERE job_id = $job;
		UPDATE sendcampaign.message_data m SET created_at = m.created_at - interval '$time'
		FROM sendcampaign.run_data r
		WHERE r.id = m.run_id AND r.job_id = $job
		SQL
}

# Waits until a sweep that is due is over.  Options: db.
sub wait_for_sweep
{
	my ($node, $job, %arg) = @_;
	return wait_until($node, <<~"SQL", %arg);
		SELECT coalesce(sweep_at > now(), true)
		FROM sendcampaign.run_data
		WHERE job_id = $job
		SQL
}

# A job's run is swept now; returns true once that is over.  Options: db, after
# (so much time has passed).
sub sweep_now
{
	my ($node, $job, %arg) = @_;
	my @db = (db => $arg{db});
	let_time_pass($node, $job, $arg{after}, @db) if $arg{after};
	sql($node, <<~"SQL", @db);
		UPDATE sendcampaign.run_data SET sweep_at = now()
		WHERE job_id = $job;
		SELECT sendcampaign.wake()
		SQL
	return wait_for_sweep($node, $job, @db);
}

# How many messages of a job have which status: "delivered 3, undelivered 1";
# "none" are those of which nothing is known.  Options: db.
sub receipts_of
{
	my ($node, $job, %arg) = @_;
	return sql($node, <<~"SQL", %arg);
		SELECT string_agg(delivery || ' ' || count, ', ' ORDER BY delivery)
		FROM (
			SELECT coalesce(delivery, 'none') AS delivery, count(*)
			FROM sendcampaign.message
			WHERE job_id = $job AND status = 'sent'
			GROUP BY 1) d
		SQL
}

# The counts of a job's run: sent, delivered, undelivered, unconfirmed.
sub counts_of
{
	my ($node, $job, %arg) = @_;
	return sql($node, <<~"SQL", %arg);
		SELECT sent, delivered, undelivered, unconfirmed
		FROM sendcampaign.run
		WHERE job_id = $job
		SQL
}

# How many minutes after the end of a job's run it is swept next, rounded; or
# "never".  Options: db.
sub next_sweep
{
	my ($node, $job, %arg) = @_;
	return sql($node, <<~"SQL", %arg);
		SELECT coalesce(round(extract(epoch FROM sweep_at - finished_at) / 60)::text, 'never')
		FROM sendcampaign.run_data
		WHERE job_id = $job
		SQL
}

# Twilio's list has times in seconds: what comes after this is later there than
# what was before.
sub wait_for_next_second
{
	my $second = time;
	return poll(sub { time > $second });
}

1;
