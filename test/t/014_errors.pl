# Each mistake of a caller: the right SQLSTATE, and a hint that helps.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../perl";
use Campaign;
use LocalTwilio;
use Test::More;

my $twilio = LocalTwilio->start;
my $node = new_cluster('errors', $twilio);
my $campaign = create_campaign($node, users => 1);
my $other = create_campaign($node, users => 1);
my $send = "SELECT send_campaign($campaign)";

# Tests the error of some SQL, which the role "app" runs unless it says
# otherwise; returns it.
sub refused
{
	my ($name, $sql, %expected) = @_;
	my $error = sql_error($node, $sql, role => 'app');
	is($error->{sqlstate}, $expected{sqlstate}, "$name: SQLSTATE");
	like($error->{message}, $expected{message}, "$name: message");
	like($error->{hint}, $expected{hint}, "$name: hint");
	return $error;
}

#
# Campaigns and jobs
#
refused(
	'unknown campaign',
	'SELECT send_campaign(4711)',
	sqlstate => 'P0002',
	message => qr/^campaign 4711 does not exist$/,
	hint => qr/"public\.ac_campaigns"/);
refused(
	'null campaign',
	'SELECT send_campaign(NULL)',
	sqlstate => '22004',
	message => qr/^campaign_id must not be null$/,
	hint => qr/ac_campaigns/);
refused(
	'unknown job',
	"SELECT send_campaign($campaign, 4711)",
	sqlstate => 'P0002',
	message => qr/^background job 4711 does not exist$/,
	hint => qr/"public\.ac_background_jobs"/);
refused(
	'campaign greater than an integer',
	'SELECT send_campaign(9223372036854775807)',
	sqlstate => 'P0002',
	message => qr/does not exist$/,
	hint => qr/ac_campaigns/);
refused(
	'negative job', "SELECT send_campaign($campaign, -1)",
	sqlstate => 'P0002',
	message => qr/^background job -1 does not exist$/,
	hint => qr/created/);

$twilio->set(hold => 1);
my $job = start_campaign($node, $campaign);
wait_for_flight($twilio, 1);
refused(
	'job of another campaign',
	"SELECT send_campaign($other, $job)",
	sqlstate => '42710',
	message => qr/^background job $job belongs to another campaign$/,
	hint => qr/^Use a separate background job/);
refused(
	'campaign that is being sent',
	$send,
	sqlstate => '55006',
	message => qr/^campaign $campaign is already being sent$/,
	hint => qr/sendcampaign\.progress/);
$twilio->set(hold => 0);
wait_for_run($node, $job);

#
# The application's tables
#
refused(
	'missing schema',
	"SET sendcampaign.schema = 'nowhere'; $send",
	sqlstate => '3F000',
	message => qr/^schema "nowhere" does not exist$/,
	hint => qr/create_tables\(/);
for my $table (qw(groups ac_lists ac_campaigns ac_list_users ac_background_jobs))
{
	refused(
		"missing table $table",
		"BEGIN; ALTER TABLE $table RENAME TO gone; $send",
		sqlstate => '42P01',
		message => qr/^table "public\.$table" does not exist$/,
		hint => qr/create_tables\('public'\)/);
}
refused(
	'read-only transaction',
	"SET default_transaction_read_only = on; $send",
	sqlstate => '25006',
	message => qr/^cannot execute send_campaign\(\) in a read-only transaction$/,
	hint => qr/\w/);

#
# Rights: each that is missing is named.
#
my %rights = (
	groups => ['SELECT'],
	ac_lists => ['SELECT'],
	ac_campaigns => ['SELECT'],
	ac_list_users => [ 'SELECT', 'UPDATE' ],
	ac_background_jobs => [ 'SELECT', 'UPDATE', 'INSERT' ]);
sql($node, <<~'SQL');
	CREATE ROLE sender LOGIN;
	GRANT SELECT ON groups, ac_lists, ac_campaigns TO sender;
	GRANT SELECT, UPDATE ON ac_list_users, ac_background_jobs TO sender;
	GRANT INSERT ON ac_background_jobs TO sender;
	GRANT USAGE ON SEQUENCE ac_background_jobs_id_seq TO sender;
	SQL
for my $table (sort keys %rights)
{
	for my $right (@{ $rights{$table} })
	{
		my $sql = <<~"SQL";
			BEGIN;
			REVOKE $right ON $table FROM sender;
			RESET ROLE;
			SET ROLE sender;
			$send;
			SQL
		refused(
			"no $right on $table",
			$sql,
			sqlstate => '42501',
			message => qr/^permission denied for table $table$/,
			hint => qr/^Use GRANT $right ON public\.$table TO sender\.$/);
	}
}
sql($node, <<~'SQL');
	CREATE SCHEMA closed;
	SELECT sendcampaign.create_tables('closed');
	GRANT SELECT, INSERT, UPDATE ON ALL TABLES IN SCHEMA closed TO sender;
	SQL
my $in_closed_schema = <<~'SQL';
	RESET ROLE;
	SET ROLE sender;
	SET sendcampaign.schema = 'closed';
	SELECT send_campaign(1);
	SQL
refused(
	'no USAGE on the schema of the tables',
	$in_closed_schema,
	sqlstate => '42501',
	message => qr/^permission denied for schema closed$/,
	hint => qr/^Use GRANT USAGE ON SCHEMA closed TO sender\.$/);
is(run_campaign($node, $campaign, role => 'sender')->{state},
	'completed', 'with all of these rights it is sent');

#
# A role that a worker cannot be
#
my $use_login =
	'Use ALTER ROLE sender LOGIN.'
  . ' Before PostgreSQL 17, a background worker cannot connect as a role without LOGIN.'
  . ' The role needs no password.';
SKIP:
{
	skip 'a worker needs no LOGIN since PostgreSQL 17', 3 if $node->pg_version->major >= 17;
	my $without_login = <<~"SQL";
		RESET ROLE;
		BEGIN;
		ALTER ROLE sender NOLOGIN;
		SET ROLE sender;
		$send;
		SQL
	refused(
		'no LOGIN', $without_login,
		sqlstate => '55000',
		message => qr/^role "sender" is not permitted to log in$/,
		hint => qr/^\Q$use_login\E$/);
}
my $without_connect = <<~"SQL";
	RESET ROLE;
	BEGIN;
	REVOKE CONNECT ON DATABASE postgres FROM PUBLIC;
	SET ROLE sender;
	$send;
	SQL
my $error = refused(
	'no CONNECT', $without_connect,
	sqlstate => '55000',
	message => qr/^role "sender" has no CONNECT privilege on database "postgres"$/,
	hint => qr/^Use GRANT CONNECT ON DATABASE postgres TO sender\.$/);
is( $error->{detail},
	'The worker that sends the campaign connects as that role.',
	'no CONNECT: detail');

wait_for_no_worker($node);
is(scalar($twilio->ledger), 2, 'nothing of what was refused is sent');
$node->stop;
done_testing();
