# Every message that a user can see is in what some test expects: the texts of
# the sources and of the extension's script are compared with those of the
# tests, each format being a wildcard.
use strict;
use warnings;
use FindBin;
use PostgreSQL::Test::Utils;
use Test::More;

my $root = "$FindBin::RealBin/../..";

# What cannot happen in a test, or only by chance
my %exempt = map { $_ => 1 } (
	# no memory, or no descriptors
	'out of memory',
	'could not initialize libcurl',
	'Make sure that the worker can allocate more memory.',
	'Check that libcurl and its TLS library are installed properly.',
	'could not create an epoll descriptor: %m',
	'Raise the limits on open files and epoll instances.',
	# the server's clock is in another age
	'timestamp out of range',
	"Check the server's clock.",
	# another extension raises an error without a text
	'missing error text',
	# a role, or the extension, is dropped between two lines of C
	'role with OID %u does not exist',
	'Create it with CREATE EXTENSION sendcampaign.',
	# the queue cannot be read at that moment
	'sendcampaign: could not start the next worker that asks what became of messages: %s',
	# read in memory only, unless the run is cancelled in that moment
	'another session has ended the run',
	'the run has stopped',
	# what a scan waits for has a time-out that is shorter
	'sendcampaign: looking for unfinished campaigns in database %u takes too long,'
	  . ' continuing with the others',
	# all slots are taken at the commit of an opt-out, in a database with Citus
	'sendcampaign: could not start the process that tells opt-outs to other nodes:'
	  . ' no background worker slot is free',
	# likewise, for 20 seconds
	'sendcampaign: could not ask other nodes for opt-outs before sending: %s',
	# after five minutes
	'sendcampaign: begins to send before other nodes have told all opt-outs, as they'
	  . ' have too many',
	# Twilio breaks its word
	"Twilio's list shows a message that differs from what was sent",
	# a campaign's text is changed after commits were lost, while another run with
	# the same link is under way
	"Twilio's list has a message with its link and another text, which may be another run's",);

# Calls whose texts nobody sees, or that have their own test (the descriptions
# of settings, 290_report): names of memory contexts and processes, what is on a
# page, and elog(), which is for what cannot happen.
my $internal = qr/^(?:elog|AllocSetContextCreate|pgstat_report_\w+|DefineCustom\w+|describe_process
	|hash_create|strcmp|snprintf|begin_page|add_\w+)$/x;
my $reporting = qr/^(?:errmsg|errdetail|errhint|errcontext|GUC_check_err)/;
my $plural = qr/^(?:\w+_plural|ngettext)$/;

# What is SQL, or a header of HTTP, is no message unless it is in a report.
my $sql = qr/\b(?:SELECT|INSERT|UPDATE|DELETE|FROM|WHERE|VALUES|OPERATOR|ORDER\ BY|JOIN|AND|NULL
	|pg_catalog|CASE|WHEN|THEN|END|SET|coalesce|json_build_object)\b
	|^\s*\w+(?:,\s\w+)+\s*$|^[A-Z][\w-]*:\s|^read\scommitted$/x;

# The tokens of a source, [ kind, text ], without comments and directives
sub tokens
{
	my $source = shift;
	my @tokens;
	$source =~ s{"(?:[^"\\]|\\.)*"(*SKIP)(*FAIL)|/\*.*?\*/}{ }sg;
	$source =~ s/^[ \t]*#(?:[^\n\\]|\\.)*//msg;
	while ($source =~ /\G\s*(?:"((?:[^"\\\n]|\\.)*)"|('(?:[^'\\]|\\.)+')|(\w+)|(.))/sg)
	{
		my ($string, $character, $name, $sign) = ($1, $2, $3, $4);
		my $token = [ other => $character // $sign ];
		$token = [ name => $name ] if defined $name;
		$token = [ string => $string ] if defined $string;
		push @tokens, $token;
	}
	return @tokens;
}

