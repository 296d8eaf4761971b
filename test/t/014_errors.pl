# Each mistake of a caller: the right SQLSTATE, and a hint that helps.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../perl";
use Campaign;
use LocalTwilio;
use PostgreSQL::Test::Utils;
use Test::More;

my $twilio = LocalTwilio->start;
my $node = new_cluster('errors', $twilio);
my $campaign = create_campaign($node, users => 1);
my $other = create_campaign($node, users => 1);

# refused($sql, sqlstate, message, hint, name): as role app unless $sql says so
sub refused
{
	my ($sql, $sqlstate, $message, $hint, $name) = @_;
	my $error = sql_error($node, "SET ROLE app; $sql");
	is($error->{sqlstate}, $sqlstate, "$name: SQLSTATE");
	like($error->{message}, $message, "$name: message");
	like($error->{hint}, $hint, "$name: hint");
}

refused('SELECT send_campaign(4711)', 'P0002', qr/^campaign 4711 does not exist$/,
	qr/"public\.ac_campaigns"/, 'unknown campaign');
refused('SELECT send_campaign(NULL)', '22004', qr/^campaign_id must not be null$/,
	qr/ac_campaigns/, 'NULL campaign');
refused("SELECT send_campaign($campaign, 4711)", 'P0002', qr/^background job 4711 does not exist$/,
	qr/"public\.ac_background_jobs"/, 'unknown job');
refused("SELECT send_campaign(9223372036854775807)", 'P0002', qr/does not exist$/,
	qr/ac_campaigns/, 'campaign beyond integer');
refused("SELECT send_campaign($campaign, -1)", 'P0002', qr/^background job -1 does not exist$/,
	qr/created/, 'negative job');

$twilio->set(hold => 1);
my $job = start_campaign($node, $campaign);
wait_for_flight($twilio, 1);
refused("SELECT send_campaign($other, $job)", '42710', qr/^background job $job belongs to another campaign$/,
	qr/of its own/, 'job of another campaign');
refused("SELECT send_campaign($campaign)", '55006', qr/^campaign $campaign is being sent already$/,
	qr/sendcampaign\.progress/, 'campaign that is being sent');
$twilio->set(hold => 0);
wait_for_run($node, $job);

refused("SET sendcampaign.schema = 'nowhere'; SELECT send_campaign($campaign)", '3F000',
	qr/^schema "nowhere" does not exist$/, qr/create_tables\(/, 'missing schema');
for my $table (qw(groups ac_lists ac_campaigns ac_list_users ac_background_jobs))
{
	refused("BEGIN; ALTER TABLE $table RENAME TO gone; SELECT send_campaign($campaign)", '42P01',
		qr/^table "public\.$table" does not exist$/, qr/create_tables\('public'\)/, "no table $table");
}
refused("SET default_transaction_read_only = on; SELECT send_campaign($campaign)", '25006',
	qr/^cannot execute send_campaign\(\) in a read-only transaction$/, qr/\w/, 'read-only transaction');

# Rights: each that is missing is named.
my %rights = (groups => ['SELECT'], ac_lists => ['SELECT'], ac_campaigns => ['SELECT'],
	ac_list_users => [ 'SELECT', 'UPDATE' ], ac_background_jobs => [ 'SELECT', 'UPDATE', 'INSERT' ]);
$node->safe_psql('postgres', q{
	CREATE ROLE sender LOGIN;
	GRANT SELECT ON groups, ac_lists, ac_campaigns TO sender;
	GRANT SELECT, UPDATE ON ac_list_users, ac_background_jobs TO sender;
	GRANT INSERT ON ac_background_jobs TO sender;
	GRANT USAGE ON SEQUENCE ac_background_jobs_id_seq TO sender});
for my $table (sort keys %rights)
{
	for my $right (@{ $rights{$table} })
	{
		refused("BEGIN; REVOKE $right ON $table FROM sender; RESET ROLE; SET ROLE sender; SELECT send_campaign($campaign)",
			'42501', qr/^permission denied for table $table$/, qr/^GRANT $right ON public\.$table TO sender;$/,
			"no $right on $table");
	}
}
$node->safe_psql('postgres', q{
	CREATE SCHEMA closed; SELECT sendcampaign.create_tables('closed');
	GRANT SELECT, INSERT, UPDATE ON ALL TABLES IN SCHEMA closed TO sender});
refused("RESET ROLE; SET ROLE sender; SET sendcampaign.schema = 'closed'; SELECT send_campaign(1)", '42501',
	qr/^permission denied for schema closed$/, qr/^GRANT USAGE ON SCHEMA closed TO sender;$/,
	'no USAGE on the schema of the tables');
is(wait_for_run($node, start_campaign($node, $campaign, role => 'sender'))->{state}, 'completed',
	'and with all of these rights it is sent');

# A role that a worker cannot be.
my $version = $node->safe_psql('postgres', 'SHOW server_version_num');
SKIP:
{
	skip 'from PostgreSQL 17 on a worker needs no LOGIN', 3 if $version >= 170000;
	refused("RESET ROLE; BEGIN; ALTER ROLE sender NOLOGIN; SET ROLE sender; SELECT send_campaign($campaign)",
		'55000', qr/^cannot send with the rights of role "sender"$/, qr/^ALTER ROLE sender LOGIN;/, 'no LOGIN');
}
refused("RESET ROLE; BEGIN; REVOKE CONNECT ON DATABASE postgres FROM PUBLIC; SET ROLE sender;
	SELECT send_campaign($campaign)", '55000', qr/^cannot send with the rights of role "sender"$/,
	qr/^GRANT CONNECT ON DATABASE postgres TO sender;$/, 'no CONNECT');

wait_for_no_worker($node);
is(scalar($twilio->ledger), 2, 'and nothing of what was refused is sent');
$node->stop;
done_testing();
