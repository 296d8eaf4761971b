# Citus: an opt-out counts on all nodes, however it was learned and wherever; a node
# that is down stops nobody, and knows what it has missed before it sends.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../perl";
use Campaign;
use Session;
use Citus;
use LocalTwilio;
use Test::More;
use Webhook;

need_citus();
my $twilio = LocalTwilio->start;
my $citus = Citus->new('opted', $twilio);
my ($coordinator, $first, $second) = $citus->nodes;
my $phone;
my $here = $citus->add_tenant('here', users => 20, on => 1);
my $there = $citus->add_tenant('there', users => 20, on => 2);
my $third = $citus->add_tenant('third', users => 20, on => 1);

# The phone numbers that are opted out on a node: "here", "there", or of all schemas.
sub opted_out
{
	my $node = shift;
	return sql($node, <<~'SQL');
		SELECT string_agg(DISTINCT phone || coalesce(' ' || schema, '') || ' ' || source, ', ')
		FROM sendcampaign.opt_out_data
		SQL
}

# All nodes have these opt-outs, and nothing waits.
sub all_have
{
	my ($expected, $name) = @_;
	for my $node ($citus->nodes_up)
	{
		ok(poll(sub { opted_out($node) eq $expected }), "$name: " . $node->name)
		  or diag opted_out($node);
	}
}

# How many changes of opt-outs to the phone are noted, on all nodes together
sub num_changes
{
	return sql($coordinator, <<~"SQL");
		SELECT sum((result->>'count')::integer) FROM sendcampaign.on_all_nodes(
			\$\$SELECT count(*) FROM sendcampaign.opt_out_change WHERE phone = '$phone'\$\$)
		SQL
}

# How many of a run's recipients were skipped.
sub skipped
{
	my ($node, $tenant) = @_;
	wait_until(
		$node,
		"SELECT state FROM sendcampaign.run WHERE schema = '$tenant->{schema}'"
		  . " AND job_id = $tenant->{job}",
		expected => 'completed');
	return sql($node, <<~"SQL");
		SELECT skipped FROM sendcampaign.run
		WHERE schema = '$tenant->{schema}' AND job_id = $tenant->{job}
		SQL
}

# A person's, from another node
$phone = "$here->{prefix}00001";
sql($coordinator, 'CREATE ROLE other_role');
sql($_, <<~'SQL') for $citus->nodes;
	SET citus.enable_ddl_propagation = off;
	GRANT USAGE ON SCHEMA sendcampaign TO other_role;
	SQL
sql($second, "SELECT sendcampaign.opt_out('$phone')", role => 'app');
all_have("$phone person", 'opt_out()');
is(sql($first, 'SELECT role_oid::regrole::text FROM sendcampaign.opt_out_data'),
	'app', 'the role is that of this node');
$citus->call($first, $here);
is(skipped($first, $here), 1, 'the home of another tenant skips it');
sql($coordinator, "SELECT sendcampaign.opt_in('$phone')", role => 'app');
all_have('', 'opt_in() elsewhere');

# It is kept that there was one, until the number is forgotten
ok(wait_until($_, 'SELECT sendcampaign.opt_outs_left()', expected => 0), 'it is told to all')
  for $citus->nodes;
is(num_changes(), 3, 'each node knows of the change');
sql($_, "SELECT sendcampaign.forget_recipient('$phone')", role => 'other_role') for $citus->nodes;
is(num_changes(), 3, 'somebody else cannot forget that');
sql($coordinator, <<~"SQL");
	SELECT * FROM sendcampaign.on_all_nodes(
		\$\$SELECT sendcampaign.forget_recipient('$phone')\$\$)
	SQL
is(num_changes(), 0, 'forget_recipient() leaves no number behind');

# What is rolled back is told to nobody
sql($first, "BEGIN; SELECT sendcampaign.opt_out('$phone'); ROLLBACK", role => 'app');

# One that Twilio has reported, and a reply
my $group = $citus->sql($first, $here, 'SELECT max(id) FROM groups');
$citus->sql($first, $here, <<~"SQL");
	UPDATE ac_list_users SET data = '{"sms": "+15005550004"}'
	WHERE id = (SELECT min(id) FROM ac_list_users);
	UPDATE groups SET configuration = configuration || '{"twilioInboundUrl": "$URL"}'
	SQL
my $next = $citus->add_campaign($here);
$citus->call($first, $next);
is(skipped($first, $next), 0, 'nobody is skipped any more');
all_have('+15005550004 here twilio', 'error 21610');
create_webhook_role($coordinator);

