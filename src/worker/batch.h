/*-------------------------------------------------------------------------
 *
 * batch.h
 *	  The recipients of a run that are still to be claimed.
 *
 * All of these are to be called in a transaction with SPI connected; they
 * throw.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SENDCAMPAIGN_BATCH_H
#define SENDCAMPAIGN_BATCH_H

#include "worker/duplicates.h"
#include "worker/run.h"

/*
 * Recipients of one batch: the most that is claimed at once, and as many as
 * fit into a row as they are.
 */
#define BATCH_SIZE 240

typedef struct Batch
{
	int		   number;
	ArrayType *ids; /* bigint[], ascending */
	Duplicates duplicates;
} Batch;

/*
 * Calls the function with the ids of the list's users, in order, until it says
 * false: their ids as bigint[], those of them whose phone others have, and how
 * many there are.  Its memory is reset after each call.
 */
typedef bool (*BatchFunction)(void *arg, Datum ids, Duplicates duplicates, int count);

extern void each_batch(const AppTables *tables, int64 list_id, BatchFunction function, void *arg);

/* At most so many of the ids (bigint[]), from the nth on, counted from 0. */
extern Datum part_of_ids(Datum ids, int first, int most);

/* Stores the ids of the list's users in batches; returns how many there are. */
extern int64 store_recipients(Run *run);
/* Only the first one, whose message a test is. */
extern int64 store_first_recipient(Run *run);

/*
 * Takes the next batch that is due out of the table, palloc'd.  False where
 * there is none: then run->exhausted, or run->next_at, says what comes.
 */
extern bool take_batch(Run *run, Batch *batch);

/*
 * Recipients of the run may be in several of its batches and claims, or have an
 * outcome already: its rows were loaded, or commits lost.  From now on, in this
 * worker and later ones, each batch is compared with the others when it is
 * claimed.
 */
extern void expect_overlaps(Run *run);

/* Those of the ids (bigint[]) that are in no claim and have no outcome; palloc'd, ascending. */
extern ArrayType *leave_out_known(const Run *run, ArrayType *ids);

/* Puts these back into the batch, which is the next one then. */
extern void put_back(Run *run, const Batch *batch, Datum *ids, int count);

/* Puts these off until then. */
extern void put_off(Run *run, Datum *ids, int count, TimestampTz due);

#endif /* SENDCAMPAIGN_BATCH_H */
