/*-------------------------------------------------------------------------
 *
 * next.h
 *	  What a run needs next: the decisions, and nothing that is done about them.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SENDCAMPAIGN_NEXT_H
#define SENDCAMPAIGN_NEXT_H

#include "worker/run.h"

/* How many messages are to be claimed at once: few for a slow sender. */
extern int run_claim_size(const Run *run);

/* Does the run need another batch, to be claimed or, cancelled, to be skipped? */
extern bool wants_claim(Run *run, TimestampTz now);

/* Is there something that is to be recorded without waiting for more? */
extern bool run_wants_record(const Run *run);

/* What becomes of a run, once all that is known is recorded. */
typedef enum RunEnding
{
	RUN_GOES_ON,
	RUN_COMPLETES,
	RUN_IS_CANCELLED,	  /* and so it has ended */
	RUN_FAILS,			  /* with its stop_reason */
	RUN_CANNOT_READ_BACK, /* it pauses: what was sent before is not known */
	RUN_IS_HALTED,		  /* it pauses: too many have failed */
	RUN_SLEEPS			  /* all that are left are in their quiet hours */
} RunEnding;

extern RunEnding run_ending(Run *run);

/*
 * Is there nothing left to do for this run, here and now?  What stays in
 * doubt then is claimed still, for when it goes on.
 */
extern bool run_is_through(Run *run);

#endif /* SENDCAMPAIGN_NEXT_H */
