/*-------------------------------------------------------------------------
 *
 * record.h
 *	  Writes outcomes to the tables, many at once.
 *
 * Functions that write to the tables must be called in a transaction with SPI
 * connected, and may throw.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SENDCAMPAIGN_RECORD_H
#define SENDCAMPAIGN_RECORD_H

#include "worker/run.h"

/*
 * Records what is in run->done, up to a limit: rows of sendcampaign.message,
 * sentCount, the run's counts and the job's progress; deletes claims whose
 * outcomes are all recorded.  If "careful", an error raised by the
 * application's tables is caught, as attempt_for_run() does: list users whom
 * others have locked are left for later, and any other error makes the run
 * fail, but the outcomes are recorded.  Otherwise, such an error is thrown.
 */
extern void record_outcomes(Run *run, bool careful);

/*
 * Tells whether the run's outcomes may be recorded together with those of other
 * runs: nothing about it is unusual.
 */
extern bool may_record_together(Run *run);

/*
 * Records what is in run->done for several such runs, whose tables are the same
 * and tables_allow_sets(), as record_outcomes() does; errors are thrown.  Those
 * that complete by that have ended.  Returns how many of them, from the first
 * one on, fit into one set.
 */
extern int record_together(Run **runs, int count);

/* Increments sentCount where that is still missing, in a run that had failed.  Throws. */
extern void count_uncounted(Run *run);

/*
 * Records that sentCount could not be incremented for these list users
 * (bigint[], or 0), since their rows were not updated.  Returns true if the run
 * has sent a message to any of them.
 */
extern bool mark_uncounted(int64 run_id, Datum ids);

/* To be called after the commit: frees messages whose outcomes are recorded. */
extern void forget_recorded(Run *run);

/* To be called after an abort: the outcomes are to be recorded again. */
extern void unrecord(Run *run);

/* Does the same for what record_skipped() had recorded. */
extern void unrecord_skips(Run *run);

/*
 * For a run whose extension was dropped with its tables: records what still can
 * be recorded, sentCount and the job's error.
 */
extern void record_without_extension(Run *run);

/*
 * Records the recipients of a new claim who are skipped, in the transaction
 * that makes it.  unrecord_skipped() undoes that in memory after claim_batch()
 * has thrown.
 */
extern void record_skipped(Claim *claim);
extern void unrecord_skipped(Claim *claim);

/*
 * Does the same for claims of several runs, but leaves their counts to the
 * caller: sets how many were skipped of each claim.
 */
extern void record_skipped_uncounted(Claim **claims, int count, int64 *skipped);

#endif /* SENDCAMPAIGN_RECORD_H */
