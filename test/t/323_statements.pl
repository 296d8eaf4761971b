# Citus: every statement on the application's tables, in a tenant's schema on its node,
# whatever columns the tables have.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../perl";
use Campaign;
use Test::More;

plan skip_all => 'CITUS is not set' if !$ENV{CITUS};
require Citus;
require LocalTwilio;
my $twilio = LocalTwilio->start;
my $citus = Citus->new('statements', $twilio, workers => 0);
my $node = $citus->node(0);
my %tables = (
	json => <<~'SQL',
		ALTER TABLE ac_list_users ALTER data TYPE json;
		ALTER TABLE ac_background_jobs ALTER data TYPE json;
		ALTER TABLE ac_campaigns ALTER data TYPE json;
		ALTER TABLE groups ALTER configuration TYPE json;
		ALTER TABLE groups ADD private_access_configuration jsonb DEFAULT '{"stopWords": ["HALT"]}';
		UPDATE ac_campaigns SET data = jsonb_set(data::jsonb, '{message}', '"To {{name|you}}:"');
		SQL
	columns => <<~'SQL',
		ALTER TABLE ac_list_users ADD sms text, ADD sent_count integer, ADD open_count integer,
			ADD time_zone text DEFAULT 'UTC', ADD born date DEFAULT '2000-01-01',
			ADD deleted boolean, ADD deleted_at timestamptz;
		UPDATE ac_list_users SET sms = data->>'sms';
		ALTER TABLE ac_list_users DROP data;
		ALTER TABLE ac_campaigns ADD message text, ADD base_url text, ADD "mediaUrl" text[],
			ADD send_until timestamptz DEFAULT now() + interval '1 day', ADD deleted boolean;
		UPDATE ac_campaigns SET message = 'Born {{born}}:', base_url = data->>'baseUrl';
		ALTER TABLE groups ADD deleted boolean;
		ALTER TABLE ac_lists ADD deleted boolean;
		SQL
	keys => <<~'SQL');
		UPDATE groups SET configuration = configuration || '{"quietHours":
			{"from": "03:00", "to": "03:01"}, "timeZone": "UTC", "maxMessages": {"count": 9, "days": 1}}';
		UPDATE ac_list_users SET data = 'null' WHERE data->>'sms' IS NULL;
		SQL

for my $schema (sort keys %tables)
{
	my $tenant = $citus->add_tenant($schema, users => 30, layout => 'local');
	my ($campaign, $job) = @$tenant{qw(campaign job)};
	$citus->sql($node, $tenant, $tables{$schema});
	sql($node, "SELECT citus_schema_distribute('$schema')");
	is($citus->sql($node, $tenant, "SELECT count(*) > 0 FROM sendcampaign.preview($campaign)"),
		't', "$schema: preview()");
	is($citus->sql($node, $tenant, "SELECT messages FROM sendcampaign.estimate($campaign)"),
		30, "$schema: estimate()");
	my $test =
	  $citus->sql($node, $tenant, "SELECT sendcampaign.send_test($campaign, '+15005550019')");
	$citus->call($node, $tenant);

	for my $run ($test, $job)
	{
		$node->poll_query_until('postgres', <<~"SQL");
			SELECT state IN ('completed', 'failed') FROM sendcampaign.run
			WHERE schema = '$schema' AND job_id = $run
			SQL
	}
	is(sql($node, <<~"SQL"), "completed|30|\ncompleted|1|", "$schema: all are sent");
		SELECT state, sent, error FROM sendcampaign.run WHERE schema = '$schema'
		ORDER BY test_phone IS NOT NULL
		SQL
	is($citus->accepted($tenant), 31, "$schema: ... once");
	my ($sent, $opened) =
	  $schema eq 'columns'
	  ? qw(sent_count open_count)
	  : map { "(data->>'$_')::integer" } qw(sentCount openCount);
	my $user = $citus->sql($node, $tenant, 'SELECT min(id) FROM ac_list_users');
	is($citus->sql($node, $tenant, "SELECT sendcampaign.track($user, $campaign, 'open')"),
		't', "$schema: track()");
	is( $citus->sql(
			$node, $tenant, "SELECT count(*), sum($sent), sum($opened) FROM ac_list_users"),
		'30|30|1',
		"$schema: the counts");
	is( $citus->sql(
			$node, $tenant,
			"SELECT progress, error, data->>'sent' FROM ac_background_jobs WHERE id = $job"),
		'100||30',
		"$schema: the job");
	is($citus->sql($node, $tenant, "SELECT sendcampaign.retry_failed($job)"),
		0, "$schema: retry_failed()");
	is($citus->sql($node, $tenant, "SELECT count(*) FROM sendcampaign.reconcile($job)"),
		0, "$schema: reconcile()");

	my $next = {%$tenant};
	my $text = $schema eq 'columns' ? 'message, base_url' : 'data';
	@$next{qw(campaign job)} = split /\n/, $citus->sql($node, $tenant, <<~"SQL");
		INSERT INTO ac_campaigns (ac_list_id, $text)
		SELECT ac_list_id, $text FROM ac_campaigns WHERE id = $campaign RETURNING id;
		INSERT INTO ac_background_jobs (progress) VALUES (5) RETURNING id;
		SQL
	$twilio->set(hold => 1);
	$citus->call($node, $next);
	for my $call ('pause', 'resume', 'cancel')
	{
		is($citus->sql($node, $next, "SELECT sendcampaign.$call($next->{job})"),
			'', "$schema: $call()");
	}
	$twilio->set(hold => 0);
	$node->poll_query_until('postgres', <<~"SQL");
		SELECT finished_at IS NOT NULL FROM sendcampaign.run
		WHERE schema = '$schema' AND job_id = $next->{job}
		SQL
	my $made = $citus->sql($node, $tenant, <<~"SQL");
		SELECT min(id) AS group FROM groups \\gset
		SELECT sendcampaign.create_list(:group, 'more') AS list \\gset
		SELECT count(*) FROM sendcampaign.add_list_users(:list, ARRAY['+15005550021', 'x']);
		SELECT sendcampaign.create_campaign(:list, 'Hello') AS campaign \\gset
		SELECT send_campaign(:campaign, recipients =>
			'SELECT id FROM $schema.ac_list_users WHERE ac_list_id = ' || :list);
		SELECT sendcampaign.send_message(:group, 'Hi', ARRAY['+15005550022']);
		SQL
	my ($refused, @jobs) = split /\n/, $made;
	is(scalar @jobs, 2, "$schema: lists and campaigns are made");
	$node->poll_query_until('postgres', <<~"SQL") for @jobs;
		SELECT state = 'completed' AND sent = 1 FROM sendcampaign.run
		WHERE schema = '$schema' AND job_id = $_
		SQL
}
unlike(log_of($node), qr/terminated by signal/, 'the server has not crashed');
$citus->stop;
done_testing();
