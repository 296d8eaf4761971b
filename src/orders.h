/*-------------------------------------------------------------------------
 *
 * orders.h
 *	  What people have made of a worker's runs: paused, resumed, cancelled.
 *
 * All but wants_wind_up in a transaction with SPI connected.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SENDCAMPAIGN_ORDERS_H
#define SENDCAMPAIGN_ORDERS_H

#include "run.h"

/* Reads the states of the worker's runs, which others may have changed. */
extern void follow_orders(void);

/* Is there something of a cancelled run left to be skipped, and is it time? */
extern bool wants_wind_up(const Run *run, TimestampTz now);

/*
 * Skips the next recipients of a cancelled run; sets run->exhausted where
 * there are none.  Throws.
 */
extern void wind_up(Run *run);

/* After that has failed: it must not be tried again at once. */
extern void wait_with_wind_up(Run *run);

/* What of a cancelled run can be looked up no more stays in doubt. */
extern void give_up_doubt(Run *run);

/*
 * Brings the cancelled runs of a role that no worker can work for to their
 * end, and says why; but not those that somebody has locked.  Returns how
 * many; what is to be announced of them is in SPI_tuptable.
 */
extern uint64 wind_up_without_worker(Oid role, const char *reason);

/* Likewise, one run that no worker here takes up. */
extern uint64 wind_up_run_without_worker(int64 id, const char *reason);

#endif /* SENDCAMPAIGN_ORDERS_H */
