# Signatures: the vectors of Twilio's documentation, and Twilio's own library for
# Node, which accepts what we would, and whose signatures we accept.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../perl";
use Cwd qw(getcwd);
use Digest::SHA qw(sha256_hex);
use File::Copy qw(copy);
use JSON::PP qw(decode_json encode_json);
use LocalTwilio;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Webhook;

my $module = "$FindBin::RealBin/../modules/signature";
system_or_bail('make', '-s', '-C', $module, 'with_llvm=no');
my $node = PostgreSQL::Test::Cluster->new('signatures');
$node->init;
$node->start;
$node->safe_psql('postgres', <<~SQL);
	CREATE FUNCTION is_signed(
		configured text, requested text, token text, signature text, form text)
	RETURNS boolean AS '$module/signature' LANGUAGE C STRICT;
	SQL

sub is_signed
{
	my ($configured, $requested, $token, $signature, $body) = @_;
	my $arguments = join ', ', map { '$a$' . $_ . '$a$' } @_;
	return $node->safe_psql('postgres', "SELECT is_signed($arguments)");
}

#
# The documentation's
#

my $address = '://mycompany.com';
my $path = '/myapp.php?foo=1&bar=2';
my $call = form(
	[ CallSid => 'CA1234567890ABCDE' ],
	[ Caller => '+14158675309' ],
	[ Digits => '1234' ],
	[ From => '+14158675309' ],
	[ To => '+18005551212' ]);
my @vectors = (
	[ "https$address$path", 'RSOYDt4T1cUTdK1PDd93/VVr8B8=' ],
	[ "https$address:443$path", 'kvajT1Ptam85bY51eRf/AJRuM3w=' ],
	[ "http$address:80$path", '0ZXoZLH/DfblKGATFgpif+LLRf4=' ]);
