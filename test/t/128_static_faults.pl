# What is wrong with the tables from the start is found before anything is
# sent, in send_campaign() already, and the error names table and column.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../perl";
use Campaign;
use LocalTwilio;
use PostgreSQL::Test::Utils;
use Test::More;

my $twilio = LocalTwilio->start;
my $node = new_cluster('static_faults', $twilio);
my $campaign = create_campaign($node, users => 3);

# The errors: SQLSTATE, message and hint.
sub missing_both
{
	my ($table, $column) = @_;
	return {
		sqlstate => '42703',
		message => qr/^table "public\.$table" has neither a column "$column" nor a column "data"$/,
		hint => qr/^Add one of them/
	};
}

sub missing
{
	my ($table, $column) = @_;
	return {
		sqlstate => '42703',
		message => qr/^column "$column" of "public\.$table" does not exist$/,
		hint => qr/^Add it/
	};
}

sub wrong_type
{
	my ($table, $column, $type, $right_types) = @_;
	return {
		sqlstate => '42804',
		message => qr/^column "$column" of "public\.$table" is of type $type$/,
		hint => qr/^Change it to one of these types: $right_types\.(?:$| If it has to stay)/
	};
}

sub not_updatable
{
	my ($table, $column) = @_;
	return {
		sqlstate => '55000',
		message => qr/^column "$column" of "public\.$table" cannot be updated$/,
		hint => qr/INSTEAD OF UPDATE trigger/
	};
}

my $json = 'json, jsonb';
my $text = 'text, character varying';
my $integer = 'smallint, integer, bigint';
my $number = 'smallint, integer, bigint, numeric, real, double precision';

# What is wrong, and the changes and the error that it takes; those with "later"
# are tested where the changes come after the call, too
my @faults = (
	{
		name => 'no column for sentCount',
		changes => 'ALTER TABLE ac_list_users DROP data, ADD sms text',
		error => missing_both('ac_list_users', 'sentCount'),
		later => 1
	},
	{
		name => 'no column for the phone',
		changes => 'ALTER TABLE ac_list_users DROP data, ADD sent_count integer',
		error => missing_both('ac_list_users', 'sms')
	},
	{
		name => 'no column for the message',
		changes => 'ALTER TABLE ac_campaigns DROP data',
		error => missing_both('ac_campaigns', 'message')
	},
	{
		name => 'data that is text',
		changes => 'ALTER TABLE ac_list_users ALTER data TYPE text',
		error => wrong_type('ac_list_users', 'data', 'text', $json),
		later => 1
	},
	{
		name => 'data of a job that is text',
		changes => 'ALTER TABLE ac_background_jobs ALTER data TYPE text',
		error => wrong_type('ac_background_jobs', 'data', 'text', $json)
	},
	{
		name => 'no configuration',
		changes => 'ALTER TABLE groups DROP configuration',
		error => missing('groups', 'configuration')
	},
	{
		name => 'a configuration that is text',
		changes => 'ALTER TABLE groups ALTER configuration TYPE text',
		error => wrong_type('groups', 'configuration', 'text', $json),
		later => 1
	},
	{
		name => 'no list',
		changes => 'ALTER TABLE ac_list_users DROP ac_list_id',
		error => missing('ac_list_users', 'ac_list_id')
	},
	{
		name => 'no progress',
		changes => 'ALTER TABLE ac_background_jobs DROP progress',
		error => missing('ac_background_jobs', 'progress')
	},
	{
		name => 'an error that is a number',
		changes => 'ALTER TABLE ac_background_jobs DROP error, ADD error integer',
		error => wrong_type('ac_background_jobs', 'error', 'integer', $text)
	},
	{
		name => 'a count that is text',
		changes => 'ALTER TABLE ac_list_users ADD sent_count text',
		error => wrong_type('ac_list_users', 'sent_count', 'text', $number),
		later => 1
	},
	{
		name => 'a generated count',
		changes => <<~SQL,
			ALTER TABLE ac_list_users
			    ADD "sentCount" integer GENERATED ALWAYS AS (1) STORED
			SQL
		error => not_updatable('ac_list_users', 'sentCount')
	},
	{
		name => 'a count that is an expression of a view',
		changes => <<~SQL,
			ALTER TABLE ac_list_users RENAME TO users;
			CREATE VIEW ac_list_users AS
			    SELECT id, ac_list_id, data, 0 + user_id AS sent_count FROM users
			SQL
		error => not_updatable('ac_list_users', 'sent_count'),
		later => 1
	},
	{
		name => 'data that is an expression of a view',
		changes => <<~SQL,
			ALTER TABLE ac_list_users RENAME TO users;
			CREATE VIEW ac_list_users AS
			    SELECT id, ac_list_id, data || '{}' AS data FROM users
			SQL
		error => not_updatable('ac_list_users', 'data'),
		later => 1
	},
	{
		name => 'a view that is not updatable',
		changes => <<~SQL,
			ALTER TABLE ac_list_users RENAME TO users;
			CREATE VIEW ac_list_users AS
			    SELECT DISTINCT id, ac_list_id, data FROM users
			SQL
		error => not_updatable('ac_list_users', 'data'),
		later => 1
	},
	{
		name => 'a materialized view',
		changes => <<~SQL,
			ALTER TABLE ac_list_users RENAME TO users;
			CREATE MATERIALIZED VIEW ac_list_users AS
			    SELECT * FROM users
			SQL
		error => not_updatable('ac_list_users', 'data')
	});

