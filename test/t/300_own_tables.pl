# What docs/own-tables.md shows: every statement runs, in order, and prints what
# is shown below it; what is sent there is sent once, and recorded.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../perl";
use Campaign;
use Document;
use LocalTwilio;
use Test::More;

my $twilio = LocalTwilio->start;
$twilio->set(account => "$LocalTwilio::ACCOUNT:your-auth-token");
my $node = new_cluster('own_tables', $twilio, no_extension => 1, conf => <<~'CONF');
	sendcampaign.lookup_delay = '200ms'
	CONF
my $db = 'shop';
sql($node, "CREATE DATABASE $db");

# Has each run ended?
sub is_done
{
	my $is_there = "SELECT to_regclass('sendcampaign.run') IS NOT NULL";
	return 1 if sql($node, $is_there, db => $db) ne 't';
	return sql($node, 'SELECT count(*) FROM sendcampaign.run WHERE finished_at IS NULL', db => $db)
	  eq '0';
}

for my $block (grep { $_->{language} eq 'sql' } blocks_of('docs/own-tables.md'))
{
	my ($stdout, $stderr) = run_block($node, $db, $block, 'shop');
	my $name = "$block->{name}, $block->{section}";
	note $stdout, $stderr;
	if (defined $block->{output})
	{
		is( without_padding($stdout . $stderr),
			without_padding($block->{output}),
			"$name: prints what is shown");
	}
	unlike($stderr, qr/ERROR|FATAL|WARNING/, "$name: no error")
	  if ($block->{output} // '') !~ /^ERROR/;
	ok(poll(\&is_done), "$name: runs end");
}

is(sql($node, <<~'SQL', db => $db), '12|0|0|0', 'all runs are complete');
	SELECT count(*) FILTER (WHERE state = 'completed'), count(*) FILTER (WHERE error <> ''),
	    sum(failed), sum(in_doubt)
	FROM sendcampaign.run
	SQL
my @recorded = sort split /\n/, sql($node, <<~'SQL', db => $db);
	SELECT sid || ' ' || phone FROM sendcampaign.message WHERE status = 'sent'
	SQL
my @accepted = sort map { "$_->{sid} $_->{to}" } $twilio->ledger;
is_deeply(\@recorded, \@accepted, 'what was sent is what is recorded');
my %texts;
$texts{"$_->{to} $_->{body}"}++ for $twilio->ledger;
my @often = grep { $texts{$_} > 1 && !/^\+1555000000/ } sort keys %texts;
is_deeply(\@often, [], 'once each');
is(scalar(grep { $_->{body} =~ /^Hi Ana, / } $twilio->ledger), 5, '... in each run');
is(sql($node, <<~'SQL', db => $db), '1 1 1 0', 'tenants count their own');
	SELECT string_agg(messages_sent::text, ' ' ORDER BY id) FROM shared.customers
	SQL

wait_for_no_worker($node);
$node->stop;
done_testing();
