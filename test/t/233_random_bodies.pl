# 10,000 random and mutated requests, none of which Twilio has signed: receive()
# refuses each, and nothing changes.  SEED repeats a run; COUNT is their number.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../perl";
use Campaign;
use LocalTwilio;
use PostgreSQL::Test::Utils;
use Test::More;
use Webhook;

my $seed = $ENV{SEED} || time ^ $$;
my $count = $ENV{COUNT} || 10_000;
diag("SEED=$seed");
srand $seed;

my $twilio = LocalTwilio->start;
my $node = new_cluster('random', $twilio);
create_webhook_role($node);
my $campaign = create_campaign($node, users => 10);
configure($node, $campaign, qq(configuration || '{"twilioStatusCallback": "$URL"}'));
my $job = run_campaign($node, $campaign)->{job};
my ($sid, $phone) = split /\|/,
  sql($node, "SELECT sid, phone FROM sendcampaign.message WHERE job_id = $job LIMIT 1");
my @seeds = (
	signed_form({
		MessageSid => $sid,
		SmsSid => $sid,
		MessageStatus => 'undelivered',
		ErrorCode => 30007,
		AccountSid => $LocalTwilio::ACCOUNT,
		From => $LocalTwilio::SENDER,
		To => $phone,
		ApiVersion => '2010-04-01'
	}),
	inbound_form('SMreply', $phone, 'STOP'),
	inbound_form('SMlong', $phone, "Gr\xc3\xbc\xc3\x9fe, & = + %", { Tag => [ 'x', 'y', 'x' ] }));

sub random_bytes
{
	return join '', map { chr(1 + int rand 255) } 1 .. int rand shift;
}

# Letters of forms, and strings that mean something to somebody
my @words = (
	'&', '=',
	'%', '+',
	'%00', '%ff',
	'%c3%28', '%ed%a0%80',
	';', "'",
	'"', '$1',
	'%s', '{}',
	'[]', '&&',
	'AccountSid=', "AccountSid=$LocalTwilio::ACCOUNT",
	"MessageSid=$sid", 'MessageStatus=delivered',
	'Body=STOP', 'Body=START',
	"From=$phone", 'bodySHA256=',
	"\\", "\t",
	"\n", ' ',
	'<script>', 'x' x 300);

sub mutated
{
	my $text = shift;
	for (1 .. 1 + int rand 3)
	{
		my $at = int rand(1 + length $text);
		my $length = int rand 6;
		my $what = int rand 7;
		substr $text, $at, 0, $words[ rand @words ] if $what == 0;
		substr $text, $at, 1, chr(1 + int rand 255) if $what == 1 && $at < length $text;
		substr $text, $at, $length, '' if $what == 2;
		$text = substr $text, 0, $at if $what == 3;
		$text .= '&' . $words[ rand @words ] if $what == 4;
		$text = join '&', sort { rand() <=> 0.5 } split(/&/, $text), 'z=1' if $what == 5;
		$text =~ s/=([^&]*)&(\w+)=/&$2=$1&/ if $what == 6;
	}
	return $text;
}

# What Twilio signs of a request; two that are the same are the same request.
sub signed
{
	my $request = shift;
	my $params = LocalTwilio::form_params($request->{body});
	return LocalTwilio::sign($URL, $params, 'any');
}

sub request
{
	my %request = %{ $seeds[ rand @seeds ] };
	my $kind = int rand 10;
	if ($kind == 0)
	{
		$request{body} = random_bytes(300);
	}
	elsif ($kind == 1)
	{
		$request{signature} = random_bytes(40);
	}
	elsif ($kind == 2)
	{
		$request{signature} = mutated($request{signature});
		$request{signature} .= '=' if $request{signature} eq $seeds[0]{signature};
	}
	elsif ($kind == 3)
	{
		my $other = $seeds[ rand @seeds ];
		$request{signature} = $other->{signature};
	}
	else
	{
		$request{body} = mutated($request{body});
	}
	$request{url} = mutated($request{url}) if rand() < 0.2;
	return \%request;
}

my %genuine = map { signed($_) . $_->{signature} => 1 } @seeds;
my @requests;
while (@requests < $count)
{
	my $request = request();
	push @requests, $request if !$genuine{ signed($request) . $request->{signature} };
}

# As bytes in hexadecimal, which are converted as the encoding of the database allows
my $file = PostgreSQL::Test::Utils::tempdir() . '/requests';
open my $out, '>', $file or die "could not write $file: $!";
print $out join("\t", map { unpack 'H*', $_ } @$_{qw(url signature body)}), "\n" for @requests;
close $out;
sql($node, <<~SQL);
	CREATE TABLE request (n serial, url text, signature text, body text);
	GRANT SELECT ON request TO webhook;
	\\copy request (url, signature, body) FROM '$file'
	CREATE FUNCTION text_of(hex text) RETURNS text LANGUAGE plpgsql AS \$\$
	BEGIN
		RETURN convert_from(decode(hex, 'hex'), 'UTF8');
	EXCEPTION WHEN OTHERS THEN
		RETURN convert_from(convert_to(encode(decode(hex, 'hex'), 'escape'), 'UTF8'), 'UTF8');
	END
	\$\$;
	UPDATE request SET url = text_of(url), signature = text_of(signature), body = text_of(body);
	CREATE FUNCTION outcome(r request) RETURNS text LANGUAGE plpgsql AS \$\$
	BEGIN
		RETURN sendcampaign.receive(r.url, r.signature, r.body);
	EXCEPTION WHEN OTHERS THEN
		RETURN sqlstate;
	END
	\$\$;
	SQL

my $state = <<~'SQL';
	SELECT md5(string_agg(t::text, ',' ORDER BY t::text)) FROM (
		SELECT row_to_json(r)::text FROM sendcampaign.receipt_data r
		UNION ALL SELECT row_to_json(r)::text FROM sendcampaign.reply_data r
		UNION ALL SELECT row_to_json(r)::text FROM sendcampaign.early_receipt r
		UNION ALL SELECT row_to_json(r)::text FROM sendcampaign.opt_out_data r
		UNION ALL SELECT row_to_json(r)::text FROM sendcampaign.run_data r
		UNION ALL SELECT row_to_json(r)::text FROM sendcampaign.message_data r) t
	SQL
my $before = sql($node, $state);
my %outcomes = map { split /\|/ } split /\n/,
  sql($node, 'SELECT outcome(r), count(*) FROM request r GROUP BY 1', role => 'webhook');
note(join ', ', map { "$_: $outcomes{$_}" } sort keys %outcomes);
is_deeply([ sort keys %outcomes ], [ '22023', '28000' ], 'each is refused')
  or
  diag(sql($node, q(SELECT r FROM request r WHERE outcome(r) NOT IN ('22023', '28000') LIMIT 5)));
cmp_ok($outcomes{'28000'}, '>', $count / 4, 'many have the form of a request');
cmp_ok($outcomes{'22023'}, '>', $count / 20, 'and many have not');
is(sql($node, $state), $before, 'nothing has changed');

# The test itself
is_deeply([ map { receive($node, $_) } @seeds ],
	[qw(receipt reply reply)], 'what they were made of counts');
isnt(sql($node, $state), $before, 'which is seen');
is(worker_errors($node), '', 'nothing else has happened');
$node->stop;
done_testing();
