/*-------------------------------------------------------------------------
 *
 * adopt.h
 *	  Takes runs from the queue into the worker.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SENDCAMPAIGN_ADOPT_H
#define SENDCAMPAIGN_ADOPT_H

#include "run.h"

/*
 * Adopts the role's unfinished runs that the worker has not yet, up to what
 * it can hold: new ones are begun, others go on.  Returns how many.  In a
 * transaction with SPI connected.
 */
extern int adopt_runs(void);

/*
 * Pauses the role's runs that are not at home, in this cluster and database:
 * a dump of them was restored, or they were copied.  In a transaction likewise.
 * True where there may be more.
 */
extern bool pause_strangers(void);

/*
 * Of runs: is there something to do now?  Not for those whose recipients are
 * all in their quiet hours.
 */
#define IS_WAITING                                                                                 \
	" AND finished_at IS NULL AND state <> 'paused'"                                               \
	" AND (next_at IS NULL OR next_at <= clock_timestamp() OR state = 'cancelled')"

/* Are there any that could be adopted?  In a transaction likewise. */
extern bool runs_are_waiting(void);

/* The ids of the worker's runs, a bigint[]. */
extern Datum ids_of_runs(void);

/* Frees a run and all that it holds. */
extern void free_run(Run *run);

#endif /* SENDCAMPAIGN_ADOPT_H */
