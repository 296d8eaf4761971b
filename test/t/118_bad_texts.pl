# Texts that nobody can have meant, and bytes that are no text: said before
# anything is sent, or of the recipient alone.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../perl";
use Campaign;
use LocalTwilio;
use PostgreSQL::Test::Utils;
use Test::More;

my $twilio = LocalTwilio->start;
my $node = new_cluster('bad_texts', $twilio, init => { extra => [ '--encoding=UTF8', '--locale=C' ] });

# The same error from all that read the text, and nothing is sent.
sub is_refused
{
	my ($name, $campaign, $message, $detail, $hint, %arg) = @_;
	my $db = $arg{db} || 'postgres';
	$twilio->set(reset => 1);
	for my $call ("preview($campaign)", "estimate($campaign)", "send_test($campaign, '+15550001234')")
	{
		my $error = sql_error($node, "SET ROLE app; SELECT * FROM sendcampaign.$call", db => $db);
		like($error->{message}, $message, "$name: $call");
		like($error->{detail}, $detail, "$name: $call: the detail");
		like($error->{hint}, $hint, "$name: $call: the hint");
	}
	my $job = start_campaign($node, $campaign, db => $db);
	my $run = wait_for_run($node, $job, db => $db);
	is($run->{state}, 'failed', "$name: the run fails");
	like($run->{error}, $message, "$name: and says why");
	like($run->{error}, $detail, "$name: and where");
	is($node->safe_psql($db, "SELECT error = (SELECT error FROM sendcampaign.run WHERE job_id = $job) FROM ac_background_jobs WHERE id = $job"), 't', "$name: so does the job");
	is($twilio->stats->{create_requests}, 0, "$name: nothing is sent");
	return $job;
}

my @bad = (
	[ 'Hi {{name}, how are you?' => '{{', 4, '{{name}, how are you?' ],
	[ 'Hi {{name' => '{{', 4, '{{name' ],
	[ 'Hi {name}}, you' => '}}', 9, '}}, you' ],
	[ 'Hi {{name}}, {{day' => '{{', 14, '{{day' ],
	[ 'Hi {{}}' => '{{', 4, '{{}}' ],
	[ 'Hi {{ | you }}' => '{{', 4, '{{ | you }}' ],
	[ 'Hi {{a{{name}}b}}' => '{{', 4, '{{a{{name}}b}}' ],
	[ 'Hi {{name|{you}}}' => '{{', 4, '{{name|{you}}}' ],
	[ '{{{{name}}}}' => '{{', 1, '{{{{name}}}}' ],
	[ '{{name}}}}' => '}}', 9, '}}' ],
	[ '}}' => '}}', 1, '}}' ],
	[ 'Sæll 😀 {{name' => '{{', 8, '{{name' ],
	[ 'x {{' . 'þ' x 60 => '{{', 3, '{{' . 'þ' x 19 . '...' ]);
for my $case (@bad)
{
	my ($text, $what, $character, $excerpt) = @$case;
	is_refused("text $text", create_campaign($node, users => 2, message => $text),
		qr/message of campaign \d+ has a "\Q$what\E" that belongs to no placeholder, at character $character(?!\d)/,
		qr/: "\Q$excerpt\E"\./, qr/\{\{key\}\} or \{\{key\|default\}\}; write \{\{"\{\{"\}\} and \{\{"\}\}"\}\}/);
}

