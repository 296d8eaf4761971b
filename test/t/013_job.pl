# The background job: created where none is given, kept up to date until its
# end, and what the application keeps in it stays.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../perl";
use Campaign;
use JSON::PP ();
use LocalTwilio;
use Test::More;

my $twilio = LocalTwilio->start;
my $node = new_cluster('job', $twilio);

# no job is given
$twilio->set(hold => 1);
my $job = start_campaign($node, create_campaign($node, users => 4));
like($job, qr/^[0-9]+$/, 'the call returns the id of a new job');
is(job_row($node, $job, 'progress, error IS NULL, created_at <= now(), updated_at <= now()'),
	'5|t|t|t', 'it starts at 5');
wait_for_flight($twilio, 4);
is(job_row($node, $job, 'progress, error IS NULL'),
	'5|t', 'and stays there while nothing is done');
$twilio->set(hold => 0);
wait_for_run($node, $job);
is(job_row($node, $job, 'progress, error IS NULL, updated_at > created_at'),
	'100|t|t', 'it ends at 100');
is_deeply(
	JSON::PP::decode_json(job_row($node, $job, 'data')),
	{
		state => 'completed',
		total => 4,
		sent => 4,
		failed => 0,
		skipped => 0,
		inDoubt => 0,
		delivered => 0,
		undelivered => 0,
		unconfirmed => 0
	},
	'with the counts');

# progress in between never goes back
sql($node, <<~'SQL', role => 'app');
	CREATE TABLE seen (n serial, job bigint, progress integer);

	CREATE FUNCTION see() RETURNS trigger LANGUAGE plpgsql AS $$
	BEGIN
		INSERT INTO seen (job, progress) VALUES (NEW.id, NEW.progress);
		RETURN NEW;
	END $$;

	CREATE TRIGGER see AFTER INSERT OR UPDATE ON ac_background_jobs
		FOR EACH ROW EXECUTE FUNCTION see();
	SQL
$twilio->set(latency => 30);
wait_for_no_worker($node);
sql($node, 'ALTER ROLE app SET sendcampaign.max_concurrency = 5');
$job = run_campaign($node, create_campaign($node, users => 100))->{job};
sql($node, 'ALTER ROLE app RESET sendcampaign.max_concurrency');
$twilio->set(latency => 0);
my @progress = split /\n/, sql($node, "SELECT progress FROM seen WHERE job = $job ORDER BY n");
is("@progress[0, -1]", '5 100', 'progress goes from 5 to 100');
ok(@progress > 3, 'with steps in between');
is((grep { $progress[$_] < $progress[ $_ - 1 ] } 1 .. $#progress), 0, 'and never back');

# a job of the application: its own data stays, whatever it is
my %counts = (
	state => 'completed',
	total => 1,
	sent => 1,
	failed => 0,
	skipped => 0,
	inDoubt => 0,
	delivered => 0,
	undelivered => 0,
	unconfirmed => 0);
my %kept = (
	'{"type": "sms", "sent": "no"}' => { %counts, type => 'sms' },
	'null' => \%counts);
for my $data (sort keys %kept)
{
	$job = sql($node, <<~"SQL", role => 'app');
		INSERT INTO ac_background_jobs (progress, data, internal_data)
		VALUES (5, '$data', '{"own": true}')
		RETURNING id
		SQL
	my $campaign = create_campaign($node, users => 1);
	is(start_campaign($node, $campaign, job => $job), $job, "data $data: the job is used");
	wait_for_run($node, $job);
	is_deeply(JSON::PP::decode_json(job_row($node, $job, 'data')),
		$kept{$data}, "data $data: the counts are added");
	is( job_row($node, $job, 'progress, internal_data'),
		'100|{"own": true}',
		"data $data: the rest stays");
}

# a job without progress that still has an old error
$job = sql($node, <<~'SQL', role => 'app');
	INSERT INTO ac_background_jobs (progress, error)
	VALUES (NULL, 'of yesterday')
	RETURNING id
	SQL
run_campaign($node, create_campaign($node, users => 1), job => $job);
is(job_row($node, $job, 'progress, error IS NULL'), '100|t', 'an old error is removed');

# some messages fail: a summary for people
$twilio->set('to-fault' => '+15550000004=code:21614');
$job = run_campaign($node, create_campaign($node, users => 4))->{job};
is(job_row($node, $job, 'progress'), 100, 'some messages failed: the job is complete');
is( job_row($node, $job, 'error'),
	q{1 of 4 messages failed: 21614 'To' number not a mobile number (1)},
	'and says which');

# columns of the application that have defaults, and a wider id
sql($node, <<~'SQL', role => 'app');
	ALTER TABLE ac_background_jobs
		ALTER id TYPE bigint,
		ADD kind text NOT NULL DEFAULT 'sms',
		ALTER created_at DROP DEFAULT,
		ALTER updated_at DROP DEFAULT;
	ALTER SEQUENCE ac_background_jobs_id_seq AS bigint RESTART 5000000000;
	SQL
$job = start_campaign($node, create_campaign($node, users => 1));
is($job, 5000000000, 'an id may be greater than an integer');
is(wait_for_run($node, $job)->{sent},
	1, 'a campaign is sent with extra columns and without defaults for the times');
is(job_row($node, $job, 'progress, kind'), '100|sms', 'the job is complete');

wait_for_no_worker($node);
$node->stop;
done_testing();
