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
extern TimestampTz next_tick;	   /* after a failed one: not before this */
extern bool		   extension_gone; /* true if the last one found it so */

/*
 * Does everything that the database has to do now.  If that fails, sets
 * next_tick to when to try again; throws if it has failed too often.
 */
extern void work(void);

/* Tries it once; returns false if it failed, with the error in *error, palloc'd. */
extern bool try_tick(bool careful, ErrorData **error);

#endif /* SENDCAMPAIGN_TICK_H */
