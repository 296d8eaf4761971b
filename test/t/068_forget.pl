# forget(): what has ended goes; forget_recipient(): a number is erased, and
# what was counted stays.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../perl";
use Campaign;
use LocalTwilio;
use Session;
use Test::More;

my $twilio = LocalTwilio->start;
my $node = new_cluster('forget', $twilio);
$node->safe_psql('postgres', q{
	CREATE ROLE shop LOGIN;
	GRANT USAGE ON SCHEMA sendcampaign TO shop;
	GRANT SELECT, INSERT, UPDATE ON ALL TABLES IN SCHEMA public TO shop;
	GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO shop;
});

sub forget { return $node->safe_psql('postgres', "SET ROLE $_[0]; SELECT sendcampaign.forget($_[1])"); }
sub forget_recipient { return sql_error($node, "SET ROLE $_[0]; SELECT sendcampaign.forget_recipient('$_[1]')"); }
my %table_of = (message => 'message_data', run => 'run_data');
my $old_run;
sub rows { return $node->safe_psql('postgres', "SELECT count(*) FROM sendcampaign.$_[0]" . ($_[1] ? " WHERE job_id = $_[1]" : '')); }
sub old_rows { return $node->safe_psql('postgres', 'SELECT count(*) FROM sendcampaign.' . ($table_of{$_[0]} || $_[0]) . ' WHERE ' . ($_[0] eq 'run' ? 'id' : 'run_id') . " = $old_run"); }

sub finish
{
	my ($role, %arg) = @_;
	my $job = start_campaign($node, create_campaign($node, %arg), role => $role);
	wait_for_run($node, $job);
	wait_for_no_worker($node);
	return $job;
}

my ($old, $new) = map { finish('app', users => 5) } 1 .. 2;
my $shops = finish('shop', users => 5);
$old_run = $node->safe_psql('postgres', "SELECT id FROM sendcampaign.run WHERE job_id = $old");
$node->safe_psql('postgres', qq{
	UPDATE sendcampaign.run SET finished_at = now() - interval '1 year' WHERE job_id IN ($old, $shops);
	INSERT INTO sendcampaign.read_back_message VALUES (${\ run_of($old)}, 'SM1', '+15550000001', 0, 1, 0);
	INSERT INTO sendcampaign.batch VALUES (${\ run_of($old)}, 9, '{1}');
	INSERT INTO sendcampaign.claim VALUES (${\ run_of($old)}, 9, '{1}', '{+1}', 'AC', '{+2}', now(), 0)});
my ($held_campaign, $held) = hold_campaign($node, $twilio, users => 300);

is(forget('app', "now() - interval '30 days'"), 1, 'one of its own that is old');
is(old_rows($_), 0, "nothing of it is left in $_") for qw(run message read_back_message batch claim);
is(rows('message', $new), 5, 'a newer one stays');
is(rows('message', $shops), 5, "so does another role's");
is(forget('app', "'infinity'"), 1, 'all that have ended');
is(run_row($node, $held)->{state}, 'running', 'not one that goes on');
is($node->safe_psql('postgres', "SELECT sendcampaign.forget(now() - interval '30 days')"), 1, "a superuser: any role's");
is(rows('run'), 1, 'that is all');
is(rows('message'), 0, 'with their messages');
is(sql_error($node, 'SET default_transaction_read_only = on; SELECT sendcampaign.forget(now())')->{sqlstate}, '25006', 'not in a read-only transaction');

# of a failed run whose last answers are outstanding, they are dropped
$node->safe_psql('postgres', "SET ROLE app; SELECT sendcampaign.pause($held)");
$node->poll_query_until('postgres', "SELECT count(*) > 0 FROM sendcampaign.batch");
$node->safe_psql('postgres', "UPDATE sendcampaign.run SET state = 'failed', finished_at = now() WHERE job_id = $held");
is(forget('app', "'infinity'"), 1, 'failed, with answers outstanding');
$twilio->set(hold => 0);
ok(worker_is_gone($node, 20), 'the worker lets go of it');
is(rows($_), 0, "nothing is in $_") for qw(run message batch claim);
unlike($node->safe_psql('postgres', "SELECT pg_read_file('" . $node->logfile . "')"), qr/is gone/, 'and does not stumble');

# a number
my $campaign = create_campaign($node, users => 6);
my @raw = ('+1 (555) 000-0001', '0015550000001', '+15550000001', '+15550000002', 'not a number', '+1555000000199');
my @ids = split /\n/, $node->safe_psql('postgres', qq{SELECT id FROM ac_list_users
	WHERE ac_list_id = (SELECT ac_list_id FROM ac_campaigns WHERE id = $campaign) ORDER BY id});
$node->safe_psql('postgres', "UPDATE ac_list_users SET data = jsonb_build_object('sms', '$raw[$_]') WHERE id = $ids[$_]") for 0 .. 5;
$twilio->set(reset => 1, hold => 1);
my $job = start_campaign($node, $campaign);
wait_for_flight($twilio, 3);    # one message to a number
my $error = forget_recipient('app', '+15550000001');
is("$error->{sqlstate} $error->{message}", '55006 the number cannot be forgotten yet', 'claimed: not yet');
like($error->{hint}, qr/when that run has ended/, 'with a hint');
is(forget_recipient('shop', '+15550000001')->{message}, '', "of what a role cannot see, it does not hear");
$twilio->set(hold => 0);
wait_for_run($node, $job);
wait_for_no_worker($node);
my $before = $node->safe_psql('postgres', "SELECT sent, failed, skipped FROM sendcampaign.run WHERE job_id = $job");
# one that was skipped before its number was looked at
$node->safe_psql('postgres', qq{UPDATE sendcampaign.message_data SET status = 'skipped', phone = '+1 (555) 000-0001', sid = NULL, error_message = 'gone' WHERE list_user_id = $ids[0];
	INSERT INTO sendcampaign.read_back_message VALUES (${\ run_of($job)}, 'SM2', '+15550000001', $ids[1], 1, 0), (${\ run_of($job)}, 'SM3', '+15550000002', 0, 1, 0)});
is($node->safe_psql('postgres', "SET ROLE shop; SELECT sendcampaign.forget_recipient('+15550000001')"), 0, "not in another role's messages");
is($node->safe_psql('postgres', "SET ROLE app; SELECT sendcampaign.forget_recipient('001 555 000-0001')"), 3, 'however it is written');
is($node->safe_psql('postgres', "SELECT string_agg(concat_ws(' ', status, phone, sid IS NULL), ', ' ORDER BY list_user_id) FROM sendcampaign.message WHERE job_id = $job"),
	'skipped t, skipped t, skipped t, sent +15550000002 f, skipped not a number t, sent +1555000000199 f', 'erased in its rows only');
is($node->safe_psql('postgres', "SELECT sent, failed, skipped FROM sendcampaign.run WHERE job_id = $job"), $before, 'the counts stay');
is($node->safe_psql('postgres', 'SELECT string_agg(sid, \' \') FROM sendcampaign.read_back_message'), 'SM3', 'so do witnesses of others');
is($node->safe_psql('postgres', "SET ROLE app; SELECT sendcampaign.forget_recipient('not a number')"), 1, 'as it was in the list');
$node->safe_psql('postgres', "UPDATE sendcampaign.run SET state = 'failed' WHERE job_id = $job");
is(forget_recipient('app', '+15550000002')->{sqlstate}, '55006', 'a failed run may go on and needs what was read back');

$node->stop;
done_testing();
