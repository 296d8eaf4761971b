/*-------------------------------------------------------------------------
 *
 * tick.h
 *	  The worker's one transaction: adopt, claim, record, finish.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SENDCAMPAIGN_TICK_H
#define SENDCAMPAIGN_TICK_H

#include "datatype/timestamp.h"

extern TimestampTz last_record;	   /* when outcomes were last recorded */
extern TimestampTz last_look;	   /* when the queue was last examined; 0: do so now */
extern TimestampTz next_tick;	   /* after a failure: not before this; or 0 */
extern bool		   extension_gone; /* true if the last tick found that */

/*
 * Does everything that is to be done in the database now.  If that fails, sets
 * next_tick to the time of the next attempt; throws if it has failed too often.
 * Must be called outside of transactions.
 */
extern void work(void);

/*
 * Tries that once; if "careful", each run in a subtransaction of its own.
 * Returns false if it failed, with the error in *error, palloc'd.
 */
extern bool try_tick(bool careful, ErrorData **error);

#endif /* SENDCAMPAIGN_TICK_H */
