# Recipients who are put off stay in their own run, whatever number its job
# has: another run may have that number as its id.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../perl";
use Campaign;
use LocalTwilio;
use Test::More;

my $twilio = LocalTwilio->start;
my $node = new_cluster('put_off_beside', $twilio);

# Waits until the recipients of a run who are left are asleep.
sub fall_asleep
{
	my $job = shift;
	wait_until($node, "SELECT next_at > now() FROM sendcampaign.run WHERE job_id = $job")
	  or diag("job $job did not fall asleep: "
		  . sql($node, "SELECT * FROM sendcampaign.run WHERE job_id = $job"));
}

# How many recipients a run has in its batches
sub left
{
	my $job = shift;
	my $run = run_of($job);
	return sql($node,
		"SELECT sum(cardinality(list_user_ids)) FROM sendcampaign.batch WHERE run_id = $run");
}

# Two lists of more than a batch.  Of the first one's first batch, most have no
# phone, so that there is room where the others are put off to.
my $first = create_campaign($node, users => 250, message => 'first');
my $second = create_campaign($node, users => 250, message => 'second');
sql($node, <<~SQL);
	WITH list AS (
	    SELECT ac_list_id, min(u.id) AS first
	    FROM ac_list_users u
	    JOIN ac_campaigns c USING (ac_list_id)
	    WHERE c.id = $first
	    GROUP BY 1)
	UPDATE ac_list_users u
	SET data = data - 'sms'
	FROM list
	WHERE u.ac_list_id = list.ac_list_id AND u.id <= list.first + 229;
	UPDATE groups
	SET configuration = configuration || jsonb_build_object(
	    'timeZone', 'UTC',
	    'quietHours', jsonb_build_object(
	        'from', to_char(now() AT TIME ZONE 'UTC' - interval '1 hour', 'HH24:MI'),
	        'to', to_char(now() AT TIME ZONE 'UTC' + interval '2 hours', 'HH24:MI')));
	SQL

# The application has made both jobs; the one that comes later is run first.
my $jobs = sql($node, <<~'SQL', role => 'app');
	INSERT INTO ac_background_jobs (progress) VALUES (5), (5) RETURNING id
	SQL
my ($second_job, $first_job) = split /\n/, $jobs;
start_campaign($node, $first, job => $first_job);
fall_asleep($first_job);
my $run = run_of($first_job);
is(sql($node, "SELECT $run"), $second_job, q{the id of one run is the number of the other's job});
start_campaign($node, $second, job => $second_job);
fall_asleep($second_job);
is(left($first_job), 20, 'the first run has its own recipients');
is(left($second_job), 250, 'the second run has its own recipients');

# Their morning comes.
sql($node, "UPDATE groups SET configuration = configuration - 'quietHours'");
for my $job ($first_job, $second_job)
{
	sql($node, "SELECT sendcampaign.pause($job)");
	sql($node, "SELECT sendcampaign.resume($job)");
}
sent_once($node, $twilio, $first, $first_job, 'the first run', total => 250, skipped => 230);
sent_once($node, $twilio, $second, $second_job, 'the second run', total => 250);
$node->stop;
done_testing();
