/*-------------------------------------------------------------------------
 *
 * sweep.h
 *	  Learns from Twilio what became of messages that it took.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SENDCAMPAIGN_SWEEP_H
#define SENDCAMPAIGN_SWEEP_H

#include "datatype/timestamp.h"

/*
 * Does what is due in the database: finds runs to be swept, stores what Twilio
 * has said, plans the next sweeps.  A bounded piece of work, in transactions of
 * its own.  Must be called outside of transactions.  Does not throw, except for
 * a lack of memory.
 */
extern void sweep(TimestampTz now);

/* Starts the requests that are due; see receipt_reader_ask(). */
extern void ask_for_receipts(TimestampTz now, bool spare);

/* Tells whether sweep() has more to do at once. */
extern bool sweep_has_work(TimestampTz now);

/* Tells whether a sweep is under way, so that the worker must stay. */
extern bool sweeps_are_under_way(void);

/*
 * Tells whether one is due that can be begun.  In a transaction with SPI
 * connected; throws.
 */
extern bool sweeps_are_waiting(void);

#endif /* SENDCAMPAIGN_SWEEP_H */
