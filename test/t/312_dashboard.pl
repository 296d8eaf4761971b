# examples/grafana/sendcampaign.json has the structure that Grafana documents, with
# panels that do not overlap; each metric that the dashboard and the alerts use is
# one of queries.yaml, and each alert is in the documentation.
use strict;
use warnings;
use FindBin;
use CPAN::Meta::YAML;
use JSON::PP ();
use PostgreSQL::Test::Utils;
use Test::More;

my $root = "$FindBin::RealBin/../..";
my $examples = "$root/examples";
my $dashboard = JSON::PP::decode_json(slurp_file("$examples/grafana/sendcampaign.json"));

#
# The dashboard
#

my %type_of = (
	id => qr/^$/,
	uid => qr/^[a-z0-9-]{8,40}$/,
	title => qr/^\w/,
	schemaVersion => qr/^(?:3[6-9]|[4-9]\d)$/,
	refresh => qr/^\d+[sm]$/);
like($dashboard->{$_} // '', $type_of{$_}, "the dashboard's $_") for sort keys %type_of;
is_deeply([ sort keys %{ $dashboard->{time} } ], [qw(from to)], 'it has a range of time');

my @variables = @{ $dashboard->{templating}{list} };
is( join(' ', map { "$_->{type}:$_->{name}" } @variables),
	'datasource:datasource query:database',
	'its variables');
my @panels = @{ $dashboard->{panels} };
cmp_ok(scalar @panels, '>', 10, 'it has panels');
my (%id, %taken, @overlap);
for my $panel (@panels)
{
	my $name = "panel $panel->{title}";
	ok(!$id{ $panel->{id} }++, "$name: its id is its own");
	like($panel->{type}, qr/^(?:stat|timeseries|table)$/, "$name: its type");
	is_deeply([ sort keys %{ $panel->{fieldConfig} } ], [qw(defaults overrides)], "$name: fields");
	my ($x, $y, $w, $h) = @{ $panel->{gridPos} }{qw(x y w h)};
	ok($x >= 0 && $w > 0 && $x + $w <= 24 && $h > 0, "$name: it is within the grid");
	for my $column ($x .. $x + $w - 1)
	{
		push @overlap, "$name, $column" for grep { $taken{"$column $_"}++ } $y .. $y + $h - 1;
	}
	my %ref;
	for my $target (@{ $panel->{targets} })
	{
		ok(!$ref{ $target->{refId} }++, "$name: query $target->{refId} is there once");
		isnt(!!$target->{instant}, !!$target->{range}, "$name: it is of one kind");
	}
	cmp_ok(scalar keys %ref, '>', 0, "$name: it has queries");
	my $tables = grep { ($_->{format} // '') eq 'table' } @{ $panel->{targets} };
	is( $tables,
		$panel->{type} eq 'table' ? scalar keys %ref : 0,
		"$name: the format suits its type");
}
is(join("\n", @overlap), '', 'no panels overlap');

# What a dashboard refers to: hashes anywhere that have a key
sub having
{
	my ($key, $json) = @_;
	return map { having($key, $_) } @$json if ref $json eq 'ARRAY';
	return () if ref $json ne 'HASH';
	return (exists $json->{$key} ? $json : (), map { having($key, $_) } values %$json);
}
my @sources = map { $_->{datasource} } having('datasource', $dashboard);
is(scalar(grep { $_->{type} ne 'prometheus' || $_->{uid} ne '${datasource}' } @sources),
	0, 'everything comes from the variable data source');
for my $step (having('steps', $dashboard))
{
	my ($first, @more) = map { $_->{value} } @{ $step->{steps} };
	ok(!defined $first && !grep({ !defined } @more), 'the first threshold is minus infinity');
}

#
# Metrics and alerts
#

my $queries = CPAN::Meta::YAML->read("$examples/prometheus/queries.yaml")->[0];
my (%label, %metric);
for my $query (keys %$queries)
{
	for my $column (map { %$_ } @{ $queries->{$query}{metrics} })
	{
		next if ref $column;
		my ($about) = map { $_->{$column} // () } @{ $queries->{$query}{metrics} };
		like($about->{description}, qr/^\w.*[^.]$/, "$query.$column has a description");
		if ($about->{usage} eq 'LABEL') { $label{$column} = 1 }
		else { $metric{"${query}_$column"} = 1 }
	}
}
my $alerts = CPAN::Meta::YAML->read("$examples/prometheus/alerts.yaml")->[0];
my @rules = map { @{ $_->{rules} } } @{ $alerts->{groups} };
my %used;
$used{$_} = 1 for map { $_->{expr} =~ /\bsendcampaign_\w+/g } @rules, having('expr', $dashboard);
is(join(' ', grep { !$metric{$_} } sort keys %used), '', 'metrics that are used are there');
is(join(' ', grep { !$used{$_} } sort keys %metric), '', 'metrics that are there are used');
for my $rule (@rules)
{
	my $texts = join ' ', values %{ $rule->{annotations} };
	my @unknown = grep { !$label{$_} } $texts =~ /\$labels\.(\w+)/g;
	is("@unknown", '', "$rule->{alert}: its labels are there");
	like($rule->{labels}{severity}, qr/^(?:critical|warning)$/, "$rule->{alert}: its severity");
}
my ($section) = slurp_file("$root/docs/operations.md") =~ /^## Monitoring$(.*?)^## /ms;
my @documented = $section =~ /^\| `(\w+)` \|/mg;
is_deeply([ sort @documented ], [ sort map { $_->{alert} } @rules ], 'alerts are documented');
done_testing();
