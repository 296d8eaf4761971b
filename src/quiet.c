/*-------------------------------------------------------------------------
 *
 * quiet.c
 *	  Is it night where a recipient is?
 *
 * Nights are told by the clock on the recipient's wall, which jumps twice a
 * year.  So times are worked out as local ones and put back on the time line
 * by PostgreSQL's own rules.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "quiet.h"
#include "utils/datetime.h"
#include "utils/timestamp.h"

/* The local date and time. */
static void
to_local(TimestampTz time, pg_tz *zone, struct pg_tm *tm)
{
	fsec_t fsec;
	int	   offset;

	if (timestamp2tm(time, &offset, tm, &fsec, NULL, zone) != 0)
		ereport(ERROR,
				(errcode(ERRCODE_DATETIME_VALUE_OUT_OF_RANGE), errmsg("timestamp out of range")));
}

/* That second of the day, so many days after the date given. */
static TimestampTz
from_local(const struct pg_tm *date, int days, int second, pg_tz *zone)
{
	struct pg_tm tm = {0};
	TimestampTz	 time;
	int			 offset;

	j2date(date2j(date->tm_year, date->tm_mon, date->tm_mday) + days, &tm.tm_year, &tm.tm_mon,
		   &tm.tm_mday);
	tm.tm_hour = second / 3600;
	tm.tm_min = second / 60 % 60;
	tm.tm_sec = second % 60;
	tm.tm_isdst = -1;
	offset = DetermineTimeZoneOffset(&tm, zone);
	if (tm2timestamp(&tm, 0, &offset, &time) != 0)
		ereport(ERROR,
				(errcode(ERRCODE_DATETIME_VALUE_OUT_OF_RANGE), errmsg("timestamp out of range")));
	return time;
}

/* The next time that it is that second of the day. */
static TimestampTz
next_time(TimestampTz now, int second, pg_tz *zone)
{
	struct pg_tm today;

	to_local(now, zone, &today);
	for (int days = 0;; days++)
	{
		TimestampTz time = from_local(&today, days, second, zone);

		if (time > now)
			return time;
	}
}

TimestampTz
end_of_night(const QuietHours *hours, pg_tz *zone, TimestampTz now, TimestampTz *night)
{
	struct pg_tm tm;
	int			 second;
	bool		 quiet;

	*night = 0;
	if (hours->from == hours->to)
		return 0;
	to_local(now, zone, &tm);
	second = tm.tm_hour * 3600 + tm.tm_min * 60 + tm.tm_sec;
	quiet = hours->from < hours->to ? second >= hours->from && second < hours->to
									: second >= hours->from || second < hours->to;
	if (quiet)
		return next_time(now, hours->to, zone);
	*night = next_time(now, hours->from, zone);
	return 0;
}
