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
my $node =
  new_cluster('numbers', $twilio, init => { extra => [ '--encoding=UTF8', '--locale=C' ] });
$ENV{PGCLIENTENCODING} = 'UTF8';

sub bytes
{
	my $text = shift;
	return Encode::encode('UTF-8', $text);
}

# A campaign to a new list of these phones, in this order.
sub campaign_to
{
	my ($phones, $db) = @_;
	my $campaign = create_campaign($node, db => $db, users => scalar @$phones);
	my $n = 0;
	my @rows;
	for my $phone (@$phones)
	{
		my $quoted = Campaign::quoted(bytes($phone));
		$n++;
		push @rows, "($n, $quoted)";
	}
	my $rows = join ', ', @rows;
	sql($node, <<~SQL, db => $db);
		WITH numbered AS (
		    SELECT id, row_number() OVER (ORDER BY id) AS n
		    FROM ac_list_users
		    WHERE ac_list_id = (SELECT ac_list_id FROM ac_campaigns WHERE id = $campaign)
		)
		UPDATE ac_list_users u
		SET data = jsonb_build_object('sms', v.phone)
		FROM (VALUES $rows) v (n, phone)
		JOIN numbered USING (n)
		WHERE u.id = numbered.id
		SQL
	return $campaign;
}

# What preview() says of each list user: its number, or why it is skipped.
sub previewed
{
	my ($campaign, $db) = @_;
	return split /\n/, sql($node, <<~SQL, db => $db);
		SELECT regexp_replace(coalesce(skipped, phone), ':.*', '')
		FROM sendcampaign.preview($campaign, NULL)
		ORDER BY list_user_id
		SQL
}

# The same of these phones, in the database "postgres".
sub preview_of
{
	my @phones = @_;
	return [ previewed(campaign_to(\@phones, 'postgres'), 'postgres') ];
}

# As it is written, and which number it is
my $no_number = 'phone number is not in E.164 form';
my $in_full_width =
	"\x{ff0b}\x{ff11}\x{3000}\x{ff08}\x{ff15}\x{ff15}\x{ff15}\x{ff09}"
  . "\x{ff11}\x{ff12}\x{ff13}\x{ff0d}\x{ff10}\x{ff10}\x{ff10}\x{ff15}";
my @cases = (
	# with the zero of calls within the country
	[ '+44 (0)7700 900123' => '+447700900123' ],
	[ '+44(0)7700900124' => '+447700900124' ],
	[ '0044 (0) 7700 900125' => '+447700900125' ],
	[ '(+44) ( 0 )7700 900126' => '+447700900126' ],
	[ '+49 (0) 171/1234567' => '+491711234567' ],
	[ '+353 (0)85 012 3456' => '+353850123456' ],
	[ '+1 (0)555 1230000' => '+15551230000' ],
	[ '+39 (0)6 1234 5678' => '+390612345678' ],
	[ '+225 (0)7 01 02 03 04' => '+2250701020304' ],
	# with a zero that is none of these
	[ '+44 (00)7700 900127' => '+44007700900127' ],
	[ '+447700(0)900128' => '+4477000900128' ],
	[ '(0)7700 900129' => $no_number ],
	[ '+(0)447700900130' => $no_number ],
	# with characters from elsewhere in Unicode
	[ "\x{200e}+1 555 123 0001\x{200f}" => '+15551230001' ],
	[ "\x{202a}+1\x{a0}555\x{2011}123\x{2011}0002\x{202c}" => '+15551230002' ],
	[ "\x{2066}+1\x{2009}555\x{2010}123\x{2015}0003\x{2069}" => '+15551230003' ],
	[ "\x{feff}+1\x{ad}555\x{200b}123\x{2060}0004\x{202f}" => '+15551230004' ],
	[ $in_full_width => '+15551230005' ],
	[ "\x{ff0b}44\x{ff08}\x{ff10}\x{ff09}7700900131" => '+447700900131' ],
	[ "+1\x{2212}555\x{fe58}123\x{2003}0006\x{61c}" => '+15551230006' ],
	[ "+1555123000\x{667}" => $no_number ],
	[ "+1555123000\x{1d7d6}" => $no_number ],
	[ "\x{1f4de}+15551230008" => $no_number ],
	[ "+1555123000e\x{301}" => $no_number ]);
