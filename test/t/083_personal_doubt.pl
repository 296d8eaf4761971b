# Personal texts in doubt: looked up by their link, else by the very text that
# was sent, also where the values have changed meanwhile.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";

use Campaign;
use LocalTwilio;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Session;
use Test::More;

my $users = 60;
my $url = 'https://example.org/s';
my $twilio = LocalTwilio->start;
my $node = new_cluster(
	'personal_doubt', $twilio,
	init => { extra => [ '--encoding=UTF8', '--locale=C' ], allows_streaming => 1 },
	conf => <<~CONF);
    sendcampaign.receipts = off
    restart_after_crash = on
    sendcampaign.request_timeout = '1s'
    sendcampaign.lookup_delay = '100ms'
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

# A campaign whose users have the name "Ann" with a number.
sub personal
{
	my ($message, $base_url) = @_;
	my $campaign =
	  create_campaign($node, users => $users, message => $message, base_url => $base_url);
	name_users($campaign, 'Ann');
	return $campaign;
}

# Starts a campaign whose requests Twilio accepts, but does not answer; waits
# until some are under way.  Returns the job.
sub start_unanswered
{
	my $campaign = shift;
	$twilio->set('reset' => 1, 'hold-after' => 1, 'hold' => 1);
	my $job = start_campaign($node, $campaign);
	wait_for_flight($twilio, 5);
	return $job;
}

