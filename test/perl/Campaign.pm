# A cluster with the extension, the application's tables and a campaign.
package Campaign;

use strict;
use warnings;

use Cwd qw(abs_path);
use Exporter 'import';
use LocalTwilio;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

our @EXPORT = qw(new_cluster install_extension create_campaign wait_for_run wait_for_no_worker
  poll run_row);

# A running cluster that sends to this local Twilio; conf => lines to add.
sub new_cluster
{
	my ($name, $twilio, %arg) = @_;
	my $node = PostgreSQL::Test::Cluster->new($name);
	$node->init(%{ $arg{init} || {} });
	$node->append_conf('postgresql.conf', $ENV{SENDCAMPAIGN_TEST_CONF}) if $ENV{SENDCAMPAIGN_TEST_CONF};
	$node->append_conf('postgresql.conf',
		"sendcampaign.api_url = '" . $twilio->url . "'\n"
		  . "sendcampaign.ca_file = '" . ($twilio->{tls} ? $twilio->ca_file : '') . "'\n"
		  . "fsync = on\n" . ($arg{conf} || ''));
	$node->start;
	install_extension($node, $arg{db} || 'postgres') if !$arg{no_extension};
	return $node;
}

# The extension, and a role "app" that owns the application's tables.
sub install_extension
{
	my ($node, $db) = @_;
	$node->safe_psql($db, q{
		CREATE EXTENSION sendcampaign;
		DO $$ BEGIN CREATE ROLE app LOGIN; EXCEPTION WHEN duplicate_object THEN NULL; END $$;
		GRANT CREATE ON SCHEMA public TO app;
		GRANT USAGE ON SCHEMA sendcampaign TO app;
		SET ROLE app;
		SELECT sendcampaign.create_tables();
	});
}

# A group, a list of so many users +1555nnnnnnn, a campaign; returns its id.
# Options: db, users, message, base_url (undef for none), group (id of an existing one).
sub create_campaign
{
	my ($node, %arg) = @_;
	my $users = $arg{users} // 10;
	my $message = $arg{message} // 'Hello';
	my $base_url = exists $arg{base_url} ? $arg{base_url} : 'https://example.org/survey';
	my $data = 'jsonb_build_object(' . join(', ', "'message', " . quoted($message),
		defined $base_url ? ("'baseUrl', " . quoted($base_url)) : ()) . ')';
	return $node->safe_psql($arg{db} || 'postgres', qq{
		SET ROLE app;
		WITH g AS (INSERT INTO groups (configuration) VALUES (jsonb_build_object(
				'twilioAccountSid', '$LocalTwilio::ACCOUNT', 'twilioAuthToken', '$LocalTwilio::TOKEN',
				'twilioFromSmsNumber', '$LocalTwilio::SENDER')) RETURNING id),
		l AS (INSERT INTO ac_lists (group_id) SELECT id FROM g RETURNING id),
		u AS (INSERT INTO ac_list_users (ac_list_id, data) SELECT l.id,
				jsonb_build_object('sms', '+1555' || lpad(i::text, 7, '0'))
				FROM l, generate_series(1, $users) i)
		INSERT INTO ac_campaigns (ac_list_id, data) SELECT id, $data FROM l RETURNING id;
	});
}

sub quoted { my $s = shift; $s =~ s/'/''/g; return "'$s'::text"; }

sub run_row
{
	my ($node, $job, $db) = @_;
	my $row = $node->safe_psql($db || 'postgres',
		"SELECT state, total, sent, failed, skipped, in_doubt, error FROM sendcampaign.run WHERE job_id = $job");
	my %run;
	@run{qw(state total sent failed skipped in_doubt error)} = split /\|/, $row, 7;
	return \%run;
}

# Waits until the run has ended (or has the state given) and returns its row.
sub wait_for_run
{
	my ($node, $job, %arg) = @_;
	my $states = $arg{state} ? "'$arg{state}'" : "'completed', 'failed', 'cancelled'";
	my $db = $arg{db} || 'postgres';
	$node->poll_query_until($db,
		"SELECT state IN ($states) FROM sendcampaign.run WHERE job_id = $job")
	  or diag("run of job $job did not end: "
		  . $node->safe_psql($db, "SELECT * FROM sendcampaign.run WHERE job_id = $job"));
	return run_row($node, $job, $db);
}

sub wait_for_no_worker
{
	my $node = shift;
	$node->poll_query_until('postgres',
		"SELECT count(*) = 0 FROM pg_stat_activity WHERE backend_type = 'sendcampaign worker'")
	  or diag('a worker is left');
}

# Polls a condition every 20 ms, for up to 120 s (or so many).
sub poll
{
	my ($condition, $seconds) = @_;
	my $until = Time::HiRes::time() + ($seconds || 120);
	while (Time::HiRes::time() < $until)
	{
		return 1 if $condition->();
		Time::HiRes::sleep(0.02);
	}
	return 0;
}

1;
