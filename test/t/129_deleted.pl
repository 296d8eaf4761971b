# Tables as Sequelize makes them by default, and as real applications have them:
# camel case, rows that are marked as deleted, and credentials in a column that
# is not shown to everybody.
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

# createdAt and updatedAt
sql($node, <<~SQL);
	ALTER TABLE ac_background_jobs RENAME created_at TO "createdAt";
	ALTER TABLE ac_background_jobs RENAME updated_at TO "updatedAt";
	ALTER TABLE ac_background_jobs
	    ALTER "createdAt" DROP DEFAULT,
	    ALTER "updatedAt" DROP DEFAULT;
	ALTER TABLE ac_list_users RENAME created_at TO "createdAt";
	ALTER TABLE ac_list_users RENAME updated_at TO "updatedAt";
	SQL
my $campaign = create_campaign($node, users => 5);
sql($node, q{UPDATE ac_list_users SET "updatedAt" = '2000-01-01'});
my $job = start_campaign($node, $campaign);
sent_once($node, $twilio, $campaign, $job, 'createdAt and updatedAt that may not be null');
my $has_both = sql($node, <<~SQL);
	SELECT "createdAt" > now() - interval '1 hour', "updatedAt" > "createdAt"
	FROM ac_background_jobs
	WHERE id = $job
	SQL
is($has_both, 't|t', 'the job has both');
my $touched = sql($node, <<~SQL);
	SELECT count(*) FROM ac_list_users WHERE "updatedAt" > now() - interval '1 hour'
	SQL
is($touched, 5, '... and the list users who were counted have been touched');

# What is marked as deleted
sql($node, <<~SQL);
	ALTER TABLE groups ADD deleted boolean NOT NULL DEFAULT false;
	ALTER TABLE ac_lists ADD deleted boolean;
	ALTER TABLE ac_campaigns ADD "deletedAt" timestamptz;
	ALTER TABLE ac_list_users ADD deleted boolean, ADD deleted_at timestamp;
	SQL
my @deleted = (
	[ 'groups', 'group', 'deleted = true', 'deleted = false' ],
	[ 'ac_lists', 'list', 'deleted = true', 'deleted = NULL' ],
	[ 'ac_campaigns', 'campaign', '"deletedAt" = now()', '"deletedAt" = NULL' ]);
for my $case (@deleted)
{
	my ($table, $what, $delete, $restore) = @$case;
	my $campaign = create_campaign($node, users => 3, message => "of a $what");
	sql($node, "UPDATE $table SET $delete WHERE id = $campaign");
	my $run = run_campaign($node, $campaign);
	like(
		"$run->{state}: $run->{error}",
		qr/^failed: $what $campaign is deleted\. /,
		"a deleted $what: the run fails");
	is(sent_with($twilio, "of a $what"), 0, '... with nothing sent');
	like(
		call_error($node, "estimate($campaign)")->{message},
		qr/^$what $campaign is deleted$/,
		'... and estimate() says so');
	sql($node, "UPDATE $table SET $restore WHERE id = $campaign");
	is(run_campaign($node, $campaign, job => $run->{job})->{sent}, 3, '... restored, it is sent');
}

# In mid-run
my $held;
($held, $job) = hold_campaign($node, $twilio, users => 3000);
my $group = group_of($held);
sql($node, "UPDATE groups SET deleted = true WHERE id = $group");
$twilio->set(hold => 0);
like(
	wait_for_run($node, $job)->{error},
	qr/^group \d+ is deleted/,
	'a group that is deleted in mid-run: the run fails');
cmp_ok(scalar(() = $twilio->ledger), '<', 3000, '... and no more is sent');
sql($node, 'UPDATE groups SET deleted = false');

# List users; the one after them with the same phone is sent to.
$campaign = create_campaign($node, users => 5, message => 'users');
my $first = sql($node, <<~SQL);
	SELECT min(u.id)
	FROM ac_list_users u JOIN ac_campaigns c USING (ac_list_id)
	WHERE c.id = $campaign
	SQL
