/*-------------------------------------------------------------------------
 *
 * finish.h
 *	  How a run comes to its end, or to a stop, in the tables.
 *
 * All in a transaction with SPI connected.  With careful, an error that the
 * application's tables raise is attempt_for_run; without, it is thrown.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SENDCAMPAIGN_FINISH_H
#define SENDCAMPAIGN_FINISH_H

#include "database/run_table.h"
#include "worker/run.h"

/*
 * Writes the job's progress and counts.  The job's row may be locked for long:
 * then that can wait.
 */
extern void report_progress(Run *run, const RunCounts *counts, bool careful);

/* Ends a run all of whose outcomes are recorded; sets run->finished. */
extern void finish_run(Run *run, bool careful);

/* The same for one that was cancelled; what is left of it is skipped. */
extern void end_cancelled(Run *run, bool careful);

/* Writes that the run has failed, and why; sets run->stop_recorded. */
extern void fail_run(Run *run, bool careful);

/*
 * Writes that the run is paused until a person resumes it, and why; sets
 * run->finished.  None of its messages may be under way.
 */
extern void pause_run(Run *run, const char *reason, bool careful);

/* All that are left are in their quiet hours: no worker is needed until then. */
extern void put_to_sleep(Run *run, bool careful);

/* The same for a run of whose messages too many fail; some may be under way. */
extern void pause_halted(Run *run, bool careful);

/*
 * Tells the job what the run waits for, with its state and counts; or, where
 * error is NULL, that it does no more, if the job still says what it was told.
 * False where somebody has the job locked.  Throws.
 */
extern bool report_trouble(Run *run, const char *error, const char *told);

/* What a person should know of a run that was cancelled; palloc'd. */
extern char *why_cancelled(int64 id, const RunCounts *counts, const char *stop_reason,
						   bool uncounted);

#endif /* SENDCAMPAIGN_FINISH_H */
