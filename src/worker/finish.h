/*-------------------------------------------------------------------------
 *
 * finish.h
 *	  Ends or pauses a run in the tables.
 *
 * All functions must be called in a transaction with SPI connected, and may
 * throw.  If "careful", an error raised by the application's tables is caught,
 * as attempt_for_run() does; otherwise it is thrown.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SENDCAMPAIGN_FINISH_H
#define SENDCAMPAIGN_FINISH_H

#include "database/run_table.h"
#include "worker/run.h"

/*
 * Writes progress and counts to the job.  Does nothing while that has to wait
 * because of an error, for example since the job's row is locked for long.
 */
extern void report_progress(Run *run, const RunCounts *counts, bool careful);

/*
 * Completes a run whose outcomes are all recorded; it leaves memory after the
 * commit.
 */
extern void finish_run(Run *run, bool careful);

/* Does the same for a run that was cancelled, whose remaining recipients were skipped. */
extern void end_cancelled(Run *run, bool careful);

/* Writes that the run has failed for its stop_reason, which leads to RUN_FAILED. */
extern void fail_run(Run *run, bool careful);

/*
 * Pauses the run, for this reason, until a person resumes it; it leaves memory
 * after the commit.  None of its messages may be under way.
 */
extern void pause_run(Run *run, const char *reason, bool careful);

/* Writes that the run needs no worker until run->next_at, when quiet hours end. */
extern void put_to_sleep(Run *run, bool careful);

/* Pauses a run because too many of its messages have failed; some may be under way. */
extern void pause_halted(Run *run, bool careful);

/*
 * Writes to the job what the run is waiting for, with its state and counts.  If
 * error is NULL, clears that, if the job still shows "told".  Returns false if
 * somebody has locked the job's row.  Throws, even errors of the application's
 * tables.
 */
extern bool report_trouble(Run *run, const char *error, const char *told);

/* Returns what a person should know about a cancelled run; palloc'd. */
extern char *why_cancelled(int64 id, const RunCounts *counts, const char *stop_reason,
						   bool uncounted);

#endif /* SENDCAMPAIGN_FINISH_H */
