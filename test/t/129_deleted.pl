# Tables as Sequelize makes them where it is told nothing else, and as real
# applications have them: camel case, rows that are marked as deleted, and
# credentials in a column that is not shown to everybody.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../perl";
use Campaign;
use LocalTwilio;
use PostgreSQL::Test::Utils;
use Test::More;

my $twilio = LocalTwilio->start;
my $node = new_cluster('deleted', $twilio);
sub sql { return $node->safe_psql('postgres', $_[0]); }

# createdAt and updatedAt
sql(q{
	ALTER TABLE ac_background_jobs RENAME created_at TO "createdAt"; ALTER TABLE ac_background_jobs RENAME updated_at TO "updatedAt";
	ALTER TABLE ac_background_jobs ALTER "createdAt" DROP DEFAULT, ALTER "updatedAt" DROP DEFAULT;
	ALTER TABLE ac_list_users RENAME created_at TO "createdAt"; ALTER TABLE ac_list_users RENAME updated_at TO "updatedAt"});
my $campaign = create_campaign($node, users => 5);
sql(q{UPDATE ac_list_users SET "updatedAt" = '2000-01-01'});
my $job = start_campaign($node, $campaign);
sent_once($node, $twilio, $campaign, $job, 'createdAt and updatedAt that may not be null');
is(sql(qq{SELECT "createdAt" > now() - interval '1 hour', "updatedAt" > "createdAt" FROM ac_background_jobs WHERE id = $job}), 't|t', 'the job has both');
is(sql(q{SELECT count(*) FROM ac_list_users WHERE "updatedAt" > now() - interval '1 hour'}), 5, '... and who was counted has been touched');

# What is marked as deleted
sql(q{
	ALTER TABLE groups ADD deleted boolean NOT NULL DEFAULT false;
	ALTER TABLE ac_lists ADD deleted boolean;
	ALTER TABLE ac_campaigns ADD "deletedAt" timestamptz;
	ALTER TABLE ac_list_users ADD deleted boolean, ADD deleted_at timestamp});
for ([ 'groups', 'group', 'deleted = true', 'deleted = false' ], [ 'ac_lists', 'list', 'deleted = true', 'deleted = NULL' ],
	[ 'ac_campaigns', 'campaign', q{"deletedAt" = now()}, q{"deletedAt" = NULL} ])
{
	my ($table, $what, $delete, $restore) = @$_;
	$campaign = create_campaign($node, users => 3, message => "of a $what");
	sql("UPDATE $table SET $delete WHERE id = $campaign");
	$job = start_campaign($node, $campaign);
	my $run = wait_for_run($node, $job);
	like("$run->{state}: $run->{error}", qr/^failed: $what $campaign is deleted\. /, "a deleted $what: the run fails");
	is(sent_with($twilio, "of a $what"), 0, '... with nothing sent');
	like(sql_error($node, "SET ROLE app; SELECT sendcampaign.estimate($campaign)")->{message}, qr/^$what $campaign is deleted$/, '... and estimate() says so');
	sql("UPDATE $table SET $restore WHERE id = $campaign");
	start_campaign($node, $campaign, job => $job);
	is(wait_for_run($node, $job)->{sent}, 3, '... restored, it is sent');
}

# in mid-run
$campaign = create_campaign($node, users => 3000);
$twilio->set(hold => 1, reset => 1);
$job = start_campaign($node, $campaign);
wait_for_flight($twilio, 20);
sql('UPDATE groups SET deleted = true WHERE id = ' . group_of($campaign));
$twilio->set(hold => 0);
like(wait_for_run($node, $job)->{error}, qr/^group \d+ is deleted/, 'a group that is deleted in mid-run: the run fails');
cmp_ok(scalar(() = $twilio->ledger), '<', 3000, '... and no more is sent');
sql('UPDATE groups SET deleted = false');