# Macros that stand for a text, and what they stand for
sub macros_of
{
	my $source = shift;
	my %macro;
	while ($source =~ /^#define (\w+)\s((?:"(?:[^"\\\n]|\\.)*"|\\\n|[^"\\\n])*)$/mg)
	{
		my ($name, $value) = ($1, $2);
		$macro{$name} = $value =~ s/\\\n//gr;
	}
	delete @macro{ grep { $macro{$_} !~ /"/ || $macro{$_} =~ /^\(/ } keys %macro };
	return \%macro;
}

# A conversion of a format, and what stands for it in a text
my $conversion = qr/%(?!%)[-+ #0]*(?:\d+|\*)?(?:\.(?:\d+|\*))?(?:ll|l|h|z)?[diuxXscfgem]/;
my $any = "\x01";

sub text_of
{
	my ($token, $macros) = @_;
	my ($kind, $text) = @$token;
	return $text if $kind eq 'string';
	return $any if $text =~ /^(?:U?INT64_FORMAT|CppAsString2)$/;
	return if $kind ne 'name' || !exists $macros->{$text};
	return join '', map { text_of($_, $macros) // '' } tokens($macros->{$text});
}

# The texts of a source, adjacent ones joined: { text, calls, call }, the calls
# being those around it, the innermost first, and "call" telling it from others.
sub texts_of
{
	my ($source, $macros) = @_;
	my (@texts, @calls, $text);
	my ($last, $call) = ('', 0);
	my @tokens = (tokens($source), [ other => ';' ]);
	for (my $i = 0; $i < @tokens; $i++)
	{
		my ($kind, $value) = @{ $tokens[$i] };
		if (defined(my $part = text_of($tokens[$i], $macros)))
		{
			$text = ($text // '') . $part;
			$i += 3 if $value eq 'CppAsString2';
			next;
		}
		my @names = map { $_->[0] } @calls;
		my $number = @calls ? $calls[0][1] : 0;
		push @texts, { text => $text, calls => \@names, call => $number } if defined $text;
		undef $text;
		unshift @calls, [ $last, ++$call ] if $kind eq 'other' && $value eq '(';
		shift @calls if $kind eq 'other' && $value eq ')';
		$last = $kind eq 'name' ? $value : '';
	}
	return @texts;
}

sub is_visible
{
	my ($text, @calls) = @_;
	return 0 if grep { $_ =~ $internal } @calls;
	my $words = $text =~ s/$conversion//gr;
	return $words =~ /[a-z]{2}/i if grep { $_ =~ $reporting } @calls;
	return $words =~ /[a-z]{2,}\S* \S*[a-z]{2}/ && $text !~ $sql && $text !~ /^</;
}

# The messages of a source, each a list of its forms: those of a plural are one.
sub messages_of
{
	my @messages;
	my %of_call;
	for (texts_of(@_))
	{
		my ($text, @calls) = ($_->{text}, @{ $_->{calls} });
		next if !is_visible($text, @calls) || $exempt{$text};
		my $forms = @calls && $calls[0] =~ $plural ? $of_call{ $_->{call} } : undef;
		if ($forms) { push @$forms, $text; next; }
		push @messages, [$text];
		$of_call{ $_->{call} } = $messages[-1] if @calls && $calls[0] =~ $plural;
	}
	return @messages;
}

# Those of the script: what it raises, and the details and hints.
sub messages_of_script
{
	my $script = shift;
	my $quoted = qr/'(?:[^']|'')*'/;
	my @texts = $script =~ /(?:RAISE EXCEPTION|DETAIL =|HINT =)\s+(?:format\()?((?:$quoted\s*)+)/g;
	my @messages;
	for my $parts (@texts)
	{
		my $text = join('', $parts =~ /'((?:[^']|'')*)'/g) =~ s/''/'/gr;
		push @messages, [ $text =~ s/%I/%s/gr =~ s/%(?!s)/%s/gr ];
	}
	return @messages;
}

sub pattern_of
{
	my $text = shift;
	$text =~ s/\\(.)/$1/g;
	$text =~ s/$conversion/$any/g;
	$text =~ s/%%/%/g;
	return join '.{0,200}?', map { quotemeta } split /$any+/, $text, -1;
}

# What a test says, without comments and escapes; texts that are written in
# parts are joined.
sub plain
{
	my $test = shift;
	$test =~ s/^\s*#.*\n//mg;
	$test =~ s/['"}]\s+\.\s+(?:q\{|['"])//g;
	$test =~ s/\\(?=\W)//g;
	return $test;
}

# Messages none of whose forms are in the tests
sub missing
{
	my ($tests, @messages) = @_;
	return map { $_->[0] } grep {
		!grep { my $pattern = pattern_of($_); $tests =~ /$pattern/ }
		  @$_
	} @messages;
}

# docs/reference.md counts, too: 190_reference compares its tables of reasons and
# codes with the sources, and its examples with what they print.
my @tests = grep { !/194_messages/ } glob("$root/test/t/*.pl"), glob("$root/test/expected/*.out");
my $tests = join "\n", map { plain(slurp_file($_)) } @tests;
$tests .= slurp_file("$root/docs/reference.md") =~ s/…/ /gr;
# a style sheet, and names of countries
my @without_messages = map { "$root/src/report/$_.c" } qw(style countries);
my @sources = grep {
	my $file = $_;
	!grep { $_ eq $file } @without_messages
} glob("$root/src/*.[ch]"), glob("$root/src/*/*.[ch]");
my %macros = map { %{ macros_of(slurp_file($_)) } } @sources;
my $count = 0;
for my $file (@sources)
{
	my @messages = messages_of(slurp_file($file), \%macros);
	$count += @messages;
	is(join("\n", missing($tests, @messages)), '', $file =~ s{.*/src/}{}r) if @messages;
}
my @of_script = map { messages_of_script(slurp_file($_)) } glob("$root/sendcampaign--*.sql");
is(join("\n", missing($tests, @of_script)), '', 'the script');
cmp_ok($count, '>', 300, 'the messages of the sources were found');
cmp_ok(scalar @of_script, '>', 10, 'so were those of the script');

# The check itself
my $source = <<'END';
#define HINT "Do this"                                                         \
	" or that."
static void
f(void)
{
	ereport(ERROR, (errmsg("no \"%s\" here", x), errhint(HINT))); /* "a comment" */
	ereport(LOG, (errmsg_plural("%d thing", "%d things", n, n)));
	run_stop(run, psprintf("it has " UINT64_FORMAT " ends", n));
	elog(ERROR, "cannot be seen here");
	own_query("SELECT x FROM y WHERE z");
}
END
my @found = messages_of($source, macros_of($source));
is_deeply(
	\@found,
	[
		['no \"%s\" here'], ['Do this or that.'], [ '%d thing', '%d things' ], ["it has $any ends"]
	],
	'messages are found');
is_deeply([ missing(plain(<<'END'), @found) ], ['Do this or that.'], 'and those that no test has');
like($x, qr/no "$name" here/);
is($y, '3 things and it has' . ' 2 ends');
# Do this or that.
END
my $statement = q{RAISE EXCEPTION 'no "%"', x USING HINT = format('It''s'  ' %I.', y)};
is_deeply(
	[ messages_of_script($statement) ],
	[ ['no "%s"'], ["It's %s."] ],
	'so are those of a script');
done_testing();
