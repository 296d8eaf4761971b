# Personal texts: what arrives at Twilio, byte for byte, and who is skipped.
# (Strings here are bytes.)
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";

use Campaign;
use JSON::PP ();
use LocalTwilio;
use PostgreSQL::Test::Utils;
use Test::More;

my $twilio = LocalTwilio->start;
my $node = new_cluster(
	'personal', $twilio,
	init => { extra => [ '--encoding=UTF8', '--locale=C' ] },
	conf => <<~CONF);
    restart_after_crash = on
    sendcampaign.request_timeout = '120s'
    sendcampaign.lookup_delay = 0
CONF

# A string as an SQL literal.
sub literal
{
	my $string = shift;
	return "'" . $string =~ s/'/''/gr . "'";
}

# A value as JSON; bytes stay bytes.
sub json
{
	my $value = shift;
	return JSON::PP->new->allow_nonref->latin1->encode($value);
}

# A campaign whose users have these data, each a hash or JSON as it stands;
# returns its id.
sub personal
{
	my ($message, $data, %arg) = @_;
	my $campaign = create_campaign(
		$node,
		users => scalar @$data,
		message => $message,
		base_url => undef,
		%arg);
	my @rows;
	for my $user (@$data)
	{
		my $number = @rows + 1;
		push @rows, "($number, " . literal(ref $user ? json($user) : $user) . '::jsonb)';
	}
	my $rows = join ",\n", @rows;
	sql($node, <<~SQL, db => $arg{db});
	    UPDATE ac_list_users u
	    SET data = u.data || v.data
	    FROM (VALUES $rows) v(n, data),
	        (SELECT id, row_number() OVER (ORDER BY id) AS n
	        FROM ac_list_users
	        WHERE ac_list_id = (SELECT ac_list_id FROM ac_campaigns WHERE id = $campaign)) i
	    WHERE i.n = v.n AND u.id = i.id
	SQL
	return $campaign;
}

# The texts that Twilio has accepted, by SID.
sub body_by_sid
{
	return map { $_->{sid} => $_->{body} } $twilio->ledger;
}

# Sends it; what each of the users got, or why it did not, in their order.
sub outcomes
{
	my ($campaign, $db) = @_;
	my $job = start_campaign($node, $campaign, db => $db);
	wait_for_run($node, $job, db => $db);
	my %body = body_by_sid();
	my $rows = sql($node, <<~SQL, db => $db);
	    SELECT coalesce(sid, ''), coalesce(error_message, '')
	    FROM sendcampaign.message
	    WHERE job_id = $job
	    ORDER BY list_user_id
	SQL
	my @outcomes;
	for my $row (split /\n/, $rows)
	{
		my ($sid, $error) = split /\|/, $row, 2;
		push @outcomes, $sid ? $body{$sid} : "<$error>";
	}
	return @outcomes;
}

# One user with these data: what arrives.
sub arrives
{
	my ($message, $data, %arg) = @_;
	my ($outcome) = outcomes(personal($message, [$data], %arg), $arg{db});
	return $outcome;
}

# Sets columns of the newest list user, given as SQL.
sub update_newest_user
{
	my $columns = shift;
	sql($node, <<~SQL);
	    UPDATE ac_list_users
	    SET $columns
	    WHERE id = (SELECT max(id) FROM ac_list_users)
	SQL
}

