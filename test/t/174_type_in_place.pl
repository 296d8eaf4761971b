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
sql($node, <<~'SQL');
	CREATE ROLE mallory LOGIN;
	GRANT CREATE ON SCHEMA public TO mallory;
	CREATE SCHEMA m AUTHORIZATION mallory;
	GRANT USAGE ON SCHEMA m TO PUBLIC;
	SET ROLE mallory;
	CREATE TABLE m.who (who name);
	GRANT INSERT ON m.who TO PUBLIC;
	CREATE FUNCTION m.tell(text) RETURNS boolean LANGUAGE plpgsql AS $$
	BEGIN
	    INSERT INTO m.who VALUES (current_user);
	    RETURN true;
	END $$;
	SQL

# How mallory tries to make a type of that name
my %way = (
	'a domain' => <<~'SQL',
		CREATE DOMAIN public.send_campaign AS text CHECK (m.tell(VALUE));
		SQL
	'a domain renamed' => <<~'SQL',
		CREATE DOMAIN public.d AS text CHECK (m.tell(VALUE));
		ALTER DOMAIN public.d RENAME TO send_campaign;
		SQL
	'a type renamed' => <<~'SQL',
		CREATE DOMAIN public.e AS text CHECK (m.tell(VALUE));
		ALTER TYPE public.e RENAME TO send_campaign;
		SQL
	'a domain moved' => <<~'SQL',
		CREATE DOMAIN m.send_campaign AS text CHECK (m.tell(VALUE));
		ALTER DOMAIN m.send_campaign SET SCHEMA public;
		SQL
	'a type moved' => <<~'SQL',
		DROP DOMAIN IF EXISTS m.send_campaign;
		CREATE DOMAIN m.send_campaign AS text CHECK (m.tell(VALUE));
		ALTER TYPE m.send_campaign SET SCHEMA public;
		SQL
	'a range' => <<~'SQL',
		CREATE TYPE public.send_campaign AS RANGE (subtype = integer);
		SQL
	'a multirange' => <<~'SQL',
		CREATE TYPE m.r AS RANGE (
		    subtype = integer, multirange_type_name = public.send_campaign);
		SQL
	'an enum' => <<~'SQL');
		CREATE TYPE public.send_campaign AS ENUM ('1');
		SQL
for my $name (sort keys %way)
{
	my $error = sql_error($node, $way{$name}, role => 'mallory');
	is($error->{sqlstate}, '42939', "$name: the name is reserved");
	my $campaign = create_campaign($node, users => 1);
	my $accepted = $twilio->stats->{accepted};
	$node->psql('postgres', "SET ROLE app; SELECT send_campaign($campaign)");
	is(sql($node, q{SELECT string_agg(who, ' ') FROM m.who}),
		'', "$name: nobody runs mallory's code");
	ok(poll(sub { $twilio->stats->{accepted} == $accepted + 1 }),
		"$name: and the campaign is sent")
	  if $error->{sqlstate};
	$node->psql('postgres', <<~'SQL');
		DELETE FROM m.who;
		DROP TYPE IF EXISTS public.send_campaign CASCADE;
		DROP TYPE IF EXISTS m.r CASCADE;
		DROP TYPE IF EXISTS m.send_campaign CASCADE;
		SQL
}
my $elsewhere = sql_error($node, 'CREATE DOMAIN m.send_campaign AS text', role => 'mallory');
is($elsewhere->{sqlstate}, '', 'in another schema the name is not reserved');
$node->stop;
done_testing();
