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
$node->safe_psql('postgres', qq{
	CREATE FUNCTION night_ends(integer, integer, text, timestamptz) RETURNS timestamptz
		AS '$dir/night' LANGUAGE C STRICT;
	CREATE FUNCTION night_begins(integer, integer, text, timestamptz) RETURNS timestamptz
		AS '$dir/night' LANGUAGE C STRICT;
	-- as the group's configuration is read
	CREATE FUNCTION seconds(text) RETURNS integer LANGUAGE sql
		AS 'SELECT extract(epoch FROM \$1::time)::integer % 86400';
	CREATE FUNCTION by_day(hours text, zone text, at timestamptz) RETURNS text LANGUAGE sql AS \$\$
		SELECT coalesce('ends ' || (night_ends(f, t, zone, at) AT TIME ZONE 'UTC')::text,
			'begins ' || (night_begins(f, t, zone, at) AT TIME ZONE 'UTC')::text, 'none')
		FROM (SELECT seconds(split_part(hours, '-', 1)), seconds(split_part(hours, '-', 2))) h(f, t) \$\$;
});

# hours, zone, a time in UTC, what is to come in UTC
my @cases = (
	[ 'over midnight, before it', '21:00-08:00', 'UTC', '2024-03-05 22:00', 'ends 2024-03-06 08:00:00' ],
	[ 'over midnight, after it', '21:00-08:00', 'UTC', '2024-03-05 03:00', 'ends 2024-03-05 08:00:00' ],
	[ 'over midnight, by day', '21:00-08:00', 'UTC', '2024-03-05 12:00', 'begins 2024-03-05 21:00:00' ],
	[ 'its first moment', '21:00-08:00', 'UTC', '2024-03-05 21:00', 'ends 2024-03-06 08:00:00' ],
	[ 'the last one before', '21:00-08:00', 'UTC', '2024-03-05 20:59:59.999999', 'begins 2024-03-05 21:00:00' ],
	[ 'its last moment', '21:00-08:00', 'UTC', '2024-03-05 07:59:59.999999', 'ends 2024-03-05 08:00:00' ],
	[ 'the first one after', '21:00-08:00', 'UTC', '2024-03-05 08:00', 'begins 2024-03-05 21:00:00' ],
	[ 'to the second', '20:59:30-08:00:15', 'UTC', '2024-03-05 20:59:30', 'ends 2024-03-06 08:00:15' ],
	[ 'a siesta', '13:00-15:30', 'UTC', '2024-03-05 14:00', 'ends 2024-03-05 15:30:00' ],
	[ 'before a siesta', '13:00-15:30', 'UTC', '2024-03-05 10:00', 'begins 2024-03-05 13:00:00' ],
	[ 'after a siesta', '13:00-15:30', 'UTC', '2024-03-05 16:00', 'begins 2024-03-06 13:00:00' ],
	[ 'until 24:00', '21:00-24:00', 'UTC', '2024-03-05 22:00', 'ends 2024-03-06 00:00:00' ],
	[ 'from 24:00', '24:00-08:00', 'UTC', '2024-03-05 22:00', 'begins 2024-03-06 00:00:00' ],
	[ 'from 00:00', '00:00-08:00', 'UTC', '2024-03-05 00:00', 'ends 2024-03-05 08:00:00' ],
	[ 'none', '08:00-08:00', 'UTC', '2024-03-05 08:00', 'none' ],
	[ 'a leap day', '21:00-08:00', 'UTC', '2024-02-29 22:00', 'ends 2024-03-01 08:00:00' ],
	[ 'a year ends', '21:00-08:00', 'UTC', '2024-12-31 22:00', 'ends 2025-01-01 08:00:00' ],
	[ 'east of here', '21:00-08:00', 'Asia/Tokyo', '2024-03-05 13:00', 'ends 2024-03-05 23:00:00' ],
	[ 'west of here', '21:00-08:00', 'America/Los_Angeles', '2024-01-05 04:30', 'begins 2024-01-05 05:00:00' ],
	[ 'half an hour', '21:00-08:00', 'Asia/Kolkata', '2024-03-05 15:30', 'ends 2024-03-06 02:30:00' ],
	[ 'half an hour, earlier', '21:00-08:00', 'Asia/Kolkata', '2024-03-05 15:29', 'begins 2024-03-05 15:30:00' ],
	[ '45 minutes', '21:00-08:00', 'Asia/Kathmandu', '2024-03-05 15:15', 'ends 2024-03-06 02:15:00' ],
	[ '45 minutes, and summer', '21:00-08:00', 'Pacific/Chatham', '2024-01-05 07:15', 'ends 2024-01-05 18:15:00' ],
	# Berlin: 02:00 is 03:00 on 31 March, 03:00 is 02:00 on 27 October
	[ 'a short night', '21:00-08:00', 'Europe/Berlin', '2024-03-30 22:00', 'ends 2024-03-31 06:00:00' ],
	[ 'a long night', '21:00-08:00', 'Europe/Berlin', '2024-10-26 22:00', 'ends 2024-10-27 07:00:00' ],
	[ 'a short night in New York', '21:00-08:00', 'America/New_York', '2024-03-10 03:00', 'ends 2024-03-10 12:00:00' ],
	[ 'a long night in New York', '21:00-08:00', 'America/New_York', '2024-11-03 03:00', 'ends 2024-11-03 13:00:00' ],
	[ 'a day that is short', '21:00-01:00', 'Europe/Berlin', '2024-03-31 00:30', 'begins 2024-03-31 19:00:00' ],
	[ 'the end in the gap', '21:00-02:30', 'Europe/Berlin', '2024-03-30 22:00', 'ends 2024-03-31 01:00:00' ],
	[ 'the beginning in the gap', '02:30-08:00', 'Europe/Berlin', '2024-03-31 00:30', 'begins 2024-03-31 01:00:00' ],
	[ 'all of it in the gap', '02:10-02:50', 'Europe/Berlin', '2024-03-31 00:30', 'begins 2024-04-01 00:10:00' ],
	[ 'the end in the doubled hour', '21:00-02:30', 'Europe/Berlin', '2024-10-26 23:00', 'ends 2024-10-27 00:30:00' ],
	[ 'and once more', '21:00-02:30', 'Europe/Berlin', '2024-10-27 00:40', 'begins 2024-10-27 01:00:00' ],
	[ 'and then for good', '21:00-02:30', 'Europe/Berlin', '2024-10-27 01:10', 'ends 2024-10-27 01:30:00' ],
	[ 'the beginning in the doubled hour', '02:30-08:00', 'Europe/Berlin', '2024-10-27 00:10', 'begins 2024-10-27 00:30:00' ],
);
for my $case (@cases)
{
	my ($name, $hours, $zone, $at, $expected) = @$case;
	is($node->safe_psql('postgres', "SELECT by_day('$hours', '$zone', '$at UTC')"), $expected, $name);
}

