# Citus: where the tables may be.  Local tables are the coordinator's to send; tables
# that are distributed by a column are refused before anything leaves, by all calls.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../perl";
use Campaign;
use Citus;
use LocalTwilio;
use Test::More;

need_citus();
my $twilio = LocalTwilio->start;
my $citus = Citus->new('layouts', $twilio);
my ($coordinator, @workers) = $citus->nodes;

my $local = $citus->add_tenant('local', users => 100, layout => 'local');
isnt($citus->call_error($_, $local)->{sqlstate}, '', 'local tables: refused on ' . $_->name)
  for @workers;
$citus->call($coordinator, $local);
$citus->sent_once($local, 'local tables');

for my $column (qw(id ac_list_id))
{
	my $tenant = $citus->add_tenant("by_$column", users => 20, layout => $column);
	for my $call (
		"send_campaign($tenant->{campaign}, $tenant->{job})",
		"sendcampaign.preview($tenant->{campaign})",
		"sendcampaign.estimate($tenant->{campaign})")
	{
		for my $node ($citus->nodes)
		{
			my $error = sql_error($node, <<~"SQL");
				SET ROLE app;
				SET sendcampaign.schema = 'by_$column';
				SELECT $call;
				SQL
			my $name = "by $column: $call on " . $node->name;
			isnt($error->{sqlstate}, '', "$name: refused");
			like($error->{hint}, qr/schema/, "$name: with what to do instead")
			  or diag("$error->{message} $error->{detail}");
		}
	}
	is($citus->accepted($tenant), 0, "by $column: nothing has left");
	is(scalar $citus->runs($tenant), 0, "by $column: there is no run");
}
$citus->stop;
done_testing();
