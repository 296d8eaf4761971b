/*-------------------------------------------------------------------------
 *
 * run_states.h
 *	  What people have made of a worker's runs: paused, resumed, cancelled.
 *
 * All but wants_skipping in a transaction with SPI connected.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SENDCAMPAIGN_RUN_STATES_H
#define SENDCAMPAIGN_RUN_STATES_H

#include "worker/run.h"

/* Reads the states of the worker's runs, which others may have changed. */
extern void read_run_states(void);

/*
 * Skips the next recipients of a cancelled run; sets run->exhausted where
 * there are none.  Throws.
 */
extern void skip_batches(Run *run);

/* After that has failed: it must not be tried again at once. */
extern void wait_with_skipping(Run *run);

/* What of a cancelled run can be looked up no more stays in doubt. */
extern void give_up_doubt(Run *run);

#endif /* SENDCAMPAIGN_RUN_STATES_H */
