# examples/prometheus and examples/grafana: an exporter collects what metrics.sql
# shows, Prometheus scrapes it, each alert fires when it should and ends, and each
# expression of the dashboard has a result.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../perl";
use Campaign;
use CPAN::Meta::YAML;
use File::Temp qw(tempdir);
use JSON::PP ();
use LocalTwilio;
use PostgreSQL::Test::Utils;
use Prometheus;
use Test::More;

my @missing = Prometheus::missing();
plan skip_all => "not installed: @missing" if @missing;

my $examples = "$FindBin::RealBin/../../examples";
my $dir = tempdir(CLEANUP => 1);
my $twilio = LocalTwilio->start;
my $node = new_cluster('prometheus', $twilio, conf => <<~'CONF');
	sendcampaign.request_timeout = '1s'
	sendcampaign.lookup_delay = '200ms'
	sendcampaign.max_concurrency = 10
	CONF

# A file of the examples, changed and written into the test's directory
sub changed
{
	my ($file, $change) = @_;
	my $text = slurp_file("$examples/prometheus/$file");
	append_to_file("$dir/$file", $change->($text));
	return "$dir/$file";
}

#
# The role of the exporter
#

for my $time ('once', 'again')
{
	$node->command_ok(
		[ 'psql', '-Xqd', $node->connstr('postgres'), '-f', "$examples/prometheus/metrics.sql" ],
		"metrics.sql runs $time");
}
for my $view (qw(run message reply opt_out))
{
	is( sql_error($node, "SELECT * FROM sendcampaign.$view", user => 'exporter')->{message},
		'permission denied for schema sendcampaign',
		"the exporter does not see $view");
}
my @functions = split /\n/, sql($node, <<~'SQL');
	SELECT oid::regprocedure FROM pg_proc WHERE pronamespace = 'sendcampaign_metrics'::regnamespace
	SQL
is(scalar @functions, 4, 'there are four functions');
sql($node, 'GRANT USAGE ON SCHEMA sendcampaign_metrics TO app');
for my $function (@functions)
{
	sql($node, "SELECT * FROM $function", user => 'exporter');
	like(
		sql_error($node, "SELECT * FROM $function", role => 'app')->{message},
		qr/^permission denied for function/,
		"another role may not call $function");
}

#
# What is exported
#

$twilio->set('to-fault' => '+15550000003=code:21610');
my $first = create_campaign($node, users => 10);
my $job = run_campaign($node, $first)->{job};
$twilio->set('to-fault' => '+15550000003=none');
sql($node, <<~SQL);
	INSERT INTO sendcampaign.receipt_data (run_id, list_user_id, sid, status, error_code, updated_at)
	SELECT run_id, list_user_id, sid, 'undelivered', 30003, now()
	FROM sendcampaign.message_data
	WHERE phone = '+15550000004'
	SQL
