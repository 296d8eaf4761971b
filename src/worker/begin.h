/*-------------------------------------------------------------------------
 *
 * begin.h
 *	  Begins small runs, many in one go.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SENDCAMPAIGN_BEGIN_H
#define SENDCAMPAIGN_BEGIN_H

#include "worker/run.h"

/*
 * Begins those of these new runs whose lists are small: reads their text and
 * their recipients, and claims all of them.  The runs must be in the worker, and
 * of one schema.  Puts those that have begun first, and returns their number.
 * The others are as before: they are to be taken up one by one, either because
 * they are unusual or because one of them has raised an error; or later, if
 * waits_for_room is set.  In a transaction with SPI connected; throws only what
 * is no run's fault.
 */
extern int begin_small_runs(Run **runs, int count);

/* Returns how many messages may still be claimed by that. */
extern int room_for_small_runs(void);

#endif /* SENDCAMPAIGN_BEGIN_H */
