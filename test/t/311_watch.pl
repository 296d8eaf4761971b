# script/watch: the progress of runs on terminals of several sizes, with UTF-8 and
# without; errors that move the cursor; how it ends.
use strict;
use warnings;
use utf8;
use FindBin;
use lib "$FindBin::RealBin/../perl";
use Campaign;
use Encode qw(decode);
use IPC::Run ();
use LocalTwilio;
use PostgreSQL::Test::Utils;
use Test::More;

plan skip_all => 'IO::Pty is not installed' if !eval { require IO::Pty; 1 };

my $watch = "$FindBin::RealBin/../../script/watch";
my $twilio = LocalTwilio->start;
my $node = new_cluster('watch', $twilio, conf => 'sendcampaign.max_concurrency = 10');
my @connect = ('-h', $node->host, '-p', $node->port, '-U', 'app');

# What it prints where that is not a terminal: output, errors, status
sub printed
{
	my ($arguments, %env) = @_;
	my ($out, $err) = ('', '');
	local @ENV{ 'LC_ALL', keys %env } = ('C.UTF-8', values %env);
	IPC::Run::run([ $watch, @connect, @$arguments ], '<', \undef, '>', \$out, '2>', \$err);
	return ($out, $err, $? >> 8);
}

#
# Printed once
#

my ($out, $err, $status) = printed(['postgres']);
is("$err$status", 0, 'it ends without an error');
like($out, qr/^Campaigns of database postgres, as role app, at \d\d:\d\d:\d\d\n/, 'its heading');
like($out, qr/No campaign has been sent yet/, 'there is nothing to show');
unlike($out, qr/\e/, 'it moves no cursor');

my $done = run_campaign($node, create_campaign($node, users => 20))->{job};
$twilio->set(hold => 1);
my $campaign = create_campaign($node, users => 40);
my $job = start_campaign($node, $campaign);
wait_for_flight($twilio, 10);
my $slept = start_campaign($node, create_campaign($node, users => 5));
sql($node, <<~SQL);
	UPDATE sendcampaign.run_data
	SET error = E'evil \\x1b[2J\\x1b[31m\\u009b31m\\r\\n\\t\\u00de\\u00f3r '
		|| repeat('and so on ', 20)
	WHERE job_id = $done
	SQL
