# The list users' table is rewritten, filled anew or replaced in the moment in
# which a run begins: nobody is forgotten, and the text is the one that belongs to
# the new rows, also where runs do not begin many in one go.
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
	WHERE backend_type IN ('sendcampaign worker', 'sendcampaign list worker')
	    AND wait_event_type = 'Lock'
	SQL
my $media = q({"mediaUrl": "https://example.org/picture.png"});
for my $what (sort keys %change)
{
	for my $kind ('text', 'media', 'query')
	{
		my $campaign = create_campaign($node, users => 5, message => "Old $what, $kind");
		my $list = sql($node, 'SELECT ' . list_of($campaign));
		my $users = "SELECT id FROM public.ac_list_users WHERE ac_list_id = $list";
		my @query = $kind eq 'query' ? (recipients => $users) : ();
		my $session = $node->background_psql('postgres');
		sql($node, "UPDATE ac_campaigns SET data = data || '$media' WHERE id = $campaign")
		  if $kind eq 'media';
		set_and_reload($node, 'sendcampaign.enabled', 'off');
		my $job = start_campaign($node, $campaign, @query);
		wait_for_no_worker($node);
		$session->query_safe("SET ROLE app; BEGIN; $change{$what}");
		$session->query_safe(<<~"SQL");
			UPDATE ac_campaigns
			SET data = data || '{"message": "New $what, $kind"}'
			WHERE id = $campaign
			SQL
		set_and_reload($node, 'sendcampaign.enabled', 'on');
		sql($node, 'SELECT sendcampaign.wake()');
		poll(sub { sql($node, $waits_for_lock) eq 't' }) or diag('nobody waits');
		$session->query_safe('COMMIT');
		my $run = wait_for_run($node, $job);
		my $outcome = "$run->{state} $run->{total} $run->{sent}";
		is($outcome, 'completed 5 5', "$what, $kind: all are sent to") or diag($run->{error});
		is(sent_with($twilio, "New $what, $kind"), 5, "$what, $kind: the new text");
		$session->quit;
		sql($node, 'DROP TABLE IF EXISTS archive.was');
	}
}
# A run has failed, and is called again: its text is read anew.
my $campaign = create_campaign($node, users => 5, message => 'Old {{name}}', base_url => undef);
sql($node, "UPDATE ac_campaigns SET data = data || '$media' WHERE id = $campaign");
sql($node, qq(UPDATE ac_list_users SET data = data || '{"name": "name"}'));
configure($node, $campaign, "configuration - 'twilioAuthToken'");
my $failed = start_campaign($node, $campaign);
is(wait_for_run($node, $failed, alone => 1)->{state}, 'failed', 'called again: it has failed');
configure($node, $campaign, qq(configuration || '{"twilioAuthToken": "$LocalTwilio::TOKEN"}'));
wait_for_no_worker($node);
my $holder = $node->background_psql('postgres');
set_and_reload($node, 'sendcampaign.enabled', 'off');
start_campaign($node, $campaign, job => $failed);
$holder->query_safe(<<~"SQL");
	BEGIN;
	LOCK ac_list_users IN ACCESS EXCLUSIVE MODE;
	UPDATE ac_list_users SET data = data || '{"name": "new name"}';
	UPDATE ac_campaigns SET data = data || '{"message": "New {{name}}"}' WHERE id = $campaign;
	SQL
set_and_reload($node, 'sendcampaign.enabled', 'on');
sql($node, 'SELECT sendcampaign.wake()');
poll(sub { sql($node, $waits_for_lock) eq 't' }) or diag('nobody waits');
$holder->query_safe('COMMIT');
$holder->quit;
is(wait_for_run($node, $failed)->{sent}, 5, 'called again: all are sent to');
is(sent_with($twilio, 'New new name'), 5, 'called again: the new text, to the new names');

my $was_replaced =
	'"public.ac_list_users" was replaced while the run was starting.'
  . ' The run will start again with the table that now has this name.';
my $rest_of_log = log_of($node) =~ s/\Q$was_replaced\E//gr;
unlike($rest_of_log, qr/was replaced while/, 'the log has it in these words, if it happened');
$node->stop;
done_testing();