for my $node ($first, $second)
{
	sql($node, <<~'SQL');
		SET citus.enable_ddl_propagation = off;
		GRANT USAGE ON SCHEMA sendcampaign TO webhook;
		GRANT EXECUTE ON FUNCTION sendcampaign.receive(text, text, text) TO webhook;
		SQL
}
my $answered = "$here->{prefix}00002";
is(receive($first, inbound_form('SM' . '1' x 32, $answered, 'STOP')), 'reply', 'a reply');
my $three = "+15005550004 here twilio, $answered here reply";
all_have($three, 'STOP');
is(receive($first, inbound_form('SM' . '2' x 32, $answered, 'START')), 'reply', 'another one');
all_have('+15005550004 here twilio', 'START');

# A schema that moves takes them along: they are there already
$citus->move($here, 2);
$next = $citus->add_campaign($here);
$citus->call($second, $next);
is(skipped($second, $next), 1, 'its new home skips it');

# A node that is down.  Nobody tells it before it asks.
$citus->kill_node($second);
$phone = "$there->{prefix}00001";
sql($first, "SELECT sendcampaign.opt_out('$phone')", role => 'app');
$citus->sql($first, $here, "SELECT sendcampaign.opt_in('+15005550004', $group)");
ok( poll(sub {
		sql($first, 'SELECT max(failures) FROM sendcampaign.opt_out_node') > 0;
	}),
	'a node cannot be told');
ok(poll(sub { opted_out($coordinator) eq opted_out($first) }), 'others can');
my $left = 'SELECT sendcampaign.opt_outs_left()';
cmp_ok(sql($first, $left), '>', 0, 'something is left to be told');
$citus->call($first, $third);
is(skipped($first, $third), 0, 'meanwhile, a campaign is sent');
sql($_, <<~'SQL') for $first, $coordinator;
	UPDATE sendcampaign.opt_out_node SET retry_at = 'infinity' WHERE failures > 0
	SQL
$second->start;
$citus->call($second, $there);
is(skipped($second, $there), 1, 'it knows what it has missed before it sends');
ok(poll(sub { sql($first, $left) == 0 }), 'nothing is left');
ok(wait_until($_, <<~'SQL', expected => 0), 'no process stays') for $citus->nodes;
	SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'sendcampaign courier'
	SQL

# Somebody has locked an opt-out: the others are told all the same
my ($locked, $free) = ('+15558880001', '+15558880002');
my $session = Session->open($first);
$session->query("SET ROLE app; BEGIN; SELECT sendcampaign.opt_out('$locked')");
sql($coordinator, "SELECT sendcampaign.opt_out('$_')", role => 'app') for $locked, $free;
my $has_free = "SELECT count(*) FROM sendcampaign.opt_out_data WHERE phone = '$free'";
ok(wait_until($_, $has_free, expected => 1), 'beside a locked one: told') for $first, $second;
$session->query('ROLLBACK');
ok(wait_until($first, $has_free =~ s/\Q$free/$locked/r, expected => 1), 'and then, that one');
$session->close;
sql($first, "SELECT sendcampaign.opt_in('$_')", role => 'app') for $locked, $free;
ok(wait_until($_, <<~'SQL', expected => 0), 'all are told') for $citus->nodes;
	SELECT sendcampaign.opt_outs_left()
	SQL

# A node that is added
my $number = $citus->add_node;
my $added = $citus->node($number);
my $last = $citus->add_tenant('last', users => 20, on => $number, like => $there);
$citus->call($added, $last);
is(skipped($added, $last), 1, 'a node that is added has them before it sends');

# A change that was made before another one does not undo it
my $old = <<~"SQL";
	SELECT sendcampaign.take_opt_outs(jsonb_build_array(jsonb_build_object(
		'phone', '$phone', 'role', 'app', 'opted_out', false, 'changed_at', '2020-01-01')))
	SQL
my $roles = <<~"SQL";
	SELECT string_agg(role, ' ' ORDER BY role) FROM sendcampaign.opt_out_data
	WHERE phone = '$phone'
	SQL
