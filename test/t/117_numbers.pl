# A number is the same number however it is written: to the run, its
# duplicates, opt-outs, and in every encoding.
use strict;
use warnings;
use utf8;
use Encode ();
use FindBin;
use lib "$FindBin::RealBin/../perl";
use Campaign;
use LocalTwilio;
use PostgreSQL::Test::Utils;
use Test::More;

my $twilio = LocalTwilio->start;
my $node = new_cluster('numbers', $twilio, init => { extra => [ '--encoding=UTF8', '--locale=C' ] });
$ENV{PGCLIENTENCODING} = 'UTF8';

sub bytes { return Encode::encode('UTF-8', shift); }

# Puts these phones into a new list, with a name that says which one it is; returns its campaign.
sub campaign_to
{
	my ($phones, $db) = @_;
	my $campaign = create_campaign($node, db => $db, users => scalar @$phones);
	my $n = 0;
	my $rows = join ', ', map { '(' . ++$n . ', ' . Campaign::quoted(bytes($_)) . ')' } @$phones;
	$node->safe_psql($db, qq{UPDATE ac_list_users u SET data = jsonb_build_object('sms', v.phone)
		FROM (VALUES $rows) v(n, phone), (SELECT id, row_number() OVER (ORDER BY id) AS n FROM ac_list_users
			WHERE ac_list_id = (SELECT ac_list_id FROM ac_campaigns WHERE id = $campaign)) i
		WHERE i.n = v.n AND u.id = i.id});
	return $campaign;
}

sub previewed
{
	my ($campaign, $db) = @_;
	return split /\n/, $node->safe_psql($db, qq{SELECT regexp_replace(coalesce(skipped, phone), ':.*', '') FROM sendcampaign.preview($campaign, NULL) ORDER BY list_user_id});
}

my $form = 'phone number is not in E.164 form';
my @cases = (
	[ '+44 (0)7700 900123' => '+447700900123' ],
	[ '+44(0)7700900124' => '+447700900124' ],
	[ '0044 (0) 7700 900125' => '+447700900125' ],
	[ '(+44) ( 0 )7700 900126' => '+447700900126' ],
	[ '+49 (0) 171/1234567' => '+491711234567' ],
	[ '+353 (0)85 012 3456' => '+353850123456' ],
	[ '+1 (0)555 1230000' => '+15551230000' ],
	[ '+39 (0)6 1234 5678' => '+390612345678' ],
	[ '+225 (0)7 01 02 03 04' => '+2250701020304' ],
	[ '+44 (00)7700 900127' => '+44007700900127' ],
	[ '+447700(0)900128' => '+4477000900128' ],
	[ '(0)7700 900129' => $form ],
	[ '+(0)447700900130' => $form ],
	[ "\x{200e}+1 555 123 0001\x{200f}" => '+15551230001' ],
	[ "\x{202a}+1\x{a0}555\x{2011}123\x{2011}0002\x{202c}" => '+15551230002' ],
	[ "\x{2066}+1\x{2009}555\x{2010}123\x{2015}0003\x{2069}" => '+15551230003' ],
	[ "\x{feff}+1\x{ad}555\x{200b}123\x{2060}0004\x{202f}" => '+15551230004' ],
	[ "\x{ff0b}\x{ff11}\x{3000}\x{ff08}\x{ff15}\x{ff15}\x{ff15}\x{ff09}\x{ff11}\x{ff12}\x{ff13}\x{ff0d}\x{ff10}\x{ff10}\x{ff10}\x{ff15}" => '+15551230005' ],
	[ "\x{ff0b}44\x{ff08}\x{ff10}\x{ff09}7700900131" => '+447700900131' ],
	[ "+1\x{2212}555\x{fe58}123\x{2003}0006\x{61c}" => '+15551230006' ],
	[ "+1555123000\x{667}" => $form ],
	[ "+1555123000\x{1d7d6}" => $form ],
	[ "\x{1f4de}+15551230008" => $form ],
	[ "+1555123000e\x{301}" => $form ]);
