/*-------------------------------------------------------------------------
 *
 * job.h
 *	  What the application's background job is told of its run.
 *
 * With the rights of the current role, in a transaction with SPI connected.
 * All throw.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SENDCAMPAIGN_JOB_H
#define SENDCAMPAIGN_JOB_H

#include "database/app_tables.h"
#include "database/run_table.h"

/* How far the run has come. */
extern void job_tell_progress(AppTables *tables, int64 job_id, const RunCounts *counts);

/* It goes on at that time only. */
extern void job_tell_sleep(AppTables *tables, int64 job_id, const RunCounts *counts,
						   TimestampTz next_at);

/*
 * The run has ended in this state.  That the job does not take it is an error,
 * here and below, or people would take it for success.
 */
extern void job_tell_end(AppTables *tables, int64 job_id, const RunCounts *counts,
						 const char *state, const char *error);

/* There is, or is no more, something that a person should know; its progress stays. */
extern void job_tell_error(AppTables *tables, int64 job_id, const RunCounts *counts,
						   const char *error);

/* It is at work again. */
extern void job_tell_reopened(AppTables *tables, int64 job_id, const RunCounts *counts);

/* The extension is gone, and nobody knows the counts any more. */
extern void job_tell_dropped_extension(AppTables *tables, int64 job_id);

/* State and counts; not where somebody has the job locked. */
extern void job_tell_state(AppTables *tables, int64 job_id, const RunCounts *counts);

/*
 * What the run waits for; or, where error is NULL, that it does no more, if
 * the job still says what it was told.  False where somebody has it locked.
 */
extern bool job_tell_trouble(AppTables *tables, int64 job_id, const RunCounts *counts,
							 const char *error, const char *told);

#endif /* SENDCAMPAIGN_JOB_H */