is(sql($added, $old), '[]', 'an older change');
is(sql($added, $roles), 'app', '... is not taken');
is(sql($added, $old =~ s/app/nobody/r), '[]', 'one of another role');
is(sql($added, $roles), 'app', '... is taken for that role');
my $change = $old =~ s/app/nobody/r =~ s/false/true, 'source', 'person', 'created_at', now()/r;
$change =~ s/'2020-01-01'/now()/;
is(sql($added, $change), '[]', 'an opt-out of a role that is not here');
is(sql($added, $change =~ s/nobody/somebody/r), '[]', 'and of another one');
is(sql($added, $roles), 'app nobody somebody', '... are taken');
sql($added, "SELECT sendcampaign.opt_in('$phone')", role => 'app');
is(sql($added, "SELECT count(*) FROM sendcampaign.opt_out_data WHERE phone = '$phone'"),
	2, 'only their members can opt it in again');

# All of this is the owner's
my %refused = (
	'take_opt_outs' => "take_opt_outs('[]')",
	'share_opt_outs' => 'share_opt_outs()',
	'fetch_opt_outs' => 'fetch_opt_outs()',
	'opt_outs_left' => 'opt_outs_left()',
	'opt_outs_are_due' => 'opt_outs_are_due()',
	'tell_opt_outs' => 'tell_opt_outs()',
	'waiting_opt_outs' => "waiting_opt_outs(NULL, 1, 'infinity')",
	'known_opt_outs' => 'known_opt_outs(NULL, 1)',
	'mark_told' => "mark_told(1, '[]', '[]')",
	'node_failed' => "node_failed(1, '')",
	'add_opt_out_nodes' => 'add_opt_out_nodes()',
	'forget_removed_nodes' => 'forget_removed_nodes()',
	'is_known_to_all' => 'is_known_to_all(NULL)',
	'store_node' => 'store_node(NULL)',
	'next_opt_outs' => "next_opt_outs(NULL, 'infinity')",
	'take_answer' => "take_answer(NULL, '[]', '[]')",
	'nodes_to_tell' => "nodes_to_tell(NULL, 'infinity')",
	'waiting_kinds' => 'waiting_kinds()',
	'keep_waiting' => "keep_waiting('{}', 1)",
	'start_courier' => 'start_courier()');
for my $function (sort keys %refused)
{
	my $error = call_error($first, $refused{$function});
	is($error->{message}, "permission denied for function $function", "$function(): refused");
	is($error->{detail}, 'It reads and writes the opt-outs of all roles.', "$function(): detail");
	is( $error->{hint},
		'Have a superuser or the owner of the extension call it.',
		"$function(): hint");
}
for my $table (qw(opt_out_change opt_out_node))
{
	is(sql_error($first, "SELECT FROM sendcampaign.$table", role => 'app')->{sqlstate},
		'42501', "$table cannot be read");
}

# An error of the courier is logged, and what it had to tell is told later
sql($first, <<~'SQL');
	SET citus.enable_ddl_propagation = off;
	ALTER FUNCTION sendcampaign.tell_opt_outs RENAME TO away;
	SQL
sql($first, "SELECT sendcampaign.opt_out('$here->{prefix}00009')", role => 'app');
my $failed = qr/LOG:  sendcampaign: could not share opt-outs with other nodes: function /;
ok(poll(sub { log_of($first) =~ $failed }), 'a courier that fails says why');
sql($first, <<~'SQL');
	SET citus.enable_ddl_propagation = off;
	ALTER FUNCTION sendcampaign.away RENAME TO tell_opt_outs;
	SQL
ok(poll(sub { opted_out($added) =~ /\Q$here->{prefix}\E00009/ }), 'and goes on');

# What has been deleted is forgotten with the runs of that time, on this node
my $deleted = 'SELECT count(*) FROM sendcampaign.opt_out_change WHERE NOT opted_out';
my $there_still = 'SELECT count(*) FROM sendcampaign.opt_out_change WHERE opted_out';
my $num_kept = sql($first, $there_still);
cmp_ok(sql($first, $deleted), '>', 1, 'opt-outs were deleted');
sql($first, "SELECT sendcampaign.forget('2020-01-01')");
cmp_ok(sql($first, $deleted), '>', 1, 'forget() keeps those that were deleted later');
sql($first, 'SELECT sendcampaign.forget(now())');
is(sql($first, $deleted), 0, 'forget() forgets others');
is(sql($first, $there_still), $num_kept, '... and keeps all opt-outs');

# Everything once more changes nothing
sql($first, 'SELECT sendcampaign.share_opt_outs(everything => true)');
ok(poll(sub { sql($first, 'SELECT sendcampaign.share_opt_outs()') == 0 }), 'everything, again');
$citus->stop;
done_testing();
