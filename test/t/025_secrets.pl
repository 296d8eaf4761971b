# Credentials appear nowhere: not in the log, however much is logged, nor in
# what the server shows of itself, nor in the extension's tables.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../perl";
use Campaign;
use LocalTwilio;
use MIME::Base64 qw(encode_base64);
use PostgreSQL::Test::Utils;
use Test::More;

my $key = 'SKkey0000000000000000000000000001';
my $key_secret = 'the-key-secret';
my $wrong_token = 'the-wrong-auth-token';
my $twilio = LocalTwilio->start(
	tls => 1,
	options => [ '--key' => "$key:$key_secret:$LocalTwilio::ACCOUNT" ]);
my $node = new_cluster('secrets', $twilio, conf => <<~'CONF');
	log_statement = none
	log_min_error_statement = panic
	log_replication_commands = off
	sendcampaign.request_timeout = 500ms
	sendcampaign.lookup_delay = 0
	CONF

# What must not be found, in any form it may take.
my @secrets = ($LocalTwilio::TOKEN, $wrong_token, $key_secret);
for my $credentials (
	"$LocalTwilio::ACCOUNT:$LocalTwilio::TOKEN",
	"$LocalTwilio::ACCOUNT:$wrong_token",
	"$key:$key_secret")
{
	push @secrets, encode_base64($credentials, '') =~ s/=*$//r;
}

# The secrets that a text has.
sub found
{
	my $text = shift;
	return join ', ', grep { index($text, $_) >= 0 } @secrets;
}

# Set up while nothing is logged; then everything is.
my %campaign = map { $_ => create_campaign($node, users => 2, message => $_) }
  qw(sent refused key unreachable doubt invalid);
send_companion($node, $twilio, 'postgres');
configure($node, $campaign{refused}, qq{configuration || '{"twilioAuthToken": "$wrong_token"}'});
configure($node, $campaign{key}, <<~"SQL");
	configuration - 'twilioAuthToken'
		|| '{"twilioApiKeySid": "$key", "twilioApiKeySecret": "$key_secret"}'
	SQL
configure($node, $campaign{invalid}, q{configuration - 'twilioFromSmsNumber'});
is(found(log_of($node)), '', 'the log has no secret at first');

$node->append_conf('postgresql.conf', <<~'CONF');
	log_min_messages = debug5
	log_min_error_statement = debug5
	log_error_verbosity = verbose
	log_statement = all
	log_parameter_max_length = -1
	log_parameter_max_length_on_error = -1
	log_duration = on
	log_min_duration_statement = 0
	debug_print_parse = on
	debug_print_rewritten = on
	debug_print_plan = on
	track_activity_query_size = 100kB
	CONF
$node->append_conf('postgresql.conf', <<~'CONF')
	session_preload_libraries = 'auto_explain'
	auto_explain.log_min_duration = 0
	auto_explain.log_nested_statements = on
	auto_explain.log_analyze = on
	auto_explain.log_verbose = on
	CONF
  if -e $node->config_data('--pkglibdir') . '/auto_explain.so';
$node->restart;

# What the server shows of itself while requests are in flight.
$twilio->set(hold => 1);
my $job = start_campaign($node, $campaign{sent});
wait_for_flight($twilio, 2);
my $activity = sql($node, <<~'SQL');
	SELECT a FROM pg_stat_activity a WHERE backend_type ~ '^sendcampaign'
	SQL
like($activity, qr/sendcampaign worker/, 'the worker is in pg_stat_activity');
is(found($activity), '', 'but no secret is');
my ($pid) = worker_pids($node);
my $title = '';

for my $file ("/proc/$pid/cmdline", "/proc/$pid/environ")
{
	$title .= slurp_file($file) if -r $file;
}
like($title, qr/sendcampaign/, 'the process title is readable') if $title ne '';
is(found($title), '', 'the process title has no secret');
$twilio->set(hold => 0);
is(wait_for_run($node, $job)->{sent}, 2, 'the campaign is sent');

# what goes wrong tells nothing either
my %run;
$run{key} = run_campaign($node, $campaign{key});
is($run{key}{sent}, 2, 'with an API key it is sent');
$run{refused} = run_campaign($node, $campaign{refused});
like(
	"$run{refused}{state}: $run{refused}{error}",
	qr/^failed: Twilio refuses the account or sender: 20003/,
	'with a wrong token the run fails');
$run{invalid} = run_campaign($node, $campaign{invalid});
like($run{invalid}{error}, qr/twilioFromSmsNumber/, 'without a sender the run fails');
$twilio->set('fault:garbage' => 100, 'fault:list-403' => 100);
$run{doubt} = run_campaign($node, $campaign{doubt});
is($run{doubt}{in_doubt}, 2, 'answers that are garbage leave messages in doubt');
$twilio->set('fault:garbage' => 0, 'fault:list-403' => 0);

# nobody is there; somebody has a certificate that is not trusted
my $url = $twilio->url;
my %trouble = (
	'connect' => "sendcampaign.api_url = 'https://127.0.0.1:1'",
	'certificate' => "sendcampaign.api_url = '$url'\nsendcampaign.ca_file = ''");
for my $reason ('connect', 'certificate')
{
	$node->append_conf('postgresql.conf', $trouble{$reason});
	$node->restart;
	$job = start_campaign($node, $campaign{unreachable}) if $reason eq 'connect';
	wake($node);
	wait_until($node, "SELECT error LIKE '%$reason%' FROM sendcampaign.run WHERE job_id = $job");
	$run{$reason} = run_row($node, $job);
	like(
		$run{$reason}{error},
		qr/^Twilio cannot be reached: .*$reason/,
		"$reason: the run says so");
}
$node->append_conf('postgresql.conf', "sendcampaign.ca_file = '" . $twilio->ca_file . "'");
$node->restart;
wake($node);
is(wait_for_run($node, $job)->{sent}, 2, 'it is sent once Twilio can be reached');
is(found(join ' ', map { $_->{error} } values %run), '', 'no error has a secret');
wait_for_no_worker($node);

# everything that the extension has stored, the jobs, and the log
my @tables = qw(
  sendcampaign.run sendcampaign.message sendcampaign.batch sendcampaign.claim
  ac_background_jobs pg_stat_activity);
my $dump = join "\n", map { sql($node, "SELECT t FROM $_ t") } @tables;
like($dump, qr/,completed,/, 'the tables have rows');
is(found($dump), '', 'but no secret');
my $log = log_of($node);
like($log, qr/twilioAuthToken/, 'the log has the statement that reads the token');
is(found($log), '', 'but not the token')
  or diag(join "\n", grep { /the-secret/ } split /\n/, $log);

$node->stop;
done_testing();
