/*-------------------------------------------------------------------------
 *
 * backoff.h
 *	  How long failed work waits before it is retried.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SENDCAMPAIGN_BACKOFF_H
#define SENDCAMPAIGN_BACKOFF_H

#include "datatype/timestamp.h"

/* A kind of database work of a run that has to wait, longer each time. */
typedef struct Backoff
{
	int			failures;
	TimestampTz since; /* the first of these failures; or 0 */
	TimestampTz until;
	bool		passed; /* true if it has succeeded in the open transaction */
	bool		locked; /* true if the last failure was a lock that others hold */
	bool		far;	/* true if it was a node of Citus that could not be reached */
} Backoff;

/* Returns a delay in ms: exponential, with full jitter, between 0 and at most a minute. */
extern int backoff_delay(int failures);

/* Notes that the work has succeeded, which counts if the open transaction commits. */
extern void end_back_off(Backoff *backoff);

/* Must be called after that transaction has committed, or has been aborted. */
extern void settle_back_off(Backoff *backoff, bool committed);

#endif /* SENDCAMPAIGN_BACKOFF_H */