for my $vector (@vectors)
{
	my ($url, $signature) = @$vector;
	my $other = $url =~ s/:(443|80)//r;
	$other = "https$address:443$path" if $other eq $url;
	is(is_signed($url, '', '12345', $signature, $call), 't', "the signature for $url");
	is(is_signed($other, '', '12345', $signature, $call), 't', "if $other is configured");
	is(is_signed("$url#rc=3", '', '12345', $signature, $call), 't', 'with a fragment');
	is(is_signed($url =~ s/\?.*//r, $url, '12345', $signature, $call),
		't', 'with the query of the request');
	is(is_signed($url =~ s/\?.*//r, '', '12345', $signature, $call), 'f', 'not without it');
	is(is_signed($url, '', '12346', $signature, $call), 'f', 'not with another token');
	is(is_signed($url, '', '12345', $signature, $call =~ s/1234&/1235&/r),
		'f', 'not for another form');
	is(is_signed($url =~ s/company/Company/r, $url, '12345', $signature, $call),
		'f', 'what is configured is what was signed');
	is( is_signed(
			$url =~ s/:\d+/:8443/r =~ s/com\//com:8443\//r, $url, '12345', $signature, $call),
		'f',
		'another port is another address');
	my @wrong = map { (substr($signature, 0, $_) . 'x' . substr $signature, $_ + 1) } 0 .. 27;
	is(scalar(grep { is_signed($url, '', '12345', $_, $call) eq 't' } @wrong[ 0, 13, 26, 27 ]),
		0, 'each character counts');
}
my @digits = map { [ Digits => $_ ] } qw(5678 1234 1234);
for my $repeated (
	[ @digits, [ Sid => 'CA123' ], [ SidAccount => 'AC123' ] ],
	[ [ SidAccount => 'AC123' ], [ Sid => 'CA123' ], reverse @digits ])
{
	is( is_signed(
			"https$address$path", '', '12345', 'IK+Dwps556ElfBT0I3Rgjkr1wJU=',
			form(@$repeated)),
		't',
		'each different value of a name counts once');
}

# Those of its library's tests, of bodies that are no forms
my $json = '{"property": "value", "boolean": true}';
for my $vector (
	[ "https$address$path", $json, 'a9nBmqA0ju/hNViExpshrM61xv4=' ],
	[ "https$address$path", '{}', 'Ldidvp12m26NI7eqEvxnEpkd9Hc=' ],
	[ "https$address/myapp.php", $json, 'y77kIzt2vzLz71DgmJGsen2scGs=' ])
{
	my ($url, $body, $signature) = @$vector;
	my $requested = $url . ($url =~ /\?/ ? '&' : '?') . 'bodySHA256=' . sha256_hex($body);
	is(is_signed($url, '', '12345', $signature, $body), 't', "the signature of $body");
	is(is_signed("https$address/myapp.php", $requested, '12345', $signature, $body),
		't', 'with the query of the request');
	is(is_signed($url, '', '12346', $signature, $body), 'f', 'not with another token');
	is(is_signed($url, $requested, '12345', $signature, "$body "), 'f', 'not of another body');
}

#
# Its library's
#

srand(my $seed = $ENV{SEED} || time ^ $$);
diag("SEED=$seed");
my @letters = (
	'a' .. 'z', 'A' .. 'Z', 0 .. 9, '&', '=', '%',
	'+', ' ', "\n", "\x{101}", "\x{4f60}", "\x{1f389}");

sub random_text
{
	return join '', map { $letters[ rand @letters ] } 0 .. rand shift;
}

# Our signatures have the values of a name in the order of their bytes, the
# library's in that of the form, and both are accepted.
sub request
{
	my $sorted = shift;
	my %params;
	for (1 .. rand 20)
	{
		my @values = map { random_text(20) } 1 .. (rand() < 0.9 ? 1 : 3);
		@values = sort @values if $sorted;
		$params{ random_text(10) } = @values == 1 ? $values[0] : \@values;
	}
	my $port = ('', '', ':443', ':8443')[ rand 4 ];
	my $query = ('', '?a=b', '?a=%20b&c=')[ rand 3 ];
	return {
		url => "https://example.org$port/twilio$query",
		token => random_text(32),
		params => \%params,
		sorted => $sorted
	};
}

my @requests = map { request($_ <= 100) } 1 .. 200;
for my $request (@requests)
{
	my %bytes = %{ LocalTwilio::form_params(signed_form($request->{params})->{body}) };
	my $token = $request->{token};
	utf8::encode($token);
	$request->{signature} = LocalTwilio::sign($request->{url}, \%bytes, $token);
}

# Bodies that are no forms
my $num_forms = @requests;
for (1 .. 100)
{
	my %request = %{ request(1) };
	delete @request{qw(params sorted)};
	my $token = $request{token};
	utf8::encode($token);
	$request{body} = encode_json([ { text => random_text(500) } ]);
	$request{signature} =
	  signed_json($request{body}, url => $request{url}, token => $token)->{signature};
	utf8::decode($request{body});
	push @requests, \%request;
}

my $dir = PostgreSQL::Test::Utils::tempdir();
for my $file (qw(package.json package-lock.json signatures.js))
{
	copy("$FindBin::RealBin/../webhook/$file", "$dir/$file") or die "could not copy $file: $!";
}
my $before = getcwd();
chdir $dir;
local $ENV{npm_config_cache} = "$dir/cache";
command_ok([ 'npm', 'ci', '--no-audit', '--no-fund', '--loglevel=error' ],
	'the library is installed');
my ($output, $errors);
IPC::Run::run(
	[ 'node', 'signatures.js' ],
	'<', \encode_json(\@requests),
	'>', \$output, '2>', \$errors);
chdir $before;
is($errors, '', 'it has no errors');
my $results = decode_json($output || '[]');
is(scalar @$results, scalar @requests, 'it has checked all requests');
is(scalar(grep { !$_->{valid} } @$results[ 0 .. 99 ]), 0, 'and accepts our signatures');
is(scalar(grep { !$_->{valid} } @$results[ $num_forms .. $#$results ]),
	0, 'also of bodies that are no forms');

my $accepted = 0;
for my $n (0 .. $num_forms - 1)
{
	my ($url, $params, $token) = @{ $requests[$n] }{qw(url params token)};
	my $body = form(
		map {
			my $name = $_;
			map { [ $name, $_ ] } ref $params->{$name} ? @{ $params->{$name} } : $params->{$name}
		} keys %$params);
	utf8::encode($token);
	$accepted++ if is_signed($url, '', $token, $results->[$n]{expected}, $body) eq 't';
}
is($accepted, $num_forms, 'its signatures are accepted, of the same requests in whatever order');
$accepted = 0;
for my $n ($num_forms .. $#requests)
{
	my ($url, $body, $token) = @{ $requests[$n] }{qw(url body token)};
	utf8::encode($_) for $token, $body;
	$accepted++ if is_signed($url, '', $token, $results->[$n]{expected}, $body) eq 't';
}
is($accepted, 100, 'also of bodies that are no forms');
$node->stop;
done_testing();
