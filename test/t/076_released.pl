# Some of a claim are put back, the others are on their way when the server
# crashes: each of these is looked up by its own text.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../perl";
use Campaign;
use LocalTwilio;
use Test::More;

my $twilio = LocalTwilio->start;
my $node = new_cluster('released', $twilio, conf => qq{
	sendcampaign.request_timeout = '30s'
	sendcampaign.lookup_delay = '100ms'
	restart_after_crash = on
	wal_writer_delay = '10s'
});

for my $link ('https://example.org/survey', undef)
{
	my $what = $link ? 'with a link' : 'without a link';
	my $campaign = create_campaign($node, users => 20, message => 'Hello {{name}}', base_url => $link);
	$node->safe_psql('postgres', qq{
		UPDATE ac_list_users SET data = data || jsonb_build_object('name', 'number ' || id);
		UPDATE groups SET configuration = configuration || jsonb_build_object('quietHours', jsonb_build_object(
			'from', to_char((now() + interval '2 s') AT TIME ZONE 'UTC', 'HH24:MI:SS'),
			'to', to_char((now() + interval '2 h') AT TIME ZONE 'UTC', 'HH24:MI:SS')))});
	change_conf($node, "sendcampaign.request_timeout = '30s'");
	$twilio->set(reset => 1, 'retry-after' => 3, 'fault:429' => '#10');
	my $job = start_campaign($node, $campaign);
	ok($node->poll_query_until('postgres', qq{SELECT count(*) > 0 FROM sendcampaign.batch WHERE run_id = ${\ run_of($job)} AND due > now()}),
		"$what: some are put off");
	$node->append_conf('postgresql.conf', "sendcampaign.request_timeout = '1s'");
	$node->stop('immediate');
	$node->start;
	# outcomes are lost by the crash, unless something has flushed them
	like($node->safe_psql('postgres', qq{SELECT bool_and(cardinality(list_user_ids) = cardinality(texts)
			AND cardinality(list_user_ids) = cardinality(phones)) FROM sendcampaign.claim WHERE run_id = ${\ run_of($job)}}),
		qr/^t?$/, "$what: a claim says as much of each");
	$node->safe_psql('postgres', qq{UPDATE groups SET configuration = configuration - 'quietHours';
		UPDATE sendcampaign.batch SET due = now(); UPDATE sendcampaign.run SET next_at = now(); SELECT sendcampaign.wake()});
	my $run = wait_for_run($node, $job);
	my $count = $twilio->count_by_phone;
	is(scalar(keys %$count), 20, "$what: nobody is left out");
	is((grep { $_ != 1 } values %$count), 0, "$what: nobody has it twice");
	is("$run->{state} $run->{sent} $run->{error}", 'completed 20 ', "$what: and it is known");
}

$node->stop;
done_testing();