my $campaign = campaign_to([ map { $_->[0] } @cases ], 'postgres');
my @got = previewed($campaign, 'postgres');
is($got[$_], $cases[$_][1], 'number: ' . bytes($cases[$_][0])) for 0 .. $#cases;

# duplicates and opt-outs see the same number
for my $case (grep { $_->[1] ne $form } @cases)
{
	my ($written, $number) = @$case;
	is_deeply([ previewed(campaign_to([ $number, $written ], 'postgres'), 'postgres') ], [ $number, 'duplicate' ], 'a duplicate: ' . bytes($written));
	$node->safe_psql('postgres', "SET ROLE app; SELECT sendcampaign.opt_out(" . Campaign::quoted(bytes($written)) . ')');
	is_deeply([ previewed(campaign_to([ $number ], 'postgres'), 'postgres') ], [ 'opted out' ], 'opted out: ' . bytes($written));
}
$node->safe_psql('postgres', 'DELETE FROM sendcampaign.opt_out_data');

# what is so long that it is cut short is no number, and not the twin of one
my $long = '+15551230042' . ' ' x 400 . '99';
is_deeply([ previewed(campaign_to([ $long, '+15551230042', '+15551230042' . ' ' x 88, '+15551230042' . ' ' x 89 ], 'postgres'), 'postgres') ],
	[ $form, '+15551230042', 'duplicate', $form ], 'a number that is cut short is none');