($out, $err, $status) = printed(['postgres']);
my $text = decode('UTF-8', $out);
is("$err$status", 0, 'with runs, it ends without an error');
like($text, qr/^$job +running +░{20}   0% +40 +0 +0 /m, 'a run that is being sent');
like($text, qr/^$done +completed +█{20} 100% +20 +20 +0 /m, 'one that has ended');
cmp_ok(index($text, "\n$job "), '<', index($text, "\n$done "), 'those not ended come first');
like($text, qr/^$done: evil +\[2J +\[31m 31m Þór and so on/m, 'an error, of which only text');
unlike($text, qr/[\x00-\x09\x0b-\x1f\x7f-\x9f]/, 'no other control characters');
is(join("\n", grep { length > 80 } split /\n/, $text), '', 'no line is longer than 80');
unlike($text, qr/in doubt/, 'some columns need a wider terminal');
($out) = printed(['postgres'], COLUMNS => 120);
like(
	$out,
	qr/^job campaign +state .* delivered skipped in doubt +per s +left/m,
	'such as one of 120');
($out) = printed(['postgres'], LC_ALL => 'C');
unlike($out, qr/[^\n -~]/, 'without UTF-8, all is ASCII');
like($out, qr/^$done +completed #{20} 100%/m, 'the bar, too');
like($out, qr/^$job +running +\.{20}   0%/m, 'and one that is empty');

# A database in another encoding, where jobs of two schemas have one number
sql($node, <<~'SQL');
	CREATE DATABASE latin TEMPLATE template0 ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C'
	SQL
install_extension($node, 'latin');
start_campaign($node, create_campaign($node, db => 'latin', users => 1), db => 'latin');
sql($node, <<~'SQL', db => 'latin');
	CREATE SCHEMA other AUTHORIZATION app;
	SET ROLE app;
	SET sendcampaign.schema = 'other';
	SELECT sendcampaign.create_tables('other');
	INSERT INTO other.groups SELECT * FROM public.groups;
	INSERT INTO other.ac_lists (group_id) VALUES (1);
	INSERT INTO other.ac_campaigns (ac_list_id, data) VALUES (1, '{"message": "Hi"}');
	SELECT send_campaign(1)
	SQL
for my $charset ('C.UTF-8', 'C')
{
	($out, $err, $status) = printed(['latin'], LC_ALL => $charset);
	is("$err$status", 0, "LATIN1 on a terminal with $charset");
	like($out, qr/^other\.1 .* [#.]{20} /m, 'the schema tells which job it is');
}

#
# On a terminal
#

# Starts it on a terminal of this size.
sub open_terminal
{
	my ($rows, $columns, @arguments) = @_;
	my $pty = IO::Pty->new;
	my $slave = $pty->slave;
	$slave->set_winsize($rows, $columns, 0, 0);
	my $pid = fork // die "fork: $!";
	if (!$pid)
	{
		local $SIG{INT} = 'DEFAULT';    # it is ignored if the tests run in the background
		$pty->make_slave_controlling_terminal;
		open STDIN, '<&', $slave or die;
		open STDOUT, '>&', $slave or die;
		open STDERR, '>&', $slave or die;
		exec 'env', '-u', 'PGAPPNAME', 'TERM=xterm', 'LC_ALL=C.UTF-8', 'INTERVAL=0.2', $watch,
		  @connect, @arguments;
	}
	$pty->blocking(0);
	return {
		pty => $pty,
		slave => $slave,
		pid => $pid,
		rows => $rows,
		columns => $columns,
		seen => ''
	};
}

# Reads what has come; returns the last page that is complete, as lines.
sub last_page
{
	my $terminal = shift;
	while (sysread $terminal->{pty}, my $bytes, 65536) { $terminal->{seen} .= $bytes }
	my (undef, @pages) = split /\e\[H/, $terminal->{seen};
	pop @pages if @pages > 1;
	my $page = decode('UTF-8', $pages[-1] // '');
	return map { s/\e\[[KJ]//gr } split /\r?\n/, $page;
}

# Waits until a page has a line like that.
sub shows
{
	my ($terminal, $line, $name) = @_;
	my @page;
	my $ok = poll(sub {
		@page = last_page($terminal);
		grep { /$line/ } @page;
	});
	ok($ok, $name) or diag join "\n", @page;
	cmp_ok(scalar @page, '<=', $terminal->{rows}, 'the page is not too high');
	is(join("\n", grep { length > $terminal->{columns} } @page), '', 'nor too wide');
	is(join("\n", grep { /\e/ } @page), '', 'nothing else moves the cursor');
}

# It has ended; its status is that.
sub ended
{
	my ($terminal, $expected, $name) = @_;
	my $there = 1;
	poll(sub { last_page($terminal); !($there = waitpid($terminal->{pid}, 1) == 0) });
	my $status = $there ? 'runs' : $? >> 8;
	last_page($terminal);
	is($status, $expected, "$name: its status") or diag substr $terminal->{seen}, -500;
	like(
		$terminal->{seen},
		qr/^(?:(?!\e).)*\e\[\?1049h\e\[\?25l\e\[\?7l/s,
		'it had a screen of its own');
	like(
		$terminal->{seen},
		qr/\e\[\?7h\e\[\?25h\e\[\?1049l(?:(?!\e).)*$/s,
		'it has left that as it was');
	close $terminal->{pty};
}

sub gone
{
	wait_until($node, <<~'SQL') and pass('nothing of it is left at the server');
		SELECT count(*) = 0 FROM pg_stat_activity WHERE application_name = 'sendcampaign watch'
		SQL
}

my $small = open_terminal(24, 80, 'postgres');
my $large = open_terminal(40, 120, 'postgres');
my $tiny = open_terminal(5, 30, 'postgres');
shows($small, qr/^$job +running +░{20}   0%/, 'a terminal of 80 columns');
shows($small, qr/^   .*and so on/, 'where a long error has several lines');
shows($large, qr/^$job +$campaign running .*░{20}   0%/, 'a terminal of 120 columns');
shows($tiny, qr/^\.\.\.$/, 'a terminal that has no space');
$twilio->set(hold => 0);
shows($small, qr/^$job +completed +█{20} 100%/, 'what happens is seen');
shows($large, qr/^$slept +\d+ completed +█{20} 100%/, 'on the other one, too');
ok(wait_until($node, <<~'SQL', expected => 3), 'each has one connection');
	SELECT count(*) FROM pg_stat_activity WHERE application_name = 'sendcampaign watch'
	SQL
$small->{slave}->set_winsize(24, 120, 0, 0);
$small->{columns} = 120;
shows($small, qr/ in doubt /, 'a terminal that becomes wider');
syswrite $small->{pty}, "\x03";
ended($small, 0, 'Ctrl-C');
kill 'TERM', $tiny->{pid};
ended($tiny, 143, 'SIGTERM');
wait_for_run($node, $_) for $job, $slept;
wait_for_no_worker($node);
$node->stop('fast');
ended($large, 1, 'the server is stopped');
like($large->{seen}, qr/1049l.*terminating connection/s, 'what psql says is shown');
$node->start;
gone();

#
# What cannot be shown
#

sql($node, 'CREATE DATABASE empty');
($out, $err, $status) = printed(['empty']);
is($status, 1, 'a database without the extension');
like($err, qr/ERROR: .*"sendcampaign\.progress" does not exist/, 'what is not there');
like($err, qr/^Is the extension in this database, and may your role use /m, 'and a hint');
sql($node, 'CREATE ROLE stranger LOGIN');
($out, $err, $status) = printed([ '-U', 'stranger', 'postgres' ]);
is($status, 1, 'a role without rights');
like($err, qr/permission denied for schema sendcampaign/, 'what it may not');
sql($node, 'GRANT USAGE ON SCHEMA sendcampaign TO stranger');
($out) = printed([ '-U', 'stranger', 'postgres' ]);
like($out, qr/No campaign has been sent yet, or your role may see none/,
	'a role that sees no run');
($out, $err, $status) = printed([ '-p', 1 ]);
like("$status $err", qr/^1 psql: error: connection to server /, 'no server');
($out, $err, $status) = printed(['postgres'], INTERVAL => 'soon');
is("$status $err", "1 INTERVAL is a number of seconds.\n", 'no interval');
($out, $err, $status) = printed(['postgres'], PATH => '/nonexistent');
isnt($status, 0, 'no psql');

$node->stop;
done_testing();
