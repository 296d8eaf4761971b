# The examples of docs/citus.md, on a node that is not the home of the schema.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../perl";
use Campaign;
use Citus;
use LocalTwilio;
use PostgreSQL::Test::Utils;
use Test::More;

need_citus();
my $twilio = LocalTwilio->start;
my $citus = Citus->new('document', $twilio);
my ($coordinator, $first, $second) = $citus->nodes;

# The statements of the document: [ role, where, SQL ].  Those with addresses, or
# passwords, are for machines that are not here; this test's nodes have done the same.
my @examples;
my $document = slurp_file("$FindBin::RealBin/../../docs/citus.md");
my ($role, $where) = ('app', 'any node');
for my $block ($document =~ /^ *```sql\n(.*?)^ *```$/msg)
{
	next if $block =~ /10\.0\.0|password/;
	for my $part (split /^(?= *-- as )/m, $block)
	{
		$role = $1 eq 'a superuser' ? undef : 'app' if $part =~ /^ *-- as (a superuser|the role)/;
		$where = $1 if $part =~ /^ *-- as .*, on (.*)$/m;
		push @examples, [ $role, $where, $part ];
	}
}
cmp_ok(scalar @examples, '>=', 8, 'there are examples');

# What the examples have: a campaign, which is on the first node.
sub fill
{
	sql($coordinator, <<~"SQL");
		INSERT INTO tenant7.groups (id, configuration)
		VALUES (1, jsonb_build_object(
			'twilioAccountSid', '$LocalTwilio::ACCOUNT',
			'twilioAuthToken', '$LocalTwilio::TOKEN',
			'twilioFromSmsNumber', '$LocalTwilio::SENDER'));
		INSERT INTO tenant7.ac_lists (id, group_id) VALUES (1, 1);
		INSERT INTO tenant7.ac_list_users (ac_list_id, data)
		SELECT 1, jsonb_build_object('sms', '+1555000000' || i) FROM generate_series(1, 9) i;
		INSERT INTO tenant7.ac_campaigns (id, ac_list_id, data) VALUES (123, 1,
			'{"message": "Hello", "baseUrl": "https://example.org/tenant7"}');
		INSERT INTO tenant7.ac_background_jobs (id) VALUES (456);
		SQL
	$citus->move({ schema => 'tenant7' }, 1);
	return;
}

for my $example (@examples)
{
	my ($role, $where, $sql) = @$example;
	my @nodes =
	  $where eq 'each node' ? $citus->nodes : $where eq 'any node' ? $second : $coordinator;
	for my $node (@nodes)
	{
		my $error = sql_error($node, $sql, role => $role)->{message};
		is($error, '', $node->name . ': ' . ($sql =~ /^ *((?!--)\S.*)$/m)[0]);
	}
	fill() if $sql =~ /create_tables/;
	wait_until(
		$first,
		"SELECT state FROM sendcampaign.run WHERE job_id = 456",
		expected => 'completed') if $sql =~ /send_campaign\(123/;
}
is(sql($second, "SELECT sent FROM sendcampaign.all_runs WHERE job_id = 456", role => 'app'),
	9, 'the campaign was sent');
my $runs = 'SELECT count(*) FROM sendcampaign.run';
is(join(' ', map { sql($_, $runs) } $citus->nodes), '0 1 0', 'by its home');
$citus->stop;
done_testing();
