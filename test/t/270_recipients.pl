# A query selects the recipients among the users of a campaign's list: what is
# selected, what is shown beforehand, and what is refused.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../perl";
use Campaign;
use LocalTwilio;
use PostgreSQL::Test::Utils;
use Test::More;

my $twilio = LocalTwilio->start;
my $node = new_cluster('recipients', $twilio, conf => <<~'CONF');
	sendcampaign.receipts = off
	max_worker_processes = 16
	CONF
my $app = { role => 'app' };

sub quote { my $text = shift; $text =~ s/'/''/g; return "'$text'" }

# SQLSTATE, message, detail and hint
sub text_of { return join '|', @{ shift() }{qw(sqlstate message detail hint)} }

# Ids of the campaign's list, from the first one on, as a query.
sub users_of { return 'SELECT u.id FROM public.ac_list_users u WHERE u.ac_list_id = ' . shift }

sub new_campaign
{
	my $campaign = create_campaign($node, @_);
	my $list = sql($node, 'SELECT ' . list_of($campaign));
	my @ids = split /\n/, sql($node, users_of($list) . ' ORDER BY 1');
	return ($campaign, $list, @ids);
}

sub phones_of
{
	my $job = shift;
	return sql($node, <<~"SQL");
		SELECT coalesce(string_agg(list_user_id::text, ' ' ORDER BY list_user_id), '')
		FROM sendcampaign.message WHERE job_id = $job AND status = 'sent'
		SQL
}

# Each type of integer, in any order, with other columns, nulls and doubles
my ($campaign, $list, @ids) = new_campaign(users => 20);
my %queries = (
	'a condition' =>
	  [ users_of($list) . " AND u.id % 2 = $ids[1] % 2", grep { $_ % 2 == $ids[1] % 2 } @ids ],
	'integers' => [ "SELECT $ids[3]::integer", $ids[3] ],
	'small integers' => [ "SELECT $ids[4]::smallint", $ids[4] ],
	'more columns' => [ "SELECT $ids[5]::bigint, repeat('x', 1000), now()", $ids[5] ],
	'nulls and doubles' =>
	  [ "VALUES ($ids[7]), (NULL), ($ids[6]), ($ids[7]), (NULL), ($ids[7])", @ids[ 6, 7 ] ],
	'WITH, UNION, a comment' => [
		"WITH a AS (SELECT $ids[8] AS id) SELECT id FROM a UNION ALL SELECT $ids[9]; -- end",
		@ids[ 8, 9 ]
	],
	'in descending order' => [ users_of($list) . ' ORDER BY u.id DESC LIMIT 3', @ids[ 17 .. 19 ] ],
	'a domain' => [ "SELECT $ids[2]::public.list_user", $ids[2] ],
	'the whole list' => [ users_of($list), @ids ]);
sql($node, 'CREATE DOMAIN list_user AS bigint');
for my $name (sort keys %queries)
{
	my ($query, @wanted) = @{ $queries{$name} };
	my $quoted = quote($query);
	is( sql($node, "SELECT list_user_id FROM sendcampaign.preview($campaign, 100, $quoted)", %$app
		),
		join("\n", @wanted),
		"$name: preview");
	is( sql($node,
			"SELECT recipients, messages FROM sendcampaign.estimate($campaign,"
			  . " recipients => $quoted)",
			%$app),
		@wanted . '|' . @wanted,
		"$name: estimate");
	my $run = run_campaign($node, $campaign, recipients => $query);
	is( "$run->{state} $run->{total} $run->{sent}",
		'completed ' . @wanted . ' ' . @wanted,
		"$name: the run");
	is(phones_of($run->{job}), join(' ', @wanted), "$name: recipients");
	is(sql($node, "SELECT recipients FROM sendcampaign.run WHERE job_id = $run->{job}"),
		$query, "$name: the view has the query");
}
is( sql($node,
		"SELECT list_user_id FROM sendcampaign.preview($campaign, 2, "
		  . quote(users_of($list)) . ')',
		%$app),
	join("\n", @ids[ 0, 1 ]),
	'the limit of preview() counts recipients');
is(sql($node, "SELECT count(*) FROM sendcampaign.preview($campaign, 0, 'SELECT 1')", %$app),
	'0', 'and may be 0');

# Of two who share a phone number, one gets it; if one is selected, that one.
my ($twins, $twin_list, @twins) = new_campaign(users => 300, phone => '+15557770001');
my $run = run_campaign($node, $twins, recipients => "VALUES ($twins[5]), ($twins[299])");
is("$run->{total} $run->{sent} $run->{skipped}", '2 1 1', 'duplicates among those selected');
is(phones_of($run->{job}), $twins[5], 'the first of those gets it');
$run = run_campaign($node, $twins, recipients => "VALUES ($twins[299])");
is(phones_of($run->{job}), $twins[299], 'one alone gets it');
is( sql($node,
		"SELECT recipients, duplicates FROM sendcampaign.estimate($twins, NULL, "
		  . quote("VALUES ($twins[5]), ($twins[299])") . ')',
		%$app),
	'2|1',
	'estimate says so');

# Pairs far apart, in more than one batch, of which the query selects a part
my ($pairs, $pair_list, @pairs) = new_campaign(users => 2000);
sql($node,
		"UPDATE ac_list_users SET data = jsonb_build_object('sms',"
	  . " '+1556' || lpad(((id - $pairs[0]) % 1000)::text, 7, '0')) WHERE ac_list_id = $pair_list"
);
$run = run_campaign($node, $pairs,
	recipients => users_of($pair_list) . " AND (u.id - $pairs[0]) % 1000 >= 300 AND u.id % 3 < 2");
is( "$run->{total} $run->{sent}",
	join(' ', split /\|/, sql($node, <<~"SQL")), 'of each pair, one among those selected gets it');
	SELECT count(*), count(DISTINCT data->>'sms') FROM ac_list_users
	WHERE ac_list_id = $pair_list AND (id - $pairs[0]) % 1000 >= 300 AND id % 3 < 2
	SQL

# Nobody
$run = run_campaign($node, $campaign, recipients => 'SELECT 1 WHERE false');
is( "$run->{state} $run->{total} $run->{error}",
	'completed 0 nothing was sent: the query that'
	  . ' selects the recipients has returned no list user that role "app" may see',
	'a query that returns nothing');

# Ids that are not of the list's users: nobody gets it.
my $before = scalar $twilio->ledger;
my $foreign = "VALUES ($ids[0]), ($twins[0]), ($twins[1]), (-5), ($ids[1]), (-5)";
$run = run_campaign($node, $campaign, recipients => $foreign);
is($run->{state}, 'failed', 'ids of others fail the run');
is( $run->{error},
	"the query that selects the recipients has returned 3 ids that are not of users of"
	  . " list $list. The lowest one is -5. Make the query return only ids of rows of"
	  . " \"public.ac_list_users\" whose \"ac_list_id\" is $list.",
	'and are counted');
is(job_row($node, $run->{job}, 'error'), $run->{error}, 'the job says so');
is(scalar $twilio->ledger, $before, 'nobody got it');
is_deeply(
	call_error($node, "preview($campaign, 1, '$foreign')"),
	{
		sqlstate => '21000',
		message => 'the query that selects the recipients has returned 3 ids that are not of users'
		  . " of list $list",
		detail => 'The lowest one is -5.',
		hint => 'Make the query return only ids of rows of "public.ac_list_users" whose'
		  . " \"ac_list_id\" is $list."
	},
	'preview() says so, whatever its limit');
like(
	call_error($node, "estimate($campaign, NULL, 'SELECT -1')")->{message},
	qr/has returned 1 id that is not of a user of list $list/,
	'so does estimate()');
like(
	call_error($node, "send_test($campaign, '+15550000009', 'SELECT -1')")->{message},
	qr/has returned 1 id that is not/,
	'and send_test()');

# It continues with another query, as it has not begun.
is(start_campaign($node, $campaign, job => $run->{job}, recipients => "VALUES ($ids[0])"),
	$run->{job}, 'called again with another query');
is(wait_for_run($node, $run->{job})->{sent}, 1, 'it is sent');
is(phones_of($run->{job}), $ids[0], 'to those of the new query');
like(
	sql_output($node, "SELECT send_campaign($campaign, $run->{job}, 'SELECT 1')", %$app),
	qr/already in state "completed"/,
	'a third call does nothing');

# A failed run that has not begun keeps its query if it is called without one.
sql($node, "UPDATE ac_campaigns SET data = data - 'message' WHERE id = $campaign");
my $job = start_campaign($node, $campaign, recipients => "VALUES ($ids[2])");
like(wait_for_run($node, $job)->{error}, qr/has no message/, 'a campaign without message fails');
sql($node, qq(UPDATE ac_campaigns SET data = data || '{"message": "Hi"}' WHERE id = $campaign));
start_campaign($node, $campaign, job => $job);
wait_for_run($node, $job);
is(phones_of($job), $ids[2], 'called without a query, it keeps the one that it has');

# A run that has begun keeps its recipients.
configure($node, $campaign, q(configuration || '{"twilioAuthToken": "wrong"}'));
$job = start_campaign($node, $campaign, recipients => "VALUES ($ids[3])");
is(wait_for_run($node, $job)->{state}, 'failed', 'with a wrong token it fails');
configure($node, $campaign, qq(configuration || '{"twilioAuthToken": "$LocalTwilio::TOKEN"}'));
is( text_of(sql_error($node, "SELECT send_campaign($campaign, $job, 'SELECT 1')", %$app)),
	"55000|the recipients of background job $job have been selected already||"
	  . 'Omit the query to continue with them, or use another background job.',
	'it does not take another query');
start_campaign($node, $campaign, job => $job, recipients => "VALUES ($ids[3])");
wait_for_run($node, $job);
is(phones_of($job), $ids[3], 'it continues with the same one');

# A test goes to the first one that the query selects.
$twilio->set(reset => 1);
my $test = sql(
	$node,
	"SELECT sendcampaign.send_test($campaign, '+15550000009'," . " 'VALUES ($ids[9]), ($ids[8])')",
	%$app);
is(wait_for_run($node, $test)->{state}, 'completed', 'a test is sent');
my @sent = $twilio->ledger;
is( "$sent[0]{to} @{[ $sent[0]{body} =~ /yu=(\d+)/ ]}",
	"+15550000009 $ids[8]",
	'it is the message of the first one that the query selects');
is(scalar @sent, 1, 'and the only one');
is( text_of(call_error($node, "send_test($campaign, '+15550000009', 'SELECT 1 WHERE false')")),
	'55000|the query that selects the recipients has returned no list user||'
	  . 'A test message is the message to the first one that it returns.',
	'a test of nobody');
is(sql($node, "SELECT sendcampaign.send_test($campaign, NULL) IS NULL", %$app),
	't', 'no phone, no test');

is(worker_errors($node), '', 'there are no errors in the log');
$node->stop;
done_testing();
