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
my $node = new_cluster('released', $twilio, conf => <<~CONF);
    sendcampaign.lookup_delay = '100ms'
    restart_after_crash = on
    wal_writer_delay = '10s'
CONF

# Each list user's name is the word with a number.
sub name_users
{
	my ($campaign, $word) = @_;
	sql($node, <<~SQL);
	    UPDATE ac_list_users
	    SET data = data || jsonb_build_object('name', '$word ' || id)
	    WHERE ac_list_id = (SELECT ac_list_id FROM ac_campaigns WHERE id = $campaign)
	SQL
}

# Two columns of a query's rows, as a hash.
sub pairs
{
	my $query = shift;
	return map { split /\|/ } split /\n/, sql($node, $query);
}

# Of 20 users the first ten are taken, and the answers do not come; the others
# are told to try again later, if they are sent at all with so many under way.
my @away = map { sprintf '+1555%07d', $_ } 1 .. 10;
my @back = map { sprintf '+1555%07d', $_ } 11 .. 20;
my $half_are_taken = sub {
	my $stats = $twilio->stats;
	return $stats->{accepted} == 10 && ($stats->{faults}{429} || 0) >= 1;
};
for my $link ('https://example.org/survey', undef)
{
	my $what = $link ? 'with a link' : 'without a link';
	my $campaign =
	  create_campaign($node, users => 20, message => 'Hello {{name}}', base_url => $link);
	name_users($campaign, 'number');
	my %id = pairs(<<~SQL);
	    SELECT data->>'sms', id
	    FROM ac_list_users
	    WHERE ac_list_id = (SELECT ac_list_id FROM ac_campaigns WHERE id = $campaign)
	SQL

	change_conf($node, "sendcampaign.request_timeout = '60s'");
	$twilio->set(reset => 1, 'retry-after' => 600);
	$twilio->set('to-fault' => "$_=429") for @back;
	$twilio->set('to-fault' => "$_=never-after") for @away;
	my $job = start_campaign($node, $campaign);
	my $run_id = run_of($job);
	ok(poll($half_are_taken), "$what: half are taken, half are not")
	  or diag(explain $twilio->stats);
	sql($node, "SELECT sendcampaign.pause($job)", role => 'app');
	ok(wait_until($node, <<~SQL), "$what: the latter are put back");
	    SELECT coalesce(sum(cardinality(list_user_ids)), 0) = 10
	    FROM sendcampaign.batch
	    WHERE run_id = $run_id
	SQL
	# that is on disk now, as would be the outcomes of the others, if there were any
	sql($node, "CREATE TABLE flushed_$job ()");
	$node->append_conf('postgresql.conf', "sendcampaign.request_timeout = '1s'");
	$node->stop('immediate');
	$twilio->set(map { ('to-fault' => "$_=none") } @back, @away);
	$node->start;

	my $claimed = <<~SQL;
	    FROM sendcampaign.claim c, unnest(c.list_user_ids, c.phones, c.texts) u(id, phone, text)
	    WHERE c.run_id = $run_id
	SQL
	my $texts = '';
	for my $phone (@away)
	{
		$texts .= "Hello number $id{$phone}";
		$texts .= " $link?yu=$id{$phone}&yc=$campaign" if $link;
	}
	is(sql($node, "SELECT string_agg(phone, ' ' ORDER BY phone) $claimed"),
		"@away", "$what: those on their way are claimed");
	is(sql($node, "SELECT string_agg(u.text, '' ORDER BY u.phone) $claimed"),
		$texts, "$what: each with its text");
	is(sql($node, <<~SQL), join(' ', @id{@back}), "$what: those that were put back are not");
	    SELECT string_agg(id::text, ' ' ORDER BY id)
	    FROM sendcampaign.batch, unnest(list_user_ids) id
	    WHERE run_id = $run_id
	SQL

	# What would be sent to them now is another text.
	name_users($campaign, 'again');
	sql($node, "SELECT sendcampaign.resume($job)", role => 'app');
	my $row = wait_for_run($node, $job);
	is("$row->{state} $row->{sent} $row->{error}", 'completed 20 ', "$what: all is known");
	my (%expected, %body, %sid);
	$expected{$_} = ["Hello number $id{$_}"] for @away;
	$expected{$_} = ["Hello again $id{$_}"] for @back;

	for my $message ($twilio->ledger)
	{
		push @{ $body{ $message->{to} } }, $message->{body} =~ s/ https:.*//r;
		$sid{ $message->{to} } = $message->{sid};
	}
	is_deeply(\%body, \%expected,
		"$what: each once, those that were put back with the newest text");
	is_deeply({ pairs("SELECT phone, sid FROM sendcampaign.message WHERE job_id = $job") },
		\%sid, "$what: each is known by its SID");
}

$node->stop;
done_testing();
