# Settings of the role, which the worker gets as any session of the role does,
# must not get in its way.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../perl";
use Campaign;
use LocalTwilio;
use Test::More;

my $twilio = LocalTwilio->start;
my $node = new_cluster('role_settings', $twilio);
sql($node, 'CREATE SCHEMA decoy AUTHORIZATION app');

my @settings = (
	"statement_timeout = '1ms'",
	"lock_timeout = '1ms'",
	"idle_in_transaction_session_timeout = '1ms'",
	"idle_session_timeout = '1ms'",
	"deadlock_timeout = '1ms'",
	"default_transaction_read_only = on",
	"default_transaction_isolation = 'serializable'",
	"default_transaction_isolation = 'repeatable read'",
	"default_transaction_deferrable = on",
	"synchronous_commit = off",
	"search_path = ''",
	"search_path = decoy, pg_temp, public, pg_catalog",
	"row_security = off",
	"work_mem = '64kB'",
	"client_encoding = 'LATIN1'",
	"datestyle = 'SQL, DMY'",
	"timezone = 'Asia/Kathmandu'",
	"bytea_output = 'escape'",
	"standard_conforming_strings = off",
	"quote_all_identifiers = on",
	"array_nulls = off",
	"extra_float_digits = -15",
	"plan_cache_mode = force_custom_plan",
	"enable_indexscan = off",
	"jit_above_cost = 0",
	"role = 'none'",
	"session_replication_role = 'replica'",
	"log_statement = 'all'",
	"transform_null_equals = on",
	"sendcampaign.max_concurrency = 1");

# Operators of the role's own, which a search_path of it finds first
sql($node, <<~'SQL', role => 'app');
	CREATE FUNCTION decoy.never(bigint, bigint) RETURNS boolean LANGUAGE sql AS 'SELECT false';
	CREATE OPERATOR decoy.= (LEFTARG = bigint, RIGHTARG = bigint, FUNCTION = decoy.never);
	CREATE OPERATOR decoy.> (LEFTARG = bigint, RIGHTARG = bigint, FUNCTION = decoy.never);
	SQL

# Since PostgreSQL 19 it can no longer be switched off.
@settings = grep { !/standard_conforming_strings/ } @settings if $node->pg_version->major >= 19;

for my $setting (@settings)
{
	my $campaign = create_campaign($node, users => 30, message => 'Übermorgen: żółć');
	$twilio->set(reset => 1);
	sql($node, "ALTER ROLE app SET $setting");
	my $job = start_campaign($node, $campaign);
	sent_once($node, $twilio, $campaign, $job, $setting, total => 30);
	my @wrong = grep { $_->{body} !~ /^Übermorgen: żółć http/ } $twilio->ledger;
	is(scalar @wrong, 0, "$setting: the text is right");
	wait_for_no_worker($node);
	sql($node, 'ALTER ROLE app RESET ALL');
}

# All of them together
my $campaign = create_campaign($node, users => 100);
my @together = grep { !/search_path = ''|repeatable read/ } @settings;
sql($node, join ';', map { "ALTER ROLE app SET $_" } @together);
my $job = start_campaign($node, $campaign);
sent_once($node, $twilio, $campaign, $job, 'all together', total => 100);
wait_for_no_worker($node);
is(worker_errors($node), '', 'no worker met an error');

$node->stop;
done_testing();
