# META.json is as PGXN's meta spec demands, and says of the extension what the
# other files say.  https://pgxn.org/spec/
use strict;
use warnings;
use FindBin;
use JSON::PP ();
use PostgreSQL::Test::Utils;
use Test::More;

my $root = "$FindBin::RealBin/../..";
my $meta = JSON::PP::decode_json(slurp_file("$root/META.json"));

my $number = qr/(?:0|[1-9][0-9]*)/;
my $semantic_version = qr/^$number\.$number\.$number(?:[-+][0-9A-Za-z.+-]+)?$/;
my $uri = qr{^[a-z][a-z0-9+.-]*:[^\s]+$};
my %licenses = map { $_ => 1 } qw(agpl_3 apache_1_1 apache_2_0 artistic_1 artistic_2 bsd
  freebsd gfdl_1_2 gfdl_1_3 gpl_1 gpl_2 gpl_3 lgpl_2_1 lgpl_3_0 mit mozilla_1_0 mozilla_1_1
  openssl perl_5 postgresql qpl_1_0 ssleay sun zlib open_source restricted unrestricted unknown);

sub is_text { return defined $_[0] && !ref $_[0] && length $_[0] }
sub is_term { return is_text($_[0]) && $_[0] =~ m{^[^/\\\s[:cntrl:]]{2,}$} }
sub is_tag { return is_text($_[0]) && $_[0] =~ m{^[^/\\[:cntrl:]]{2,255}$} }
sub is_version { return is_text($_[0]) && $_[0] =~ $semantic_version }
sub is_uri { return is_text($_[0]) && $_[0] =~ $uri }
sub is_license { return is_text($_[0]) && $licenses{ $_[0] } }
sub is_file { return is_text($_[0]) && $_[0] !~ m{^/|\.\.} && -f "$root/$_[0]" }
sub is_list { return ref $_[0] eq 'ARRAY' && @{ $_[0] } }

# One text, or a list of them, each with a name and an address
sub is_maintainer
{
	my @people = ref $_[0] ? @{ $_[0] } : $_[0];
	return @people && !grep { !is_text($_) || !/^\S.* <[^@\s<>]+@[^@\s<>]+>$/ } @people;
}

# What is wrong with an object: each key with its check, mandatory with a "!".
# Other keys must begin with x_.
sub faults
{
	my ($name, $object, %check) = @_;
	return "$name is no object" if ref $object ne 'HASH';
	my @faults;
	my %known;
	for my $key (sort keys %check)
	{
		my $plain = $key =~ s/!$//r;
		$known{$plain} = 1;
		push @faults, "$name has no $plain" if $plain ne $key && !exists $object->{$plain};
		push @faults, "$name: $plain is wrong"
		  if exists $object->{$plain} && !$check{$key}->($object->{$plain});
	}
	push @faults,
	  map { "$name: $_ is unknown" } grep { !$known{$_} && !/^x_/i } sort keys %$object;
	return @faults;
}

# What is wrong with the versions of what an extension needs
sub faults_of_prereqs
{
	my $prereqs = shift;
	my @faults;
	for my $phase (sort keys %$prereqs)
	{
		push @faults, "phase $phase"
		  if $phase !~ /^(?:configure|build|test|runtime|develop|x_.*)$/;
		for my $relation (sort keys %{ $prereqs->{$phase} })
		{
			push @faults, "relation $relation"
			  if $relation !~ /^(?:requires|recommends|suggests|conflicts|x_.*)$/;
			my $versions = $prereqs->{$phase}{$relation};
			push @faults, map { "version of $_" }
			  grep { !is_term($_) || $versions->{$_} ne '0' && !is_version($versions->{$_}) }
			  sort keys %$versions;
		}
	}
	return @faults;
}

