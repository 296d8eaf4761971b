# An application on Node.js, with Sequelize.
package Application;

use strict;
use warnings;

use Cwd qw(getcwd);
use Exporter 'import';
use File::Copy qw(copy);
use FindBin;
use JSON::PP qw(decode_json encode_json);
use LocalTwilio;
use PostgreSQL::Test::Utils;
use Test::More;

our @EXPORT = qw(run_application);

# Installs its packages, and runs a file of test/node with the configuration of a
# group, to which more may be added.  Returns what it has seen, which it prints as
# JSON.
sub run_application
{
	my ($node, $program, %configuration) = @_;
	my $dir = PostgreSQL::Test::Utils::tempdir();
	for my $file (qw(package.json package-lock.json), $program)
	{
		copy("$FindBin::RealBin/../node/$file", "$dir/$file") or die "could not copy $file: $!";
	}
	my $before = getcwd();
	chdir $dir;
	local $ENV{npm_config_cache} = "$dir/cache";
	command_ok([ 'npm', 'ci', '--no-audit', '--no-fund', '--loglevel=error' ],
		'its packages are installed');
	local $ENV{PGHOST} = $node->host;
	local $ENV{PGPORT} = $node->port;
	local $ENV{CONFIGURATION} = encode_json({
		twilioAccountSid => $LocalTwilio::ACCOUNT,
		twilioAuthToken => $LocalTwilio::TOKEN,
		twilioFromSmsNumber => $LocalTwilio::SENDER,
		%configuration
	});
	my ($output, $errors) = run_command([ 'node', $program ]);
	chdir $before;
	is($errors, '', 'the application has no errors');
	return decode_json($output || '{}');
}

1;
