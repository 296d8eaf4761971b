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

extern TimestampTz last_record;	   /* when outcomes were recorded last */
extern TimestampTz last_look;	   /* when the queue was looked at last; 0: now */
extern TimestampTz next_tick;	   /* not before that, after a failed one */
extern bool		   extension_gone; /* found so by the last one */

/*
 * All that the database has to do now.  Where that fails, next_tick says when
 * to try again; throws when it has failed too often.
 */
extern void work(void);

/* One try of it; false where it failed, with the error in *error, palloc'd. */
extern bool try_tick(bool careful, ErrorData **error);

#endif /* SENDCAMPAIGN_TICK_H */