my $got = preview_of(map { $_->[0] } @cases);
for my $i (0 .. $#cases)
{
	my ($written, $number) = @{ $cases[$i] };
	is($got->[$i], $number, 'number: ' . bytes($written));
}

# Duplicates and opt-outs see the same number.
for my $case (grep { $_->[1] ne $no_number } @cases)
{
	my ($written, $number) = @$case;
	is_deeply(
		preview_of($number, $written),
		[ $number, 'duplicate' ],
		'a duplicate: ' . bytes($written));
	my $quoted = Campaign::quoted(bytes($written));
	sql($node, "SELECT sendcampaign.opt_out($quoted)", role => 'app');
	is_deeply(preview_of($number), ['opted out'], 'opted out: ' . bytes($written));
}
sql($node, 'DELETE FROM sendcampaign.opt_out_data');

# What is so long that it is cut short is no number, and not the twin of one.
my $short = '+15551230042';
is_deeply(
	preview_of($short . ' ' x 400 . '99', $short, $short . ' ' x 88, $short . ' ' x 89),
	[ $no_number, $short, 'duplicate', $no_number ],
	'a number that is cut short is none');

# Thousands, written at random; a model of the rule in Perl says what comes out.
my $seed = $ENV{SENDCAMPAIGN_SEED} // int rand 1e9;
srand $seed;
diag "seed $seed";

# What may stand between the characters of a number, and what may not always
my @ignored = (
	# nothing, mostly
	('') x 4,
	# in ASCII
	' ', '-', '.', '/', '(', ')', "\t",
	# in Unicode
	"\x{a0}", "\x{ad}", "\x{200e}", "\x{2011}", "\x{2013}", "\x{feff}");
my @others = ('x', '+', ',', ';', "\x{660}", "\x{e9}", '#', '(0)', '( 0 )', '0');

# A character, in full width now and then.
sub at_random_width
{
	my $character = shift;
	return rand() < 0.05 ? chr(ord($character) + 0xfee0) : $character;
}

# These characters with others in between; now and then one that changes the number.
sub spread_out
{
	my ($characters, %arg) = @_;
	my $text = '';
	for my $character (split //, $characters)
	{
		$text .= at_random_width($character) . $ignored[ rand @ignored ];
		$text .= $others[ rand @others ] if rand() < ($arg{others} // 0);
	}
	return $text;
}

sub write_international
{
	my $digits = shift;
	my $prefix = rand() < 0.3 ? '00' : '+';
	return $ignored[ rand @ignored ] . spread_out("$prefix$digits", others => 0.01);
}

# A number of a few that return, in some notation.
sub write_some_number
{
	my $country = (1, 39, 44, 49, 225, 354, 378)[ rand 7 ];
	my $rest = int(1e6 + rand 60);
	return write_international("$country$rest") if rand() < 0.7;
	return write_international($country) . '(0)' . spread_out($rest);
}

# The number that a text is.
sub model
{
	my $text = shift;
	my $space = qr/[ \t\r\n\x0b\f]/;
	my $invisible = qr/[\x{ad}\x{61c}\x{180e}\x{200b}-\x{200f}\x{feff}]/;
	my $formatting = qr/[\x{202a}-\x{202e}\x{2060}-\x{2064}\x{2066}-\x{206f}]/;
	my $wide_space = qr/[\x{a0}\x{2000}-\x{200a}\x{2028}\x{2029}\x{202f}\x{205f}\x{3000}]/;
	my $dash = qr/[\x{2010}-\x{2015}\x{2212}\x{fe58}\x{fe63}]/;

	$text =~ tr/\x{ff01}-\x{ff5e}/\x{21}-\x{7e}/;
	$text =~ s/$invisible|$formatting//g;
	$text =~ s/$wide_space/ /g;
	$text =~ s/$dash/-/g;
	my $number = '';
	while (length $text)
	{
		my $zero_belongs = grep { $_ eq $number } '+39', '+225', '+242', '+378';
		my $after_country = $number =~ /^\+[^+]{1,3}$/ && !$zero_belongs;
		next if $after_country && $text =~ s/^\($space*0$space*\)//;
		next if $text =~ s{^(?:$space|[./()-])}{};
		$number .= substr $text, 0, 1, '';
		$number = '+' if $number eq '00';
	}
	return $number =~ /^\+[1-9][0-9]{1,14}$/ ? $number : $no_number;
}

my @written = map { write_some_number() } 1 .. 3000;
my (%seen, @expected);
for my $number (map { model($_) } @written)
{
	my $is_duplicate = $number ne $no_number && $seen{$number}++;
	push @expected, $is_duplicate ? 'duplicate' : $number;
}
$got = preview_of(@written);
my @wrong;
for my $i (grep { $got->[$_] ne $expected[$_] } 0 .. $#expected)
{
	push @wrong, bytes("'$written[$i]' is $got->[$i], not $expected[$i]");
}
is(scalar @$got, 3000, 'at random: all numbers are there');
is(join("\n", splice @wrong, 0, 5), '', 'at random: they are what is expected');
cmp_ok((grep { $_ eq 'duplicate' } @expected), '>', 1000, 'at random: many are duplicates');
cmp_ok((grep { $_ eq $no_number } @expected), '>', 100, 'at random: some are no numbers');

# What the encoding does not have is left out.
sub in_encoding
{
	my ($text, $encoding) = @_;
	if ($encoding eq 'LATIN1')
	{
		$text =~ tr/\x{ff01}-\x{ff5e}/\x{21}-\x{7e}/;
		$text =~ s/[^\x00-\xff]//g;
	}
	elsif ($encoding eq 'EUC_JP')
	{
		$text =~ s/[^\x00-\x7f\x{3000}\x{ff08}\x{ff09}\x{ff0b}\x{ff10}-\x{ff19}]//g;
	}
	return $text;
}

# What is really sent, and in other encodings
for my $encoding ('UTF8', 'LATIN1', 'SQL_ASCII', 'EUC_JP')
{
	my $db = lc "db_$encoding";
	sql($node, "CREATE DATABASE $db ENCODING '$encoding' LOCALE 'C' TEMPLATE template0");
	install_extension($node, $db);
	my @list = map { in_encoding($_, $encoding) } @written;
	my %once = map { $_ => 1 } grep { $_ ne $no_number } map { model($_) } @list;
	$twilio->set(reset => 1);
	my $run = run_campaign($node, campaign_to(\@list, $db), db => $db);
	is( "$run->{state} $run->{sent}",
		'completed ' . keys %once,
		"$encoding: every number is sent to");
	is_deeply($twilio->count_by_phone, \%once, "$encoding: once, and no other one");
}

# Not even bytes that are nothing are numbers.
my $odd = create_campaign($node, db => 'db_sql_ascii', users => 5);
sql($node, <<~SQL, db => 'db_sql_ascii');
	ALTER TABLE ac_list_users ADD sms text;
	UPDATE ac_list_users
	SET sms = (ARRAY[
	    E'+1555\\xff1230001',
	    E'\\xc2',
	    E'+1555123000\\xe2\\x80',
	    E'\\xf0\\x28\\x8c\\xbc',
	    '+15551239999'
	])[1 + id % 5]
	WHERE ac_list_id = (SELECT ac_list_id FROM ac_campaigns WHERE id = $odd)
	SQL
is_deeply(
	[ sort { $a cmp $b } previewed($odd, 'db_sql_ascii') ],
	[ '+15551239999', ($no_number) x 4 ],
	'bytes that are no characters are no phone numbers');

# A number that is forgotten is forgotten in every notation.
my @notations =
  ('+44 (0)7700 900177', '0044(0)7700900177', "\x{ff0b}447700900177", '+447700900177');
my $job = run_campaign($node, campaign_to(\@notations, 'postgres'))->{job};
my $run_id = run_of($job);
sql($node, <<~SQL);
	UPDATE sendcampaign.message_data m
	SET phone = u.data->>'sms', status = 'skipped'
	FROM ac_list_users u
	WHERE u.id = m.list_user_id AND m.run_id = $run_id AND m.status = 'skipped'
	SQL
my $forgotten =
  sql($node, q{SELECT sendcampaign.forget_recipient('+44 7700 900177')}, role => 'app');
is($forgotten, 4, 'forgotten in every notation');

is(worker_errors($node), '', 'no worker complained');
$node->stop;
done_testing();
