/*-------------------------------------------------------------------------
 *
 * adopt.h
 *	  Takes runs from the queue into the worker.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SENDCAMPAIGN_ADOPT_H
#define SENDCAMPAIGN_ADOPT_H

#include "worker/run.h"

/*
 * Adopts unfinished runs of the role that the worker does not have yet, as many
 * as it can hold: begins new ones, or leaves them to list workers, and continues
 * others.  Returns their number, plus that of those that keep all of their schema
 * waiting: others were not tried because of these.
 * In a transaction with SPI connected; throws.
 */
extern int adopt_runs(void);

/*
 * For a list worker: begins a run that is in the queue, with all of its
 * recipients.  Returns false if it cannot begin now, as it is not in the queue any longer
 * or somebody else has it.  In a transaction with SPI connected; throws.
 */
extern bool begin_queued_run(int64 id);

/*
 * Pauses runs of the role whose home is not this cluster and database, since
 * they were restored from a dump or copied.  Returns true if there may be more.
 * In a transaction with SPI connected; throws.
 */
extern bool pause_foreign_runs(void);

/*
 * Tells whether there are runs that might be adopted.  In a transaction with SPI
 * connected; throws.
 */
extern bool runs_are_waiting(void);

/* Removes a run from the worker, and frees it with everything that it holds. */
extern void free_run(Run *run);

#endif /* SENDCAMPAIGN_ADOPT_H */
