# A type of the function's name: PostgreSQL takes send_campaign(1) for a cast
# to it where no function fits the argument exactly.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../perl";
use Campaign;
use LocalTwilio;
use Test::More;

my $twilio = LocalTwilio->start;
my $node = new_cluster('type_in_place', $twilio);
$node->safe_psql('postgres', q{
	CREATE ROLE mallory LOGIN;
	GRANT CREATE ON SCHEMA public TO mallory;
	CREATE SCHEMA m AUTHORIZATION mallory;
	GRANT USAGE ON SCHEMA m TO PUBLIC;
	SET ROLE mallory;
	CREATE TABLE m.who (who name);
	GRANT INSERT ON m.who TO PUBLIC;
	CREATE FUNCTION m.tell(text) RETURNS boolean LANGUAGE plpgsql AS 'BEGIN INSERT INTO m.who VALUES (current_user); RETURN true; END'});

my @ways = (
	[ 'a domain', 'CREATE DOMAIN public.send_campaign AS text CHECK (m.tell(VALUE))' ],
	[ 'a domain renamed', 'CREATE DOMAIN public.d AS text CHECK (m.tell(VALUE)); ALTER DOMAIN public.d RENAME TO send_campaign' ],
	[ 'a type renamed', 'CREATE DOMAIN public.e AS text CHECK (m.tell(VALUE)); ALTER TYPE public.e RENAME TO send_campaign' ],
	[ 'a domain moved', 'CREATE DOMAIN m.send_campaign AS text CHECK (m.tell(VALUE)); ALTER DOMAIN m.send_campaign SET SCHEMA public' ],
	[ 'a type moved', 'DROP DOMAIN IF EXISTS m.send_campaign; CREATE DOMAIN m.send_campaign AS text CHECK (m.tell(VALUE)); ALTER TYPE m.send_campaign SET SCHEMA public' ],
	[ 'a range', 'CREATE TYPE public.send_campaign AS RANGE (subtype = integer)' ],
	[ 'a multirange', 'CREATE TYPE m.r AS RANGE (subtype = integer, multirange_type_name = public.send_campaign)' ],
	[ 'an enum', q{CREATE TYPE public.send_campaign AS ENUM ('1')} ]);
for my $way (@ways)
{
	my ($name, $sql) = @$way;
	my $error = sql_error($node, "SET ROLE mallory; $sql");
	is($error->{sqlstate}, '42939', "$name: the name is reserved");
	my $campaign = create_campaign($node, users => 1);
	my $accepted = $twilio->stats->{accepted};
	$node->psql('postgres', "SET ROLE app; SELECT send_campaign($campaign)");
	is($node->safe_psql('postgres', 'SELECT string_agg(who, $$ $$) FROM m.who'), '', "$name: nobody runs mallory's code");
	ok(poll(sub { $twilio->stats->{accepted} == $accepted + 1 }), "$name: and the campaign is sent") if $error->{sqlstate};
	$node->psql('postgres', 'DELETE FROM m.who; DROP TYPE IF EXISTS public.send_campaign CASCADE; DROP TYPE IF EXISTS m.r CASCADE;
		DROP TYPE IF EXISTS m.send_campaign CASCADE');
}
is(sql_error($node, 'SET ROLE mallory; CREATE DOMAIN m.send_campaign AS text')->{sqlstate}, '', 'in another schema it is not');
$node->stop;
done_testing();
