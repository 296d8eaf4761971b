# docs/campaigns.md: its blocks run in order, and print what is shown; a file of a
# hundred thousand lines, and how long that takes.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../perl";
use Campaign;
use Cwd qw(getcwd);
use Document;
use LocalTwilio;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time);

my $twilio = LocalTwilio->start;
$twilio->set(account => "$LocalTwilio::ACCOUNT:your-auth-token");
my $node = new_cluster(
	'document', $twilio,
	no_extension => 1,
	init => { extra => [ '--encoding=UTF8', '--locale=C' ] });
install_as_shown($node);

my $lines = $ENV{CSV_LINES} || 100000;
my $dir = PostgreSQL::Test::Utils::tempdir();
my $before = getcwd();
chdir $dir or die "could not change to $dir: $!";
open my $csv, '>', 'members.csv' or die "could not write members.csv: $!";
print $csv "phone,name\n";
printf $csv "%s,Member %d\n", $_ % 1000 ? 6100000 + $_ : "number $_", $_ for 1 .. $lines;
close $csv;

my $bad = int($lines / 1000);
my $good = $lines - $bad;
for my $block (grep { $_->{language} eq 'sql' } blocks_of('docs/campaigns.md'))
{
	my $begin = time;
	$block->{text} = "\\timing on\n$block->{text}" if $block->{text} =~ /members/;
	my ($stdout, $stderr) = run_block($node, 'postgres', $block, 'app');
	unlike($stderr, qr/ERROR|FATAL|WARNING/, "$block->{name} runs");
	note(sprintf '%s took %.1f s', $block->{name}, time - $begin);
	is( without_padding($stdout),
		without_padding($block->{output}),
		"$block->{name} prints what is shown") if defined $block->{output};
	diag("$block->{name}, ms: " . join ' ', $stdout =~ /^Time: (\S+) ms/mg)
	  if $block->{text} =~ /^.timing/;
	next if $block->{text} !~ /FROM members/;
	like(
		$stdout,
		qr/ phone number is neither .*\+354 +\| +$bad \| number 1000$/m,
		'what is refused');
	like($stdout, qr/^ +$good \| +$good \| +$good$/m, 'what would be sent');
	ok( wait_until(
			$node,
			'SELECT count(*) > 0 FROM sendcampaign.message m JOIN sendcampaign.run r'
			  . " ON r.job_id = m.job_id WHERE r.total = $good"),
		'the first message is recorded');
	diag(sprintf 'from the table of the file to the first messages: %.1f s', time - $begin);
	my $job = sql($node, 'SELECT max(job_id) FROM sendcampaign.run');
	sql($node, "SELECT sendcampaign.cancel($job)", role => 'app');
}
chdir $before;
is(wait_for_run($node, 1)->{sent}, 2, 'the first call has sent two messages');
is(wait_for_run($node, 2)->{sent}, 3, 'the campaign was sent');
is(sent_with($twilio, 'Hi Sif!'), 1, 'and a personal text');
$node->stop;
done_testing();
