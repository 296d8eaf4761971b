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

sub view_of_users
{
	my ($columns, $trigger) = @_;
	return "ALTER TABLE ac_list_users RENAME TO users; CREATE VIEW ac_list_users AS SELECT $columns;";
}

# [ what, changes, SQLSTATE, message, hint ]
my @faults = (
	[ 'no column for sentCount', 'ALTER TABLE ac_list_users DROP data, ADD sms text', '42703',
		qr/^"public\.ac_list_users" has neither a column "sentCount" nor a column "data"$/, qr/^Add one of them/ ],
	[ 'no column for the phone', 'ALTER TABLE ac_list_users DROP data, ADD sent_count integer', '42703',
		qr/^"public\.ac_list_users" has neither a column "sms" nor a column "data"$/, qr/^Add one of them/ ],
	[ 'no column for the message', 'ALTER TABLE ac_campaigns DROP data', '42703',
		qr/^"public\.ac_campaigns" has neither a column "message" nor a column "data"$/, qr/^Add one of them/ ],
	[ 'data that is text', 'ALTER TABLE ac_list_users ALTER data TYPE text', '42804',
		qr/^column "data" of "public\.ac_list_users" is of type text$/, qr/^Make it json or jsonb\.$/ ],
	[ 'data of a job that is text', 'ALTER TABLE ac_background_jobs ALTER data TYPE text', '42804',
		qr/^column "data" of "public\.ac_background_jobs" is of type text$/, qr/^Make it json or jsonb\.$/ ],
	[ 'no configuration', 'ALTER TABLE groups DROP configuration', '42703',
		qr/^column "configuration" of "public\.groups" does not exist$/, qr/^Add it/ ],
	[ 'a configuration that is hstore-like text', 'ALTER TABLE groups ALTER configuration TYPE text', '42804',
		qr/^column "configuration" of "public\.groups" is of type text$/, qr/^Make it json or jsonb\.$/ ],
	[ 'no list', 'ALTER TABLE ac_list_users DROP ac_list_id', '42703',
		qr/^column "ac_list_id" of "public\.ac_list_users" does not exist$/, qr/^Add it/ ],
	[ 'no progress', 'ALTER TABLE ac_background_jobs DROP progress', '42703',
		qr/^column "progress" of "public\.ac_background_jobs" does not exist$/, qr/^Add it/ ],
	[ 'an error that is a number', 'ALTER TABLE ac_background_jobs DROP error, ADD error integer', '42804',
		qr/^column "error" of "public\.ac_background_jobs" is of type integer$/, qr/^Make it text or character varying\.$/ ],
	[ 'a count that is text', 'ALTER TABLE ac_list_users ADD sent_count text', '42804',
		qr/^column "sent_count" of "public\.ac_list_users" is of type text$/, qr/^Make it smallint, integer, bigint, numeric, real or double precision\.$/ ],
	[ 'a generated count', 'ALTER TABLE ac_list_users ADD "sentCount" integer GENERATED ALWAYS AS (1) STORED', '55000',
		qr/^column "sentCount" of "public\.ac_list_users" cannot be updated$/, qr/INSTEAD OF UPDATE trigger/ ],
	[ 'a count that is an expression of a view', view_of_users('id, ac_list_id, data, 0 + user_id AS sent_count FROM users'), '55000',
		qr/^column "sent_count" of "public\.ac_list_users" cannot be updated$/, qr/INSTEAD OF UPDATE trigger/ ],
	[ 'data that is an expression of a view', view_of_users(q{id, ac_list_id, data || '{}' AS data FROM users}), '55000',
		qr/^column "data" of "public\.ac_list_users" cannot be updated$/, qr/INSTEAD OF UPDATE trigger/ ],
	[ 'a view that is not updatable', view_of_users(q{DISTINCT id, ac_list_id, data FROM users}), '55000',
		qr/^column "data" of "public\.ac_list_users" cannot be updated$/, qr/INSTEAD OF UPDATE trigger/ ],
	[ 'a materialized view', 'ALTER TABLE ac_list_users RENAME TO users; CREATE MATERIALIZED VIEW ac_list_users AS SELECT * FROM users', '55000',
		qr/^column "data" of "public\.ac_list_users" cannot be updated$/, qr/INSTEAD OF UPDATE trigger/ ],
	map({ my ($table, $column) = @$_; map {
		[ "$table.$column of type $_", "ALTER TABLE $table ADD new_id $_; ALTER TABLE $table DROP $column CASCADE; ALTER TABLE $table RENAME new_id TO $column", '42804',
			qr/^column "$column" of "public\.$table" is of type \Q$_\E/, qr/^Make it smallint, integer or bigint\.$/ ] } qw(uuid text numeric) }
		[ 'ac_list_users', 'id' ], [ 'ac_lists', 'id' ], [ 'ac_lists', 'group_id' ], [ 'ac_campaigns', 'ac_list_id' ], [ 'groups', 'id' ], [ 'ac_background_jobs', 'id' ]),
);
for (@faults)
{
	my ($name, $changes, $sqlstate, $message, $hint) = @$_;
	for my $call ("send_campaign($campaign)", "count(*) FROM sendcampaign.preview($campaign)", "sendcampaign.estimate($campaign)")
	{
		my $error = sql_error($node, "SET ROLE app; BEGIN; $changes; SELECT $call");
		is($error->{sqlstate}, $sqlstate, "$name: " . ($call =~ /(\w+)\(\d/)[0]);
		like($error->{message}, $message, '... names table and column');
		like($error->{hint}, $hint, '... and says what to do');
	}
}

# Found by the worker before the first claim, where they come after the call
for (@faults)
{
	my ($name, $changes, undef, $message, $hint) = @$_;
	next if $name !~ /sentCount|view|of type uuid|text/ || $name =~ /message|materialized|job/;
	(my $db = lc $name) =~ s/\W+/_/g;
	$db = substr($db, 0, 60);
	$node->safe_psql('postgres', qq{CREATE DATABASE "$db"});
	install_extension($node, $db);
	$campaign = create_campaign($node, db => $db, users => 3);
	my $job = $node->safe_psql($db, "SET ROLE app; BEGIN; SELECT send_campaign($campaign); $changes; COMMIT");
	$job =~ s/\D.*//s;
	my $run = wait_for_run($node, $job, db => $db);
	is($run->{state}, 'failed', "$name, after the call: the run fails");
	my ($first) = split /\. /, $run->{error};
	like($first, $message, '... naming table and column');
}
is(scalar(() = $twilio->ledger), 0, 'nothing was sent');

# Rights on columns
$node->safe_psql('postgres', q{
	CREATE ROLE narrow LOGIN;
	GRANT SELECT ON ALL TABLES IN SCHEMA public TO narrow;
	GRANT INSERT ON ac_background_jobs TO narrow; GRANT USAGE ON SEQUENCE ac_background_jobs_id_seq TO narrow;
	GRANT UPDATE (updated_at) ON ac_list_users TO narrow; GRANT UPDATE ON ac_background_jobs TO narrow});
my $error = sql_error($node, 'SET ROLE narrow; SELECT send_campaign(1)');
is("$error->{sqlstate}: $error->{detail}", '42501: Role "narrow" needs the UPDATE privilege on column "data" to send a campaign.', 'no right on the count');
is($error->{hint}, 'GRANT UPDATE (data) ON public.ac_list_users TO narrow;', '... with what grants it');

# And what can work does
for my $type (qw(smallint bigint))
{
	$node->safe_psql('postgres', "CREATE DATABASE $type");
	install_extension($node, $type);
	$campaign = create_campaign($node, db => $type, users => 3, message => $type);
	$node->safe_psql($type, join '; ', 'SET ROLE app', 'CREATE DOMAIN object AS jsonb', 'ALTER TABLE ac_list_users ALTER data TYPE object',
		map { "ALTER TABLE $_->[0] ALTER $_->[1] TYPE $type" } [ 'ac_list_users', 'id' ], [ 'ac_list_users', 'ac_list_id' ], [ 'ac_lists', 'id' ],
			[ 'ac_lists', 'group_id' ], [ 'ac_campaigns', 'id' ], [ 'ac_campaigns', 'ac_list_id' ], [ 'groups', 'id' ], [ 'ac_background_jobs', 'id' ]);
	$twilio->set(reset => 1);
	sent_once($node, $twilio, $campaign, start_campaign($node, $campaign, db => $type), "ids of type $type, a domain", db => $type);
}

wait_for_no_worker($node);
$node->stop;
done_testing();
