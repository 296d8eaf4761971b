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

my $twilio = LocalTwilio->start(tls => 1, options => [ '--key' => "SKkey0000000000000000000000000001:the-key-secret:$LocalTwilio::ACCOUNT" ]);
my $node = new_cluster('secrets', $twilio,
	conf => "log_statement = none\nlog_min_error_statement = panic\nlog_replication_commands = off\n"
	  . "sendcampaign.request_timeout = 500ms\nsendcampaign.lookup_delay = 0\n");

# What must not be found, in any form it may take.
my @secrets = ($LocalTwilio::TOKEN, 'the-wrong-auth-token', 'the-key-secret',
	map { encode_base64($_, '') =~ s/=*$//r } "$LocalTwilio::ACCOUNT:$LocalTwilio::TOKEN",
	"$LocalTwilio::ACCOUNT:the-wrong-auth-token", 'SKkey0000000000000000000000000001:the-key-secret');
sub found { my $text = shift; return join ', ', grep { index($text, $_) >= 0 } @secrets; }

# Set up while nothing is logged; then everything is.
my %campaign = map { $_ => create_campaign($node, users => 2, message => $_) } qw(sent refused key unreachable doubt invalid);
send_companion($node, $twilio, 'postgres');
sub configure
{
	my ($name, $change) = @_;
	$node->safe_psql('postgres', qq{UPDATE groups SET configuration = $change WHERE id =
		(SELECT l.group_id FROM ac_campaigns c JOIN ac_lists l ON l.id = c.ac_list_id WHERE c.id = $campaign{$name})});
}
configure(refused => q{configuration || '{"twilioAuthToken": "the-wrong-auth-token"}'});
configure(key => q{configuration - 'twilioAuthToken' || '{"twilioApiKeySid": "SKkey0000000000000000000000000001", "twilioApiKeySecret": "the-key-secret"}'});
configure(invalid => q{configuration - 'twilioFromSmsNumber'});
is(found(slurp_file($node->logfile)), '', 'the log is clean at first');

my $auto_explain = $node->config_data('--pkglibdir') . '/auto_explain.so';
$node->append_conf('postgresql.conf', q{
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
} . (-e $auto_explain ? q{
session_preload_libraries = 'auto_explain'
auto_explain.log_min_duration = 0
auto_explain.log_nested_statements = on
auto_explain.log_analyze = on
auto_explain.log_verbose = on
} : ''));
$node->restart;

# What the server shows of itself while requests are in flight.
$twilio->set(hold => 1);
my $job = start_campaign($node, $campaign{sent});
wait_for_flight($twilio, 2);
my $activity = $node->safe_psql('postgres', q{SELECT a FROM pg_stat_activity a WHERE backend_type ~ '^sendcampaign'});
like($activity, qr/sendcampaign worker/, 'the worker is in pg_stat_activity');
is(found($activity), '', 'but no secret');
my ($pid) = worker_pids($node);
my $title = '';
$title .= slurp_file("/proc/$pid/$_") for grep { -r "/proc/$pid/$_" } 'cmdline', 'environ';
like($title, qr/sendcampaign/, 'the process title') if $title ne '';
is(found($title), '', 'has no secret');
$twilio->set(hold => 0);
is(wait_for_run($node, $job)->{sent}, 2, 'sent');

# what goes wrong tells nothing either
my %errors;
$errors{key} = wait_for_run($node, start_campaign($node, $campaign{key}));
is($errors{key}{sent}, 2, 'with an API key: sent');
$errors{refused} = wait_for_run($node, start_campaign($node, $campaign{refused}));
like("$errors{refused}{state}: $errors{refused}{error}", qr/^failed: Twilio refuses the account or sender: 20003/, 'a wrong token: failed');
$errors{invalid} = wait_for_run($node, start_campaign($node, $campaign{invalid}));
like($errors{invalid}{error}, qr/twilioFromSmsNumber/, 'no sender: failed');
$twilio->set('fault:garbage' => 100, 'fault:list-403' => 100);
$errors{doubt} = wait_for_run($node, start_campaign($node, $campaign{doubt}));
is($errors{doubt}{in_doubt}, 2, 'an answer that is garbage: in doubt');
$twilio->set('fault:garbage' => 0, 'fault:list-403' => 0);

# nobody there; somebody with a certificate that is not trusted
my $url = $twilio->url;
my %trouble = ('connect' => "sendcampaign.api_url = 'https://127.0.0.1:1'",
	'certificate' => "sendcampaign.api_url = '$url'\nsendcampaign.ca_file = ''");
for my $reason ('connect', 'certificate')
{
	$node->append_conf('postgresql.conf', $trouble{$reason});
	$node->restart;
	$job = start_campaign($node, $campaign{unreachable}) if $reason eq 'connect';
	$node->safe_psql('postgres', 'SELECT sendcampaign.wake()');
	$node->poll_query_until('postgres', "SELECT error LIKE '%$reason%' FROM sendcampaign.run WHERE job_id = $job");
	$errors{$reason} = run_row($node, $job);
	like($errors{$reason}{error}, qr/^Twilio cannot be reached: .*$reason/, "$reason: the run says so");
}
$node->append_conf('postgresql.conf', "sendcampaign.ca_file = '" . $twilio->ca_file . "'");
$node->restart;
$node->safe_psql('postgres', 'SELECT sendcampaign.wake()');
is(wait_for_run($node, $job)->{sent}, 2, 'mended: sent');
is(found(join ' ', map { $_->{error} } values %errors), '', 'no secret in an error');
wait_for_no_worker($node);

# everything that the extension has stored, the jobs, and the log
my $dump = join "\n", map { $node->safe_psql('postgres', "SELECT t FROM $_ t") }
  'sendcampaign.run', 'sendcampaign.message', 'sendcampaign.batch', 'sendcampaign.claim', 'ac_background_jobs', 'pg_stat_activity';
like($dump, qr/,completed,/, 'the tables hold something');
is(found($dump), '', 'but no secret');
my $log = slurp_file($node->logfile);
like($log, qr/twilioAuthToken/, 'the log tells of the statement that reads the token');
is(found($log), "", "but not the token") or diag(join "\n", grep { /the-secret/ } split /\n/, $log);

$node->stop;
done_testing();
