# Phones that cannot be reached by SMS: marked by 30005 and 30006, shown, skipped
# if that is set, and cleared by a message that is delivered later.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../perl";
use Campaign;
use LocalTwilio;
use Receipts;
use Test::More;

my $twilio = LocalTwilio->start;
my $node = new_cluster('unreachable', $twilio, conf => 'sendcampaign.receipts = off');
install_receipts($node);
sql($node, <<~'SQL');
	CREATE ROLE shop LOGIN;
	GRANT USAGE ON SCHEMA sendcampaign TO shop;
	GRANT SELECT, INSERT, UPDATE ON ALL TABLES IN SCHEMA public TO shop;
	GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO shop;
	SQL

# The marks that a role sees: last digit of the phone, code, meaning, role.
sub marks
{
	my ($role) = @_;
	return sql($node, <<~'SQL', role => $role);
		SELECT coalesce(string_agg(concat_ws(' ', right(phone, 1), error_code, error, role), ', '
		    ORDER BY phone), '')
		FROM sendcampaign.unreachable
		SQL
}

# Sends a campaign to 4 as a role; returns its job and the SIDs.
sub send_as
{
	my ($role) = @_;
	my $run = run_campaign($node, create_campaign($node, users => 4), role => $role);
	wait_for_no_worker($node);
	return ($run->{job}, sids($node, $run->{job}));
}

my ($job, @sid) = send_as('app');
report(
	$node,
	$job,
	"$sid[0] undelivered code=30005 at=2026-10-02",
	"$sid[1] undelivered code=30006 at=2026-10-02",
	"$sid[2] undelivered code=30003 at=2026-10-02",
	"$sid[3] delivered at=2026-10-02");
my $both = '1 30005 unknown handset app, 2 30006 landline or unreachable carrier app';
is(marks('app'), $both, 'two codes mark a phone');
is(marks('shop'), '', 'other roles do not see that');
is(marks(undef), $both, 'a superuser does');

# preview() shows it, and estimate() and a run skip it if that is set.
my $campaign = create_campaign($node, users => 4);
my $preview = "SELECT string_agg(concat_ws('|', skipped, unreachable), ', ' ORDER BY list_user_id)"
  . " FROM sendcampaign.preview($campaign)";
is( sql($node, $preview, role => 'app'),
	'30005 unknown handset, 30006 landline or unreachable carrier, , ',
	'preview() shows it');
is(sql($node, $preview, role => 'shop'), ', , , ', 'to those whose messages they were');
is( sql($node, $preview),
	'30005 unknown handset, 30006 landline or unreachable carrier, , ',
	'to a superuser as to the role that would send');
my $estimate = "SELECT messages, unreachable FROM sendcampaign.estimate($campaign)";
is(sql($node, $estimate, role => 'app'), '4|0', 'they get messages all the same');
sql($node, 'ALTER ROLE app SET sendcampaign.skip_unreachable = on');
my $skipped = 'the phone number cannot be reached by SMS';
is( sql($node, $preview, user => 'app'),
	"$skipped|30005 unknown handset, $skipped|30006 landline or unreachable carrier, , ",
	'unless that is set: preview() says so');
is(sql($node, $estimate, user => 'app'), '2|2', 'estimate() counts them');
my $run = run_campaign($node, $campaign);
is("$run->{sent} $run->{skipped}", '2 2', 'the run skips them');
is(sql($node, <<~"SQL"), $skipped, 'and says why');
	SELECT DISTINCT error_message FROM sendcampaign.message
	WHERE job_id = $run->{job} AND status = 'skipped'
	SQL
sql($node, "SELECT sendcampaign.send_test($campaign, '+15550000001')", user => 'app');
wait_until($node,
	'SELECT state = $$completed$$ AND sent = 1 FROM sendcampaign.run WHERE job_id < 0');
pass('a test goes to the number that a person has given');
sql($node, 'ALTER ROLE app RESET sendcampaign.skip_unreachable');

# What was delivered later clears it, but not what was delivered before; nor what
# another role has sent.
wait_for_no_worker($node);
($job, @sid) = send_as('shop');
report(
	$node, $job,
	"$sid[0] delivered at=2026-10-03",
	"$sid[1] undelivered code=30006 at=2026-10-03");
is(marks('app'), $both, "another role's messages change nothing");
is(marks('shop'), '2 30006 landline or unreachable carrier shop', 'but for itself');
($job, @sid) = send_as('app');
report($node, $job, "$sid[0] delivered at=2026-10-01", "$sid[1] delivered at=2026-10-04");
is(marks('app'), '1 30005 unknown handset app', 'a message that was delivered later clears it');
report($node, $job, "$sid[0] read at=2026-10-05");
is(marks('app'), '1 30005 unknown handset app', 'that it is read says when, but not when it came');

# The reports of two messages come in the wrong order.
($job, @sid) = send_as('app');
my ($later, @sid_later) = send_as('app');
report(
	$node, $later,
	"$sid_later[1] delivered at=2026-10-06",
	"$sid_later[2] delivered at=2026-10-04",
	"$sid_later[3] read at=2026-10-06");
report($node, $job, map { "$sid[$_] undelivered code=30006 at=2026-10-05" } 1 .. 3);
my $landline = '30006 landline or unreachable carrier app';
is( marks('app'),
	"1 30005 unknown handset app, 3 $landline, 4 $landline",
	'one that was delivered later is known already, and keeps a phone from being marked');
($job, @sid) = send_as('shop');
report($node, $job, "$sid[1] undelivered code=30006 at=2026-10-05");
is(marks('shop'), '2 30006 landline or unreachable carrier shop', "not by another role's message");
report($node, $job, "$sid[$_] delivered at=2026-10-07") for 2, 3;
($job, @sid) = send_as('app');
report($node, $job, map { "$sid[$_] delivered at=2026-10-07" } 2, 3);
is(marks('app'), '1 30005 unknown handset app', 'those that are delivered later clear it');
($job, @sid) = send_as('app');
report($node, $job, "$sid[1] undelivered code=30006 at=2026-10-08");
is(marks('app') =~ /, 2 30006/, 1, 'one that fails later marks it again');

# forget_recipient() erases it, for the roles of the caller.
sql($node, q{SELECT sendcampaign.forget_recipient('+15550000002')}, role => 'app');
is(marks('shop'), '2 30006 landline or unreachable carrier shop', 'not of other roles');
sql($node, q{SELECT sendcampaign.forget_recipient('+1 555 000 0002')}, role => 'shop');
is(marks('shop'), '', 'but of its own');
sql($node, q{SELECT sendcampaign.forget_recipient('+15550000001')});
is(marks(undef), '', 'a superuser erases all');

$node->stop;
done_testing();
