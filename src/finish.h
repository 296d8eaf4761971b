/*-------------------------------------------------------------------------
 *
 * finish.h
 *	  What the application's job is told, and how a run ends.
 *
 * All in a transaction with SPI connected.  With careful, an error that the
 * application's tables raise is guarded; without, it is thrown.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SENDCAMPAIGN_FINISH_H
#define SENDCAMPAIGN_FINISH_H

#include "run.h"

/*
 * Writes the job's progress and counts; those of the run are in SPI_tuptable
 * (total, sent, failed, skipped, in_doubt).  The job's row may be locked for
 * long: then that can wait.
 */
extern void report_progress(Run *run, bool careful);

/* Ends a run all of whose outcomes are recorded; sets run->finished. */
extern void finish_run(Run *run, bool careful);

/* The same for one that was cancelled; what is left of it is skipped. */
extern void end_cancelled(Run *run, bool careful);

/*
 * The same for one that was never begun, in its caller's transaction; with no
 * tables the application is not told.
 */
extern void end_cancelled_in_queue(AppTables *tables, int64 id, int64 job_id);

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

/* The job of a run that had ended is at work again. */
extern void report_reopened(AppTables *tables, int64 id, int64 job_id);

/*
 * Tells the job the run's state and counts, in a caller's transaction; not
 * where somebody has the job locked.  Throws.
 */
extern void report_state(AppTables *tables, int64 id, int64 job_id);

/*
 * Tells the job what the run waits for, with its state and counts; or, where
 * error is NULL, that it does no more, if the job still says what it was told.
 * False where somebody has the job locked.  Throws.
 */
extern bool report_trouble(Run *run, const char *error, const char *told);

/* After sendcampaign.settle(): the counts and summary of a run that has ended. */
extern void report_settled(AppTables *tables, int64 id, int64 job_id);

/* Tells the job that the extension is gone.  Throws. */
extern void report_dropped_extension(Run *run);

#endif /* SENDCAMPAIGN_FINISH_H */
