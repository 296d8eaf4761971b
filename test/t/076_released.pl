# Some of a claim are put back, the others are on their way when the server
# crashes: each of these is looked up by its own text, and none is sent again.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../perl";
use Campaign;
use LocalTwilio;
use PostgreSQL::Test::Utils;
use Test::More;

my $twilio = LocalTwilio->start;
my $node = new_cluster('released', $twilio, conf => qq{
	sendcampaign.lookup_delay = '100ms'
	restart_after_crash = on
	wal_writer_delay = '10s'
});
sub sql { return $node->safe_psql('postgres', $_[0]); }

# Of 20 users the first ten are taken, and the answers do not come; the others
# are told to try again later, if they are sent at all with so many under way.
for my $link ('https://example.org/survey', undef)
{
	my $what = $link ? 'with a link' : 'without a link';
	my $campaign = create_campaign($node, users => 20, message => 'Hello {{name}}', base_url => $link);
	my $list = "(SELECT ac_list_id FROM ac_campaigns WHERE id = $campaign)";
	sql(q{UPDATE ac_list_users SET data = data || jsonb_build_object('name', 'number ' || id) WHERE ac_list_id = } . $list);
	my %id = map { split /\|/ } split /\n/, sql("SELECT data->>'sms', id FROM ac_list_users WHERE ac_list_id = $list");
	my @away = map { sprintf '+1555%07d', $_ } 1 .. 10;
	my @back = map { sprintf '+1555%07d', $_ } 11 .. 20;

	change_conf($node, "sendcampaign.request_timeout = '60s'");
	$twilio->set(reset => 1, 'retry-after' => 600, (map { ('to-fault' => "$_=429") } @back), map { ('to-fault' => "$_=never-after") } @away);
	my $job = start_campaign($node, $campaign);
	ok(poll(sub { my $stats = $twilio->stats; $stats->{accepted} == 10 && ($stats->{faults}{429} || 0) >= 1 }), "$what: half are taken, half are not")
	  or diag explain $twilio->stats;
	sql("SET ROLE app; SELECT sendcampaign.pause($job)");
	my $run = run_of($job);
	ok($node->poll_query_until('postgres', qq{SELECT coalesce(sum(cardinality(list_user_ids)), 0) = 10 FROM sendcampaign.batch WHERE run_id = $run}),
		"$what: the latter are put back");
	# it is on disk, and so would be the outcomes of the others, if there were any
	sql("CREATE TABLE flushed_$job ()");
	$node->append_conf('postgresql.conf', "sendcampaign.request_timeout = '1s'");
	$node->stop('immediate');
	$twilio->set(map { ('to-fault' => "$_=none") } @back, @away);
	$node->start;

	my $claimed = "FROM sendcampaign.claim c, unnest(c.list_user_ids, c.phones, c.texts) u(id, phone, text) WHERE c.run_id = $run";
	is(sql("SELECT string_agg(phone, ' ' ORDER BY phone) $claimed"), "@away", "$what: those on their way are claimed");
	is(sql("SELECT string_agg(u.text, '' ORDER BY u.phone) $claimed"),
		join('', map { "Hello number $id{$_}" . ($link ? " $link?yu=$id{$_}&yc=$campaign" : '') } @away), "$what: each with its text");
	is(sql("SELECT string_agg(id::text, ' ' ORDER BY id) FROM sendcampaign.batch, unnest(list_user_ids) id WHERE run_id = $run"),
		join(' ', map { $id{$_} } @back), "$what: those that were put back are not");

	# what would be sent to them now is another text
	sql(q{UPDATE ac_list_users SET data = data || jsonb_build_object('name', 'again ' || id) WHERE ac_list_id = } . $list);
	sql("SET ROLE app; SELECT sendcampaign.resume($job)");
	my $row = wait_for_run($node, $job);
	is("$row->{state} $row->{sent} $row->{error}", 'completed 20 ', "$what: all is known");
	my %body;
	push @{ $body{ $_->{to} } }, $_->{body} =~ s/ https:.*//r for $twilio->ledger;
	is_deeply(\%body, { (map { $_ => ["Hello again $id{$_}"] } @back), (map { $_ => ["Hello number $id{$_}"] } @away) },
		"$what: each once, those that were put back with the newest text");
	my %sid = map { $_->{to} => $_->{sid} } $twilio->ledger;
	is_deeply({ map { split /\|/ } split /\n/, sql("SELECT phone, sid FROM sendcampaign.message WHERE job_id = $job") }, \%sid, "$what: each is known by its SID");
}

$node->stop;
done_testing();
