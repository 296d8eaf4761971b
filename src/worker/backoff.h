/*-------------------------------------------------------------------------
 *
 * backoff.h
 *	  How long what has failed waits for the next try.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SENDCAMPAIGN_BACKOFF_H
#define SENDCAMPAIGN_BACKOFF_H

#include "datatype/timestamp.h"

/* One kind of database work of a run that has to wait, longer each time. */
typedef struct Backoff
{
	int			failures;
	TimestampTz since; /* the first of them, or 0 */
	TimestampTz until;
	bool		passed; /* in the transaction now open it has succeeded */
} Backoff;

/* A delay in ms: exponential with full jitter, from 1 s up to a minute. */
extern int backoff_delay(int failures);

/* It has succeeded, once the transaction now open is committed. */
extern void end_back_off(Backoff *backoff);
extern void settle_back_off(Backoff *backoff, bool committed);

#endif /* SENDCAMPAIGN_BACKOFF_H */
