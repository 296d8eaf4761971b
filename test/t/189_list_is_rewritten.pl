# The list users' table is rewritten, filled anew or replaced in the moment in
# which a run begins: nobody is forgotten.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../perl";
use Campaign;
use LocalTwilio;
use Test::More;

my $twilio = LocalTwilio->start;
my $node = new_cluster('list_is_rewritten', $twilio);
my %change = (
	'rewritten' => <<~'SQL',
		ALTER TABLE ac_list_users
		    ALTER data TYPE jsonb USING data || jsonb_build_object('new', 1);
		SQL
	'filled anew' => <<~'SQL',
		CREATE TEMP TABLE kept ON COMMIT DROP AS TABLE ac_list_users;
		TRUNCATE ac_list_users;
		INSERT INTO ac_list_users TABLE kept;
		SQL
	'replaced' => <<~'SQL');
		ALTER TABLE ac_list_users RENAME TO was;
		CREATE TABLE ac_list_users (LIKE was INCLUDING ALL);
		INSERT INTO ac_list_users TABLE was;
		ALTER TABLE was SET SCHEMA archive;
		SQL
sql($node, <<~'SQL');
	CREATE SCHEMA archive AUTHORIZATION app;
	ALTER TABLE ac_list_users ALTER id DROP DEFAULT;
	ALTER SEQUENCE ac_list_users_id_seq OWNED BY NONE;
	ALTER TABLE ac_list_users ALTER id SET DEFAULT nextval('ac_list_users_id_seq');
	SQL

# The worker waits for the table.
my $waits_for_lock = <<~'SQL';
	SELECT count(*) > 0
	FROM pg_stat_activity
	WHERE backend_type = 'sendcampaign worker' AND wait_event_type = 'Lock'
	SQL
for my $what (sort keys %change)
{
	for my $try (1 .. 2)
	{
		my $campaign = create_campaign($node, users => 5, message => "$what $try");
		my $session = $node->background_psql('postgres');
		set_and_reload($node, 'sendcampaign.enabled', 'off');
		my $job = start_campaign($node, $campaign);
		wait_for_no_worker($node);
		$session->query_safe("SET ROLE app; BEGIN; $change{$what}");
		set_and_reload($node, 'sendcampaign.enabled', 'on');
		sql($node, 'SELECT sendcampaign.wake()');
		poll(sub { sql($node, $waits_for_lock) eq 't' }) or diag('nobody waits');
		$session->query_safe('COMMIT');
		my $run = wait_for_run($node, $job);
		my $outcome = "$run->{state} $run->{total} $run->{sent}";
		is($outcome, 'completed 5 5', "$what, $try: all are sent to") or diag($run->{error});
		$session->quit;
		sql($node, 'DROP TABLE IF EXISTS archive.was');
	}
}
my $was_replaced =
	'"public.ac_list_users" was replaced while the run was starting.'
  . ' The run will start again with the table that now has this name.';
my $rest_of_log = log_of($node) =~ s/\Q$was_replaced\E//gr;
unlike($rest_of_log, qr/was replaced while/, 'the log has it in these words, if it happened');
$node->stop;
done_testing();