sql($node, <<~SQL);
	UPDATE ac_list_users SET deleted = true WHERE id = $first;
	UPDATE ac_list_users SET deleted_at = now() WHERE id = $first + 1;
	UPDATE ac_list_users
	SET deleted = false, data = data || '{"sms": "+15550000001"}'
	WHERE id = $first + 2;
	SQL
my $skipped = sql($node, <<~SQL, role => 'app');
	SELECT string_agg(skipped, ', ') FROM sendcampaign.preview($campaign)
	SQL
is($skipped, 'list user is deleted, list user is deleted', 'deleted list users: preview()');
my $run = run_campaign($node, $campaign);
is("$run->{state} $run->{sent} $run->{skipped}", 'completed 3 2', '... are skipped');
my @phones = map { $_->{to} } grep { $_->{body} =~ /^users/ } $twilio->ledger;
is_deeply(
	[ sort @phones ],
	[qw(+15550000001 +15550000004 +15550000005)],
	'... and take no phone from others');

# Sets a column of the campaign's group to an object of these names and JSON
# values, or to null.
sub set_column
{
	my ($campaign, $column, $values) = @_;
	my $value = 'NULL';
	if ($values)
	{
		my @members = map { qq("$_": $values->{$_}) } sort keys %$values;
		$value = "'{" . join(', ', @members) . "}'";
	}
	my $group = group_of($campaign);
	sql($node, "UPDATE groups SET $column = $value WHERE id = $group");
}

sub set_configurations
{
	my ($campaign, $private, $other) = @_;
	set_column($campaign, 'private_access_configuration', $private);
	set_column($campaign, 'configuration', $other);
}

# The private configuration goes before the other one.
sql($node, 'ALTER TABLE groups ADD private_access_configuration jsonb');
my @account = (twilioAccountSid => qq("$LocalTwilio::ACCOUNT"));
my @token = (twilioAuthToken => qq("$LocalTwilio::TOKEN"));
my @sender = (twilioFromSmsNumber => qq("$LocalTwilio::SENDER"));
my @old_token = (twilioAuthToken => '"old"');
my @wrong_key = (twilioApiKeySid => '"SK1"', twilioApiKeySecret => '"wrong"');
my %all = (@account, @token, @sender);
my %blank = (twilioAccountSid => '" "', twilioAuthToken => 'null', twilioFromSmsNumber => '""');

# What is private and what is not, and the error of the run if it does not work
my @configurations = (
	{
		name => 'all of it is private',
		private => \%all
	},
	{
		name => 'none of it is private',
		other => \%all
	},
	{
		name => 'the credentials are private',
		private => { @account, @token },
		other => { @sender, @old_token }
	},
	{
		name => 'what is private is blank or null',
		private => \%blank,
		other => \%all
	},
	{
		name => 'a private key goes before the token of the other one',
		private => { @account, @wrong_key },
		other => { @token, @sender },
		error => qr/./
	},
	{
		name => 'there is no account',
		private => {@token},
		other => {@sender},
		error => qr/^the group's configuration has no "twilioAccountSid"/
	});
for my $configuration (@configurations)
{
	my ($name, $private, $other, $error) = @$configuration{qw(name private other error)};
	my $campaign = create_campaign($node, users => 2, message => "private: $name");
	set_configurations($campaign, $private, $other);
	my $run = run_campaign($node, $campaign);
	if ($error)
	{
		is($run->{state}, 'failed', "$name: the run fails");
		like($run->{error}, $error, '... with the reason');
	}
	else
	{
		is("$run->{state} $run->{sent}", 'completed 2', "$name: the messages are sent");
	}
}

# Where all of it is private, the other one does not matter.
$campaign = create_campaign($node, users => 2, message => 'no object');
set_configurations($campaign, \%all, undef);
$group = group_of($campaign);
sql($node, "UPDATE groups SET configuration = '[1]' WHERE id = $group");
is(run_campaign($node, $campaign)->{sent}, 2, 'it does not matter that it is no object');
sql($node, 'ALTER TABLE groups DROP configuration');
is(run_campaign($node, $campaign)->{sent}, 2, '... nor that there is none');

wait_for_no_worker($node);
is(worker_errors($node), '', 'no worker complained');
$node->stop;
done_testing();
