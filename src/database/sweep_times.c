/*-------------------------------------------------------------------------
 *
 * sweep_times.c
 *	  When Twilio is asked what became of a run's messages, and how far back.
 *
 * After the last message of a run, its messages are asked for at the intervals
 * below, until they are all known or the last interval is over.
 *
 * While it sends, it is swept every minute.  If each of these sweeps went back
 * to the first message whose fate is unknown, and some carriers never report
 * any, the whole list would be read every minute.  So a sweep asks only for
 * messages of about the ages that the intervals name: every minute for those
 * that are up to two minutes old, every five minutes for those that are up to
 * ten minutes old, and so on.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "database/spi.h"
#include "database/sweep_times.h"

static const int intervals[] = {SWEEP_EVERY, 5 * 60,	60 * 15,   60 * 60,
								4 * 3600,	 12 * 3600, 24 * 3600, SWEEP_UNTIL};

Datum
sweep_intervals(void)
{
	Datum values[lengthof(intervals)];

	for (int i = 0; i < lengthof(intervals); i++)
		values[i] = Int32GetDatum(intervals[i]);
	return make_array(values, NULL, lengthof(intervals), INT4OID);
}

static TimestampTz
seconds_before(TimestampTz time, int64 seconds)
{
	return time - seconds * USECS_PER_SEC;
}

/* Returns when the run's last message was sent, or a time shortly after. */
static TimestampTz
last_message(const SweptRun *run)
{
	return run->last_at ? run->last_at : run->began_at;
}

bool
sweep_is_last(const SweptRun *run, TimestampTz now)
{
	return last_message(run) <= seconds_before(now, SWEEP_UNTIL);
}

bool
sweep_is_over(const SweptRun *run, TimestampTz now)
{
	return last_message(run) <= seconds_before(now, SWEEP_UNTIL + SWEEP_GRACE);
}

/* Returns the longest interval of which a multiple has passed since the latest sweep. */
static int
passed_interval(const SweptRun *run, TimestampTz now)
{
	TimestampTz before = Max(run->swept_at, run->began_at);

	for (int i = lengthof(intervals) - 1; i > 0; i--)
	{
		int64 length = intervals[i] * USECS_PER_SEC;

		if ((now - run->began_at) / length > (before - run->began_at) / length)
			return intervals[i];
	}
	return intervals[0];
}

/*
 * What is older than the last interval when the last message is sent has had
 * its time, since the run was swept while it was sending.
 */
TimestampTz
sweep_since(const SweptRun *run, TimestampTz now)
{
	TimestampTz last = last_message(run);
	TimestampTz oldest = Max(run->began_at, seconds_before(last, SWEEP_UNTIL));

	if (run->has_ended || last <= seconds_before(now, SWEEP_EVERY))
		return oldest;
	return Max(oldest, seconds_before(now, 2 * passed_interval(run, now)));
}
