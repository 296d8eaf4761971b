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

sub sql { my $sql = shift; return $node->safe_psql('postgres', $sql); }
sub fall_asleep
{
	my $job = shift;
	$node->poll_query_until('postgres', "SELECT next_at > now() FROM sendcampaign.run WHERE job_id = $job")
	  or diag("job $job did not fall asleep: " . sql("SELECT * FROM sendcampaign.run WHERE job_id = $job"));
}
sub left { my $job = shift; return sql("SELECT sum(cardinality(list_user_ids)) FROM sendcampaign.batch WHERE run_id = ${\ run_of($job)}"); }

# Two lists of more than a batch.  Of the first one's first batch, most have no
# phone, so that there is room where the others are put off to.
my $first = create_campaign($node, users => 250, message => 'first');
my $second = create_campaign($node, users => 250, message => 'second');
sql(qq{UPDATE ac_list_users SET data = data - 'sms' WHERE ac_list_id = (SELECT ac_list_id FROM ac_campaigns WHERE id = $first)
		AND id <= (SELECT min(id) + 229 FROM ac_list_users WHERE ac_list_id = (SELECT ac_list_id FROM ac_campaigns WHERE id = $first));
	UPDATE groups SET configuration = configuration || jsonb_build_object('timeZone', 'UTC', 'quietHours', jsonb_build_object(
		'from', to_char(now() AT TIME ZONE 'UTC' - interval '1 hour', 'HH24:MI'),
		'to', to_char(now() AT TIME ZONE 'UTC' + interval '2 hours', 'HH24:MI')));});

# The application has made both jobs; the one that comes later is run first.
my ($second_job, $first_job) = split /\n/, sql('SET ROLE app; INSERT INTO ac_background_jobs (progress) VALUES (5), (5) RETURNING id');
start_campaign($node, $first, job => $first_job);
fall_asleep($first_job);
is(sql("SELECT ${\ run_of($first_job)}"), $second_job, 'the id of one run is the number of the other one\'s job');
start_campaign($node, $second, job => $second_job);
fall_asleep($second_job);
is(left($first_job), 20, 'the first run has its own recipients');
is(left($second_job), 250, 'the second run has its own recipients');

# Its morning comes.
sql("UPDATE groups SET configuration = configuration - 'quietHours'");
for my $job ($first_job, $second_job)
{
	sql("SELECT sendcampaign.pause($job)");
	sql("SELECT sendcampaign.resume($job)");
}
sent_once($node, $twilio, $first, $first_job, 'the first run', total => 250, skipped => 230);
sent_once($node, $twilio, $second, $second_job, 'the second run', total => 250);
$node->stop;
done_testing();