# Thousands, written at random; a model of the rule in Perl says what comes out.
my $seed = $ENV{SENDCAMPAIGN_SEED} // int rand 1e9;
srand $seed;
diag "seed $seed";
my @between = ('', '', '', '', ' ', '-', '.', '/', '(', ')', "\x{a0}", "\x{ad}", "\x{200e}", "\x{2011}", "\x{2013}", "\x{feff}", "\t");
my @others = ('x', '+', ',', ';', "\x{660}", "\x{e9}", '#', '(0)', '( 0 )', '0');
sub wide { my $c = shift; return rand() < 0.05 ? chr(ord($c) + 0xfee0) : $c; }
sub written
{
	my $number = shift;
	my $prefix = rand() < 0.3 ? '00' : '+';
	my $s = join '', map { (wide($_), $between[ rand @between ], rand() < 0.01 ? $others[ rand @others ] : '') } split //, "$prefix$number";
	return $between[ rand @between ] . $s;
}
sub model
{
	my $s = shift;
	$s =~ tr/\x{ff01}-\x{ff5e}/\x{21}-\x{7e}/;
	$s =~ s/[\x{ad}\x{61c}\x{180e}\x{200b}-\x{200f}\x{202a}-\x{202e}\x{2060}-\x{2064}\x{2066}-\x{206f}\x{feff}]//g;
	$s =~ s/[\x{a0}\x{2000}-\x{200a}\x{2028}\x{2029}\x{202f}\x{205f}\x{3000}]/ /g;
	$s =~ s/[\x{2010}-\x{2015}\x{2212}\x{fe58}\x{fe63}]/-/g;
	my $digits = '';
	while (length $s)
	{
		my $in_country = $digits =~ /^\+[^+]{1,3}$/ && !grep { $_ eq $digits } '+39', '+225', '+242', '+378';
		next if $in_country && $s =~ s/^\([ \t\r\n\x0b\f]*0[ \t\r\n\x0b\f]*\)//;
		next if $s =~ s{^[ \t\r\n\x0b\f./()-]}{};
		$digits .= substr $s, 0, 1, '';
		$digits = '+' if $digits eq '00';
	}
	$s = $digits;
	return $s =~ /^\+[1-9][0-9]{1,14}$/ ? $s : $form;
}
my @numbers = map { my $c = (1, 39, 44, 49, 225, 354, 378)[ rand 7 ]; $c . (rand() < 0.3 ? '(0)' : '') . int(1e6 + rand 60) } 1 .. 3000;
my @written = map { my $n = $_; my ($c, $rest) = $n =~ /^(.*?)(?:\(0\))?(\d{7})$/; $n =~ /\(0\)/ ? written($c) . '(0)' . join('', map { wide($_), $between[ rand @between ] } split //, $rest) : written($c . $rest) } @numbers;
my @model = map { model($_) } @written;
my (%seen, @expected);
push @expected, $_ eq $form ? $form : $seen{$_}++ ? 'duplicate' : $_ for @model;
@got = previewed(campaign_to(\@written, 'postgres'), 'postgres');
my @wrong = grep { $got[$_] ne $expected[$_] } 0 .. $#expected;
is(scalar(@got), 3000, 'at random: all of them');
is(join("\n", map { bytes("'$written[$_]' is $got[$_], not $expected[$_]") } @wrong[0 .. ($#wrong > 4 ? 4 : $#wrong)]), '', 'at random: what is expected');
cmp_ok(scalar(grep { $_ eq 'duplicate' } @expected), '>', 1000, 'at random: many are duplicates');
cmp_ok(scalar(grep { $_ eq $form } @expected), '>', 100, 'at random: some are none');

# what is really sent, and in other encodings
my $count;
for my $encoding ('UTF8', 'LATIN1', 'SQL_ASCII', 'EUC_JP')
{
	my $db = lc "db_$encoding";
	$node->safe_psql('postgres', "CREATE DATABASE $db ENCODING '$encoding' LOCALE 'C' TEMPLATE template0");
	install_extension($node, $db);
	# what the encoding does not have is left out
	my @list = map { $encoding eq 'LATIN1' ? s/([\x{ff01}-\x{ff5e}])/chr(ord($1) - 0xfee0)/ger =~ s/[^\x00-\xff]//gr
		: $encoding eq 'EUC_JP' ? s/[^\x00-\x7f\x{3000}\x{ff08}\x{ff09}\x{ff0b}\x{ff10}-\x{ff19}]//gr : $_ } @written;
	my @numbers = map { model($_) } @list;
	my %once = map { $_ => 1 } grep { $_ ne $form } @numbers;
	$twilio->set(reset => 1);
	my $job = start_campaign($node, campaign_to(\@list, $db), db => $db);
	my $run = wait_for_run($node, $job, db => $db);
	$count = $twilio->count_by_phone;
	is("$run->{state} $run->{sent}", 'completed ' . keys %once, "$encoding: every number is sent to");
	is_deeply($count, \%once, "$encoding: once, and no other one");
}

# not even bytes that are nothing
$node->safe_psql('db_sql_ascii', q{ALTER TABLE ac_list_users ADD sms text});
my $odd = create_campaign($node, db => 'db_sql_ascii', users => 5);
$node->safe_psql('db_sql_ascii', qq{UPDATE ac_list_users SET sms = (ARRAY[E'+1555\\\\xff1230001', E'\\\\xc2', E'+1555123000\\\\xe2\\\\x80', E'\\\\xf0\\\\x28\\\\x8c\\\\xbc', '+15551239999'])[1 + id % 5]
	WHERE ac_list_id = (SELECT ac_list_id FROM ac_campaigns WHERE id = $odd)} =~ s/\\\\x/\\x/gr);
is(join(',', sort { $a cmp $b } previewed($odd, 'db_sql_ascii')), join(',', '+15551239999', ($form) x 4), 'bytes that are no characters are no phones');

# a number that is forgotten is forgotten in every notation
my @forgotten = ('+44 (0)7700 900177', '0044(0)7700900177', "\x{ff0b}447700900177", '+447700900177');
my $gone = campaign_to(\@forgotten, 'postgres');
my $job = start_campaign($node, $gone);
wait_for_run($node, $job);
$node->safe_psql('postgres', "UPDATE sendcampaign.message_data m SET phone = u.data->>'sms', status = 'skipped' FROM ac_list_users u
	WHERE u.id = m.list_user_id AND m.run_id = ${\ run_of($job)} AND m.status = 'skipped'");
is($node->safe_psql('postgres', "SET ROLE app; SELECT sendcampaign.forget_recipient('+44 7700 900177')"), 4, 'forgotten in every notation');

is(worker_errors($node), '', 'no worker complained');
$node->stop;
done_testing();
