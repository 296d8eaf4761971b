# Servers on which one release of the extension can be replaced with another, as
# an administrator does it: sendcampaign 1.0 as it was released, and this one.
package Release;

use strict;
use warnings;

use Campaign;
use Cwd qw(abs_path);
use Exporter 'import';
use Fcntl qw(:flock);
use File::Basename qw(dirname);
use KeptSession;
use LocalTwilio;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;

our @EXPORT = qw(why_no_server why_no_release server_copy newer_server install_release cluster_of);

my $root = abs_path(dirname(abs_path(__FILE__)) . '/../..');

# The sources of 1.0 are in $SENDCAMPAIGN_RELEASE, where script/test has put them.
my %source_of = ('1.0' => $ENV{SENDCAMPAIGN_RELEASE}, '1.1' => $root);

# Why there is no copy of the server to install anything in, or undef.
sub why_no_server
{
	return if $ENV{TESTDIR} && -d "$ENV{TESTDIR}/install";
	return 'only script/test makes a copy of the server';
}

# Why there is nothing to update from, or undef.
sub why_no_release
{
	return why_no_server() // (
		$ENV{SENDCAMPAIGN_RELEASE}
		? undef
		: 'the sources of sendcampaign 1.0 are not in the history of this checkout');
}

sub output_of
{
	my @command = @_;
	my $output = '';
	IPC::Run::run(\@command, '>', \$output) or die "failed: @command";
	chomp $output;
	return $output;
}

# Where a server's files are, in a folder of its own.
sub server_in
{
	my ($folder, $pg_config) = @_;
	my $bin = output_of($pg_config, '--bindir');
	return { folder => $folder, pg_config => $pg_config, path => $folder . dirname($bin) };
}

# A copy of the server that runs the tests, which can have another release.
sub server_copy
{
	my $name = shift;
	my $folder = "$ENV{TESTDIR}/tmp_check/server_$name";
	system_or_bail('cp', '-al', "$ENV{TESTDIR}/install", $folder);
	return server_in($folder, $ENV{PG_CONFIG});
}

# A copy of another server, by its pg_config; it finds its files relative to its program.
sub newer_server
{
	my $pg_config = shift;
	my $folder = "$ENV{TESTDIR}/tmp_check/newer_server";
	for my $kind (qw(bindir pkglibdir sharedir))
	{
		my $path = output_of($pg_config, "--$kind");
		system_or_bail('mkdir', '-p', $folder . $path);
		system_or_bail('cp', '-RL', "$path/.", $folder . $path);
	}
	return server_in($folder, $pg_config);
}

# Installs a release in a copy of a server, over another one that may be there and
# running.  Tests that need the same build wait for each other.
sub install_release
{
	my ($server, $version) = @_;
	return install_from($server, $root)
	  if $version eq '1.1' && $server->{pg_config} eq $ENV{PG_CONFIG};

	my $major = output_of($server->{pg_config}, '--version') =~ /(\d+)/ ? $1 : die;
	my $build = "$ENV{TESTDIR}/tmp_check/build_$version.$major";

	open my $lock, '>', "$build.lock" or die "could not create $build.lock: $!";
	flock $lock, LOCK_EX or die "could not lock $build.lock: $!";
	if (!-e $build)
	{
		# what is built for one server is of no use for another
		system_or_bail('cp', '-R', $source_of{$version}, "$build.new");
		make($server, "$build.new", 'clean');
		make($server, "$build.new", 'all');
		rename "$build.new", $build or die "could not rename $build.new: $!";
	}
	install_from($server, $build);
	close $lock;
}

sub install_from
{
	my ($server, $build) = @_;
	make($server, $build, "DESTDIR=$server->{folder}", 'install');
	# a session that has loaded the library before it was replaced keeps that one
	KeptSession::close_all();
}

sub make
{
	my ($server, $folder, @arguments) = @_;
	return system_or_bail(
		'make', '-s', '-C', $folder,
		"PG_CONFIG=$server->{pg_config}",
		'COPT=-DSENDCAMPAIGN_DEBUG_POINTS',
		'with_llvm=no', @arguments);
}

# A running cluster of such a server.  Options as for new_cluster().
sub cluster_of
{
	my ($server, $name, $twilio, %arg) = @_;
	return new_cluster($name, $twilio, %arg, node => { install_path => $server->{path} });
}

1;
