# Numbers that would have a run stand still, or that are none: refused where they
# are set, or the run fails and says which.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../perl";
use Campaign;
use LocalTwilio;
use Test::More;

my $twilio = LocalTwilio->start;
my $node = new_cluster('rates', $twilio);

# A campaign whose group has this rate, written as JSON
sub campaign_with_rate
{
	my ($rate, $users) = @_;
	my $campaign = create_campaign($node, users => $users);
	my $group = group_of($campaign);
	sql($node, <<~SQL);
		UPDATE groups
		SET configuration = configuration || '{"twilioSegmentsPerSecond": $rate}'
		WHERE id = $group
		SQL
	return $campaign;
}

# Rates of a group that are refused: numbers, strings, and what is neither
my @bad_rates = split ' ', <<~'END';
	1e-300 4.9e-324 1e-400 0.00999 0.001 -1 -0.5 -1e-300 100001 1e300
	"1e300" "1e-300" "NaN" "nan" "Infinity" "-inf" "1e400"
	"10/s" "1,5" "0x10" "one" "0x1p-9"
	true {} [] [10]
	END
my $invalid = qr/invalid value for "twilioSegmentsPerSecond"/;
my $hint = 'Set it to the number of segments per second that each sender may send,'
  . ' from 0.01 to 100000, or to 0 for no limit.';
my $refusal = qr/^$invalid in the group's configuration: ".+"\. \Q$hint\E$/;
for my $rate (@bad_rates)
{
	my $campaign = campaign_with_rate($rate, 1);
	my $run = run_campaign($node, $campaign);
	is($run->{state}, 'failed', "$rate: the run fails");
	like($run->{error}, $refusal, "$rate: and says so");
	# numbers of jsonb are written in full
	my $plain = $rate =~ tr/"//dr;
	like($run->{error}, qr/: "\Q$plain\E"\./, "$rate: and the value")
	  if $rate =~ /^"|^-?[\d.]+$/;
	my $error = sql_error($node, "SELECT * FROM sendcampaign.estimate($campaign)", role => 'app');
	like($error->{message}, $invalid, "$rate: so does estimate()");
}

# Rates of a group that are taken
my @good_rates = qw(0 0.0 -0 0.01 1 1.5 100000 "0" "0.01" "1e2" "" null);
for my $rate (@good_rates, '" 10 "', '" "')
{
	my $campaign = campaign_with_rate($rate, 1);
	my $estimate = "SELECT messages FROM sendcampaign.estimate($campaign)";
	is(sql($node, $estimate, role => 'app'), 1, "$rate: good");
}
my $job = start_campaign($node, campaign_with_rate(0.01, 2));
my $total = "SELECT total FROM sendcampaign.run WHERE job_id = $job";
ok(poll(sub { sql($node, $total) eq '2' }), 'the lowest rate: the run is taken up');
sql($node, "SELECT sendcampaign.cancel($job)", role => 'app');
wait_for_run($node, $job);

# Values of settings that are refused; PostgreSQL takes any value for one whose
# library is not loaded
my %bad_values = (
	segments_per_second =>
	  [qw(1e-300 4.9e-324 0.001 0.00999 -1 -1e-300 100001 1e300 NaN Infinity -Infinity x)],
	max_concurrency => [qw(0 -1 0.4 1001 1e300 NaN x 4294967297)],
	max_attempts => [qw(0 -1 0.4 1001 1e300 NaN x 4294967297)],
	request_timeout => [qw(0 -1 1e-300 0.01 1e300 NaN Infinity x 601)],
	connect_timeout => [qw(0 -1 1e-300 0.01 1e300 NaN Infinity x 601)],
	lookup_delay => [qw(-1 -1e-300 1e300 NaN Infinity x 3601)],
	lookup_timeout => [qw(-2 -1.001 1e300 NaN Infinity x 86401)],
	failure_threshold => [qw(-2 -1e300 1e300 NaN inf x 4294967297)],
	failure_scale_factor => [qw(-1 -1e-300 1.001 1e300 NaN Infinity x 30%)]);

# The error of setting a parameter, with the library loaded
sub error_of_setting
{
	my $set = shift;
	return sql_error($node, "LOAD 'sendcampaign'; $set");
}

for my $name (sort keys %bad_values)
{
	my $parameter = qr/parameter "sendcampaign\.$name"/;
	for my $value (@{ $bad_values{$name} })
	{
		my $error = error_of_setting("SET sendcampaign.$name = '$value'");
		like(
			$error->{message},
			qr/invalid value for $parameter|is outside the valid range for $parameter/,
			"$name = $value is refused");
	}
}
my $error = error_of_setting('SET sendcampaign.segments_per_second = 0.001');
like($error->{detail}, qr/0\.01/, 'the bound is named');
like($error->{hint}, qr/^\w.*\.$/, 'there is a hint');

# Set where the library is not loaded, too slow a rate is not no limit.
sql($node, 'ALTER ROLE app SET sendcampaign.segments_per_second = 0.001');
my $campaign = create_campaign($node, users => 1);
my $duration = $node->safe_psql(
	'postgres',
	"SELECT duration FROM sendcampaign.estimate($campaign)",
	extra_params => [ '-U', 'app' ]);
is($duration, '00:01:40', 'of a role, without the library: the bound counts');
$error = error_of_setting('ALTER ROLE app SET sendcampaign.segments_per_second = 0.002');
like($error->{message}, qr/invalid value for parameter/, 'of a role, with the library: refused');
sql($node, 'ALTER ROLE app RESET sendcampaign.segments_per_second');

# Values that are taken
for my $value (qw(0 -0 0.0 0.01 1 100000 1e5))
{
	my $error = error_of_setting("SET sendcampaign.segments_per_second = '$value'");
	is($error->{message}, '', "segments_per_second = $value: good");
}

is(worker_errors($node), '', 'no worker complained');
$node->stop;
done_testing();
