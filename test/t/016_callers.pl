# Whoever calls, and from wherever: whose rights it is sent with.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../perl";
use Campaign;
use LocalTwilio;
use PostgreSQL::Test::Utils;
use Test::More;

my $twilio = LocalTwilio->start;
my $node = new_cluster('callers', $twilio, conf => "max_worker_processes = 20\n");

# Updates of ac_list_users tell who makes them.
$node->safe_psql('postgres', q{
	CREATE ROLE sender LOGIN;
	CREATE ROLE nobody LOGIN;
	SET ROLE app;
	GRANT SELECT ON groups, ac_lists, ac_campaigns TO sender;
	GRANT SELECT, UPDATE ON ac_list_users, ac_background_jobs TO sender;
	GRANT INSERT ON ac_background_jobs TO sender;
	GRANT USAGE ON SEQUENCE ac_background_jobs_id_seq TO sender;
	CREATE TABLE updates (list_id integer, who name, session name);
	GRANT INSERT ON updates TO PUBLIC;
	CREATE FUNCTION see() RETURNS trigger LANGUAGE plpgsql AS
		$$ BEGIN INSERT INTO updates VALUES (NEW.ac_list_id, current_user, session_user); RETURN NEW; END $$;
	CREATE TRIGGER see AFTER UPDATE ON ac_list_users FOR EACH ROW EXECUTE FUNCTION see()});

# The run of $job sends with the rights of $role and nobody else's.
sub sent_as
{
	my ($job, $role, $name) = @_;
	is_deeply(wait_for_run($node, $job),
		{ state => 'completed', total => 2, sent => 2, failed => 0, skipped => 0, in_doubt => 0, error => '' },
		"$name: sent");
	is($node->safe_psql('postgres', "SELECT role FROM sendcampaign.run WHERE job_id = $job"), $role, "$name: the run's role");
	is($node->safe_psql('postgres', qq{SELECT DISTINCT who, session FROM updates
		WHERE list_id = (SELECT list_id FROM sendcampaign.run WHERE job_id = $job)}), "$role|$role", "$name: who updates");
}

sub new_campaign { return create_campaign($node, users => 2, message => $_[0]); }

sent_as(start_campaign($node, new_campaign('owner')), 'app', 'the owner of the tables');
sent_as(start_campaign($node, new_campaign('sender'), role => 'sender'), 'sender', 'a role with rights');

# a superuser: as the owner of the tables
$twilio->set(hold => 1);
my $job = $node->safe_psql('postgres', 'SELECT send_campaign(' . new_campaign('superuser') . ')');
wait_for_flight($twilio, 2);
is($node->safe_psql('postgres',
		"SELECT usename, datname, backend_type FROM pg_stat_activity WHERE backend_type ~ '^sendcampaign'"),
	'app|postgres|sendcampaign worker', 'a superuser: the worker as pg_stat_activity shows it');
$twilio->set(hold => 0);
sent_as($job, 'app', 'a superuser');
my $campaign = new_campaign('other owner');
$node->safe_psql('postgres', 'ALTER TABLE ac_list_users OWNER TO sender');
sent_as($node->safe_psql('postgres', "SELECT send_campaign($campaign)"), 'sender', 'a superuser, other owner');
$node->safe_psql('postgres', q{ALTER TABLE ac_list_users OWNER TO app; GRANT SELECT, UPDATE ON ac_list_users TO sender});

# SECURITY DEFINER: the definer's
$node->safe_psql('postgres', q{
	SET ROLE app;
	CREATE FUNCTION send_as_app(campaign bigint) RETURNS bigint LANGUAGE sql SECURITY DEFINER
		SET search_path = public, pg_temp AS 'SELECT send_campaign(campaign)'});
is(sql_error($node, 'SET ROLE nobody; SELECT send_campaign(1)')->{sqlstate}, '42501', 'a role without rights is refused');
$job = $node->safe_psql('postgres', 'SET ROLE nobody; SELECT send_as_app(' . new_campaign('definer') . ')');
sent_as($job, 'app', 'SECURITY DEFINER');

# a DO block, in a session that connected as the role
$campaign = new_campaign('do');
$node->safe_psql('postgres', "DO \$\$ BEGIN PERFORM send_campaign($campaign); END \$\$", extra_params => [ '-U', 'sender' ]);
sent_as($node->safe_psql('postgres', "SELECT job_id FROM sendcampaign.run WHERE campaign_id = $campaign"), 'sender', 'a DO block');

# Triggers: each new campaign that says "now" is sent, in the same transaction
# or, deferred, at its end.
$node->safe_psql('postgres', q{
	SET ROLE app;
	CREATE FUNCTION send_now() RETURNS trigger LANGUAGE plpgsql AS
		$$ BEGIN PERFORM send_campaign(NEW.id); RETURN NEW; END $$;
	CREATE TRIGGER send_now AFTER INSERT ON ac_campaigns FOR EACH ROW
		WHEN (NEW.data->>'message' = 'now') EXECUTE FUNCTION send_now();
	CREATE CONSTRAINT TRIGGER send_at_end AFTER INSERT ON ac_campaigns DEFERRABLE INITIALLY DEFERRED
		FOR EACH ROW WHEN (NEW.data->>'message' = 'at the end') EXECUTE FUNCTION send_now()});
for my $text ('now', 'at the end')
{
	$campaign = new_campaign($text);
	$node->poll_query_until('postgres', "SELECT count(*) = 1 FROM sendcampaign.run WHERE campaign_id = $campaign");
	sent_as($node->safe_psql('postgres', "SELECT job_id FROM sendcampaign.run WHERE campaign_id = $campaign"),
		'app', "a trigger, $text");
}

# created and sent in one statement
my $list = $node->safe_psql('postgres', "SELECT ac_list_id FROM ac_campaigns WHERE id = $campaign");
$job = $node->safe_psql('postgres', qq{SET ROLE app; INSERT INTO ac_campaigns (ac_list_id, data)
	VALUES ($list, '{"message": "in one"}') RETURNING send_campaign(id)});
sent_as($job, 'app', 'INSERT ... RETURNING');

wait_for_no_worker($node);
is(sent_with($twilio, $_), 2, "'$_' is sent once each")
  for 'owner', 'sender', 'superuser', 'other owner', 'definer', 'do', 'now', 'at the end', 'in one';
$node->stop;
done_testing();
