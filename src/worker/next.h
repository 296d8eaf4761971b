/*-------------------------------------------------------------------------
 *
 * next.h
 *	  What a run needs next: the decisions, but not the actions.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SENDCAMPAIGN_NEXT_H
#define SENDCAMPAIGN_NEXT_H

#include "worker/run.h"

/* Returns how many messages to claim at once: few if the senders are slow. */
extern int run_claim_size(const Run *run);

/* The most claims of one run in one transaction. */
#define CLAIMS_AT_ONCE 4

/* Tells whether the run needs another batch, to be claimed, or skipped if it is cancelled. */
extern bool wants_claim(Run *run, TimestampTz now);

/*
 * The same in a transaction that begins now, and already has as many claims of
 * it.  A run whose claims last only for a moment makes several at once, since
 * each transaction has its cost.
 */
extern bool wants_claim_as_well(Run *run, TimestampTz now, int claims);

/* Tells whether there is something to be recorded without waiting for more. */
extern bool run_wants_record(const Run *run);

/* What becomes of a run once everything that is known is recorded. */
typedef enum RunEnding
{
	RUN_GOES_ON,
	RUN_COMPLETES,
	RUN_IS_CANCELLED,	  /* it ends as cancelled */
	RUN_FAILS,			  /* for its stop_reason */
	RUN_CANNOT_READ_BACK, /* it pauses, since what was sent before is not known */
	RUN_IS_HALTED,		  /* it pauses, since too many messages have failed */
	RUN_SLEEPS			  /* all remaining recipients have quiet hours now */
} RunEnding;

/* Returns that.  Must be called in the transaction that has recorded it. */
extern RunEnding run_ending(Run *run);

/*
 * Tells whether this worker has nothing left to do for the run, which then
 * leaves memory.  Messages that are in doubt remain claimed, and are looked up
 * when the run continues.
 */
extern bool run_is_through(Run *run);

#endif /* SENDCAMPAIGN_NEXT_H */