# What is wrong with a META.json
sub faults_of
{
	my $meta = shift;
	my $resources = $meta->{resources};
	return (
		faults(
			'META.json',
			$meta,
			'name!' => \&is_term,
			'version!' => \&is_version,
			'abstract!' => \&is_text,
			'maintainer!' => \&is_maintainer,
			'license!' => \&is_license,
			'provides!' => sub { ref $_[0] eq 'HASH' && keys %{ $_[0] } },
			'meta-spec!' => sub { ref $_[0] eq 'HASH' },
			description => \&is_text,
			generated_by => \&is_text,
			tags => sub {
				is_list($_[0]) && !grep { !is_tag($_) } @{ $_[0] };
			},
			prereqs => sub { ref $_[0] eq 'HASH' && !faults_of_prereqs($_[0]) },
			release_status => sub { $_[0] =~ /^(?:stable|testing|unstable)$/ },
			resources => sub { ref $_[0] eq 'HASH' }),
		faults(
			'meta-spec',
			$meta->{'meta-spec'},
			'version!' => sub { $_[0] =~ /^1\.0\.[0-9]+$/ },
			url => sub { $_[0] =~ m{^https?://pgxn\.org/meta/spec\.txt$} }),
		(   map {
				faults(
					"provides $_", $meta->{provides}{$_},
					'file!' => \&is_file,
					'version!' => \&is_version,
					abstract => \&is_text,
					docfile => \&is_file)
			} sort keys %{ $meta->{provides} }),
		faults(
			'resources',
			$resources,
			'homepage!' => \&is_uri,
			'bugtracker!' => sub { ref $_[0] eq 'HASH' },
			'repository!' => sub { ref $_[0] eq 'HASH' }),
		faults('bugtracker', $resources->{bugtracker}, web => \&is_uri, mailto => \&is_text),
		faults(
			'repository',
			$resources->{repository},
			'url!' => \&is_uri,
			web => \&is_uri,
			'type!' => sub { $_[0] =~ /^[a-z]+$/ }));
}

is(join("\n", faults_of($meta)), '', 'META.json is as the meta spec demands');

# The check finds what is wrong.
my @breaks = (
	[ 'META.json has no license', sub { delete $_[0]{license} } ],
	[ 'META.json: license is wrong', sub { $_[0]{license} = 'PostgreSQL' } ],
	[ 'META.json: version is wrong', sub { $_[0]{version} = '1.1' } ],
	[ 'META.json: maintainer is wrong', sub { $_[0]{maintainer} = 'The developers' } ],
	[ 'META.json: tags is wrong', sub { $_[0]{tags} = ['a/b'] } ],
	[ 'META.json: keywords is unknown', sub { $_[0]{keywords} = [] } ],
	[
		'META.json: prereqs is wrong', sub { $_[0]{prereqs}{runtime}{requires}{PostgreSQL} = '15' }
	],
	[
		'provides sendcampaign: file is wrong',
		sub { $_[0]{provides}{sendcampaign}{file} = 'sendcampaign.sql' }
	],
	[ 'repository has no type', sub { delete $_[0]{resources}{repository}{type} } ]);
for my $break (@breaks)
{
	my ($fault, $change) = @$break;
	my $broken = JSON::PP::decode_json(slurp_file("$root/META.json"));
	$change->($broken);
	is(join("\n", faults_of($broken)), $fault, "found: $fault");
}

# The first group of a pattern in a file
sub found_in
{
	my ($file, $pattern) = @_;
	return slurp_file("$root/$file") =~ $pattern ? $1 : "nothing in $file";
}

my $short = $meta->{version} =~ s/\.0$//r;
is($meta->{provides}{sendcampaign}{version}, $meta->{version}, 'one version in META.json');
like(
	$meta->{provides}{sendcampaign}{file},
	qr/^sendcampaign--(?:.*--)?\Q$short\E\.sql$/,
	'the file is the script that leads to it');
like(
	found_in('Makefile', qr/^DATA = (.*)$/m),
	qr/(?:^| )\Q$meta->{provides}{sendcampaign}{file}\E(?: |$)/,
	'which is installed');
is(found_in('Makefile', qr/^EXTVERSION = (\S+)$/m), $short, "which is the library's");
is(found_in('sendcampaign.control', qr/^default_version = '(.*)'$/m), $short, "the SQL's");
is(found_in('debian/changelog', qr/^sendcampaign \((\S+)\)/),
	$meta->{version}, "that of Debian's packages");
like(slurp_file("$root/CHANGELOG.md"), qr/^## \Q$short\E\b/m, 'and in the changelog');
is( $meta->{maintainer},
	found_in('debian/control', qr/^Maintainer: (.*)$/m),
	"the maintainer is that of Debian's packages");
done_testing();
