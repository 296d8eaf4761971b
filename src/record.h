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

#include "run.h"

/*
 * Records what is in run->done: rows of sendcampaign.message, sentCount, the
 * run's counts, the job's progress; deletes claims that are through.  With
 * careful, the application's part is guarded: rows that others have locked
 * are left for later, and an error there fails the run, with its outcomes
 * kept.  Without, such an error is thrown.
 */
extern void record_outcomes(Run *run, bool careful);

/* Adds what is missing of sentCount, after a run had failed.  Throws. */
extern void count_uncounted(Run *run);

/* After the commit: forget what is durable. */
extern void forget_recorded(Run *run);
/* After an abort: nothing of it was recorded. */
extern void unrecord(Run *run);

/* Writes what keeps the run from going on, if that has changed. */
extern void record_notice(Run *run);

/* Ends a run all of whose outcomes are recorded; sets run->finished. */
extern void finish_run(Run *run, bool careful);

/* Writes that the run has failed, and why; sets run->stop_recorded. */
extern void fail_run(Run *run, bool careful);

/*
 * Writes that the run is paused until a person resumes it, and why; sets
 * run->finished.  None of its messages may be under way.
 */
extern void pause_run(Run *run, const char *reason);

/* After sendcampaign.settle(): the counts and summary of a run that has ended. */
extern void report_settled(AppTables *tables, int64 job_id);

/*
 * The extension is gone, and with it its tables: sentCount and the job's
 * error are what can still be recorded.
 */
extern void record_without_extension(Run *run);

#endif							/* SENDCAMPAIGN_RECORD_H */