# It goes on where it stopped, once the text is put right, and not before.
my $campaign = create_campaign($node, users => 2, message => 'Hi {{sms}');
my $job = is_refused('put right', $campaign, qr/no placeholder/, qr/\{\{sms\}/, qr/placeholder/);
start_campaign($node, $campaign, job => $job);
is(wait_for_run($node, $job)->{state}, 'failed', 'as it was: it fails again');
$node->safe_psql('postgres', qq{UPDATE ac_campaigns SET data = data || '{"message": "Hi {{sms}}"}' WHERE id = $campaign});
start_campaign($node, $campaign, job => $job);
sent_once($node, $twilio, $campaign, $job, 'put right', total => 2);

# Braces that are meant are sent.
for my $case ([ 'Hi {name}' => 'Hi {name}' ], [ 'a { b } c' => 'a { b } c' ], [ '{{{sms}}}' => '{+15550000001}' ],
	[ '{{"{{"}}name{{"}}"}}' => '{{name}}' ], [ '{{"{{"}}{{sms}}{{"}}"}}' => '{{+15550000001}}' ], [ '{{"}}"}}{{"{{"}}' => '}}{{' ],
	[ '{{"{{"}} {{sms}} x{{"{{"}}y' => '{{ +15550000001 x{{y' ])
{
	my ($text, $expected) = @$case;
	$twilio->set(reset => 1);
	my $job = start_campaign($node, create_campaign($node, users => 1, message => $text, base_url => undef));
	wait_for_run($node, $job);
	is(join(',', map { $_->{body} } $twilio->ledger), $expected, "text $text");
	lose_commits($node, $job, 1);
	is(scalar(my @rows = $twilio->ledger), 1, "text $text: read back");
}

# Bytes that are no UTF-8: in SQL_ASCII, and where somebody has got them into UTF8.
$node->safe_psql('postgres', "CREATE DATABASE ascii ENCODING 'SQL_ASCII' LOCALE 'C' TEMPLATE template0");
install_extension($node, 'ascii');
$node->safe_psql($_, q{CREATE CAST (bytea AS text) WITHOUT FUNCTION;
	ALTER TABLE ac_list_users ADD name text; ALTER TABLE ac_campaigns ADD message text, ADD base_url text}) for 'postgres', 'ascii';
for my $db ('ascii', 'postgres')
{
	for my $bytes ('\xff', '\x4869c3', '\xeda080', '\xf4908080', '\xc080')
	{
		my $campaign = create_campaign($node, db => $db, users => 3);
		$node->safe_psql($db, qq{UPDATE ac_campaigns SET message = 'Hi {{name}}' WHERE id = $campaign;
			UPDATE ac_list_users SET name = CASE id % 3 WHEN 0 THEN '$bytes'::bytea::text ELSE 'x' END
			WHERE ac_list_id = (SELECT ac_list_id FROM ac_campaigns WHERE id = $campaign)});
		$twilio->set(reset => 1);
		is($node->safe_psql($db, "SELECT messages, without_value FROM sendcampaign.estimate($campaign)"), '2|1', "$db, a value $bytes: estimate");
		my $job = start_campaign($node, $campaign, db => $db);
		my $run = wait_for_run($node, $job, db => $db);
		is("$run->{state} $run->{sent} $run->{skipped}", 'completed 2 1', "$db, a value $bytes: the others are sent");
		like($node->safe_psql($db, "SELECT error_message FROM sendcampaign.message WHERE job_id = $job AND status = 'skipped'"),
			qr/^a value (cannot be converted to|is not valid) UTF-8$/, "$db, a value $bytes: the reason");
		is(scalar(my @rows = $twilio->ledger), 2, "$db, a value $bytes: no more");

		for my $column ('message', 'base_url')
		{
			my $what = $column eq 'message' ? 'message' : 'baseUrl';
			$node->safe_psql($db, "UPDATE ac_campaigns SET message = 'Hi', base_url = 'https://example.org';
				UPDATE ac_campaigns SET $column = '$bytes'::bytea::text WHERE id = $campaign");
			is_refused("$db, $column $bytes", $campaign, qr/the $what of campaign $campaign is not valid UTF-?8/,
				qr/Byte [13] of it, which is 0x(ff|c3|ed|f4|c0), is not part of a character/, qr/Write the text again/, db => $db);
		}
		$node->safe_psql($db, 'UPDATE ac_campaigns SET message = NULL, base_url = NULL');
	}
}

is(worker_errors($node), '', 'no worker complained');
$node->stop;
done_testing();
