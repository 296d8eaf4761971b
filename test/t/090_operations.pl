# What README.md and docs/operations.md show: every statement runs, in order,
# and prints what is shown below it.
use strict;
use warnings;
use utf8;
use FindBin;
use lib "$FindBin::RealBin/../perl";
use Campaign;
use CPAN::Meta::YAML;
use Document;
use LocalTwilio;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

binmode $_, ':encoding(UTF-8)' for Test::More->builder->output, Test::More->builder->failure_output;
plan skip_all => 'pg_cron is not installed'
  if !-e PostgreSQL::Test::Cluster->new('probe')->config_data('--pkglibdir') . '/pg_cron.so';

my $twilio = LocalTwilio->start;
$twilio->set(account => "$LocalTwilio::ACCOUNT:your-auth-token");
my $node = new_cluster('operations', $twilio, no_extension => 1, conf => q{
	shared_preload_libraries = 'pg_cron'
	cron.database_name = 'operations'
	sendcampaign.request_timeout = '1s'
	sendcampaign.lookup_delay = '200ms'
	sendcampaign.max_attempts = 1
});

sub run_ends { my ($db, $job) = @_; return sub { wait_for_run($node, $job, db => $db); }; }
sub sends { my @settings = @_; return sub { $twilio->set(@settings); }; }

# What the text around them tells, by the first line that tells a block from
# others: before it, and after.
my @asides = (
	[ 'operations', qr/SELECT send_campaign\(1\);\n(?=.*)/, 2, sends(hold => 1) ],
	[ 'operations', qr/SELECT send_campaign\(1\);/, 3, sends(hold => 1) ],
	[ 'operations', qr/pause\(2\)/, 0, undef, sends(hold => 0) ],
	[ 'operations', qr/cancel\(3\)/, 0, sub { wait_for_flight($twilio, 1) }, undef ]);

done_testing();
