# Links that are signed: what is sent, what it costs, what counts; secrets, dumps,
# and groups that begin or end to sign.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../perl";
use Campaign;
use LocalTwilio;
use PostgreSQL::Test::Utils;
use Test::More;

my $twilio = LocalTwilio->start;
my $node = new_cluster('signed', $twilio, conf => 'sendcampaign.receipts = off');
my $on = q{configuration || '{"signLinks": true}'};
my $link = qr{https://example\.org/survey\?yu=(-?\d+)&ys=([\w-]{16})&yc=(\d+)};

# The links that Twilio has been given since the last reset: [list user, signature, campaign]
sub links
{
	return map { $_->{body} =~ /$link/ ? [ $1, $2, $3 ] : [ $_->{body} ] } $twilio->ledger;
}

sub track
{
	my ($yu, $yc, $signature, %arg) = @_;
	my $event = $arg{event} // 'open';
	$signature = defined $signature ? "'$signature'" : 'NULL';
	return sql($node, "SELECT sendcampaign.track($yu, $yc, '$event', $signature)", role => 'app',
		%arg);
}

# What a group sends
my $campaign = create_campaign($node, users => 5);
my $plain = sql($node, "SELECT text FROM sendcampaign.preview($campaign, 1)", role => 'app');
configure($node, $campaign, $on);
my ($text, $units) = split /\|/,
  sql($node, "SELECT text, units FROM sendcampaign.preview($campaign, 1)", role => 'app');
like($text, qr/^Hello $link$/, 'preview() shows a signed link');
is($units, length($plain) + length('&ys=') + 16, '... and counts it');
is($text =~ s/&ys=[\w-]{16}//r, $plain, '... which is otherwise as before');
my $job = run_campaign($node, $campaign)->{job};
my @links = links();
is(scalar(grep { @$_ == 3 } @links), 5, 'all messages have one');
is(scalar(keys %{ { map { $_->[1] => 1 } @links } }), 5, '... of their own');
like($text, qr/&ys=\Q$_->[1]\E&/, '... the one that was shown')
  for grep { $text =~ /yu=$_->[0]&/ } @links;
my ($first, $second, $third) = @links;

# What counts
is(track($first->[0], $campaign, undef), 'f', 'without the signature, a link counts nothing');
is(track($first->[0], $campaign, ''), 'f', '... nor with none');
is(track($first->[0], $campaign, $second->[1]), 'f', q{... nor with another recipient's});
is(track($first->[0], $campaign, substr $first->[1], 0, 15), 'f', '... nor with a part of it');
is(track($first->[0], $campaign, "$first->[1]x"), 'f', '... nor with more');
my $last = substr($first->[1], -1) eq 'A' ? 'B' : 'A';
is(track($first->[0], $campaign, substr($first->[1], 0, 15) . $last),
	'f', '... nor with one that differs in its end');
is(track($first->[0], $campaign, "'; SELECT 1; --" =~ s/'/''/gr), 'f', '... nor with SQL');
is(track($first->[0], $campaign, 'x' x 100_000), 'f', '... nor with very much');
is(sql($node, 'SELECT count(*) FROM sendcampaign.event'), 0, '... and nothing is recorded');
is(track($first->[0], $campaign, $first->[1]), 't', 'with it, it counts');
is(track($first->[0], $campaign, $first->[1]), 'f', '... once');
is(sql($node, "SELECT data->>'openCount' FROM ac_list_users WHERE id = $first->[0]"),
	1, '... in the data');

# In a text that has {{link}}, with a base URL that has a query and a fragment
my $personal = create_campaign(
	$node,
	users => 2,
	message => 'See {{link}} now',
	base_url => 'https://example.org/s?lang=is#top');
configure($node, $personal, $on);
$twilio->set(reset => 1);
run_campaign($node, $personal);
my @bodies = map { $_->{body} } $twilio->ledger;
is( scalar(
		grep { m{^See https://example\.org/s\?lang=is&yu=\d+&ys=[\w-]{16}&yc=$personal#top now$} }
		  @bodies),
	2,
	'links within a text, with a query and a fragment');

# Tenants with the same numbers have other signatures
make_tenant($node, $_, base_url => 'https://example.org/survey') for 'red', 'blue';
$twilio->set(reset => 1);
for my $tenant ('red', 'blue')
{
	sql($node, "UPDATE $tenant.groups SET configuration = $on");
	sql($node, "SET sendcampaign.schema = $tenant; SET ROLE $tenant; SELECT send_campaign(1)");
	wait_until($node, "SELECT state = 'completed' FROM sendcampaign.run WHERE schema = '$tenant'");
}
my ($red, $blue) = links();
isnt($red->[1], $blue->[1], 'schemas have signatures of their own');

# A group begins to sign: links that were sent before still count
my $later = create_campaign($node, users => 1, phone => '+15558880001');
my $reader = sql($node, 'SELECT id FROM ac_list_users WHERE ac_list_id = ' . list_of($later));
my $before = run_campaign($node, $later)->{job};
configure($node, $later, $on);
is(track($reader, $later, undef), 't', 'a link from before the group signs counts');
$twilio->set(reset => 1);
my $after = run_campaign($node, $later)->{job};
my ($signed) = links();
is(track($reader, $later, undef, event => 'complete'), 't', '... and still does, for its run');
is(sql($node, "SELECT count(*) FROM sendcampaign.event WHERE job_id = $before"),
	2, '... and no other');
is(track($reader, $later, $signed->[1]), 't', 'a signed one counts for the run that signed it');
is(sql($node, "SELECT count(*) FROM sendcampaign.event WHERE job_id = $after"),
	1, '... which is the later one');
configure($node, $later, q{configuration - 'signLinks'});
is(track($reader, $later, undef, event => 'other'),
	't', '... for the earlier run, links without signature count');
is(sql($node, "SELECT count(*) FROM sendcampaign.event WHERE job_id = $after"),
	1, '... though not for the later one');

# What else a configuration may say
configure($node, $campaign, q{configuration || '{"signLinks": "maybe"}'});
my $error = call_error($node, "preview($campaign)");
is( $error->{message},
	'invalid value for "signLinks" in the group\'s configuration: "maybe"',
	'what is neither true nor false is refused');
is($error->{hint}, 'Set it to true or false.', '... with a hint');
configure($node, $campaign, q{configuration || '{"signLinks": false}'});
is(sql($node, "SELECT text FROM sendcampaign.preview($campaign, 1)", role => 'app'),
	$plain, 'with false, links are as they were');

# The secret is the extension's owner's alone, and in no dump
my ($dump) = run_command(
	[
		'pg_dump', '-d',
		$node->connstr('postgres'), '--schema=sendcampaign',
		'--data-only', '--extension=sendcampaign'
	]);
unlike($dump, qr/COPY sendcampaign\.link_secret/, 'a dump has no secret');
like($dump, qr/COPY sendcampaign\.event_data/, '... but the events');
sql($node, 'CREATE TABLE public.kept AS SELECT secret FROM sendcampaign.link_secret');
sql($node, 'UPDATE sendcampaign.link_secret SET secret = sha256(secret)');
is(track($second->[0], $campaign, $second->[1]),
	'f', 'with another secret, earlier links count nothing');
sql($node, 'UPDATE sendcampaign.link_secret SET secret = (SELECT secret FROM kept)');
is(track($second->[0], $campaign, $second->[1]), 't', '... and with their own again, they do');
sql($node, 'DELETE FROM sendcampaign.link_secret');
$error = call_error($node, "track($third->[0], $campaign, 'open', '$third->[1]')");
is( $error->{message},
	'there is no secret with which links are signed',
	'without a secret, there is an error');
is($error->{hint}, 'Have a superuser insert the secret again.', '... with a hint');
$node->stop;
done_testing();