# Everybody has one message, and the tables have its SID.
sub all_once
{
	my ($job, $what, $in) = @_;
	$in ||= $node;
	my $run = wait_for_run($in, $job);
	my $run_id = run_of($job);
	my $count = $twilio->count_by_phone;
	my %sid = map { $_->{to} => $_->{sid} } $twilio->ledger;
	is("$run->{state} $run->{sent} $run->{error}", "completed $users ", "$what: all are sent");

	my $phones = keys %$count;
	my $not_once = grep { $_ != 1 } values %$count;
	is("$phones $not_once", "$users 0", "$what: each once");

	my $wrong = 0;
	my $rows = sql($in, "SELECT phone, sid FROM sendcampaign.message WHERE job_id = $job");
	for my $row (split /\n/, $rows)
	{
		my ($phone, $sid) = split /\|/, $row;
		$wrong++ if $sid ne ($sid{$phone} // '');
	}
	is($wrong, 0, "$what: every SID is right");
	is(sql($in, <<~SQL), "0|$users", "$what: each is counted once, nothing is claimed");
	    SELECT (SELECT count(*) FROM sendcampaign.claim WHERE run_id = $run_id),
	        count(*) FILTER (WHERE data->>'sentCount' = '1')
	    FROM ac_list_users
	    WHERE ac_list_id = (SELECT list_id FROM sendcampaign.run WHERE job_id = $job)
	SQL
}

# The texts that Twilio has accepted, by phone.
sub body_by_phone
{
	return map { $_->{to} => $_->{body} } $twilio->ledger;
}

# Answers are lost.
my @texts = (
	[ 'a link in the middle', 'Go {{name}}: {{link}} {{name}}!', $url ],
	[ 'a link at the end', 'Go {{name}}', $url ],
	[ 'no link', 'Góðan dag {{name}} 😀', undef ],
	[ 'a link before a digit', '{{link}}{{digit|7}} {{name}}', $url ]);
for my $case (@texts)
{
	my ($what, $message, $base_url) = @$case;
	my $links = defined $base_url ? 1 : 0;
	$twilio->set('reset' => 1, 'fault:drop-after' => 30, 'fault:drop-before' => 30);
	my $job = start_campaign($node, personal($message, $base_url));
	all_once($job, $what);
	cmp_ok($twilio->stats->{lists}, '>', 5, "$what: some are looked up");
	my $wrong = grep { (() = $_->{body} =~ /yu=/g) != $links } $twilio->ledger;
	is($wrong, 0, "$what: as many links as there should be");
	$twilio->set('fault:drop-after' => 0, 'fault:drop-before' => 0);
}

# The worker is killed at a debug point; the values change before it is back.
my @points = (
	[ 'claimed', 1, $url ],
	[ 'answered', 2, $url ],
	[ 'claimed', 1, undef ],
	[ 'answered', 2, undef ],
	[ 'recording', 3, undef ],
	[ 'recorded', 4, undef ]);
SKIP:
{
	skip 'the library is built without debug points', 1 if !$ENV{SENDCAMPAIGN_DEBUG_POINTS};
	for my $case (@points)
	{
		my ($point_name, $point, $base_url) = @$case;
		my $what = "$point_name, " . (defined $base_url ? 'with a link' : 'without a link');
		my $text = defined $base_url ? '<{{link}}> {{name}}' : 'Hi {{name}}';
		my $campaign = personal($text, $base_url);
		my $session = Session->open($node);
		$twilio->set('reset' => 1);
		$session->query("SELECT pg_advisory_lock(5005, $point)");
		my $job = start_campaign($node, $campaign);
		my $run_id = run_of($job);
		wait_until($node, <<~SQL);
		    SELECT count(*) > 0
		    FROM pg_locks
		    WHERE locktype = 'advisory' AND classid = 5005 AND objid = $point AND NOT granted
		SQL
		my %before = body_by_phone();
		my $claimed;
		$claimed = sql($node, <<~SQL) if $point != 4;
		    SELECT p, t
		    FROM sendcampaign.claim, unnest(phones, texts) c(p, t)
		    WHERE run_id = $run_id
		SQL
		kill_worker($node);
		eval { $session->close };
		name_users($campaign, 'Bob');
		wait_until($node, 'SELECT sendcampaign.wake() >= 0');
		all_once($job, $what);

		my %after = body_by_phone();
		my $wrong = 0;
		for my $phone (keys %after)
		{
			my $expected = $before{$phone} ? qr/Ann \d+$/ : qr/(Ann|Bob) \d+$/;
			$wrong++ if $after{$phone} !~ $expected;
		}
		is($wrong, 0, "$what: the texts are right");
		is((grep { !/Bob/ } values %after), 0, "$what: the texts have the new values")
		  if $point == 1;
		next if !defined $claimed;
		my %text = map { split /\|/, $_, 2 } split /\n/, $claimed;
		is((grep { $text{$_} ne $before{$_} } keys %before),
			0, "$what: the claim has the text that was sent");
	}
}

# The worker leaves with some messages on their way, and the others given back;
# then it is killed.
{
	my $campaign = personal('Hi {{name}}', undef);
	my $job = start_unanswered($campaign);
	my $run_id = run_of($job);
	sql($node, "SELECT pg_terminate_backend($_)") for worker_pids($node);
	wait_for_no_worker($node);
	$twilio->set('hold' => 0, 'hold-after' => 0);
	name_users($campaign, 'Bob');
	is(sql($node, <<~SQL), 0, 'given back: the claim has a text for each recipient that is left');
	    SELECT count(*)
	    FROM sendcampaign.claim
	    WHERE run_id = $run_id AND cardinality(texts) <> cardinality(list_user_ids)
	SQL
	sql($node, 'SELECT sendcampaign.wake()');
	all_once($job, 'given back');
}

# The campaign is called again with another text, and the worker is killed before
# what was in doubt is settled.
my @changes = (
	[ 'a text becomes personal', 'Hi all', 'Hi {{name}}' ],
	[ 'a text changes', 'Hi all', 'Hi there' ],
	[ 'a personal text changes', 'Hi {{name}}', '{{name}}, hi {{name}}' ]);

# Changes the token of the newest group.
sub set_token
{
	my $token = shift;
	sql($node, <<~SQL);
	    UPDATE groups
	    SET configuration = configuration || '{"twilioAuthToken": "$token"}'
	    WHERE id = (SELECT group_id FROM ac_lists ORDER BY id DESC LIMIT 1)
	SQL
}

# Nothing is sent later here.
set_and_reload($node, 'sendcampaign.lookup_timeout', '15s');
for my $case (@changes)
{
	my ($what, $old, $new) = @$case;
	my $campaign = personal($old, undef);
	my $job = start_unanswered($campaign);
	kill_worker($node);
	$twilio->set('hold' => 0, 'hold-after' => 0);
	set_token('wrong');
	wait_until($node, 'SELECT sendcampaign.wake() >= 0');
	is(wait_for_run($node, $job)->{state}, 'failed', "$what: the account is refused");
	set_token($LocalTwilio::TOKEN);
	sql($node, qq(UPDATE ac_campaigns SET data = '{"message": "$new"}' WHERE id = $campaign));
	$twilio->set('fault:list-500' => 100);
	start_campaign($node, $campaign, job => $job);
	wait_until($node, "SELECT state = 'running' FROM sendcampaign.run WHERE job_id = $job");
	kill_worker($node);
	$twilio->set('fault:list-500' => 0);
	my $offset = -s $node->logfile;
	wait_until($node, 'SELECT sendcampaign.wake() >= 0');

	# the run ends, or the server crashes, which must not happen
	my $crash = qr/terminated by signal/;
	my $assert_finished = <<~SQL;
	    DO \$\$ BEGIN
	        ASSERT (SELECT finished_at IS NOT NULL FROM sendcampaign.run WHERE job_id = $job);
	    END \$\$
	SQL
	poll(sub {
		return 1 if slurp_file($node->logfile, $offset) =~ $crash;
		return ($node->psql('postgres', $assert_finished) // 1) == 0;
	});
	wait_until_up($node);
	unlike(slurp_file($node->logfile, $offset), $crash, "$what: the server stays up");
	is((grep { $_ != 1 } values %{ $twilio->count_by_phone }), 0, "$what: nobody has it twice");
	sql($node, <<~SQL);
	    UPDATE sendcampaign.run
	    SET state = 'cancelled'
	    WHERE job_id = $job AND state = 'running'
	SQL
}
set_and_reload($node, 'sendcampaign.lookup_timeout', '60s');

# Starts a campaign, and takes a backup while its first requests are in flight.
sub start_and_back_up
{
	my ($campaign, $backup) = @_;
	$twilio->set('reset' => 1, 'hold' => 1);
	my $job = start_campaign($node, $campaign);
	wait_for_flight($twilio, 5);
	$node->backup($backup);
	return $job;
}

# Starts a cluster from the backup, with lines to add to its configuration: nobody
# has a second message from it.
sub restore
{
	my ($job, $backup, $what, $conf) = @_;
	my $restored = PostgreSQL::Test::Cluster->new($backup);
	$restored->init_from_backup($node, $backup);
	# what was sent is not read back before that
	$restored->append_conf('postgresql.conf', "sendcampaign.lookup_timeout = '15s'");
	$restored->append_conf('postgresql.conf', $conf // '');
	$restored->start;
	sql($restored, 'SELECT sendcampaign.wake()');
	all_once($job, $what, $restored);
	$restored->stop;
}

# Yesterday's backup.
my @backups = (
	[ 'with a link', '{{name}}: {{link}}!', $url ],
	[ 'without a link', 'Sæl {{name}}, 😀 {{name}}', undef ]);
for my $case (@backups)
{
	my ($what, $message, $base_url) = @$case;
	my $backup = $what =~ s/\W+/_/gr;
	$users = 1500;
	my $campaign = personal($message, $base_url);
	my $job = start_and_back_up($campaign, $backup);
	# with a link the text does not matter
	name_users($campaign, 'Bob') if defined $base_url;
	$twilio->set('hold' => 0);
	wait_for_run($node, $job);
	cmp_ok(sent_with($twilio, 'Bob'), '>', 100, "$what: the values change after the backup")
	  if defined $base_url;
	all_once($job, "$what: origin");
	restore($job, $backup, "$what: restored");
}
$node->stop;

# The same in LATIN1, where the text is not Twilio's byte for byte: none of the
# requests that are held may time out.  In the restored cluster the messages of the
# earlier worker are looked up after that time.
$twilio->set('reset' => 1);
$node = new_cluster(
	'latin', $twilio,
	init => { extra => [ '--encoding=LATIN1', '--locale=C' ], allows_streaming => 1 },
	conf => <<~CONF);
    sendcampaign.request_timeout = '60s'
    sendcampaign.lookup_delay = '100ms'
    sendcampaign.lookup_timeout = '15s'
    client_encoding = 'UTF8'
CONF
$ENV{PGCLIENTENCODING} = 'UTF8';
my $campaign = personal('Sæl {{name}}: þú', undef);
my $job = start_and_back_up($campaign, 'latin1');
$twilio->set('hold' => 0);
wait_for_run($node, $job);
all_once($job, 'LATIN1: origin');
restore($job, 'latin1', 'LATIN1: restored', "sendcampaign.request_timeout = '10s'");
$node->stop;
done_testing();