# list users; the one after them with the same phone is sent to
$campaign = create_campaign($node, users => 5, message => 'users');
my ($first) = sql("SELECT min(u.id) FROM ac_list_users u JOIN ac_campaigns c USING (ac_list_id) WHERE c.id = $campaign");
sql(qq{UPDATE ac_list_users SET deleted = true WHERE id = $first;
	UPDATE ac_list_users SET deleted_at = now() WHERE id = $first + 1;
	UPDATE ac_list_users SET deleted = false, data = data || '{"sms": "+15550000001"}' WHERE id = $first + 2});
is(sql("SET ROLE app; SELECT string_agg(skipped, ', ') FROM sendcampaign.preview($campaign)"), 'list user is deleted, list user is deleted', 'deleted list users: preview()');
$job = start_campaign($node, $campaign);
my $run = wait_for_run($node, $job);
is("$run->{state} $run->{sent} $run->{skipped}", 'completed 3 2', '... are skipped');
is(join(' ', sort map { $_->{to} } grep { $_->{body} =~ /^users/ } $twilio->ledger), '+15550000001 +15550000004 +15550000005', '... and take no phone from others');

# The private configuration goes before the other one
sub configure
{
	my ($private, $other) = @_;
	my $set = join ', ', map { defined $_->[1] ? "$_->[0] = " . quoted_json($_->[1]) : "$_->[0] = NULL" }
	  [ private_access_configuration => $private ], [ configuration => $other ];
	sql("UPDATE groups SET $set WHERE id = " . group_of($campaign));
}
sub quoted_json { my %h = %{ $_[0] }; return "'{" . join(', ', map { "\"$_\": $h{$_}" } sort keys %h) . "}'"; }
my ($account, $token, $sender) = map { "\"$_\"" } $LocalTwilio::ACCOUNT, $LocalTwilio::TOKEN, $LocalTwilio::SENDER;
sql('ALTER TABLE groups ADD private_access_configuration jsonb');
my @configurations = (
	[ 'all of it is private', { twilioAccountSid => $account, twilioAuthToken => $token, twilioFromSmsNumber => $sender }, undef, '' ],
	[ 'none of it', undef, { twilioAccountSid => $account, twilioAuthToken => $token, twilioFromSmsNumber => $sender }, '' ],
	[ 'the credentials are', { twilioAccountSid => $account, twilioAuthToken => $token }, { twilioFromSmsNumber => $sender, twilioAuthToken => '"old"' }, '' ],
	[ 'blank and null there is nothing', { twilioAccountSid => '" "', twilioAuthToken => 'null', twilioFromSmsNumber => '""' },
		{ twilioAccountSid => $account, twilioAuthToken => $token, twilioFromSmsNumber => $sender }, '' ],
	[ 'a key of the one, no token of the other', { twilioAccountSid => $account, twilioApiKeySid => '"SK1"', twilioApiKeySecret => '"wrong"' },
		{ twilioAuthToken => $token, twilioFromSmsNumber => $sender }, qr/./ ],
	[ 'it has no account', { twilioAuthToken => $token }, { twilioFromSmsNumber => $sender }, qr/^the group's configuration has no "twilioAccountSid"/ ]);
for (@configurations)
{
	my ($name, $private, $other, $error) = @$_;
	$campaign = create_campaign($node, users => 2, message => "private: $name");
	configure($private, $other);
	$run = wait_for_run($node, start_campaign($node, $campaign));
	if ($error eq '') { is("$run->{state} $run->{sent}", 'completed 2', "$name: sent"); }
	else { is($run->{state}, 'failed', "$name: the run fails"); like($run->{error}, $error, '... with the reason'); }
}
$campaign = create_campaign($node, users => 2, message => 'no object');
configure({ twilioAccountSid => $account, twilioAuthToken => $token, twilioFromSmsNumber => $sender }, undef);
sql('UPDATE groups SET configuration = $$[1]$$ WHERE id = ' . group_of($campaign));
is(wait_for_run($node, start_campaign($node, $campaign))->{sent}, 2, 'a configuration that is no object does not matter then');
sql('ALTER TABLE groups DROP configuration');
is(wait_for_run($node, start_campaign($node, $campaign))->{sent}, 2, '... nor that there is none');

wait_for_no_worker($node);
is(worker_errors($node), '', 'no errors');
$node->stop;
done_testing();
