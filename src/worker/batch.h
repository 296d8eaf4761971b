/*-------------------------------------------------------------------------
 *
 * batch.h
 *	  The recipients of a run that are still to be claimed.
 *
 * All functions must be called in a transaction with SPI connected, and may
 * throw.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SENDCAMPAIGN_BATCH_H
#define SENDCAMPAIGN_BATCH_H

#include "worker/duplicates.h"
#include "worker/run.h"

/*
 * The size of a batch: the most recipients that are claimed at once, and as
 * many as fit into a row without being moved out of it.
 */
#define BATCH_SIZE 240

typedef struct Batch
{
	int		   number;
	ArrayType *ids; /* bigint[], ascending */
	Duplicates duplicates;
} Batch;

/*
 * Called by each_batch() for the ids of the list's users, in ascending order,
 * until it returns false.  Gets their ids (bigint[]), those of them who share
 * a phone number with others, and their number.  Its memory context is reset
 * after each call.
 */
typedef bool (*BatchFunction)(void *arg, Datum ids, Duplicates duplicates, int count);

/*
 * Reads the campaign's list with the active snapshot, and its query if it has
 * one, and calls that function.  If "most" is not PG_INT64_MAX, and the list has
 * more users than that, or it takes long to find them, returns false without
 * having called it.
 */
extern bool each_batch(const Campaign *campaign, int64 most, BatchFunction function, void *arg);

/* Returns at most this many of the ids (bigint[]), from the given one on, counted from 0. */
extern Datum part_of_ids(Datum ids, int first, int most);

/*
 * Stores the list's users in batches, and sets *total to their number; returns
 * false, without having stored anything, where each_batch() does.
 */
extern bool store_recipients(Run *run, int64 most, int64 *total);

/* Stores only the first one, who gets a test; returns 0 if there is none. */
extern int64 store_first_recipient(Run *run);

/*
 * Removes the next batch that is due from the table, and returns it, palloc'd.
 * Returns false if none is due: then either run->exhausted is true, or
 * run->next_at is when the next one is due.
 */
extern bool take_batch(Run *run, Batch *batch);

/* Sets these two by what the table has now; a batch that is due by now counts, too. */
extern void look_ahead(Run *run);

/*
 * Notes that recipients of the run may be in several of its batches and
 * claims, or have an outcome already, because its rows were loaded or commits
 * were lost.  From now on, in this worker and later ones, each batch is
 * checked for that when it is claimed.
 */
extern void expect_overlaps(Run *run);

/*
 * Returns those of the ids (bigint[]) that are in no claim and have no
 * outcome; palloc'd, ascending.
 */
extern ArrayType *leave_out_known(const Run *run, ArrayType *ids);

/* Puts these recipients back into the batch, which then is the next one. */
extern void put_back(Run *run, const Batch *batch, Datum *ids, int count);

/* Stores these recipients as not due before that time. */
extern void put_off(Run *run, Datum *ids, int count, TimestampTz due);

#endif /* SENDCAMPAIGN_BATCH_H */
