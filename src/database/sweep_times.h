/*-------------------------------------------------------------------------
 *
 * sweep_times.h
 *	  When Twilio is asked what became of a run's messages, and how far back.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SENDCAMPAIGN_SWEEP_TIMES_H
#define SENDCAMPAIGN_SWEEP_TIMES_H

#include "datatype/timestamp.h"

/* While a run sends, it is swept this often, in seconds; no sweep follows another sooner. */
#define SWEEP_EVERY 60

/*
 * After this time, in seconds, what is not known stays unknown.  If Twilio
 * cannot be reached then, that is tried again every so often, for so long.
 */
#define SWEEP_UNTIL (72 * 3600)
#define SWEEP_AGAIN 3600
#define SWEEP_GRACE (24 * 3600)

/* What these functions need to know of a run. */
typedef struct SweptRun
{
	TimestampTz began_at; /* none of its messages is older */
	TimestampTz last_at;  /* when it ended, or its latest message was recorded; or 0 */
	TimestampTz swept_at; /* when the list was read last; or 0 */
	bool		has_ended;
} SweptRun;

/* Returns the intervals after a run's last message, in seconds, as an int4[]; palloc'd. */
extern Datum sweep_intervals(void);

/* Tells whether this is the run's last sweep. */
extern bool sweep_is_last(const SweptRun *run, TimestampTz now);

/* Tells whether it is, even if Twilio cannot be reached. */
extern bool sweep_is_over(const SweptRun *run, TimestampTz now);

/* Returns a time before which no message of the run is to be asked for now. */
extern TimestampTz sweep_since(const SweptRun *run, TimestampTz now);

#endif /* SENDCAMPAIGN_SWEEP_TIMES_H */
