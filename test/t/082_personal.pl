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
my $node = new_cluster('personal', $twilio, init => { extra => [ '--encoding=UTF8', '--locale=C' ] }, conf => qq{
	restart_after_crash = on
	sendcampaign.request_timeout = '120s'
	sendcampaign.lookup_delay = 0
});

sub literal { my $s = shift; $s =~ s/'/''/g; return "'$s'"; }
sub json { return JSON::PP->new->allow_nonref->latin1->encode(shift); } # bytes stay bytes

# A campaign whose users have these data, each a hash or JSON as it stands; returns its id.
sub personal
{
	my ($message, $data, %arg) = @_;
	my $campaign = create_campaign($node, users => scalar @$data, message => $message, base_url => undef, %arg);
	my $n = 0;
	my $rows = join ",\n", map { '(' . ++$n . ', ' . literal(ref $_ ? json($_) : $_) . '::jsonb)' } @$data;
	$node->safe_psql($arg{db} || 'postgres', qq{UPDATE ac_list_users u SET data = u.data || v.data
		FROM (VALUES $rows) v(n, data), (SELECT id, row_number() OVER (ORDER BY id) AS n FROM ac_list_users
			WHERE ac_list_id = (SELECT ac_list_id FROM ac_campaigns WHERE id = $campaign)) i
		WHERE i.n = v.n AND u.id = i.id});
	return $campaign;
}

# Sends it; what each of the users got, or why it did not, in their order.
sub outcomes
{
	my ($campaign, $db) = @_;
	my $job = start_campaign($node, $campaign, db => $db);
	wait_for_run($node, $job, db => $db);
	my %body = map { $_->{sid} => $_->{body} } $twilio->ledger;
	return map { my ($sid, $error) = split /\|/, $_, 2; $sid ? $body{$sid} : "<$error>" } split /\n/,
	  $node->safe_psql($db || 'postgres', qq{SELECT coalesce(sid, ''), coalesce(error_message, '')
		FROM sendcampaign.message WHERE job_id = $job ORDER BY list_user_id});
}

# One user with these data: what arrives.
sub arrives
{
	my ($message, $data, %arg) = @_;
	my ($outcome) = outcomes(personal($message, [$data], %arg), $arg{db});
	return $outcome;
}

# The text, the user's data, what arrives.
my @cases = (
	[ 'no placeholder' => 'Hi {name}', { name => 'Ann' }, 'Hi {name}' ],
	[ 'a value' => 'Hi {{name}}!', { name => 'Ann' }, 'Hi Ann!' ],
	[ 'blanks around the key' => "Hi {{ \t\nname  }}!", { name => 'Ann' }, 'Hi Ann!' ],
	[ 'the same key twice' => '{{a}}{{a}}-{{b}}', { a => 'x', b => 'y' }, 'xx-y' ],
	[ 'a value has blanks around it' => '<{{a}}>', { a => '  x ' }, '<  x >' ],
	[ 'a default that is not needed' => '{{a|no}}', { a => 'yes' }, 'yes' ],
	[ 'a default for a missing one' => '{{a | there }}!', {}, 'there!' ],
	[ 'a default for null' => '{{a|x}}', { a => undef }, 'x' ],
	[ 'a default for an empty one' => '{{a|x}}', { a => '' }, 'x' ],
	[ 'a default for a blank one' => '{{a|x}}', { a => " \t\r\n " }, 'x' ],
	[ 'an empty default' => 'Hi {{a|}}!', {}, 'Hi !' ],
	[ 'a default with a bar' => '{{a|b|c}}', {}, 'b|c' ],
	[ 'a missing value' => 'Hi {{a}}', {}, '<no value for "a">' ],
	[ 'a null' => 'Hi {{a}}', { a => undef }, '<no value for "a">' ],
	[ 'a blank value' => 'Hi {{a}}', { a => '  ' }, '<no value for "a">' ],
	[ 'the second one missing' => '{{a}} {{b}}', { a => 1 }, '<no value for "b">' ],
	[ 'numbers' => '{{a}} {{b}} {{c}} {{d}}', '{"a": 0, "b": -1.50, "c": 1e3, "d": 12345678901234567890}', '0 -1.50 1000 12345678901234567890' ],
	[ 'booleans' => '{{a}} {{b}}', '{"a": true, "b": false}', 'true false' ],
	[ 'an array' => '{{a}}', '{"a": ["x"]}', '<no value for "a">' ],
	[ 'an object' => '{{a|none}}', '{"a": {"b": "x"}}', 'none' ],
	[ 'a key is no path' => '{{a.b|none}}', '{"a": {"b": "x"}}', 'none' ],
	[ 'a key with a dot' => '{{a.b|none}}', '{"a.b": "x"}', 'x' ],
	[ 'keys differ in case' => '{{Name}} {{name}}', { name => 'small', Name => 'large' }, 'large small' ],
	[ 'data is no value' => '{{data}}', { x => 1 }, '<no value for "data">' ],
	[ 'but a key of it' => '{{data}}', { data => 'x' }, 'x' ],
	[ 'system columns are no values' => '{{ctid|a}}{{xmin|b}}{{tableoid|c}}', {}, 'abc' ],
	[ 'quotes in the text' => q{'{{a}}' "{{a}}" `{{a}}` $${{a}}$$}, { a => q{'"`$$} }, q{''"`$$' "'"`$$" `'"`$$` $$'"`$$$$} ],
	[ 'backslashes' => '\{{a}}\\\\ \n', { a => '\\' }, '\\\\\\\\ \n' ],
	[ 'percent signs' => '%s %d%% {{a}} %n', { a => '%s%n%1$s' }, '%s %d%% %s%n%1$s %n' ],
	[ 'values are not read again' => '{{a}} {{b}}', { a => '{{b}}', b => '{{a|x}}' }, '{{b}} {{a|x}}' ],
	[ 'a placeholder made of two values' => '{{a}}b{{c}}', { a => '{{', b => 'no', c => '}}' }, '{{b}}' ],
	[ 'a value that asks for the link' => '{{a}}', { a => '{{link}}' }, '{{link}}' ],
	[ 'three braces' => '{{{a}}}', { a => 'x' }, '{x}' ],
	[ 'four bytes a character' => '🎉{{ключ 😀}}🇮🇸', { 'ключ 😀' => '👩‍👩‍👧‍👦' }, '🎉👩‍👩‍👧‍👦🇮🇸' ],
	[ 'control characters' => "a\r\n{{x}}\x01", { x => "\x02\t" }, "a\r\n\x02\t\x01" ],
	[ 'form characters' => 'a=b&c={{x}}+%20', { x => '&To=+15550009999;%00' }, 'a=b&c=&To=+15550009999;%00+%20' ],
	[ 'a value as in JSON' => '{"x": "{{x}}"}', { x => '", "y": "\\u0041' }, '{"x": "", "y": "\\u0041"}' ]);

# keys become part of a statement
my @keys = ('first name', "O'Brien", q{"}, q{a"b'c}, '%', '%s%n%d', '100 %', '\\', q{\\'; --}, q{E'x}, '$1', '$$', '?', ':a', '->>',
	q{'; DROP TABLE ac_list_users; --}, q{x', (SELECT configuration::text FROM groups LIMIT 1), 'x},
	q{x') FROM groups; UPDATE ac_list_users SET data = ''; --}, q{"; DROP TABLE groups; --}, '/*', '--', "a\nb", "a\tb",
	'u.id', 'sms, u.id', 'key' x 30, 'þ' x 200, 'pg_catalog', 'NULL', 'select', '0', '-1', '[0]', '*', '........pg.dropped.1........');
push @cases, map { [ "key: $_" => "<{{$_}}>", { $_ => 'ok' }, '<ok>' ],
	[ "no key: $_" => "<{{$_}}>", {}, qq(<no value for "$_">) ] } @keys;
push @cases, [ 'the value injects' => '{{a}}', { a => $_ }, $_ ] for @keys[15 .. 18];

# each in a campaign of its own, all in one transaction
my @campaigns = map { personal($_->[1], [ $_->[2] ]) } @cases;
my $jobs = join ',', split /\n/, $node->safe_psql('postgres',
	'SET ROLE app; SELECT send_campaign(c) FROM unnest(ARRAY[' . join(',', @campaigns) . ']) c');
ok($node->poll_query_until('postgres', "SELECT count(*) = 0 FROM sendcampaign.run WHERE job_id IN ($jobs) AND finished_at IS NULL"), 'all have ended');
my %body = map { $_->{sid} => $_->{body} } $twilio->ledger;
my %got;
for (split /\x1e/, $node->safe_psql('postgres', qq{SELECT string_agg(r.campaign_id || E'\\x1f' || coalesce(m.sid, '') || E'\\x1f'
	|| coalesce(m.error_message, ''), E'\\x1e') FROM sendcampaign.message m JOIN sendcampaign.run r USING (job_id) WHERE job_id IN ($jobs)}))
{
	my ($campaign, $sid, $error) = split /\x1f/, $_, -1;
	$got{$campaign} = $sid ? $body{$sid} : "<$error>";
}
is($got{ $campaigns[$_] }, $cases[$_][3], $cases[$_][0]) for 0 .. $#cases;
is($node->safe_psql('postgres', "SELECT count(*) FROM sendcampaign.run WHERE job_id IN ($jobs) AND state <> 'completed'"), 0, 'all are complete');
is($node->safe_psql('postgres', 'SELECT count(*) FROM ac_list_users'), scalar @cases, 'and the tables are there');
my ($skipped) = grep { $cases[$_][0] eq 'a missing value' } 0 .. $#cases;
is($node->safe_psql('postgres', "SELECT m.status, m.attempts, u.data ? 'sentCount' FROM sendcampaign.message m JOIN sendcampaign.run r USING (job_id)
	JOIN ac_list_users u ON u.id = m.list_user_id WHERE r.campaign_id = $campaigns[$skipped]"), 'skipped|0|f', 'who is skipped is not counted');

# the link
my $url = 'https://example.org/survey';
for my $case ([ 'in the middle' => 'Go: {{link}} now, {{a}}', 'Go: LINK now, x' ], [ 'twice' => '{{link}}|{{link}}', 'LINK|LINK' ],
	[ 'at the start' => '{{ link }} {{a}}', 'LINK x' ], [ 'none: appended' => 'Hi {{a}}', 'Hi x LINK' ],
	[ 'before digits' => '{{link}}1 {{link}}{{e|}}{{a|}}{{n}}{{link}}.', 'LINK 1 LINKx2LINK.', { n => 2 } ],
	[ 'before a digit in a value' => '{{link}}{{e|}}{{n}}', 'LINK 2', { n => 2 } ],
	[ 'with a default' => '{{link|nowhere}}.', 'LINK.' ], [ 'a key of that name is no link' => '{{link}}', 'LINK', { link => 'http://evil.example' } ])
{
	my ($what, $text, $expected, $data) = @$case;
	my $campaign = personal($text, [ { a => 'x', %{ $data || {} } } ], base_url => $url);
	my ($body) = outcomes($campaign);
	my $user = $node->safe_psql('postgres', 'SELECT max(id) FROM ac_list_users');
	is($body, $expected =~ s/LINK/$url?yu=$user&yc=$campaign/gr, "the link: $what");
}
is(arrives('Go: {{link}}', { link => 'http://evil.example' }), '<no value for "link">', 'no base URL: skipped');
is(arrives('Go: {{link|to the hall}}', {}), 'Go: to the hall', 'no base URL: the default');

# columns: of that name, or in snake_case; they go before keys of data
$node->safe_psql('postgres', q{ALTER TABLE ac_list_users ADD first_name text, ADD "lastName" text, ADD age integer, ADD "odd ""name' %s" text,
	ADD fine boolean, ADD tags jsonb, ADD words text[], ADD gone text; ALTER TABLE ac_list_users DROP gone});
my $campaign = personal(q({{firstName}} {{first_name}} {{lastName}} {{age}} {{fine}} {{odd "name' %s}} {{gone|gone}} {{id}}),
	[ { firstName => 'no', first_name => 'no', lastName => 'no', age => 1, fine => 'no', gone => 'key' }, { firstName => 'no' } ]);
my $user = $node->safe_psql('postgres', q{UPDATE ac_list_users SET first_name = 'Ann', "lastName" = 'Bo', age = 42, fine = true,
	"odd ""name' %s" = 'odd' WHERE id = (SELECT max(id) - 1 FROM ac_list_users) RETURNING id});
is_deeply([ outcomes($campaign) ], [ "Ann Ann Bo 42 true odd key $user", '<no value for "firstName">' ], 'columns');
$campaign = personal('{{tags|none}} {{words|none}}', [ {} ]);
$node->safe_psql('postgres', q{UPDATE ac_list_users SET tags = '{"a": 1}', words = '{a,b}' WHERE id = (SELECT max(id) FROM ac_list_users)});
is_deeply([ outcomes($campaign) ], ['none none'], 'columns that are arrays or objects count as missing');
$node->safe_psql('postgres', q{ALTER TABLE ac_list_users DROP first_name, DROP "lastName", DROP age, DROP "odd ""name' %s", DROP fine, DROP tags, DROP words});

# data that are no object
$campaign = personal('Hi {{name|you}}', [ {} ]);
$node->safe_psql('postgres', q{ALTER TABLE ac_list_users ADD sms text; UPDATE ac_list_users SET sms = '+15550000001'});
for my $data ('NULL', q{'null'}, q{'[{"name": "x"}]'}, q{'"name"'}, '\'1\'')
{
	$node->safe_psql('postgres', "UPDATE ac_list_users SET data = $data WHERE id = (SELECT max(id) FROM ac_list_users)");
	is_deeply([ outcomes($campaign) ], ['Hi you'], "data that are $data");
}
$node->safe_psql('postgres', 'ALTER TABLE ac_list_users DROP sms');

# many keys
my %many = map { ("k$_" => $_ % 10) } 1 .. 100;
is(arrives(join('', map { "{{k$_}}" } 1 .. 100), \%many), join('', map { $_ % 10 } 1 .. 100), '100 keys');

# long texts: the run ends, and says why
my $long = 'x' x 100_000;
my @long = outcomes(personal('{{a}}', [ { a => $long }, { a => 'short' }, { a => 'é' x 1600 }, { a => 'é' x 1601 } ]));
like($long[0], qr/^<.*1600/, '100 kB of text: refused');
is($long[1], 'short', 'the others are sent');
is($long[2], 'é' x 1600, '1,600 characters are sent');
like($long[3], qr/^<.*1600/, '1,601 are not');
my $job = start_campaign($node, personal("{{a}}$long", [ map { { a => $_ } } 1 .. 600 ]));
my $run = wait_for_run($node, $job);
is($run->{state}, 'failed', '100 kB for all of them: the run fails before anything is sent');
like($run->{error}, qr/has more than 16000 characters/, 'and says why');
$job = start_campaign($node, personal('{{a}}' . 'x' x 2000, [ map { { a => $_ } } 1 .. 600 ]));
$run = wait_for_run($node, $job, state => 'paused');
is($run->{state}, 'paused', '2 kB for all of them: the run pauses');
like($run->{error}, qr/sendcampaign.failure_scale_factor \(0\.3\) allow: .*21617/, 'and says why');
wait_for_no_worker($node);
# what is in doubt would be: no answer may come too late on a busy machine
is($node->safe_psql('postgres', "SELECT count(*) FROM sendcampaign.claim WHERE run_id = ${\ run_of($job)}"), 0, 'nothing is claimed')
  or diag $node->safe_psql('postgres', "SELECT c.*, (SELECT count(*) FROM sendcampaign.message m WHERE m.job_id = $job) FROM sendcampaign.claim c WHERE run_id = ${\ run_of($job)}");
$job = start_campaign($node, personal('{{a}}', [ (map { { a => $long } } 1 .. 40), { a => 'fine' } ]));
$run = wait_for_run($node, $job);
is("$run->{state} $run->{sent} $run->{skipped}", 'completed 1 40', '40 values too long: the others are sent');

# changed by the author in mid-run: the run keeps its text; what the worker had
# sent when it was killed is looked up after so long
change_conf($node, "sendcampaign.request_timeout = '10s'");
$campaign = personal('Old {{a}}', [ map { { a => $_ } } 1 .. 2000 ]);
$twilio->set(reset => 1, hold => 1);
$job = start_campaign($node, $campaign);
wait_for_flight($twilio, 1);
$node->safe_psql('postgres', qq{UPDATE ac_campaigns SET data = '{"message": "New {{b}}"}' WHERE id = $campaign});
kill_worker($node);
$twilio->set(hold => 0);
$node->poll_query_until('postgres', 'SELECT sendcampaign.wake() >= 0');
$run = wait_for_run($node, $job);
is("$run->{state} $run->{sent} $run->{error}", 'completed 2000 ', 'text changed in mid-run: all are sent');
is(sent_with($twilio, 'Old '), 2000, 'with the text of its start');
is((grep { $_ != 1 } values %{ $twilio->count_by_phone }), 0, 'once');

# a database in another encoding
$node->safe_psql('postgres', q{CREATE DATABASE latin1 ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0});
install_extension($node, 'latin1');
$ENV{PGCLIENTENCODING} = 'UTF8';
is(arrives('Sæl {{nafn þitt}}, {{x|góðan dag}}. ©', { 'nafn þitt' => 'Ásdís' }, db => 'latin1'), 'Sæl Ásdís, góðan dag. ©', 'LATIN1: a personal text');
is(arrives('Sæl {{nafn þitt}}', {}, db => 'latin1'), '<no value for "nafn þitt">', 'LATIN1: the reason names the key');
like(arrives('Sæl: {{link}} {{a}}', { a => 'á' }, db => 'latin1', base_url => 'https://þjóð.is/'),
	qr{^Sæl: https://þjóð\.is/\?yu=\d+&yc=\d+ á$}, 'LATIN1: the link');

wait_for_no_worker($node);
is((grep { !/Killed/ } split /\n/, worker_errors($node)), 0, 'no worker complained');
$node->stop;
done_testing();
