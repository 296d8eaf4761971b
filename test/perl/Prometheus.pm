# Prometheus and its exporter for PostgreSQL beside a cluster: started, asked, and
# always ended.
package Prometheus;

use strict;
use warnings;

use Carp;
use File::Temp qw(tempdir);
use HTTP::Tiny;
use IPC::Run ();
use JSON::PP ();
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;

my $http = HTTP::Tiny->new(timeout => 30);
my @running;
END { my $status = $?; $_->stop for @running; $? = $status }

# The programs that are needed and are not there.
sub missing
{
	my @there = map { "$_/" } split /:/, $ENV{PATH};
	return grep {
		my $program = $_;
		!grep { -x "$_$program" } @there
	} qw(prometheus prometheus-postgres-exporter promtool);
}

# A process that listens on a port of 127.0.0.1, and answers a path when it is ready.
sub begin
{
	my ($class, $name, $ready, @command) = @_;
	my $log = "$PostgreSQL::Test::Utils::log_path/$name.log";
	my $port = PostgreSQL::Test::Cluster::get_free_port();
	my $self = bless { name => $name, log => $log, port => $port }, $class;
	$self->{url} = "http://127.0.0.1:$port";
	$self->{command} = [ @command, "--web.listen-address=127.0.0.1:$port" ];
	$self->{ready} = $ready;
	return $self->again;
}

# Starts it, or starts it again after it was stopped.
sub again
{
	my $self = shift;
	local $ENV{GOMAXPROCS} = 1;
	$self->{run} = IPC::Run::start($self->{command}, '<', \undef, '>>', $self->{log}, '2>&1');
	push @running, $self;
	for (1 .. 1000)
	{
		return $self if $http->get("$self->{url}$self->{ready}")->{success};
		last if !$self->{run}->pumpable;
		select undef, undef, undef, 0.05;
	}
	croak "$self->{name} did not start: " . slurp_file($self->{log});
}

sub stop
{
	my $self = shift;
	@running = grep { $_ != $self } @running;
	$self->{run}->kill_kill;
}

# The exporter, which runs the queries of a file as a role.
sub exporter
{
	my ($class, $node, $user, $queries) = @_;
	my $host = $node->host;
	my $port = $node->port;
	my $source = "host=$host port=$port user=$user dbname=postgres sslmode=disable";
	return $class->begin(
		'exporter', '/',
		'env', "DATA_SOURCE_NAME=$source",
		'prometheus-postgres-exporter', '--disable-default-metrics',
		'--disable-settings-metrics', '--no-collector.database',
		'--no-collector.bgwriter', "--extend.query-path=$queries");
}

# What the exporter shows, as text.
sub metrics
{
	my $self = shift;
	return $self->{metrics} = $http->get("$self->{url}/metrics")->{content};
}

# Prometheus, which asks an exporter, and evaluates rules, every second.
sub server
{
	my ($class, $exporter, $rules) = @_;
	my $dir = tempdir(CLEANUP => 1);
	PostgreSQL::Test::Utils::append_to_file("$dir/prometheus.yml", <<~"YAML");
		global:
		  scrape_interval: 1s
		  scrape_timeout: 1s
		  evaluation_interval: 1s
		rule_files: [ "$rules" ]
		scrape_configs:
		  - job_name: postgres
		    static_configs:
		      - targets: [ "127.0.0.1:$exporter->{port}" ]
		YAML
	return $class->begin(
		'prometheus', '/-/ready',
		'prometheus', "--config.file=$dir/prometheus.yml",
		"--storage.tsdb.path=$dir/data", "--web.console.templates=$dir",
		"--web.console.libraries=$dir");
}

# What its API answers; dies with its error.
sub api
{
	my ($self, $path, %form) = @_;
	my $url = "$self->{url}/api/v1/$path";
	my $answer = %form ? $http->post_form($url, \%form) : $http->get($url);
	my $json = eval { JSON::PP::decode_json($answer->{content}) } || {};
	croak "$path: " . ($json->{error} // $answer->{content})
	  if ($json->{status} // '') ne 'success';
	return $json->{data};
}

# The result of an expression: a hash of labels with "value" for each series.
sub query
{
	my ($self, $expression) = @_;
	my $data = $self->api('query', query => $expression);
	croak "not a vector: $expression" if $data->{resultType} ne 'vector';
	return map { { %{ $_->{metric} }, value => $_->{value}[1] } } @{ $data->{result} };
}

# The value of an expression with one result.
sub value
{
	my ($self, $expression) = @_;
	my @result = $self->query($expression);
	return @result == 1 ? $result[0]{value} : undef;
}

# The alerts that fire, of one name: hashes of labels, with the annotations.
sub firing
{
	my ($self, $name) = @_;
	return map { { %{ $_->{annotations} }, %{ $_->{labels} } } }
	  grep { $_->{state} eq 'firing' && $_->{labels}{alertname} eq $name }
	  @{ $self->api('alerts')->{alerts} };
}

1;
