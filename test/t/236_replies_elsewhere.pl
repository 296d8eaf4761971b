# Replies in a database of another encoding, and in one that was loaded from a dump.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../perl";
use Campaign;
use LocalTwilio;
use Test::More;
use Webhook;

my $twilio = LocalTwilio->start;
my $node = new_cluster('elsewhere', $twilio);
create_webhook_role($node);
sql($node, q(CREATE DATABASE latin1 TEMPLATE template0 ENCODING 'LATIN1' LOCALE 'C'));
install_extension($node, 'latin1');
sql($node, <<~'SQL', db => 'latin1');
	GRANT USAGE ON SCHEMA sendcampaign TO webhook;
	SQL

# A campaign that has been sent, in a group that wants replies
sub campaign_in
{
	my $db = shift;
	my $campaign = create_campaign($node, db => $db, users => 5);
	configure(
		$node,
		$campaign,
		qq(configuration || '{"twilioStatusCallback": "$URL"}')
		  . q( || '{"stopWords": ["ÁFRAM", "h\u00e6tta"]}'),
		db => $db);
	run_campaign($node, $campaign, db => $db);
	return $campaign;
}

sub replies_in
{
	my $db = shift;
	return sql($node, <<~'SQL', db => $db);
		SET client_encoding = 'UTF8';
		SELECT string_agg(body || ' (' || coalesce(word, '') || ')', ', ' ORDER BY received_at)
		FROM sendcampaign.reply
		SQL
}

$ENV{PGCLIENTENCODING} = 'UTF8';
campaign_in('latin1');
my @texts =
  ("Gr\xc3\xbc\xc3\x9fe", "\xe4\xbd\xa0 \xf0\x9f\x8e\x89", "\xc3\xa1fram", "H\xc3\x86TTA");
for my $n (0 .. $#texts)
{
	is(receive($node, inbound_form("SM$n", '+15550000001', $texts[$n]), db => 'latin1'),
		'reply', "a text in UTF-8: $n");
}
is( replies_in('latin1'),
	"Gr\xc3\xbc\xc3\x9fe (), ? ? (), \xc3\xa1fram (stop), H\xc3\x86TTA (stop)",
	'is stored as far as the encoding has its characters, and compared as it was');
is(sql($node, 'SELECT count(*) FROM sendcampaign.opt_out', db => 'latin1'),
	1, 'they have opted out');
is( receive_error(
		$node,
		{ url => $URL, signature => 'x', body => "AccountSid=\xc3\xa1" },
		db => 'latin1')->{sqlstate},
	'22023',
	'characters that are not escaped are none of Twilio');

# A dump
my $campaign = campaign_in('postgres');
is(receive($node, inbound_form('SM1', '+15550000001', 'STOP')), 'reply', 'a reply');
is(receive($node, inbound_form('SM2', '+15550000002', 'Hello')), 'reply', 'another one');
sql($node, q(SELECT sendcampaign.forget_recipient('+15550000002')), role => 'app');
my $dump = $node->backup_dir . '/dump';
mkdir $node->backup_dir;
$node->command_ok([ 'pg_dump', '-Fc', '-f', $dump, '-d', $node->connstr('postgres') ], 'a dump');
sql($node, 'CREATE DATABASE copy TEMPLATE template0');
$node->command_ok([ 'pg_restore', '-d', $node->connstr('copy'), $dump ], 'is restored');
is( sql($node, 'SELECT sid, phone, body, role FROM sendcampaign.reply',
		db => 'copy',
		role => 'app'),
	'SM1|+15550000001|STOP|app',
	'with its replies');
is(sql($node, 'SELECT count(*) FROM sendcampaign.reply_data', db => 'copy'),
	2, 'and what is left of others');
is(sql($node, 'SELECT count(*) FROM sendcampaign.reply', db => 'copy', role => 'webhook'),
	0, 'nobody else sees them');
is(receive_error($node, inbound_form('SM3', '+15550000001', 'START'), db => 'copy')->{sqlstate},
	'28000', 'its runs belong elsewhere');
sql($node,
		'DELETE FROM sendcampaign.reply_data; DELETE FROM sendcampaign.run_data;'
	  . ' DELETE FROM sendcampaign.message_data; DELETE FROM sendcampaign.opt_out_data');
$node->command_ok(
	[ 'pg_restore', '--data-only', '-n', 'sendcampaign', '-d', $node->connstr('postgres'), $dump ],
	'the same rows are loaded in place');
is(sql($node, 'SELECT count(*) FROM sendcampaign.reply', role => 'app'), 1, 'they are there');
run_campaign($node, $campaign);
is(receive($node, inbound_form('SM1', '+15550000001', 'STOP')), 'known', 'what is known is known');
is(receive($node, inbound_form('SM2', '+15550000002', 'Hello')),
	'known', 'what is forgotten is, too');
is(receive($node, inbound_form('SM4', '+15550000001', 'START')), 'reply', 'what is new counts');
is(sql($node, 'SELECT count(*) FROM sendcampaign.opt_out'), 0, 'for an opt-out from before');
is(worker_errors($node), '', 'nothing else has happened');
$node->stop;
done_testing();
