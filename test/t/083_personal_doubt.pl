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
my $node = new_cluster('personal_doubt', $twilio, init => { extra => [ '--encoding=UTF8', '--locale=C' ], allows_streaming => 1 }, conf => qq{
	restart_after_crash = on
	sendcampaign.request_timeout = '1s'
	sendcampaign.lookup_delay = '100ms'
	sendcampaign.lookup_timeout = '15s'
});

# Each user's name is the word with a number.
sub name_users
{
	my ($campaign, $word, $db_node, $db) = @_;
	($db_node || $node)->safe_psql($db || 'postgres', qq{UPDATE ac_list_users SET data = data || jsonb_build_object('name', '$word ' || id)
		WHERE ac_list_id = (SELECT ac_list_id FROM ac_campaigns WHERE id = $campaign)});
}

sub personal
{
	my ($message, $base_url, %arg) = @_;
	my $campaign = create_campaign($node, users => $users, message => $message, base_url => $base_url, %arg);
	name_users($campaign, 'Ann', $node, $arg{db});
	return $campaign;
}

# Everybody has one message, and the tables have its SID.
sub all_once
{
	my ($job, $what, %arg) = @_;
	my $in = $arg{node} || $node;
	my $db = $arg{db} || 'postgres';
	my $all = $arg{users} || $users;
	my $run = wait_for_run($in, $job, db => $db);
	my $count = $twilio->count_by_phone;
	my %sid = map { $_->{to} => $_->{sid} } $twilio->ledger;
	is("$run->{state} $run->{sent} $run->{error}", "completed $all ", "$what: all are sent");
	is(scalar(keys %$count) . ' ' . (grep { $_ != 1 } values %$count), "$all 0", "$what: each once");
	is((grep { my ($phone, $sid) = split /\|/; $sid ne ($sid{$phone} // '') } split /\n/, $in->safe_psql($db,
		"SELECT phone, sid FROM sendcampaign.message WHERE job_id = $job")), 0, "$what: every SID is right");
	is($in->safe_psql($db, qq{SELECT (SELECT count(*) FROM sendcampaign.claim WHERE run_id = ${\ run_of($job)}),
		count(*) FILTER (WHERE data->>'sentCount' = '1') FROM ac_list_users
		WHERE ac_list_id = (SELECT list_id FROM sendcampaign.run WHERE job_id = $job)}), "0|$all", "$what: counted once, nothing claimed");
}

# answers are lost
for my $case ([ 'a link in the middle', 'Go {{name}}: {{link}} {{name}}!', $url ], [ 'a link at the end', 'Go {{name}}', $url ],
	[ 'no link', 'Góðan dag {{name}} 😀', undef ], [ 'a link before a digit', '{{link}}{{digit|7}} {{name}}', $url ])
{
	my ($what, $message, $base_url) = @$case;
	$twilio->set('reset' => 1, 'fault:drop-after' => 30, 'fault:drop-before' => 30);
	my $job = start_campaign($node, personal($message, $base_url));
	all_once($job, $what);
	cmp_ok($twilio->stats->{lists}, '>', 5, "$what: some were looked up");
	is((grep { my $body = $_->{body}; () = $body =~ /yu=/g; (() = $body =~ /yu=/g) != (defined $base_url ? 1 : 0) } $twilio->ledger), 0,
		"$what: as many links as there should be");
	$twilio->set('fault:drop-after' => 0, 'fault:drop-before' => 0);
}

# the worker is killed; the values change before it is back
SKIP:
{
	skip 'the library is built without debug points', 1 if !$ENV{SENDCAMPAIGN_DEBUG_POINTS};
	for my $case ([ 'claimed', 1, $url ], [ 'answered', 2, $url ], [ 'claimed', 1, undef ], [ 'answered', 2, undef ],
		[ 'recording', 3, undef ], [ 'recorded', 4, undef ])
	{
		my ($point_name, $point, $base_url) = @$case;
		my $what = "$point_name, " . (defined $base_url ? 'with a link' : 'without a link');
		my $campaign = personal(defined $base_url ? '<{{link}}> {{name}}' : 'Hi {{name}}', $base_url);
		my $session = Session->open($node);
		$twilio->set('reset' => 1);
		$session->query("SELECT pg_advisory_lock(5005, $point)");
		my $job = start_campaign($node, $campaign);
		$node->poll_query_until('postgres', qq{SELECT count(*) > 0 FROM pg_locks
			WHERE locktype = 'advisory' AND classid = 5005 AND objid = $point AND NOT granted});
		my %before = map { $_->{to} => $_->{body} } $twilio->ledger;
		my $claimed = $node->safe_psql('postgres', qq{SELECT p, t FROM sendcampaign.claim, unnest(phones, texts) c(p, t)
			WHERE run_id = ${\ run_of($job)}}) if $point != 4;
		kill_worker($node);
		eval { $session->close };
		name_users($campaign, 'Bob');
		$node->poll_query_until('postgres', 'SELECT sendcampaign.wake() >= 0');
		all_once($job, $what);
		my %after = map { $_->{to} => $_->{body} } $twilio->ledger;
		is((grep { $after{$_} !~ ($before{$_} ? qr/Ann \d+$/ : qr/(Ann|Bob) \d+$/) } keys %after), 0, "$what: the texts are right");
		is((grep { $after{$_} !~ /Bob/ } keys %after), 0, "$what: with the new values") if $point == 1;
		next if !defined $claimed;
		my %text = map { split /\|/, $_, 2 } split /\n/, $claimed;
		is((grep { $text{$_} ne $before{$_} } keys %before), 0, "$what: the claim has the text that was sent");
	}
}

# the worker leaves with some on their way, and the others given back; then it is killed
{
	my $campaign = personal('Hi {{name}}', undef);
	$twilio->set('reset' => 1, 'hold-after' => 1, 'hold' => 1);
	my $job = start_campaign($node, $campaign);
	wait_for_flight($twilio, 5);
	$node->safe_psql('postgres', "SELECT pg_terminate_backend($_)") for worker_pids($node);
	wait_for_no_worker($node);
	$twilio->set('hold' => 0, 'hold-after' => 0);
	name_users($campaign, 'Bob');
	is($node->safe_psql('postgres', "SELECT count(*) FROM sendcampaign.claim WHERE run_id = ${\ run_of($job)} AND cardinality(texts) <> cardinality(list_user_ids)"),
		0, 'given back: the claim has a text for each recipient that is left');
	$node->safe_psql('postgres', 'SELECT sendcampaign.wake()');
	all_once($job, 'given back');
}

# called again with another text, and killed before what was in doubt is settled
for my $case ([ 'a text becomes personal', 'Hi all', 'Hi {{name}}' ], [ 'a text changes', 'Hi all', 'Hi there' ],
	[ 'a personal text changes', 'Hi {{name}}', '{{name}}, hi {{name}}' ])
{
	my ($what, $old, $new) = @$case;
	my $campaign = personal($old, undef);
	my $group = "id = (SELECT group_id FROM ac_lists ORDER BY id DESC LIMIT 1)";
	$twilio->set('reset' => 1, 'hold-after' => 1, 'hold' => 1);
	my $job = start_campaign($node, $campaign);
	wait_for_flight($twilio, 5);
	kill_worker($node);
	$twilio->set('hold' => 0, 'hold-after' => 0);
	$node->safe_psql('postgres', qq{UPDATE groups SET configuration = configuration || '{"twilioAuthToken": "wrong"}' WHERE $group});
	$node->poll_query_until('postgres', 'SELECT sendcampaign.wake() >= 0');
	is(wait_for_run($node, $job)->{state}, 'failed', "$what: the account is refused");
	$node->safe_psql('postgres', qq{UPDATE groups SET configuration = configuration || '{"twilioAuthToken": "$LocalTwilio::TOKEN"}' WHERE $group;
		UPDATE ac_campaigns SET data = '{"message": "$new"}' WHERE id = $campaign});
	$twilio->set('fault:list-500' => 100);
	start_campaign($node, $campaign, job => $job);
	$node->poll_query_until('postgres', "SELECT state = 'running' FROM sendcampaign.run WHERE job_id = $job");
	kill_worker($node);
	$twilio->set('fault:list-500' => 0);
	my $offset = -s $node->logfile;
	$node->poll_query_until('postgres', 'SELECT sendcampaign.wake() >= 0');
	poll(sub { my $log = slurp_file($node->logfile, $offset);
		$log =~ /terminated by signal/ || ($node->psql('postgres', "DO \$\$ BEGIN ASSERT (SELECT finished_at IS NOT NULL FROM sendcampaign.run WHERE job_id = $job); END \$\$") // 1) == 0 });
	wait_until_up($node);
	unlike(slurp_file($node->logfile, $offset), qr/terminated by signal/, "$what: the server stays up");
	is((grep { $_ != 1 } values %{ $twilio->count_by_phone }), 0, "$what: nobody has it twice");
	$node->safe_psql('postgres', "UPDATE sendcampaign.run SET state = 'cancelled' WHERE job_id = $job AND state = 'running'");
}

# yesterday's backup
for my $case ([ 'with a link', '{{name}}: {{link}}!', $url ], [ 'without a link', 'Sæl {{name}}, 😀 {{name}}', undef ])
{
	my ($what, $message, $base_url) = @$case;
	my $name = $what =~ s/\W+/_/gr;
	$users = 1500;
	$twilio->set('reset' => 1, 'hold' => 1);
	my $campaign = personal($message, $base_url);
	my $job = start_campaign($node, $campaign);
	wait_for_flight($twilio, 5);
	$node->backup($name);
	# with a link the text does not matter
	name_users($campaign, 'Bob') if defined $base_url;
	$twilio->set('hold' => 0);
	wait_for_run($node, $job);
	cmp_ok(sent_with($twilio, 'Bob'), '>', 100, "$what: the values have changed since the backup") if defined $base_url;
	all_once($job, "$what: origin");
	my $restored = PostgreSQL::Test::Cluster->new($name);
	$restored->init_from_backup($node, $name);
	$restored->start;
	$restored->safe_psql('postgres', 'SELECT sendcampaign.wake()');
	all_once($job, "$what: restored", node => $restored);
	$restored->stop;
}
$node->stop;

# the same in LATIN1, where the text is not Twilio's byte for byte
$twilio->set('reset' => 1);
$node = new_cluster('latin', $twilio, init => { extra => [ '--encoding=LATIN1', '--locale=C' ], allows_streaming => 1 },
	conf => "sendcampaign.request_timeout = '5s'\nsendcampaign.lookup_delay = '100ms'\nsendcampaign.lookup_timeout = '15s'\nclient_encoding = 'UTF8'\n");
$ENV{PGCLIENTENCODING} = 'UTF8';
$twilio->set('hold' => 1);
my $campaign = personal('Sæl {{name}}: þú', undef);
my $job = start_campaign($node, $campaign);
wait_for_flight($twilio, 5);
$node->backup('latin1');
$twilio->set('hold' => 0);
wait_for_run($node, $job);
all_once($job, 'LATIN1: origin');
my $restored = PostgreSQL::Test::Cluster->new('latin1');
$restored->init_from_backup($node, 'latin1');
$restored->start;
$restored->safe_psql('postgres', 'SELECT sendcampaign.wake()');
all_once($job, 'LATIN1: restored', node => $restored);
$restored->stop;
$node->stop;
done_testing();
