/*-------------------------------------------------------------------------
 *
 * run_states.h
 *	  Follows what people do to a worker's runs: pause, resume, cancel.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SENDCAMPAIGN_RUN_STATES_H
#define SENDCAMPAIGN_RUN_STATES_H

#include "worker/run.h"

/*
 * Reads the states of the worker's runs, which others may have changed, and
 * adapts the runs' phases.  In a transaction with SPI connected; throws.
 */
extern void read_run_states(void);

/*
 * Does the same, later in the transaction, for runs that may send something
 * after its commit: a lock that was waited for may have taken the wake-up of
 * somebody who has paused one.
 */
extern void read_states_again(void);

/*
 * Skips some batches of a cancelled run; sets run->exhausted if no batch is
 * left.  In a transaction with SPI connected; throws.
 */
extern void skip_batches(Run *run);

/* To be called after skip_batches() has thrown: makes its next attempt wait a second. */
extern void wait_with_skipping(Run *run);

/* Leaves messages of a cancelled run in doubt if they can no longer be looked up. */
extern void give_up_doubt(Run *run);

#endif /* SENDCAMPAIGN_RUN_STATES_H */