my $queries = changed('queries.yaml', sub { shift =~ s/ +cache_seconds: \d+\n//r });
my $exporter = Prometheus->exporter($node, 'exporter', $queries);
my $metrics = $exporter->metrics;
like($metrics, qr/^pg_exporter_user_queries_load_error\{.*\} 0$/m, 'the queries are taken');
like($metrics, qr/^pg_exporter_last_scrape_error 0$/m, 'and run without an error');
my $yaml = CPAN::Meta::YAML->read($queries)->[0];

for my $query (sort keys %$yaml)
{
	my @columns = map { %$_ } @{ $yaml->{$query}{metrics} };
	while (my ($column, $about) = splice @columns, 0, 2)
	{
		next if $about->{usage} eq 'LABEL';
		like(
			$metrics,
			qr/^\Q${query}_$column\E\{.*datname="postgres".*\} /m,
			"${query}_$column is there");
		my $type = lc $about->{usage};
		like($metrics, qr/^# TYPE \Q${query}_$column\E $type$/m, "it is a $type");
	}
}
my @ours = grep { /^sendcampaign_/ } split /\n/, $metrics;
cmp_ok(scalar @ours, '>', 20, 'metrics are there');
is(join("\n", grep { /\d{7}|SM[0-9a-f]{30}|Hello|example\.org|$LocalTwilio::ACCOUNT/ } @ours),
	'', 'none of them has a phone number, a SID, a text or an account');

#
# Prometheus
#

$node->command_ok([ 'promtool', 'check', 'rules', "$examples/prometheus/alerts.yaml" ],
	'promtool finds no fault in the rules');
# minutes and days are seconds here
my $rules = changed('alerts.yaml', sub { shift =~ s/for: \K\w+/1s/gr =~ s/\b10m\b/6s/gr });
my $prometheus = Prometheus->server($exporter, $rules);

# Waits until an expression has this one value.
sub has_value
{
	my ($expression, $expected) = @_;
	my $value;
	my $ok = poll(sub { ($value = $prometheus->value($expression) // '') eq $expected });
	ok($ok, "$expression is $expected") or diag "it is $value";
}
has_value(qq(sendcampaign_run_sent{datname="postgres",schema="public",job_id="$job",role="app"}),
	9);
has_value(qq(sendcampaign_run_recipients{campaign_id="$first"}), 10);
has_value(qq(sendcampaign_run_failed{job_id="$job"}), 1);
# a companion, if there was one, counts as well
has_value('sendcampaign_runs_count{state="completed"}',
	sql($node, q{SELECT count(*) FROM sendcampaign.run WHERE state = 'completed'}));
has_value('sendcampaign_runs_count{state="paused"}', 0);
has_value('sendcampaign_workers_count', 0);
has_value('sendcampaign_workers_sweep_late_seconds', 0);
has_value('sendcampaign_failures_count{kind="failed",code="21610",meaning=~".+"}', 1);
has_value('sendcampaign_failures_count{kind="undelivered",code="30003",meaning=~".+"}', 1);

#
# Alerts
#

my %alert;
for my $group (@{ $prometheus->api('rules')->{groups} })
{
	$alert{ $_->{name} } = { expr => $_->{query}, fired => 0 } for @{ $group->{rules} };
}
cmp_ok(scalar keys %alert, '>=', 10, 'Prometheus has the alerts');
my $operations = slurp_file("$FindBin::RealBin/../../docs/operations.md");
# that nothing is monitored may have fired before the first scrape
for my $name (sort keys %alert)
{
	ok(poll(sub { !$prometheus->firing($name) }), "$name does not fire");
}

# The alerts of a name that fire, or only those of a job
sub firing
{
	my ($name, $job) = @_;
	die "there is no alert $name" if !$alert{$name};
	return grep { !defined $job || ($_->{job_id} // '') eq $job } $prometheus->firing($name);
}

sub fires
{
	my ($name, $job) = @_;
	my @alerts;
	my $ok = poll(sub { @alerts = firing($name, $job) });
	ok($ok, "$name fires" . (defined $job ? ' and names the job' : ''));
	my $text = $alerts[0]{summary} // '';
	note $text;
	like($text, qr/\bjob $job of postgres\.public\b/i, 'in its text as well') if defined $job;
	unlike($text, qr/no value|error/, 'its text is complete');
	my $section = $alerts[0]{what_to_do} // '?';
	like($operations, qr/^###? \Q$section\E$/m, "the documentation has: $section");
	$alert{$name}{fired}++;
}

sub resolves
{
	my ($name, $job) = @_;
	ok(poll(sub { !firing($name, $job) }), "$name ends");
}

# A run that pauses itself
set_and_reload($node, 'sendcampaign.failure_threshold', 5);
$twilio->set('fault:code:21614' => 100);
$job = start_campaign($node, create_campaign($node, users => 1000));
wait_for_run($node, $job, state => 'paused', alone => 1);
fires('SendcampaignPausedByItself', $job);
fires('SendcampaignPausedForLong', $job);
$twilio->set('fault:code:21614' => 0);
sql($node, "SELECT sendcampaign.cancel($job)", role => 'app');
resolves('SendcampaignPausedByItself', $job);
resolves('SendcampaignPausedForLong', $job);

# A run that a person pauses
$twilio->set(hold => 1);
$job = start_campaign($node, create_campaign($node, users => 20));
wait_for_flight($twilio, 1);
fires('SendcampaignStandsStill', $job);
sql($node, "SELECT sendcampaign.pause($job)", role => 'app');
fires('SendcampaignPausedForLong', $job);
is(scalar(firing('SendcampaignPausedByItself')), 0, 'a person knows why');
resolves('SendcampaignStandsStill', $job);
$twilio->set(hold => 0);
sql($node, "SELECT sendcampaign.resume($job)", role => 'app');
resolves('SendcampaignPausedForLong', $job);
wait_for_run($node, $job);

# A run that fails
my $campaign = create_campaign($node, users => 5);
my $group = group_of($campaign);
my $set_token = 'UPDATE groups SET configuration = configuration || '
  . "jsonb_build_object('twilioAuthToken', '%s') WHERE id = $group";
sql($node, sprintf($set_token, 'wrong'), role => 'app');
$job = start_campaign($node, $campaign);
wait_for_run($node, $job, state => 'failed', alone => 1);
fires('SendcampaignFailed', $job);
sql($node, sprintf($set_token, $LocalTwilio::TOKEN), role => 'app');
sql($node, "SELECT send_campaign($campaign, $job)", role => 'app');
resolves('SendcampaignFailed', $job);
wait_for_run($node, $job);

# Doubt
$twilio->set('to-fault' => '+15550000002=drop-after', 'fault:list-403' => 100);
$job = run_campaign($node, create_campaign($node, users => 3), alone => 1)->{job};
fires('SendcampaignInDoubt', $job);
$twilio->set('to-fault' => '+15550000002=none', 'fault:list-403' => 0);
sql($node, <<~SQL, role => 'app');
	SELECT sendcampaign.settle(job_id, list_user_id, true)
	FROM sendcampaign.message WHERE job_id = $job AND status = 'in_doubt'
	SQL
resolves('SendcampaignInDoubt', $job);

# No worker
set_and_reload($node, 'sendcampaign.enabled', 'off');
$job = start_campaign($node, create_campaign($node, users => 3));
fires('SendcampaignWithoutWorker', $job);
set_and_reload($node, 'sendcampaign.enabled', 'on');
wake($node);
wait_for_run($node, $job);
resolves('SendcampaignWithoutWorker', $job);

# Nobody asks what became of messages, as a worker that is there would.
wait_for_no_worker($node);
sql($node, <<~SQL);
	UPDATE sendcampaign.run_data SET sweep_at = now() - interval '2 hours' WHERE job_id = $job
	SQL
fires('SendcampaignSweepLate');
wake($node);
resolves('SendcampaignSweepLate');

# Messages that are not delivered
sql($node, 'UPDATE sendcampaign.run_data SET delivered = 60, undelivered = 40 WHERE job_id = 1');
fires('SendcampaignManyUndelivered', 1);
sql($node, 'UPDATE sendcampaign.run_data SET delivered = 9, undelivered = 0 WHERE job_id = 1');
resolves('SendcampaignManyUndelivered', 1);

# People who have opted out
set_and_reload($node, 'sendcampaign.failure_threshold', -1);
$twilio->set('fault:code:21610' => 100);
$job = run_campaign($node, create_campaign($node, users => 110))->{job};
$twilio->set('fault:code:21610' => 0);
fires('SendcampaignManyOptOuts');

#
# The dashboard, while messages are sent and an alert fires
#

# All expressions of the dashboard, wherever they are
sub expressions
{
	my $json = shift;
	return map { expressions($_) } @$json if ref $json eq 'ARRAY';
	return () if ref $json ne 'HASH';
	return (
		exists $json->{expr} ? $json->{expr} : (),
		map { expressions($json->{$_}) } sort keys %$json);
}
my $dashboard = JSON::PP::decode_json(slurp_file("$examples/grafana/sendcampaign.json"));
my %seen;
my @expressions = grep { !$seen{$_}++ } expressions($dashboard);
cmp_ok(scalar @expressions, '>', 15, 'the dashboard has expressions');
$campaign = create_campaign($node, users => 8000);
configure($node, $campaign, q(configuration || '{"twilioSegmentsPerSecond": 20}'));
my $slow = start_campaign($node, $campaign);

for my $expression (@expressions)
{
	my $filled = $expression =~ s/\$database/.*/gr =~ s/\$__rate_interval/10s/gr;
	unlike($filled, qr/\$/, 'all variables are known');
	my $rows = 0;
	ok(poll(sub { $rows = () = $prometheus->query($filled) }), "there is a result: $filled");
}
my $speed = 'sum(rate(sendcampaign_run_sent[10s]))';
ok(poll(sub { ($prometheus->value($speed) // 0) > 5 }), 'messages are sent');
cmp_ok($prometheus->value($speed), '<', 100, 'the rate is about that of the configuration');
my $names = $prometheus->api('label/datname/values');
is_deeply($names, ['postgres'], 'the variable "database" has its values');
sql($node, "SELECT sendcampaign.cancel($slow)", role => 'app');
wait_for_run($node, $slow);
sql($node, <<~SQL);
	UPDATE sendcampaign.run_data SET finished_at = finished_at - interval '2 days'
	WHERE job_id = $job
	SQL
resolves('SendcampaignManyOptOuts');

# What is not collected is noticed.
$exporter->stop;
fires('SendcampaignNotMonitored');
$exporter->again;
resolves('SendcampaignNotMonitored');

is(join(' ', grep { !$alert{$_}{fired} } sort keys %alert), '', 'each alert has fired');
for my $name (sort keys %alert)
{
	ok(eval { $prometheus->query($alert{$name}{expr}); 1 }, "its expression has no error: $name")
	  or diag $@;
}
$prometheus->stop;
$exporter->stop;
unlike(slurp_file($exporter->{log}), qr/level=error/, 'the exporter has met no error');
$node->stop;
done_testing();
