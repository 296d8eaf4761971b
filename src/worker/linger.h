/*-------------------------------------------------------------------------
 *
 * linger.h
 *	  A worker that stays for a while after its last run.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SENDCAMPAIGN_LINGER_H
#define SENDCAMPAIGN_LINGER_H

#include "datatype/timestamp.h"

/* While it lingers, the worker looks this often whether it may stay, in ms. */
#define LINGER_POLL_MS 200

/*
 * Must be called as soon as the worker has connected, outside of a
 * transaction: remembers which settings and rights it has got.
 */
extern void remember_connection(void);

/*
 * Tells whether a new worker would get others, or none at all, or whether that
 * cannot be determined.  Must be called between transactions.
 */
extern bool connection_is_outdated(void);

/* Notes that there is a run: the worker may linger from now on. */
extern void linger_after(TimestampTz now);

/*
 * Tells whether the worker may linger, or go on with that: its time is not
 * over, and it is in nobody's way.  Cheap: no query unless a role, a database
 * or a function has changed.
 */
extern bool may_linger(TimestampTz now);

/* To be called when lingering begins: no locks, nor statistics, are kept back. */
extern bool can_begin_to_linger(void);

#endif /* SENDCAMPAIGN_LINGER_H */
