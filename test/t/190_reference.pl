# docs/reference.md against the catalog of a running server and against the
# source: everything that is there is in it, with its type, and nothing else.
# Its examples run, and print what is shown below them.  Likewise the lists of
# CONTRIBUTING.md and test/README.md against the source.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../perl";
use Campaign;
use Document;
use JSON::PP ();
use LocalTwilio;
use PostgreSQL::Test::Utils;
use Session;
use Test::More;

my $root = "$FindBin::RealBin/../..";
my $file = 'docs/reference.md';
my $sources = join '', map { slurp_file($_) } glob("$root/src/*.c"), glob("$root/src/*/*.c");

# The cells of a line of a table, without the quotes of code
sub cells_of
{
	my $line = shift;
	my @cells = split /(?<!\\)\|/, $line =~ s/^\|//r;
	return map { s/^\s+|\s+$//gr =~ s/^`(.*)`$/$1/r } @cells;
}

# A document by headings: { heading => { lines => [...], rows => [[cells]] } }
sub sections_of
{
	my $file = shift;
	my %sections;
	my $heading = '';
	for my $line (split /\n/, slurp_file("$root/$file"))
	{
		if ($line =~ /^#+ (.*)$/)
		{
			$heading = $1;
			next;
		}
		push @{ $sections{$heading}{lines} }, $line;
		push @{ $sections{$heading}{rows} }, [ cells_of($line) ] if $line =~ /^\|(?!-)/;
	}
	return %sections;
}
my %section = sections_of($file);

# The rows of a heading's table, of each so many cells, without the table's head.
sub rows_of
{
	my ($sections, $name, $cells) = @_;
	my (undef, @rows) = @{ $sections->{$name}{rows} // [] };
	return map { join ' ', @$_[ 0 .. $cells - 1 ] } @rows;
}

# The same for a heading of the reference
sub rows
{
	my ($name, $cells) = @_;
	return rows_of(\%section, $name, $cells);
}

# What is there is documented, once each, and nothing else is.
sub same
{
	my ($documented, $there, $name) = @_;
	my (%documented, %there, @wrong);
	$documented{$_}++ for @$documented;
	$there{$_} = 1 for @$there;
	push @wrong, "not documented: $_" for grep { !$documented{$_} } sort keys %there;
	push @wrong, "documented, and not there: $_" for grep { !$there{$_} } sort keys %documented;
	push @wrong, "documented twice: $_" for grep { $documented{$_} > 1 } sort keys %documented;
	is(join("\n", @wrong), '', "$name: as documented");
	cmp_ok(scalar @$there, '>', 0, "$name: there are some");
}

my $twilio = LocalTwilio->start;
$twilio->set(account => "$LocalTwilio::ACCOUNT:your-auth-token");
my $node = new_cluster('reference', $twilio, no_extension => 1, conf => <<~'CONF');
	session_preload_libraries = 'sendcampaign'
	sendcampaign.request_timeout = '1s'
	sendcampaign.lookup_delay = '200ms'
	CONF
sql($node, 'CREATE DATABASE shop');
install_as_shown($node, 'shop');

# What SQL prints there
sub query
{
	my ($sql, %arg) = @_;
	return sql($node, $sql, db => 'shop', %arg);
}

# The same by lines
sub lines
{
	my $sql = shift;
	return split /\n/, query($sql);
}

my $listener = Session->open($node, 'shop');
$listener->query('LISTEN sendcampaign');

# Functions: names, arguments, results, and the columns of those that have some
my $routines = <<~'SQL';
	FROM pg_proc p
	JOIN pg_depend d ON d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e'
	JOIN pg_extension e ON d.refclassid = 'pg_extension'::regclass AND d.refobjid = e.oid
	JOIN pg_namespace n ON n.oid = p.pronamespace
	WHERE e.extname = 'sendcampaign'
	SQL

# Arguments as the reference writes them
sub as_written
{
	my $arguments = shift;
	return $arguments =~ s/(?:, )?OUT .*?(?=\))//r =~ s/\bIN //gr =~ s/(DEFAULT \S+?)::\w+/$1/gr;
}
my @there = map { as_written($_) } lines(<<~SQL);
	SELECT format(CASE WHEN p.prokind = 'p' THEN 'CALL %s%s(%s)' ELSE '%s%s(%s) → %s' END,
	    CASE WHEN n.nspname <> 'public' THEN n.nspname || '.' END,
	    p.proname,
	    pg_get_function_arguments(p.oid),
	    regexp_replace(pg_get_function_result(p.oid), '\\(.*', ''))
	$routines
	SQL
my $call = qr/(?:CALL [\w.]+\(.*\)|[\w.]+\(.*\) → \w[\w. ]*)/;
my @documented = map { /^`($call)`$/ } map { @{ $_->{lines} } } values %section;
push @documented, rows("Functions for the extension's own use", 1);
same(\@documented, \@there, 'functions');
my %headed = map { $_ => 1 } grep { $section{$_}{lines} } keys %section;
same(
	[ grep { /^(?:(?:View )?sendcampaign\.\w+|send_campaign)$/ } keys %headed ],
	[ lines(<<~SQL) ], 'headings of functions, views and settings');
	SELECT concat(CASE WHEN n.nspname <> 'public' THEN n.nspname || '.' END, p.proname)
	$routines AND p.proname NOT IN ('current_xid', 'keep_xid', 'keep_name', 'sender_of',
		'other_nodes', 'note_opt_out', 'start_courier', 'take_opt_out', 'take_opt_outs',
		'fetch_opt_outs', 'keep_waiting', 'check_extension_owner', 'opt_outs_are_due',
		'tell_opt_outs', 'waiting_opt_outs', 'known_opt_outs', 'mark_told', 'node_failed',
		'add_opt_out_nodes', 'forget_removed_nodes', 'is_known_to_all', 'store_node',
		'next_opt_outs', 'take_answer', 'nodes_to_tell', 'waiting_kinds', 'name_is_common',
		'take_over_rows')
	UNION
	SELECT 'View sendcampaign.' || relname
	FROM pg_class
	WHERE relnamespace = 'sendcampaign'::regnamespace AND relkind = 'v'
	UNION
	SELECT name
	FROM pg_settings
	WHERE name LIKE 'sendcampaign.%'
	SQL
my @with_columns = lines(<<~SQL);
	SELECT concat(n.nspname, '.', p.proname)
	$routines AND p.proargmodes && '{o,t}'::"char"[]
		AND p.proname NOT IN
			('other_nodes', 'known_opt_outs', 'next_opt_outs', 'nodes_to_tell', 'waiting_kinds',
			'waiting_opt_outs', 'mark_told')
	SQL

for my $function (@with_columns)
{
	my ($name) = $function =~ /\.(.*)/;
	same([ rows($function, 2) ], [ lines(<<~SQL) ], "columns of $function()");
		SELECT concat(a.name, ' ', format_type(a.type, NULL))
		FROM pg_proc p, unnest(p.proargnames, p.proallargtypes, p.proargmodes) a(name, type, mode)
		WHERE p.oid::regproc::text = '$function' AND a.mode IN ('o', 't')
		SQL
}

# A function that returns a type of the extension's
for my $function (lines(
		"SELECT p.oid::regproc $routines AND p.prorettype IN"
	  . q( (SELECT oid FROM pg_type WHERE typnamespace = 'sendcampaign'::regnamespace))))
{
	same([ rows($function, 2) ], [ lines(<<~SQL) ], "columns of $function()");
		SELECT concat(a.attname, ' ', format_type(a.atttypid, NULL))
		FROM pg_proc p
		JOIN pg_type t ON t.oid = p.prorettype
		JOIN pg_attribute a ON a.attrelid = t.typrelid
		WHERE p.oid::regproc::text = '$function' AND a.attnum > 0
		SQL
}

# Views and tables
sub relations
{
	my $kind = shift;
	return lines(<<~SQL);
		SELECT oid::regclass
		FROM pg_class
		WHERE relnamespace = 'sendcampaign'::regnamespace AND relkind = '$kind'
		SQL
}
for my $view (relations('v'))
{
	my @columns = lines(<<~SQL);
		SELECT concat(attname, ' ', format_type(atttypid, NULL))
		FROM pg_attribute
		WHERE attrelid = '$view'::regclass AND attnum > 0
		SQL
	same([ rows("View $view", 2) ], \@columns, "columns of $view");
}
same([ rows('Tables of the extension', 1) ], [ relations('r') ], 'tables of the extension');

# Settings: the line below each heading is what pg_settings says
my %line_of;
for my $name (grep { /^sendcampaign\./ } keys %section)
{
	my ($line) = grep { / · context / } @{ $section{$name}{lines} };
	$line_of{$name} = $line if $line;
}
same([ map { "$_: $line_of{$_}" } keys %line_of ], [ lines(<<~'SQL') ], 'settings');
	SELECT concat(name, ': `', vartype, '`',
	    ' · default ', coalesce('`' || nullif(boot_val, '') || '`', 'empty'),
	    ' · unit `' || unit || '`',
	    ' · `' || min_val || '` to `' || max_val || '`',
	    ' · context `', context, '`')
	FROM pg_settings
	WHERE name LIKE 'sendcampaign.%'
	SQL

# The examples, in their order; those of settings last, as they change things
sub lose_message
{
	$twilio->set('to-fault' => '+15550000001=drop-after', 'fault:list-403' => 100);
}

sub lose_nothing
{
	$twilio->set('to-fault' => '+15550000001=none', 'fault:list-403' => 0);
}
my %before = (
	"SELECT send_campaign(1);\nCALL sendcampaign.wait(4" => \&lose_message,
	'SELECT * FROM sendcampaign.reconcile(' => \&lose_nothing);
my $came = 0;

# Runs an example, after what has to be done before it.
sub follow
{
	my $block = shift;
	for (grep { index($block->{text}, $_) == 0 } keys %before)
	{
		$before{$_}->();
		$came++;
	}
	my ($stdout, $stderr) = run_block($node, 'shop', $block, 'app');
	unlike($stderr, qr/ERROR|FATAL|WARNING/, "$block->{name} runs");
	return if !defined $block->{output};
	my $shown = without_padding($block->{output});
	is(without_padding($stdout . $stderr), $shown, "$block->{name} prints what is shown");
}
my @examples = grep { $_->{language} eq 'sql' } blocks_of($file);
my @late = grep { $line_of{ $_->{section} } } @examples;
follow($_) for grep { !$line_of{ $_->{section} } } @examples;
is($came, scalar keys %before, 'what has to be done before an example is done');
my %has_example = map { $_->{section} => 1 } @examples;
my @items = grep { /^(?:(?:View )?sendcampaign\.\w+|send_campaign)$/ } sort keys %headed;
is(join(' ', grep { !$has_example{$_} } @items),
	'', 'each function, view and setting has an example');

# The application's tables, and what is written into the job
my @columns = lines(<<~'SQL');
	SELECT concat_ws(' ', c.relname, a.attname, format_type(a.atttypid, NULL))
	FROM pg_class c
	JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0
	WHERE c.relnamespace = 'public'::regnamespace
	    AND c.relkind = 'r'
	    AND a.attname NOT IN ('id', 'created_at', 'updated_at')
	SQL
same([ rows('Columns that create_tables() creates', 3) ], \@columns, "the application's columns");
is(query(<<~'SQL'), 5, '... and those that all of them have');
	SELECT count(*)
	FROM pg_class c
	WHERE c.relnamespace = 'public'::regnamespace
	    AND c.relkind = 'r'
	    AND 3 = (
	        SELECT count(*)
	        FROM pg_attribute a
	        WHERE a.attrelid = c.oid
	            AND (a.attname, a.atttypid) IN (
	                ('id', 'integer'::regtype),
	                ('created_at', 'timestamptz'::regtype),
	                ('updated_at', 'timestamptz'::regtype)))
	SQL
query(<<~'SQL', role => 'app');
	INSERT INTO groups (configuration)
	SELECT configuration || jsonb_build_object(
	    'quietHours', jsonb_build_object(
	        'from', to_char(now() AT TIME ZONE 'UTC' - interval '1 hour', 'HH24:MI'),
	        'to', to_char(now() AT TIME ZONE 'UTC' + interval '3 hours', 'HH24:MI')))
	FROM groups
	WHERE id = 1;
	INSERT INTO ac_lists (group_id) VALUES (2);
	INSERT INTO ac_list_users (ac_list_id, data) VALUES (2, '{"sms": "+15550000001"}');
	INSERT INTO ac_campaigns (ac_list_id, data) VALUES (2, '{"message": "Good night"}');
	SELECT send_campaign(3);
	SQL
wait_until(
	$node,
	"SELECT count(*) > 0 FROM ac_background_jobs WHERE data ? 'nextAt'",
	db => 'shop');
my %json_type = (number => 'integer', string => 'text');
my @job_keys = map { s/(\w+)$/$json_type{$1}/r } lines(<<~'SQL');
	SELECT DISTINCT concat(k.key, ' ', jsonb_typeof(k.value))
	FROM ac_background_jobs, jsonb_each(data) k
	SQL
same([ map { s/ \(ISO 8601\)$//r } rows('The background job', 2) ], \@job_keys, 'keys of a job');

# Keys of "data" and of the configuration are strings of the source
my @configuration = map { /"([^"]+)"/g } $sources =~ /\bkeys\[\] = \{(.*?)\};/s;
my %configured = map { $_ => 1 } @configuration;
same(
	[ rows("Keys of a group's configuration", 1) ],
	[ keys %configured ],
	'keys of a configuration');
my $reader = qr/\b(?:check_value|value_expression|json_expression|value_if_readable|column_for)\(/;
my %keys = map { $_ => 1 } $sources =~ /$reader[^;"]*(?:"\w",\s*)?"(\w\w+)"/g;
same(
	[ rows('Keys of a campaign and a list user', 1) ],
	[ grep { $_ ne 'data' } keys %keys ],
	'keys of "data"');

# States
my @states = query(<<~'SQL') =~ /'(\w+)'::text/g;
	SELECT pg_get_constraintdef(oid)
	FROM pg_constraint
	WHERE conrelid = 'sendcampaign.run_data'::regclass AND conname = 'run_data_state_check'
	SQL
same([ rows('States of a run', 1) ], \@states, 'states of a run');
my @statuses = split / or |, /, query(<<~'SQL');
	SELECT col_description(attrelid, attnum)
	FROM pg_attribute
	WHERE attrelid = 'sendcampaign.message'::regclass AND attname = 'status'
	SQL
same([ rows('Statuses of a message', 1) ], \@statuses, 'statuses of a message');
my @reasons = $sources =~ /\b(?:recipient_)?skip\([^;"]*"((?:[^"\\]|\\.)*)"/g;
@reasons = map { s/\\"/"/gr =~ s/%[sd]/…/gr } @reasons;
same([ rows('Why a list user is skipped', 1) ], \@reasons, 'reasons for skipping');

# Notifications
my ($payload) = $listener->query('SELECT 1') =~ /with payload "(\{.*?\})" received/;
my $heard = JSON::PP::decode_json($payload // '{}');
my @members = map { "$_ " . ($heard->{$_} =~ /^-?\d+$/ ? 'integer' : 'text') } keys %$heard;
push @members, 'group_id integer', 'reply text'
  if $sources =~ /'reply', coalesce/;    # in 231_replies
push @members, 'receipts text' if $sources =~ /'receipts', 'complete'/;    # in 210_receipts
same([ rows('Notifications', 2) ], \@members, 'keys of a notification');

# SQLSTATEs: those of the source and of the script, by PostgreSQL's own list
my $pg_config = $ENV{PG_CONFIG} || 'pg_config';
chomp(my $headers = `$pg_config --includedir-server`);
my %code_of =
  slurp_file("$headers/utils/errcodes.h") =~ /#define ERRCODE_(\w+) (MAKE_SQLSTATE\(.*?\))/g;
my $script = join '', map { slurp_file($_) } glob("$root/*.sql");
my @raised = $sources =~ /\berrcode\(ERRCODE_(\w+)\)/g;
push @raised, map { uc } $script =~ /ERRCODE = '(\w+)'/g;
my %raised = map { join('', $code_of{$_} =~ /'(.)'/g) => 1 } @raised;
same([ rows('SQLSTATEs', 1) ], [ keys %raised ], 'SQLSTATEs');
$twilio->set(hold => 1);
my (undef, @sqlstates) = @{ $section{SQLSTATEs}{rows} };

for my $row (@sqlstates)
{
	my ($sqlstate, $condition, undef, $example) = @$row;
	my $error = sql_error($node, "DO \$\$BEGIN RAISE USING ERRCODE = '$condition'; END\$\$");
	is($error->{sqlstate}, $sqlstate, "$condition is $sqlstate");
	next if ($example // '') eq '';
	$error = sql_error($node, $example, db => 'shop', role => 'app');
	is($error->{sqlstate}, $sqlstate, "$example: $sqlstate");
}
cmp_ok(scalar(grep { ($_->[3] // '') ne '' } @sqlstates), '>', 10, 'many have an example');
$twilio->set(hold => 0);
wait_for_run($node, -2, db => 'shop', alone => 1);

# Twilio's codes
my %then = (
	STOP => 'stop',
	RETRY => 'later',
	DOUBT => 'doubt',
	FAILED => 'failed',
	TEXT_FAILED => 'text');
my @codes;
my $texts = qr/(?:\s*"[^"]*")+/;
while ($sources =~ /\{(\d{5,6}), VERDICT_(\w+), "([^"]*)",($texts)\}/g)
{
	my ($code, $verdict, $meaning, $advice) = ($1, $2, $3, $4);
	push @codes, join ' ', $code, $then{$verdict}, $meaning, join '', $advice =~ /"([^"]*)"/g;
}
same([ rows("Twilio's error codes", 4) ], \@codes, "Twilio's codes");

# Examples of settings
follow($_) for @late;
is(query(<<~'SQL'), @late - 2, q{all are set, but for a session's and the server's});
	SELECT count(*) FROM pg_db_role_setting, unnest(setconfig)
	SQL

$node->stop;

# The map of the source
my %contributing = sections_of('CONTRIBUTING.md');
my @mapped = map { s/^.* //r } rows_of(\%contributing, 'Map of the source', 2);
my @files = map { s{.*/}{}r } glob("$root/src/*.c $root/src/*/*.c");
same(\@mapped, [ @files, 'compat.h' ], 'the map of the source');

# The local Twilio, and the rest of the tests
my %tests = sections_of('test/README.md');
my %twilio = map { $_ => slurp_file("$root/test/twilio/$_.c") } qw(main control faults delivery);
my ($names) = $twilio{faults} =~ /kind_names\[FAULT_KINDS\] = \{(.*?)\};/s;
my @faults = grep { $_ ne 'none' } $names =~ /"(.*?)"/g;
@faults = map { s/^code$/code:N/r } @faults;
same([ rows_of(\%tests, 'Faults', 1) ], \@faults, 'faults');
my ($deliveries) = $twilio{delivery} =~ /delivery_names\[DELIVERY_KINDS\] = \{(.*?)\};/s;
my @deliveries = map { s/^(undelivered|failed)$/$1:CODE/r } $deliveries =~ /"(.*?)"/g;
same([ rows_of(\%tests, 'Deliveries', 1) ], \@deliveries, 'deliveries');
my @paths = map { s/\?.*//r } grep { m{^/} } rows_of(\%tests, 'The local Twilio', 1);
same(\@paths, [ $twilio{control} =~ /strcmp\(url, "(.*?)"\)/g ], 'paths of the control port');
my @settings = (
	'fault:NAME', 'delivery:NAME',
	$twilio{main} =~ /\{"([\w-]+)",[^}]*OPTION_SETTING\}/g,
	$twilio{control} =~ /text_is\(name, "(\w+)"\)/g);
same([ rows_of(\%tests, 'Settings', 1) ], \@settings, 'settings of the local Twilio');
my @modules = map { m{(\w+)\.pm$} } glob("$root/test/perl/*.pm");
same([ grep { /^[A-Z]\w+$/ } rows_of(\%tests, 'Modules', 1) ], \@modules, 'modules');
my $variables = join ' ', rows_of(\%tests, 'Environment variables', 1);
my $tests = join '', map { slurp_file($_) } glob("$root/test/t/*.pl");
my %read = map { $_ => 1 } $tests =~ /\$ENV\{([A-Z_]+)\} (?:\|\||\/\/|\?)/g;
is(join(' ', grep { $variables !~ /\b$_\b/ } sort keys %read), '', 'environment variables');
cmp_ok(scalar keys %read, '>', 5, '... of which there are some');
done_testing();
