# The example of a web server, examples/webhook: what Twilio posts to it counts, and
# what others post is refused.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../perl";
use Campaign;
use Cwd qw(getcwd);
use File::Copy qw(copy);
use HTTP::Tiny;
use IPC::Run ();
use LocalTwilio;
use PostgreSQL::Test::Utils;
use Test::More;
use Webhook;

my $twilio = LocalTwilio->start;
my $node = new_cluster('web', $twilio);
create_webhook_role($node);
my $campaign = create_campaign($node, users => 20);
configure($node, $campaign, qq(configuration || '{"twilioStatusCallback": "$URL"}'));
my $job = run_campaign($node, $campaign)->{job};

my $dir = PostgreSQL::Test::Utils::tempdir();
my $root = "$FindBin::RealBin/../..";
copy($_, $dir)
  or die "could not copy $_: $!"
  for "$root/examples/webhook/express.js", glob("$root/test/webhook/package*.json");
my $before = getcwd();
chdir $dir;
local $ENV{npm_config_cache} = "$dir/cache";
command_ok([ 'npm', 'ci', '--no-audit', '--no-fund', '--loglevel=error' ],
	'its packages are installed');
my ($output, $errors) = ('', '');
my $server = do
{
	my %server = (PGHOST => $node->host, PGPORT => $node->port, PGDATABASE => 'postgres');
	local %ENV = (%ENV, %server, PGUSER => 'webhook', PORT => 0);
	IPC::Run::start([ 'node', 'express.js' ], '<', \undef, '>', \$output, '2>', \$errors);
};
chdir $before;
ok(poll(sub { $server->pump_nb; $output =~ /listening/ }), 'it listens') or diag($errors);
my ($port) = $output =~ /port (\d+)/;

# Posts a request as Twilio does, a form or of another type; returns the status
# and the content of the answer.
sub post
{
	my ($request, $type) = @_;
	my $path = ($request->{url} // $URL) =~ s{https://[^/]+}{}r;
	my $answer = HTTP::Tiny->new(timeout => 60)->post(
		"http://127.0.0.1:$port$path",
		{
			headers => {
				'Content-Type' => $type || 'application/x-www-form-urlencoded',
				'X-Twilio-Signature' => $request->{signature}
			},
			content => $request->{body}
		});
	return "$answer->{status} $answer->{content}";
}

$twilio->set('deliver-after' => 1, 'sent-after' => 0);
my @callbacks;
poll(sub { @callbacks = $twilio->callbacks; @callbacks == 40 });
my @reports = map { post($_) } @callbacks;
is_deeply(\@reports, [ ('200 <Response/>') x 40 ], 'what Twilio reports is taken');
is(sql($node, q(SELECT count(*) FROM sendcampaign.receipt_data WHERE status = 'delivered')),
	20, 'all of it');
is( post(inbound_form('SM1', '+15550000001', "Gr\xc3\xbc\xc3\x9fe & mehr = 100 %+")),
	'200 <Response/>',
	'so is a reply');
is( sql($node, 'SELECT body FROM sendcampaign.reply'),
	"Gr\xc3\xbc\xc3\x9fe & mehr = 100 %+",
	'as it is');
my $sid = sql($node, 'SELECT min(sid) FROM sendcampaign.message');
my $events = signed_json([
	receipt_event($sid, 'read'),
	reply_event('SM3', '+15550000002', "Gr\x{fc}\x{df}e \x{1f389}"),
	map { receipt_event("SMunknown$_", 'delivered') } 1 .. 150
]);
cmp_ok(length $events->{body}, '>', 65536, 'a body as long as those of Event Streams');
is(post($events, 'application/json'), '200 <Response/>', 'so are events');
is(sql($node, "SELECT delivery FROM sendcampaign.message WHERE sid = '$sid'"),
	'read', 'which say what became of a message');
is( sql($node, "SELECT body FROM sendcampaign.reply WHERE sid = 'SM3'"),
	"Gr\xc3\xbc\xc3\x9fe \xf0\x9f\x8e\x89",
	'and what was answered');
is( post({ %$events, body => "$events->{body} " }, 'application/json'),
	'403 Forbidden',
	'but not if somebody has changed them');
is( post(inbound_form('SM2', '+15550000001', 'STOP', {}, token => 'other')),
	'403 Forbidden',
	'what others sign is refused');
is( post({ %{ $callbacks[0] }, body => "$callbacks[0]{body}&x=1" }),
	'403 Forbidden',
	'so is what they change');
is(post({ signature => 'x', body => '' }), '403 Forbidden', 'and what is no form');
$server->pump_nb;
is($errors, '', 'it has no errors to log');
is(post({ signature => 'x', body => 'x' x 200000 }) =~ s/ .*//sr, '413', 'or too long');
is(sql($node, 'SELECT count(*) FROM sendcampaign.opt_out'), 0, 'nobody has opted out');

# The pool keeps the connection of a request that was taken, and the connection
# ends with the database.
is(post($callbacks[0]), '200 <Response/>', 'a report that is repeated is taken');
$node->stop;
ok(poll(sub { $server->pump_nb; $errors =~ /^terminating connection/m }),
	'when the database stops, it says so')
  or diag($errors);
like(post($callbacks[0]), qr/^500 /, 'what Twilio reports then is to be repeated');
ok(poll(sub { $server->pump_nb; $errors =~ /ENOENT|ECONNREFUSED/ }), 'and it says why')
  or diag($errors);
$node->start;
is(post($callbacks[0]), '200 <Response/>', 'and is taken when the database is back');
$server->kill_kill(grace => 5);
$node->stop;
done_testing();
