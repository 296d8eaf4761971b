# When a night ends, and when the next one begins, by the recipient's clock.
use strict;
use warnings;

use FindBin;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $dir = "$FindBin::RealBin/../modules/night";
system_or_bail('make', '-s', '-C', $dir, 'with_llvm=no');
my $node = PostgreSQL::Test::Cluster->new('nights');
$node->init;
$node->start;
$node->safe_psql('postgres', <<~SQL);
    CREATE FUNCTION night_ends(integer, integer, text, timestamptz) RETURNS timestamptz
        AS '$dir/night' LANGUAGE C STRICT;
    CREATE FUNCTION night_begins(integer, integer, text, timestamptz) RETURNS timestamptz
        AS '$dir/night' LANGUAGE C STRICT;

    -- as the group's configuration is read
    CREATE FUNCTION seconds(text) RETURNS integer LANGUAGE sql AS
        'SELECT extract(epoch FROM \$1::time)::integer % 86400';

    CREATE FUNCTION by_day(hours text, zone text, at timestamptz) RETURNS text LANGUAGE sql AS
    \$\$
        SELECT coalesce(
            'ends ' || (night_ends(f, t, zone, at) AT TIME ZONE 'UTC')::text,
            'begins ' || (night_begins(f, t, zone, at) AT TIME ZONE 'UTC')::text,
            'none')
        FROM (SELECT seconds(split_part(hours, '-', 1)),
            seconds(split_part(hours, '-', 2))) h(f, t)
    \$\$;
SQL

# Quiet hours and a zone; then, in UTC, a time and what is to come.  In Berlin
# 02:00 is 03:00 on 31 March, and 03:00 is 02:00 on 27 October.
my $cases = <<'TABLE';
    21:00-08:00 UTC
        2024-03-05 22:00            ends 2024-03-06 08:00:00    over midnight, in the evening
        2024-03-05 03:00            ends 2024-03-05 08:00:00    over midnight, in the morning
        2024-03-05 12:00            begins 2024-03-05 21:00:00  over midnight, at noon
        2024-03-05 21:00            ends 2024-03-06 08:00:00    the first moment of a night
        2024-03-05 20:59:59.999999  begins 2024-03-05 21:00:00  the last moment before a night
        2024-03-05 07:59:59.999999  ends 2024-03-05 08:00:00    the last moment of a night
        2024-03-05 08:00            begins 2024-03-05 21:00:00  the first moment after a night
    20:59:30-08:00:15 UTC
        2024-03-05 20:59:30         ends 2024-03-06 08:00:15    times with seconds
    13:00-15:30 UTC
        2024-03-05 14:00            ends 2024-03-05 15:30:00    a siesta
        2024-03-05 10:00            begins 2024-03-05 13:00:00  before a siesta
        2024-03-05 16:00            begins 2024-03-06 13:00:00  after a siesta
    21:00-24:00 UTC
        2024-03-05 22:00            ends 2024-03-06 00:00:00    until 24:00
    24:00-08:00 UTC
        2024-03-05 22:00            begins 2024-03-06 00:00:00  from 24:00
    00:00-08:00 UTC
        2024-03-05 00:00            ends 2024-03-05 08:00:00    from 00:00
    08:00-08:00 UTC
        2024-03-05 08:00            none                        no quiet hours
    21:00-08:00 UTC
        2024-02-29 22:00            ends 2024-03-01 08:00:00    a night after a leap day
        2024-12-31 22:00            ends 2025-01-01 08:00:00    the end of a year
    21:00-08:00 Asia/Tokyo
        2024-03-05 13:00            ends 2024-03-05 23:00:00    a zone in the east
    21:00-08:00 America/Los_Angeles
        2024-01-05 04:30            begins 2024-01-05 05:00:00  a zone in the west
    21:00-08:00 Asia/Kolkata
        2024-03-05 15:30            ends 2024-03-06 02:30:00    an offset with half an hour
        2024-03-05 15:29            begins 2024-03-05 15:30:00  the same, a minute earlier
    21:00-08:00 Asia/Kathmandu
        2024-03-05 15:15            ends 2024-03-06 02:15:00    an offset with 45 minutes
    21:00-08:00 Pacific/Chatham
        2024-01-05 07:15            ends 2024-01-05 18:15:00    the same in summer
    21:00-08:00 Europe/Berlin
        2024-03-30 22:00            ends 2024-03-31 06:00:00    a short night
        2024-10-26 22:00            ends 2024-10-27 07:00:00    a long night
    21:00-08:00 America/New_York
        2024-03-10 03:00            ends 2024-03-10 12:00:00    a short night in New York
        2024-11-03 03:00            ends 2024-11-03 13:00:00    a long night in New York
    21:00-01:00 Europe/Berlin
        2024-03-31 00:30            begins 2024-03-31 19:00:00  a short day
    21:00-02:30 Europe/Berlin
        2024-03-30 22:00            ends 2024-03-31 01:00:00    it ends in the gap
    02:30-08:00 Europe/Berlin
        2024-03-31 00:30            begins 2024-03-31 01:00:00  it begins in the gap
    02:10-02:50 Europe/Berlin
        2024-03-31 00:30            begins 2024-04-01 00:10:00  all of it is in the gap
    21:00-02:30 Europe/Berlin
        2024-10-26 23:00            ends 2024-10-27 00:30:00    it ends in the doubled hour
        2024-10-27 00:40            begins 2024-10-27 01:00:00  it begins once more
        2024-10-27 01:10            ends 2024-10-27 01:30:00    it ends once more
    02:30-08:00 Europe/Berlin
        2024-10-27 00:10            begins 2024-10-27 00:30:00  it begins in the doubled hour
