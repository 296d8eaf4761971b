/*-------------------------------------------------------------------------
 *
 * record.h
 *	  Writes outcomes to the tables, many at once.
 *
 * All in a transaction with SPI connected.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SENDCAMPAIGN_RECORD_H
#define SENDCAMPAIGN_RECORD_H

#include "worker/run.h"

/*
 * Records what is in run->done: rows of sendcampaign.message, sentCount, the
 * run's counts, the job's progress; deletes claims that are through.  With
 * careful, the application's part is attempt_for_run: rows that others have locked
 * are left for later, and an error there fails the run, with its outcomes
 * kept.  Without, such an error is thrown.
 */
extern void record_outcomes(Run *run, bool careful);

/* Adds what is missing of sentCount, after a run had failed.  Throws. */
extern void count_uncounted(Run *run);

/*
 * sentCount of these list users (bigint[], or 0) could not be added, as their
 * rows have not taken it.  True where there are any.
 */
extern bool mark_uncounted(int64 run_id, Datum ids);

/* After the commit: forget what is durable. */
extern void forget_recorded(Run *run);
/* After an abort: nothing of it was recorded. */
extern void unrecord(Run *run);
/* The same for what was recorded with claims. */
extern void unrecord_skips(Run *run);

/*
 * The extension is gone, and with it its tables: sentCount and the job's
 * error are what can still be recorded.
 */
extern void record_without_extension(Run *run);

/*
 * Records those of a claim that is being made who get no message; and takes
 * that back, after it has thrown.
 */
extern void record_skipped(Claim *claim);
extern void unrecord_skipped(Claim *claim);

#endif /* SENDCAMPAIGN_RECORD_H */
