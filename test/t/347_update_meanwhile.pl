# From 1.0 to 1.1 while 1.0 sends: the library is replaced, and the extension updated,
# under runs in all states.  Nobody gets a message twice, and nobody is left out.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../perl";
use Campaign;
use LocalTwilio;
use MidRun;
use Release;
use Session;
use Test::More;
use Time::HiRes ();

plan skip_all => why_no_release() if why_no_release();
plan skip_all => '1.0 is for PostgreSQL 15 to 18'
  if PostgreSQL::Test::Cluster->new('probe')->pg_version->major > 18;

my $not_loaded = {
	sqlstate => '55000',
	message => 'the library that is loaded is sendcampaign 1.0',
	detail => 'This session, or the server, has loaded it before its file was replaced.',
	hint => 'Update the extension in a new session; if shared_preload_libraries names'
	  . ' sendcampaign, restart the server first.'
};
my $update = 'ALTER EXTENSION sendcampaign UPDATE';

sub version_in
{
	my ($node, $db) = @_;
	return sql($node,
		q{SELECT extversion FROM pg_extension WHERE extname = 'sendcampaign'}, db => $db);
}

# Updates the extension of a database; returns the seconds.
sub update
{
	my ($node, $db) = @_;
	my $begin = Time::HiRes::time();
	sql($node, $update, db => $db);
	return Time::HiRes::time() - $begin;
}

#
# Without preload: new sessions have the new library, workers keep the old one
#
my $server = server_copy('meanwhile');
install_release($server, '1.0');
my $twilio = LocalTwilio->start;
my $node = cluster_of($server, 'meanwhile', $twilio, conf => $patient_conf);
is(version_in($node), '1.0', 'the extension is the released one');

my @runs = make_states($node);

# A session of its own, with the old library
my $own = LocalTwilio->start;
my @own = (db => 'own');
clone_database($node, 'own', $own);
my $session = Session->open($node, 'own');
my $campaign = create_campaign($node, users => 20, @own);
$session->query('SET ROLE app; PREPARE send AS SELECT send_campaign($1)');
my $job = $session->query("EXECUTE send($campaign)");
sent_once($node, $own, $campaign, $job, 'before', @own);

install_release($server, '1.1');
my $longest = 0;
for my $name (state_names())
{
	my $took = update($node, $name);
	$longest = $took if $took > $longest;
	is(version_in($node, $name), '1.1', "$name: updated in mid-run");
}
is(ended($node), '', 'all runs were in progress');
note sprintf 'the longest update took %.2f s', $longest;
cmp_ok($longest, '<', seconds_here($node, 5), 'no update waits for long');
end_states($node, @runs);
all_sent_once($node, 'updated', @runs);

# A session that has the old library
$session->query("RESET ROLE; $update");
like(
	$session->errors,
	qr/ERROR:  $not_loaded->{message}/,
	'a session with the old library cannot update');
is(version_in($node, 'own'), '1.0', 'and leaves the extension as it is');
update($node, 'own');
$campaign = create_campaign($node, users => 20, @own);
$job = $session->query("SET ROLE app; EXECUTE send($campaign)");
sent_once($node, $own, $campaign, $job, 'a prepared statement of the old library', @own);
$session->close;

# Again and again, at other moments of a run: the old worker records while the update
# changes what it writes to.
my $updates = $ENV{UPDATES} // 3;
for my $i (1 .. $updates)
{
	my $db = "again_$i";
	my $its_twilio = LocalTwilio->start;
	$its_twilio->set(latency => 20);
	install_release($server, '1.0');
	clone_database($node, $db, $its_twilio);
	my $its_campaign = create_campaign($node, users => 3000, db => $db);
	my $its_job = start_campaign($node, $its_campaign, db => $db);
	my $moment = 1 + int(1500 * $i / $updates);
	wait_until($node, "SELECT sent >= $moment FROM sendcampaign.run WHERE job_id = $its_job",
		db => $db);
	install_release($server, '1.1');
	update($node, $db);
	sent_once($node, $its_twilio, $its_campaign, $its_job, "update $i", db => $db);
}

# What was made by 1.0 can be dropped and created again.
sql($node, 'DROP EXTENSION sendcampaign');
install_extension($node);
is(version_in($node), '1.1', 'created again');
$campaign = create_campaign($node, users => 20);
$job = start_campaign($node, $campaign);
sent_once($node, $twilio, $campaign, $job, 'created again');
$node->stop;
is(worker_errors($node), '', 'no worker met an error');

#
# With preload: the old library until the server is started again
#
$server = server_copy('preloaded');
install_release($server, '1.0');
$node = cluster_of($server, 'preloaded', $twilio, conf => <<~"CONF");
	$patient_conf
	shared_preload_libraries = 'sendcampaign'
	sendcampaign.launcher_interval = '1s'
	CONF
@runs = make_states($node);
install_release($server, '1.1');
is_deeply(sql_error($node, $update, db => 'sending'),
	$not_loaded, 'a server that has the old library cannot update');
is(version_in($node, 'sending'), '1.0', 'and leaves the extension as it is');
is_deeply(sql_error($node, 'DROP EXTENSION sendcampaign; CREATE EXTENSION sendcampaign'),
	$not_loaded, 'nor can the new one be created');
$node->restart;

# Half of the databases keep the objects of 1.0, and are updated in the end.
my (@now, @later);
push @{ @now > @later ? \@later : \@now }, $_ for state_names();
update($node, $_) for @now;
is(ended($node), '', 'all runs were in progress');
end_states($node, @runs);
all_sent_once($node, 'restarted', @runs);
is(version_in($node, $_), '1.0', "$_: still the released one") for @later;
update($node, $_) for @later;
$node->stop;
# the launcher's scanners do not wait while a database is copied
is(join("\n", grep { !/lock timeout/ } split /\n/, worker_errors($node)),
	'', 'no worker of the server that was preloaded met an error');
done_testing();
