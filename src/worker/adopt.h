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
extern bool pause_foreign_runs(void);

/* Are there any that could be adopted?  In a transaction likewise. */
extern bool runs_are_waiting(void);

/* Frees a run and all that it holds. */
extern void free_run(Run *run);

#endif /* SENDCAMPAIGN_ADOPT_H */
