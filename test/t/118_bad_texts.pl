# Texts that nobody can have meant, and bytes that are no text: the error comes
# before anything is sent, or concerns one recipient alone.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../perl";
use Campaign;
use LocalTwilio;
use PostgreSQL::Test::Utils;
use Test::More;

my $twilio = LocalTwilio->start;
my $node = new_cluster(
	'bad_texts', $twilio,
	init => { extra => [ '--encoding=UTF8', '--locale=C' ] },
	conf => <<~'CONF');
	sendcampaign.request_timeout = '2s'
	sendcampaign.lookup_delay = '200ms'
	CONF

# All that read the text give the same error, and nothing is sent.
sub is_refused
{
	my ($name, $campaign, %arg) = @_;
	my ($message, $detail, $hint, $db) = @arg{qw(message detail hint db)};
	$twilio->set(reset => 1);
	for my $call ("preview($campaign)", "estimate($campaign)",
		"send_test($campaign, '+15550001234')")
	{
		my $error = sql_error($node, "SELECT * FROM sendcampaign.$call", db => $db, role => 'app');
		like($error->{message}, $message, "$name: $call: the message");
		like($error->{detail}, $detail, "$name: $call: the detail");
		like($error->{hint}, $hint, "$name: $call: the hint");
	}
	my $run = run_campaign($node, $campaign, db => $db);
	is($run->{state}, 'failed', "$name: the run fails");
	like($run->{error}, $message, "$name: the run says why");
	like($run->{error}, $detail, "$name: the run says where");
	my $same_error = sql($node, <<~SQL, db => $db);
		SELECT j.error = r.error
		FROM ac_background_jobs j
		JOIN sendcampaign.run r ON r.job_id = j.id
		WHERE j.id = $run->{job}
		SQL
	is($same_error, 't', "$name: so does the job");
	is($twilio->stats->{create_requests}, 0, "$name: nothing is sent");
	return $run->{job};
}

# A text, what belongs to no placeholder in it, the number of that character, and
# the excerpt in the error
my @bad_texts = (
	[ 'Hi {{name}, how are you?', '{{', 4, '{{name}, how are you?' ],
	[ 'Hi {{name', '{{', 4, '{{name' ],
	[ 'Hi {name}}, you', '}}', 9, '}}, you' ],
	[ 'Hi {{name}}, {{day', '{{', 14, '{{day' ],
	[ 'Hi {{}}', '{{', 4, '{{}}' ],
	[ 'Hi {{ | you }}', '{{', 4, '{{ | you }}' ],
	[ 'Hi {{a{{name}}b}}', '{{', 4, '{{a{{name}}b}}' ],
	[ 'Hi {{name|{you}}}', '{{', 4, '{{name|{you}}}' ],
	[ '{{{{name}}}}', '{{', 1, '{{{{name}}}}' ],
	[ '{{name}}}}', '}}', 9, '}}' ],
	[ '}}', '}}', 1, '}}' ],
	[ 'Sæll 😀 {{name', '{{', 8, '{{name' ],
	[ 'x {{' . 'þ' x 60, '{{', 3, '{{' . 'þ' x 19 . '...' ]);
for my $case (@bad_texts)
{
	my ($text, $braces, $character, $excerpt) = @$case;
	my $stray = qr/a "\Q$braces\E" that belongs to no placeholder/;
	is_refused(
		"text $text",
		create_campaign($node, users => 2, message => $text),
		message => qr/message of campaign \d+ has, at character $character, $stray/,
		detail => qr/The text from there on is "\Q$excerpt\E"\./,
		hint => qr/\{\{key\}\} or \{\{key\|default\}\}\. Write \{\{"\{\{"\}\} and \{\{"\}\}"\}\}/);
}

