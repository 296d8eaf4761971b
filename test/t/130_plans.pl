# Statements that take ids read them by the primary key, on a list of many
# without an index on the list as well as with one, whatever the statistics
# were when they were planned.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../perl";
use Campaign;
use LocalTwilio;
use PostgreSQL::Test::Utils;
use Session;
use Test::More;

my $users = $ENV{PLAN_USERS} || 20000;
my $twilio = LocalTwilio->start;
my $node = new_cluster('plans', $twilio, conf => <<~CONF);
	shared_preload_libraries = 'auto_explain'
	auto_explain.log_min_duration = 0
	auto_explain.log_analyze = on
	autovacuum = off
	CONF

# How the statements that take ids begin, and what their plans must not have
my $statement = qr/SELECT r\.n, r\.id|UPDATE public\.\w+ u SET|WITH got/;
my $slow = qr/Seq Scan|ac_list_id_idx|Rows Removed by (?:Join )?Filter: \d{5,}/;

sub test_plans
{
	my ($name, $db, $changes) = @_;
	sql($node, "CREATE DATABASE $db");
	install_extension($node, $db);
	# planned while the table is as good as empty
	my $first = create_campaign($node, db => $db, users => 2, message => "$db first");
	sql($node, $changes, db => $db, role => 'app');
	is(run_campaign($node, $first, db => $db)->{sent}, 2, "$name: a small campaign");

	my $campaign = create_campaign($node, db => $db, users => $users, message => $db);
	sql($node, <<~SQL, db => $db);
		UPDATE ac_list_users
		SET data = data || jsonb_build_object('sms', '0')
		WHERE id > 2 + 1000
		SQL
	my $offset = -s $node->logfile;
	# one is locked, so that outcomes are recorded with care, too
	my $locker = Session->open($node, $db);
	$locker->query('BEGIN; SELECT FROM ac_list_users WHERE id = 3 FOR UPDATE');
	my $job = start_campaign($node, $campaign, db => $db);
	wait_until($node, "SELECT sent > 500 FROM sendcampaign.run WHERE job_id = $job", db => $db);
	$locker->query('COMMIT');
	$locker->close;
	is(wait_for_run($node, $job, db => $db)->{sent}, 1000, '... and a long one');

	my %seen;
	for my $entry (split /\n(?=\d{4}-)/, slurp_file($node->logfile, $offset))
	{
		my ($what) = $entry =~ /Query Text: ($statement)/ or next;
		$seen{$what}++;
		$seen{"$what: $1"}++ if $entry =~ /($slow)/;
	}
	is_deeply(
		[ sort keys %seen ],
		[ 'SELECT r.n, r.id', 'UPDATE public.ac_list_users u SET', 'WITH got' ],
		"$name: each of the statements reads by id alone") or diag(explain(\%seen));
}

test_plans('no index on the list', 'without', 'DROP INDEX ac_list_users_ac_list_id_idx');
test_plans('an index on the list', 'indexed', '');
wait_for_no_worker($node);
$node->stop;
done_testing();