# Minute by minute, as to_char() has it: what is to come is the next minute at
# which it is otherwise.  Days around a change, of each kind there is.
my @changes = (
	[ 'Europe/Berlin', '2024-03-31' ], [ 'Europe/Berlin', '2024-10-27' ],
	[ 'America/New_York', '2024-03-10' ], [ 'America/New_York', '2024-11-03' ],
	[ 'Australia/Lord_Howe', '2024-04-07' ], [ 'Australia/Lord_Howe', '2024-10-06' ],	# half an hour
	[ 'Antarctica/Troll', '2024-03-31' ], [ 'Antarctica/Troll', '2024-10-27' ],	# two hours
	[ 'Pacific/Chatham', '2024-04-07' ], [ 'America/St_Johns', '2008-11-02' ],	# at 00:01
	[ 'Africa/Cairo', '2024-04-26' ], [ 'America/Havana', '2024-11-03' ],	# at midnight
	[ 'Pacific/Apia', '2011-12-30' ], [ 'Asia/Pyongyang', '2015-08-15' ],	# a day left out; another offset
	[ 'Asia/Kathmandu', '2024-06-01' ], [ 'UTC', '2024-06-01' ]);
my @hours = ('21:00-08:00', '08:00-21:00', '21:00-02:30', '02:30-08:00', '02:10-02:50', '00:30-24:00', '23:59-00:01',
	'03:00-02:00', '02:00-03:00');
my $wrong = $node->safe_psql('postgres', qq{
	WITH minutes AS MATERIALIZED (
		SELECT hours, zone, day, at, CASE WHEN f < t THEN s >= f AND s < t ELSE s >= f OR s < t END AS quiet,
			night_ends(f, t, zone, at) AS ends, night_begins(f, t, zone, at) AS begins
		FROM unnest(ARRAY[@{[ join ', ', map { "'$_'" } @hours ]}]) hours,
			(VALUES @{[ join ', ', map { "('$_->[0]', '$_->[1]')" } @changes ]}) c(zone, day),
			LATERAL generate_series(day::timestamp AT TIME ZONE 'UTC' - interval '2 days',
				day::timestamp AT TIME ZONE 'UTC' + interval '3 days', '1 min') at,
			LATERAL (SELECT seconds(split_part(hours, '-', 1)), seconds(split_part(hours, '-', 2)),
				extract(epoch FROM (at AT TIME ZONE zone)::time)::integer) h(f, t, s)),
	changes AS (
		SELECT *, min(at) FILTER (WHERE NOT quiet) OVER later AS next_day, min(at) FILTER (WHERE quiet) OVER later AS next_night
		FROM minutes WINDOW later AS (PARTITION BY hours, zone, day ORDER BY at DESC ROWS UNBOUNDED PRECEDING))
	SELECT hours, zone, at, quiet, ends, begins, next_day, next_night FROM changes
	WHERE next_day IS NOT NULL AND next_night IS NOT NULL
		AND (ends IS DISTINCT FROM CASE WHEN quiet THEN next_day END
			OR begins IS DISTINCT FROM CASE WHEN NOT quiet THEN next_night END)
	ORDER BY hours, zone, at LIMIT 5});
is($wrong, '', 'minute by minute');

$node->stop;
done_testing();