# It goes on where it stopped, once the text is put right, and not before.
my $campaign = create_campaign($node, users => 2, message => 'Hi {{sms}');
my $job = is_refused(
	'put right', $campaign,
	message => qr/no placeholder/,
	detail => qr/\{\{sms\}/,
	hint => qr/placeholder/);
start_campaign($node, $campaign, job => $job);
is(wait_for_run($node, $job)->{state}, 'failed', 'with the same text, the run fails again');
sql($node, <<~SQL);
	UPDATE ac_campaigns SET data = data || '{"message": "Hi {{sms}}"}' WHERE id = $campaign
	SQL
start_campaign($node, $campaign, job => $job);
sent_once($node, $twilio, $campaign, $job, 'put right', total => 2);

# Braces that are meant are sent.
my @good_texts = (
	[ 'Hi {name}' => 'Hi {name}' ],
	[ 'a { b } c' => 'a { b } c' ],
	[ '{{{sms}}}' => '{+15550000001}' ],
	[ '{{"{{"}}name{{"}}"}}' => '{{name}}' ],
	[ '{{"{{"}}{{sms}}{{"}}"}}' => '{{+15550000001}}' ],
	[ '{{"}}"}}{{"{{"}}' => '}}{{' ],
	[ '{{"{{"}} {{sms}} x{{"{{"}}y' => '{{ +15550000001 x{{y' ]);
for my $case (@good_texts)
{
	my ($text, $expected) = @$case;
	my $campaign = create_campaign($node, users => 1, message => $text, base_url => undef);
	$twilio->set(reset => 1);
	my $job = run_campaign($node, $campaign)->{job};
	is(join(',', map { $_->{body} } $twilio->ledger), $expected, "text $text");
	lose_commits($node, $job, 1);
	is(scalar(my @rows = $twilio->ledger), 1, "text $text: read back");
}

# A value with these bytes is that of one recipient of three; a message or a base
# URL is everybody's.
sub test_value
{
	my ($db, $bytes) = @_;
	my $name = "$db, a value $bytes";
	my $campaign = create_campaign($node, db => $db, users => 3);
	sql($node, <<~SQL, db => $db);
		UPDATE ac_campaigns SET message = 'Hi {{name}}' WHERE id = $campaign;
		UPDATE ac_list_users
		SET name = CASE id % 3 WHEN 0 THEN '$bytes'::bytea::text ELSE 'x' END
		WHERE ac_list_id = (SELECT ac_list_id FROM ac_campaigns WHERE id = $campaign);
		SQL
	$twilio->set(reset => 1);
	my $estimate = "SELECT messages, without_value FROM sendcampaign.estimate($campaign)";
	is(sql($node, $estimate, db => $db), '2|1', "$name: estimate()");
	my $run = run_campaign($node, $campaign, db => $db);
	is("$run->{state} $run->{sent} $run->{skipped}",
		'completed 2 1', "$name: the others are sent");
	my $reason = sql($node, <<~SQL, db => $db);
		SELECT error_message
		FROM sendcampaign.message
		WHERE job_id = $run->{job} AND status = 'skipped'
		SQL
	like(
		$reason,
		qr/^(?:a value cannot be converted to UTF-8|a value is not valid UTF-8)$/,
		"$name: the reason");
	is(scalar(my @rows = $twilio->ledger), 2, "$name: no more than the others are sent");

	for my $column ('message', 'base_url')
	{
		my $what = $column eq 'message' ? 'message' : 'baseUrl';
		sql($node, <<~SQL, db => $db);
			UPDATE ac_campaigns SET message = 'Hi', base_url = 'https://example.org';
			UPDATE ac_campaigns SET $column = '$bytes'::bytea::text WHERE id = $campaign;
			SQL
		is_refused(
			"$db, $column $bytes", $campaign,
			message => qr/^"$what" of campaign $campaign is not valid UTF-?8/,
			detail => qr/Byte [13] of it, 0x(?:ff|c3|ed|f4|c0), is not part of a character\./,
			hint => qr/^Enter the text again\.$/,
			db => $db);
	}
	sql($node, 'UPDATE ac_campaigns SET message = NULL, base_url = NULL', db => $db);
}

# Bytes that are no UTF-8: in SQL_ASCII, and where somebody has got them into UTF8
sql($node, "CREATE DATABASE ascii ENCODING 'SQL_ASCII' LOCALE 'C' TEMPLATE template0");
install_extension($node, 'ascii');
for my $db ('ascii', 'postgres')
{
	sql($node, <<~SQL, db => $db);
		CREATE CAST (bytea AS text) WITHOUT FUNCTION;
		ALTER TABLE ac_list_users ADD name text;
		ALTER TABLE ac_campaigns ADD message text, ADD base_url text;
		SQL
	for my $bytes ('\xff', '\x4869c3', '\xeda080', '\xf4908080', '\xc080')
	{
		test_value($db, $bytes);
	}
}

is(worker_errors($node), '', 'no worker complained');
$node->stop;
done_testing();
