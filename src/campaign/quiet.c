/*-------------------------------------------------------------------------
 *
 * quiet.c
 *	  Whether it is quiet hours where a recipient is, and when they end.
 *
 * Quiet hours follow the recipient's local clock, which jumps twice a year.
 * The clock runs evenly between two jumps, so we go from jump to jump until it
 * is quiet hours and was not, or the reverse.  That is correct even if a time
 * of day is left out, or occurs twice.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "campaign/quiet.h"
#include "utils/timestamp.h"

/* The local clock, from some time until it jumps. */
typedef struct Clock
{
	int		  second; /* of the day */
	bool	  jumps;
	pg_time_t jump; /* when it jumps */
} Clock;

static void
read_clock(pg_time_t time, const pg_tz *zone, Clock *clock)
{
	long int offset;
	long int offset_after;
	int		 is_dst;
	int result = pg_next_dst_boundary(&time, &offset, &is_dst, &clock->jump, &offset_after, &is_dst,
									  zone);

	if (result < 0)
		ereport(ERROR,
				(errcode(ERRCODE_DATETIME_VALUE_OUT_OF_RANGE),
				 errmsg("timestamp out of range"),
				 errhint("Check the server's clock.")));
	clock->second = (int) ((time + offset) % SECS_PER_DAY);
	if (clock->second < 0)
		clock->second += SECS_PER_DAY;
	clock->jumps = result > 0;
}

static bool
is_quiet(const QuietHours *hours, int second)
{
	if (hours->from < hours->to)
		return second >= hours->from && second < hours->to;
	return second >= hours->from || second < hours->to;
}

TimestampTz
end_of_night(const QuietHours *hours, pg_tz *zone, TimestampTz now, TimestampTz *night)
{
	pg_time_t time = timestamptz_to_time_t(now);
	Clock	  clock;
	bool	  quiet;

	*night = 0;
	if (hours->from == hours->to)
		return 0;
	read_clock(time, zone, &clock);
	quiet = is_quiet(hours, clock.second);
	while (is_quiet(hours, clock.second) == quiet)
	{
		int wait = (quiet ? hours->to : hours->from) - clock.second;

		time += wait > 0 ? wait : wait + SECS_PER_DAY;
		if (!clock.jumps || time < clock.jump)
			break;
		time = clock.jump;
		read_clock(time, zone, &clock);
	}
	if (quiet)
		return time_t_to_timestamptz(time);
	*night = time_t_to_timestamptz(time);
	return 0;
}