# The name of the case, the text, the user's data, what arrives.
my @cases = (
	[ 'no placeholder' => 'Hi {name}', { name => 'Ann' }, 'Hi {name}' ],
	[ 'a value' => 'Hi {{name}}!', { name => 'Ann' }, 'Hi Ann!' ],
	[ 'blanks around the key' => "Hi {{ \t\nname  }}!", { name => 'Ann' }, 'Hi Ann!' ],
	[ 'the same key twice' => '{{a}}{{a}}-{{b}}', { a => 'x', b => 'y' }, 'xx-y' ],
	[ 'a value with blanks around it' => '<{{a}}>', { a => '  x ' }, '<  x >' ],
	[ 'a default that is not needed' => '{{a|no}}', { a => 'yes' }, 'yes' ],
	[ 'a default for a missing value' => '{{a | there }}!', {}, 'there!' ],
	[ 'a default for null' => '{{a|x}}', { a => undef }, 'x' ],
	[ 'a default for an empty value' => '{{a|x}}', { a => '' }, 'x' ],
	[ 'a default for a blank value' => '{{a|x}}', { a => " \t\r\n " }, 'x' ],
	[ 'an empty default' => 'Hi {{a|}}!', {}, 'Hi !' ],
	[ 'a default with a bar' => '{{a|b|c}}', {}, 'b|c' ],
	[ 'a missing value' => 'Hi {{a}}', {}, '<no value for "a">' ],
	[ 'a null' => 'Hi {{a}}', { a => undef }, '<no value for "a">' ],
	[ 'a blank value' => 'Hi {{a}}', { a => '  ' }, '<no value for "a">' ],
	[ 'the second value is missing' => '{{a}} {{b}}', { a => 1 }, '<no value for "b">' ],
	[
		'numbers' => '{{a}} {{b}} {{c}} {{d}}',
		'{"a": 0, "b": -1.50, "c": 1e3, "d": 12345678901234567890}',
		'0 -1.50 1000 12345678901234567890'
	],
	[ 'booleans' => '{{a}} {{b}}', '{"a": true, "b": false}', 'true false' ],
	[ 'an array' => '{{a}}', '{"a": ["x"]}', '<no value for "a">' ],
	[ 'an object' => '{{a|none}}', '{"a": {"b": "x"}}', 'none' ],
	[ 'a key is no path' => '{{a.b|none}}', '{"a": {"b": "x"}}', 'none' ],
	[ 'a key with a dot' => '{{a.b|none}}', '{"a.b": "x"}', 'x' ],
	[
		'keys differ in case' => '{{Name}} {{name}}',
		{ name => 'small', Name => 'large' },
		'large small'
	],
	[ 'data is no value' => '{{data}}', { x => 1 }, '<no value for "data">' ],
	[ 'data may be a key' => '{{data}}', { data => 'x' }, 'x' ],
	[ 'system columns are no values' => '{{ctid|a}}{{xmin|b}}{{tableoid|c}}', {}, 'abc' ],
	[
		'quotes in the text' => q{'{{a}}' "{{a}}" `{{a}}` $${{a}}$$},
		{ a => q{'"`$$} },
		q{''"`$$' "'"`$$" `'"`$$` $$'"`$$$$}
	],
	[ 'backslashes' => '\{{a}}\\\\ \n', { a => '\\' }, '\\\\\\\\ \n' ],
	[ 'percent signs' => '%s %d%% {{a}} %n', { a => '%s%n%1$s' }, '%s %d%% %s%n%1$s %n' ],
	[
		'values are not read again' => '{{a}} {{b}}',
		{ a => '{{b}}', b => '{{a|x}}' },
		'{{b}} {{a|x}}'
	],
	[
		'a placeholder made of two values' => '{{a}}b{{c}}',
		{ a => '{{', b => 'no', c => '}}' },
		'{{b}}'
	],
	[ 'a value that asks for the link' => '{{a}}', { a => '{{link}}' }, '{{link}}' ],
	[ 'three braces' => '{{{a}}}', { a => 'x' }, '{x}' ],
	[
		'characters of four bytes' => '🎉{{ключ 😀}}🇮🇸',
		{ 'ключ 😀' => '👩‍👩‍👧‍👦' },
		'🎉👩‍👩‍👧‍👦🇮🇸'
	],
	[ 'control characters' => "a\r\n{{x}}\x01", { x => "\x02\t" }, "a\r\n\x02\t\x01" ],
	[
		'form characters' => 'a=b&c={{x}}+%20',
		{ x => '&To=+15550009999;%00' },
		'a=b&c=&To=+15550009999;%00+%20'
	],
	[
		'a value as in JSON' => '{"x": "{{x}}"}',
		{ x => '", "y": "\\u0041' },
		'{"x": "", "y": "\\u0041"}'
	]);

# Keys become part of a statement, and so might values.
my @injections = (
	q{'; DROP TABLE ac_list_users; --},
	q{x', (SELECT configuration::text FROM groups LIMIT 1), 'x},
	q{x') FROM groups; UPDATE ac_list_users SET data = ''; --},
	q{"; DROP TABLE groups; --});
my @keys = (
	'first name', "O'Brien", q{"}, q{a"b'c},
	'%', '%s%n%d', '100 %', '\\',
	q{\\'; --}, q{E'x}, '$1', '$$',
	'?', ':a', '->>', @injections,
	'/*', '--', "a\nb", "a\tb",
	'u.id', 'sms, u.id', 'key' x 30, 'þ' x 200,
	'pg_catalog', 'NULL', 'select', '0',
	'-1', '[0]', '*', '........pg.dropped.1........');
for my $key (@keys)
{
	push @cases, [ "key: $key" => "<{{$key}}>", { $key => 'ok' }, '<ok>' ];
	push @cases, [ "no key: $key" => "<{{$key}}>", {}, qq(<no value for "$key">) ];
}
push @cases, [ "a value that injects: $_" => '{{a}}', { a => $_ }, $_ ] for @injections;

# Each case has a campaign of its own; all are sent in one transaction.
my @campaigns = map { personal($_->[1], [ $_->[2] ]) } @cases;
my $campaigns = join ',', @campaigns;
my $jobs = sql($node, "SELECT send_campaign(c) FROM unnest(ARRAY[$campaigns]) c", role => 'app');
$jobs =~ s/\n/,/g;
ok(wait_until($node, <<~SQL), 'all runs have ended');
    SELECT count(*) = 0
    FROM sendcampaign.run
    WHERE job_id IN ($jobs) AND finished_at IS NULL
SQL
my %body = body_by_sid();
my $rows = sql($node, <<~SQL);
    SELECT string_agg(
        concat_ws(chr(31), r.campaign_id, coalesce(m.sid, ''), coalesce(m.error_message, '')),
        chr(30))
    FROM sendcampaign.message m JOIN sendcampaign.run r USING (job_id)
    WHERE job_id IN ($jobs)
SQL

my %got;
for my $row (split /\x1e/, $rows)
{
	my ($campaign, $sid, $error) = split /\x1f/, $row, -1;
	$got{$campaign} = $sid ? $body{$sid} : "<$error>";
}
for my $i (0 .. $#cases)
{
	is($got{ $campaigns[$i] }, $cases[$i][3], $cases[$i][0]);
}
is(sql($node, <<~SQL), 0, 'all runs are complete');
    SELECT count(*)
    FROM sendcampaign.run
    WHERE job_id IN ($jobs) AND state <> 'completed'
SQL
is(sql($node, 'SELECT count(*) FROM ac_list_users'), scalar @cases, 'the tables are still there');
my ($skipped) = grep { $cases[$_][0] eq 'a missing value' } 0 .. $#cases;
is(sql($node, <<~SQL), 'skipped|0|f', 'a list user who is skipped is not counted');
    SELECT m.status, m.attempts, u.data ? 'sentCount'
    FROM sendcampaign.message m
        JOIN sendcampaign.run r USING (job_id)
        JOIN ac_list_users u ON u.id = m.list_user_id
    WHERE r.campaign_id = $campaigns[$skipped]
SQL

# The link: the name of the case, the text, what arrives, more data.
my $url = 'https://example.org/survey';
my @link_cases = (
	[ 'in the middle' => 'Go: {{link}} now, {{a}}', 'Go: LINK now, x' ],
	[ 'twice' => '{{link}}|{{link}}', 'LINK|LINK' ],
	[ 'at the start' => '{{ link }} {{a}}', 'LINK x' ],
	[ 'appended where the text has none' => 'Hi {{a}}', 'Hi x LINK' ],
	[
		'before digits' => '{{link}}1 {{link}}{{e|}}{{a|}}{{n}}{{link}}.',
		'LINK 1 LINKx2LINK.',
		{ n => 2 }
	],
	[ 'before a digit in a value' => '{{link}}{{e|}}{{n}}', 'LINK 2', { n => 2 } ],
	[ 'with a default' => '{{link|nowhere}}.', 'LINK.' ],
	[ 'a key of that name is no link' => '{{link}}', 'LINK', { link => 'http://evil.example' } ]);
for my $case (@link_cases)
{
	my ($what, $text, $expected, $data) = @$case;
	my $campaign = personal($text, [ { a => 'x', %{ $data || {} } } ], base_url => $url);
	my $user = sql($node, 'SELECT max(id) FROM ac_list_users');
	my ($body) = outcomes($campaign);
	is($body, $expected =~ s/LINK/$url?yu=$user&yc=$campaign/gr, "the link: $what");
}
is( arrives('Go: {{link}}', { link => 'http://evil.example' }),
	'<no value for "link">',
	'without a base URL the list user is skipped');
is( arrives('Go: {{link|to the hall}}', {}),
	'Go: to the hall',
	'without a base URL the default is taken');

# Columns, of that name or in snake_case, go before keys of data.
sql($node, <<~'SQL');
    ALTER TABLE ac_list_users
        ADD first_name text,
        ADD "lastName" text,
        ADD age integer,
        ADD "odd ""name' %s" text,
        ADD fine boolean,
        ADD tags jsonb,
        ADD words text[],
        ADD gone text;
    ALTER TABLE ac_list_users DROP gone;
SQL
my %in_data = (
	firstName => 'no',
	first_name => 'no',
	lastName => 'no',
	age => 1,
	fine => 'no',
	gone => 'key');
my $campaign = personal(
	'{{firstName}} {{first_name}} {{lastName}} {{age}} {{fine}}'
	  . q( {{odd "name' %s}} {{gone|gone}} {{id}}),
	[ \%in_data, { firstName => 'no' } ]);
my $user = sql($node, <<~'SQL');
    UPDATE ac_list_users
    SET first_name = 'Ann', "lastName" = 'Bo', age = 42, fine = true, "odd ""name' %s" = 'odd'
    WHERE id = (SELECT max(id) - 1 FROM ac_list_users)
    RETURNING id
SQL
is_deeply(
	[ outcomes($campaign) ],
	[ "Ann Ann Bo 42 true odd key $user", '<no value for "firstName">' ],
	'columns go before keys of data');
$campaign = personal('{{tags|none}} {{words|none}}', [ {} ]);
update_newest_user(q(tags = '{"a": 1}', words = '{a,b}'));
is_deeply([ outcomes($campaign) ],
	['none none'], 'columns that are arrays or objects count as missing');
sql($node, <<~'SQL');
    ALTER TABLE ac_list_users
        DROP first_name,
        DROP "lastName",
        DROP age,
        DROP "odd ""name' %s",
        DROP fine,
        DROP tags,
        DROP words
SQL

# Data that are no object.
$campaign = personal('Hi {{name|you}}', [ {} ]);
sql($node, 'ALTER TABLE ac_list_users ADD sms text');
sql($node, "UPDATE ac_list_users SET sms = '+15550000001'");
for my $data (q{NULL}, q{'null'}, q{'[{"name": "x"}]'}, q{'"name"'}, q{'1'})
{
	update_newest_user("data = $data");
	is_deeply([ outcomes($campaign) ], ['Hi you'], "data that are $data");
}
sql($node, 'ALTER TABLE ac_list_users DROP sms');

# Many keys.
my $many_keys = join '', map { "{{k$_}}" } 1 .. 100;
my %many = map { ("k$_" => $_ % 10) } 1 .. 100;
is(arrives($many_keys, \%many), join('', map { $_ % 10 } 1 .. 100), 'a text with 100 keys');

# Long texts: the run ends, and says why.
my $long = 'x' x 100_000;
my @values = ($long, 'short', 'é' x 1600, 'é' x 1601);
my @long = outcomes(personal('{{a}}', [ map { { a => $_ } } @values ]));
like($long[0], qr/^<.*1600/, 'a text of 100 kB is refused');
is($long[1], 'short', 'the others are sent');
is($long[2], 'é' x 1600, '1,600 characters are sent');
like($long[3], qr/^<.*1600/, '1,601 characters are refused');

my @six_hundred = map { { a => $_ } } 1 .. 600;
my $job = start_campaign($node, personal("{{a}}$long", \@six_hundred));
my $run = wait_for_run($node, $job);
is($run->{state}, 'failed', 'with 100 kB for all of them the run fails before anything is sent');
like($run->{error}, qr/has more than 16000 characters/, 'and says why');

$job = start_campaign($node, personal('{{a}}' . 'x' x 2000, \@six_hundred));
$run = wait_for_run($node, $job, state => 'paused');
is($run->{state}, 'paused', 'with 2 kB for all of them the run pauses');
like($run->{error}, qr/"sendcampaign.failure_scale_factor" \(0\.3\): .*21617/, 'and says why');
wait_for_no_worker($node);

# What is in doubt would be claimed: no answer may come too late on a busy machine.
my $run_id = run_of($job);
is(sql($node, "SELECT count(*) FROM sendcampaign.claim WHERE run_id = $run_id"),
	0, 'nothing is claimed')
  or diag(sql($node, <<~SQL));
    SELECT c.*, (SELECT count(*) FROM sendcampaign.message m WHERE m.job_id = $job)
    FROM sendcampaign.claim c
    WHERE run_id = $run_id
SQL

$job = start_campaign($node, personal('{{a}}', [ ({ a => $long }) x 40, { a => 'fine' } ]));
$run = wait_for_run($node, $job);
is( "$run->{state} $run->{sent} $run->{skipped}",
	'completed 1 40',
	'with 40 values that are too long the others are sent');

# The author changes the text while the run goes on: the run keeps its text.
# What the worker had sent when it was killed is looked up after the timeout.
change_conf($node, "sendcampaign.request_timeout = '10s'");
$campaign = personal('Old {{a}}', [ map { { a => $_ } } 1 .. 2000 ]);
$twilio->set(reset => 1, hold => 1);
$job = start_campaign($node, $campaign);
wait_for_flight($twilio, 1);
sql($node, qq(UPDATE ac_campaigns SET data = '{"message": "New {{b}}"}' WHERE id = $campaign));
kill_worker($node);
$twilio->set(hold => 0);
wait_until($node, 'SELECT sendcampaign.wake() >= 0');
$run = wait_for_run($node, $job);
is( "$run->{state} $run->{sent} $run->{error}",
	'completed 2000 ',
	'all are sent though the text is changed meanwhile');
is(sent_with($twilio, 'Old '), 2000, 'with the text that it had at the start');
is((grep { $_ != 1 } values %{ $twilio->count_by_phone }), 0, 'each phone number gets it once');

# A database in another encoding.
sql($node, "CREATE DATABASE latin1 ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0");
install_extension($node, 'latin1');
$ENV{PGCLIENTENCODING} = 'UTF8';
my @latin1 = (db => 'latin1');
my $asdis = { 'nafn þitt' => 'Ásdís' };
is( arrives('Sæl {{nafn þitt}}, {{x|góðan dag}}. ©', $asdis, @latin1),
	'Sæl Ásdís, góðan dag. ©',
	'LATIN1: a personal text');
is( arrives('Sæl {{nafn þitt}}', {}, @latin1),
	'<no value for "nafn þitt">',
	'LATIN1: the reason names the key');
my $with_link =
  arrives('Sæl: {{link}} {{a}}', { a => 'á' }, @latin1, base_url => 'https://þjóð.is/');
like($with_link, qr{^Sæl: https://þjóð\.is/\?yu=\d+&yc=\d+ á$}, 'LATIN1: the link');

wait_for_no_worker($node);
is((grep { !/Killed/ } split /\n/, worker_errors($node)), 0, 'no worker complains');
$node->stop;
done_testing();