TABLE
my ($hours, $zone);
for my $line (split /\n/, $cases)
{
	if ($line =~ /^ {4}(\S+) (\S+)$/)
	{
		($hours, $zone) = ($1, $2);
		next;
	}
	my ($at, $expected, $name) = $line =~ /^ {8}(.*?) {2,}(.*?) {2,}(.*)$/ or die $line;
	is($node->safe_psql('postgres', "SELECT by_day('$hours', '$zone', '$at UTC')"),
		$expected, $name);
}

# Minute by minute, as to_char() has it: what is to come is the next minute at
# which it is otherwise.  Zones and days around a change, of each kind there is.
my @changes = (
	[ 'Europe/Berlin', '2024-03-31' ],
	[ 'Europe/Berlin', '2024-10-27' ],
	[ 'America/New_York', '2024-03-10' ],
	[ 'America/New_York', '2024-11-03' ],
	[ 'Australia/Lord_Howe', '2024-04-07' ],    # half an hour
	[ 'Australia/Lord_Howe', '2024-10-06' ],
	[ 'Antarctica/Troll', '2024-03-31' ],       # two hours
	[ 'Antarctica/Troll', '2024-10-27' ],
	[ 'Pacific/Chatham', '2024-04-07' ],
	[ 'America/St_Johns', '2008-11-02' ],       # at 00:01
	[ 'Africa/Cairo', '2024-04-26' ],           # at midnight
	[ 'America/Havana', '2024-11-03' ],         # at midnight
	[ 'Pacific/Apia', '2011-12-30' ],           # a day is left out
	[ 'Asia/Pyongyang', '2015-08-15' ],         # another offset
	[ 'Asia/Kathmandu', '2024-06-01' ],         # no change
	[ 'UTC', '2024-06-01' ]);
my @hours = qw(
  21:00-08:00 08:00-21:00 21:00-02:30 02:30-08:00 02:10-02:50
  00:30-24:00 23:59-00:01 03:00-02:00 02:00-03:00);
my $changes = join ', ', map { "('$_->[0]', '$_->[1]')" } @changes;
my $all_hours = join ', ', map { "'$_'" } @hours;
my $wrong = $node->safe_psql('postgres', <<~SQL);
    WITH minutes AS MATERIALIZED (
        SELECT hours, zone, day, at,
            CASE WHEN f < t THEN s >= f AND s < t ELSE s >= f OR s < t END AS quiet,
            night_ends(f, t, zone, at) AS ends,
            night_begins(f, t, zone, at) AS begins
        FROM unnest(ARRAY[$all_hours]) hours,
            (VALUES $changes) c(zone, day),
            LATERAL generate_series(
                day::timestamp AT TIME ZONE 'UTC' - interval '2 days',
                day::timestamp AT TIME ZONE 'UTC' + interval '3 days',
                '1 min') at,
            LATERAL (SELECT seconds(split_part(hours, '-', 1)),
                seconds(split_part(hours, '-', 2)),
                extract(epoch FROM (at AT TIME ZONE zone)::time)::integer) h(f, t, s)),
    changes AS (
        SELECT *,
            min(at) FILTER (WHERE NOT quiet) OVER later AS next_day,
            min(at) FILTER (WHERE quiet) OVER later AS next_night
        FROM minutes
        WINDOW later AS
            (PARTITION BY hours, zone, day ORDER BY at DESC ROWS UNBOUNDED PRECEDING))
    SELECT hours, zone, at, quiet, ends, begins, next_day, next_night
    FROM changes
    WHERE next_day IS NOT NULL
        AND next_night IS NOT NULL
        AND (ends IS DISTINCT FROM CASE WHEN quiet THEN next_day END
            OR begins IS DISTINCT FROM CASE WHEN NOT quiet THEN next_night END)
    ORDER BY hours, zone, at
    LIMIT 5
SQL
is($wrong, '', 'every minute around a change of the clock');

$node->stop;
done_testing();