my @ids = (
	[ 'ac_list_users', 'id' ],
	[ 'ac_lists', 'id' ],
	[ 'ac_lists', 'group_id' ],
	[ 'ac_campaigns', 'ac_list_id' ],
	[ 'groups', 'id' ],
	[ 'ac_background_jobs', 'id' ]);
for my $id (@ids)
{
	my ($table, $column) = @$id;
	for my $type (qw(uuid text numeric))
	{
		push @faults, {
			name => "$table.$column of type $type",
			changes => <<~SQL,
				ALTER TABLE $table ADD new_id $type;
				ALTER TABLE $table DROP $column CASCADE;
				ALTER TABLE $table RENAME new_id TO $column
				SQL
			error => wrong_type($table, $column, $type, $integer),
			later => $type ne 'numeric' && $table ne 'ac_background_jobs'
		};
	}
}

my %call = (
	send_campaign => "send_campaign($campaign)",
	preview => "count(*) FROM sendcampaign.preview($campaign)",
	estimate => "sendcampaign.estimate($campaign)");
for my $fault (@faults)
{
	for my $function (sort keys %call)
	{
		my $sql = "BEGIN; $fault->{changes}; SELECT $call{$function}";
		my $error = sql_error($node, $sql, role => 'app');
		is($error->{sqlstate}, $fault->{error}{sqlstate}, "$fault->{name}: $function()");
		like($error->{message}, $fault->{error}{message}, '... names table and column');
		like($error->{hint}, $fault->{error}{hint}, '... and says what to do');
	}
}

# Found by the worker before the first claim, where they come after the call
for my $fault (grep { $_->{later} } @faults)
{
	my $db = substr lc $fault->{name}, 0, 60;
	$db =~ s/\W+/_/g;
	sql($node, "CREATE DATABASE $db");
	install_extension($node, $db);
	my $campaign = create_campaign($node, db => $db, users => 3);
	my $printed = sql($node, <<~SQL, db => $db, role => 'app');
		BEGIN;
		SELECT send_campaign($campaign);
		$fault->{changes};
		COMMIT;
		SQL
	my ($job) = $printed =~ /^(\d+)/;
	my $run = wait_for_run($node, $job, db => $db);
	is($run->{state}, 'failed', "$fault->{name}, after the call: the run fails");
	my ($first_sentence) = split /\. /, $run->{error};
	like($first_sentence, $fault->{error}{message}, '... and the error names table and column');
}
is(scalar(() = $twilio->ledger), 0, 'nothing was sent');

# Rights on columns
sql($node, <<~SQL);
	CREATE ROLE narrow LOGIN;
	GRANT SELECT ON ALL TABLES IN SCHEMA public TO narrow;
	GRANT INSERT, UPDATE ON ac_background_jobs TO narrow;
	GRANT USAGE ON SEQUENCE ac_background_jobs_id_seq TO narrow;
	GRANT UPDATE (updated_at) ON ac_list_users TO narrow;
	SQL
my $error = sql_error($node, 'SELECT send_campaign(1)', role => 'narrow');
is( "$error->{sqlstate}: $error->{detail}",
	'42501: Role "narrow" needs the UPDATE privilege on column "data" to send a campaign.',
	'no right to update the count');
is( $error->{hint},
	'Use GRANT UPDATE (data) ON public.ac_list_users TO narrow.',
	'... with what grants it');

# Unusual tables that work
my @changed_ids = (@ids, [ 'ac_list_users', 'ac_list_id' ], [ 'ac_campaigns', 'id' ]);
for my $type (qw(smallint bigint))
{
	sql($node, "CREATE DATABASE $type");
	install_extension($node, $type);
	my $campaign = create_campaign($node, db => $type, users => 3, message => $type);
	my $changes = '';
	for my $id (@changed_ids)
	{
		my ($table, $column) = @$id;
		$changes .= "ALTER TABLE $table ALTER $column TYPE $type;\n";
	}
	sql($node, <<~SQL, db => $type, role => 'app');
		CREATE DOMAIN object AS jsonb;
		ALTER TABLE ac_list_users ALTER data TYPE object;
		$changes
		SQL
	$twilio->set(reset => 1);
	my $job = start_campaign($node, $campaign, db => $type);
	sent_once($node, $twilio, $campaign, $job, "ids of type $type, a domain", db => $type);
}

wait_for_no_worker($node);
$node->stop;
done_testing();
