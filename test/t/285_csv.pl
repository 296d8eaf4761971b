# csv_cell(): what recipients and others have written does not become a formula;
# the recipe for a file, in several encodings.
use strict;
use warnings;
use utf8;
use FindBin;
use lib "$FindBin::RealBin/../perl";
use Campaign;
use LocalTwilio;
use PostgreSQL::Test::Utils;
use Test::More;

my $twilio = LocalTwilio->start;
my $node = new_cluster('csv', $twilio, init => { extra => [ '--encoding=UTF8', '--locale=C' ] });
sql($node, "CREATE DATABASE latin ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0");
sql($node, 'CREATE EXTENSION sendcampaign', db => 'latin');

# The cell of a text, given by code points
sub cell
{
	my ($text, %arg) = @_;
	my $value = join ' || ', map { 'chr(' . ord($_) . ')' } split //, $text;
	my $cell = sql(
		$node,
		"SET client_encoding = 'UTF8'; SELECT encode(convert_to(sendcampaign.csv_cell("
		  . ($value || "''")
		  . "), 'UTF8'), 'hex')",
		%arg);
	utf8::decode(my $decoded = pack 'H*', $cell);
	return $decoded;
}
my %cell = (
	'' => '',
	'Ann' => 'Ann',
	'5 - 3 = 2' => '5 - 3 = 2',
	'a@b.is' => 'a@b.is',
	q(it's) => q(it's),
	'=1+1' => q('=1+1),
	'+3545551234' => q('+3545551234),
	'-5' => q('-5),
	'@SUM(A1)' => q('@SUM(A1)),
	"\t=1" => qq('\t'=1),
	"\rx" => qq('\rx),
	"\nx" => qq('\nx),
	'  =1' => q(  '=1),
	'"=1"' => q("'=1"),
	'x;=1' => q(x;'=1),
	"x\n=1" => qq(x\n'=1),
	'x,"=1' => q(x,"'=1),
	"x\t@" => qq(x\t'@),
	'a|-1' => q(a|'-1),
	'=cmd|\' /C calc\'!A0' => q('=cmd|' /C calc'!A0),
	'==1' => q('==1),
	';=;=' => q(;'=;'=),
	"\x{a0}=1" => "\x{a0}'=1");
my %wide = (
	"\x{ff1d}1" => "'\x{ff1d}1",
	"\x{ff0b}1" => "'\x{ff0b}1",
	"\x{ff0d}1" => "'\x{ff0d}1",
	"\x{ff20}A" => "'\x{ff20}A",
	"\x{feff}=1" => "\x{feff}'=1",
	"\x{200b}=1" => "\x{200b}'=1",
	"\x{2028}=1" => "\x{2028}'=1",
	"\x{1f389} =1" => "\x{1f389} =1",
	"\x{43f}=1" => "\x{43f}=1");
# A name for a test, in ASCII
sub shown
{
	my $text = shift;
	return join '', map { /[ -~]/ ? $_ : sprintf '<%X>', ord } split //, $text;
}
is(shown(cell($_)), shown($cell{$_}), 'a cell: ' . shown($_)) for sort keys %cell;
is(shown(cell($_)), shown($wide{$_}), 'a cell: ' . shown($_)) for sort keys %wide;
my @ascii = grep { !/[^\x00-\x7f]/ } sort keys %cell;
is(join('/', map { cell($_, db => 'latin') } @ascii), join('/', @cell{@ascii}), 'in LATIN1');
is(cell("\xe6=1", db => 'latin'), "\xe6=1", '... with letters that ASCII lacks');
is(sql($node, 'SELECT sendcampaign.csv_cell(NULL) IS NULL'), 't', 'null is null');

# The recipe, with what somebody may have in a list or reply
my $campaign = create_campaign($node, users => 3);
sql($node, <<~'SQL');
	UPDATE ac_list_users SET data = jsonb_build_object('sms', (ARRAY['=HYPERLINK("http://evil")', E'\t=1', 'x";=1'])[id]);
	SQL
my $job = run_campaign($node, $campaign)->{job};
my $csv = sql($node, <<~"SQL", role => 'app');
	COPY (SELECT list_user_id, sendcampaign.csv_cell(phone) AS phone, status, sendcampaign.csv_cell(error) AS error
	      FROM sendcampaign.result WHERE job_id = $job ORDER BY 1) TO STDOUT (FORMAT csv, HEADER, FORCE_QUOTE *)
	SQL
my ($head, @rows) = split /\n/, $csv;
is($head, 'list_user_id,phone,status,error', 'a file has a head');
is(scalar @rows, 3, '... and a row for each recipient');
is(scalar(grep { /(?:^|[,;\t"])\s*[=+\@-]/ } @rows), 0, '... and no formula') or diag($csv);
$node->stop;
done_testing();
