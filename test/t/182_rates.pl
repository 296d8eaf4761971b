# Numbers that would have a run stand still, or that are none: refused where they
# are set, or the run fails and says which.
use strict;
use warnings;
no warnings 'qw';
use FindBin;
use lib "$FindBin::RealBin/../perl";
use Campaign;
use LocalTwilio;
use Test::More;

my $twilio = LocalTwilio->start;
my $node = new_cluster('rates', $twilio);
sub sql { return $node->safe_psql('postgres', $_[0]); }
sub set_group { my ($campaign, $key, $json) = @_; sql("UPDATE groups SET configuration = configuration || '{\"$key\": $json}' WHERE id = " . group_of($campaign)); }

# Of a group
for my $value (qw(1e-300 4.9e-324 1e-400 0.00999 0.001 -1 -0.5 -1e-300 100001 1e300), qw("1e300" "1e-300" "NaN" "nan" "Infinity" "-inf" "1e400" "10/s" "1,5" "0x10" "one" true {} [] [10] "0x1p-9"))
{
	my $campaign = create_campaign($node, users => 1);
	set_group($campaign, 'twilioSegmentsPerSecond', $value);
	my $job = start_campaign($node, $campaign);
	my $run = wait_for_run($node, $job);
	is($run->{state}, 'failed', "$value: the run fails");
	# numbers of jsonb are written in full
	like($run->{error}, qr/^the group's "twilioSegmentsPerSecond" is not 0, nor a number from 0\.01 to 100000: ".+"\. Set it to the segments that each of its senders may send in a second, or to 0 for no limit\.$/,
		"$value: and says so");
	my $plain = $value =~ tr/"//dr;
	like($run->{error}, qr/: "\Q$plain\E"\./, "$value: and the value") if $value =~ /^"|^-?[\d.]+$/;
	like(sql_error($node, "SET ROLE app; SELECT * FROM sendcampaign.estimate($campaign)")->{message}, qr/is not 0, nor a number/, "$value: so does estimate()");
}
for my $value (qw(0 0.0 -0 0.01 1 1.5 100000), qw("0" "0.01" "1e2" "" null), '" 10 "', '" "')
{
	my $campaign = create_campaign($node, users => 1);
	set_group($campaign, 'twilioSegmentsPerSecond', $value);
	is(sql("SET ROLE app; SELECT messages FROM sendcampaign.estimate($campaign)"), 1, "$value: good");
}
my $campaign = create_campaign($node, users => 2);
set_group($campaign, 'twilioSegmentsPerSecond', 0.01);
my $job = start_campaign($node, $campaign);
ok(poll(sub { sql("SELECT total FROM sendcampaign.run WHERE job_id = $job") eq '2' }), 'the lowest: it is taken up');
sql("SET ROLE app; SELECT sendcampaign.cancel($job)");
wait_for_run($node, $job);

# Settings; PostgreSQL takes any value for one whose library is not loaded
for my $case ([ segments_per_second => qw(1e-300 4.9e-324 0.001 0.00999 -1 -1e-300 100001 1e300 NaN Infinity -Infinity x) ],
	[ max_concurrency => qw(0 -1 0.4 1001 1e300 NaN x 4294967297) ], [ max_attempts => qw(0 -1 0.4 1001 1e300 NaN x 4294967297) ],
	[ request_timeout => qw(0 -1 1e-300 0.01 1e300 NaN Infinity x 601) ], [ connect_timeout => qw(0 -1 1e-300 0.01 1e300 NaN Infinity x 601) ],
	[ lookup_delay => qw(-1 -1e-300 1e300 NaN Infinity x 3601) ], [ lookup_timeout => qw(-2 -1.001 1e300 NaN Infinity x 86401) ],
	[ failure_threshold => qw(-2 -1e300 1e300 NaN inf x 4294967297) ],
	[ failure_scale_factor => qw(-1 -1e-300 1.001 1e300 NaN Infinity x 30%) ])
{
	my ($name, @values) = @$case;
	like(sql_error($node, "LOAD 'sendcampaign'; SET sendcampaign.$name = '$_'")->{message}, qr/invalid value for parameter "sendcampaign\.$name"|is outside the valid range for parameter "sendcampaign\.$name"/, "$name = $_: refused") for @values;
}
my $error = sql_error($node, q{LOAD 'sendcampaign'; SET sendcampaign.segments_per_second = 0.001});
like($error->{detail}, qr/0\.01/, 'the bound is named');
like($error->{hint}, qr/^\w.*\.$/, 'with a hint');
# Set where the library is not loaded, too slow is not as fast as can be.
sql('ALTER ROLE app SET sendcampaign.segments_per_second = 0.001');
is($node->safe_psql('postgres', 'SELECT duration FROM sendcampaign.estimate(' . create_campaign($node, users => 1) . ')', extra_params => [ '-U', 'app' ]),
	'00:01:40', 'of a role: the bound');
like(sql_error($node, "LOAD 'sendcampaign'; ALTER ROLE app SET sendcampaign.segments_per_second = 0.002")->{message}, qr/invalid value for parameter/, 'of a role, with the library: refused');
sql('ALTER ROLE app RESET sendcampaign.segments_per_second');
is(sql_error($node, "LOAD 'sendcampaign'; SET sendcampaign.segments_per_second = '$_'")->{message}, '', "segments_per_second = $_: good") for qw(0 -0 0.0 0.01 1 100000 1e5);

is(worker_errors($node), '', 'no worker complained');
$node->stop;
done_testing();
