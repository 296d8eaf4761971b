/*-------------------------------------------------------------------------
 *
 * job.h
 *	  What the application's background job is told of its run.
 *
 * All functions use the rights of the current role, must be called in a
 * transaction with SPI connected, and may throw.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SENDCAMPAIGN_JOB_H
#define SENDCAMPAIGN_JOB_H

#include "database/app_tables.h"
#include "database/run_table.h"

/* What is written of a run that goes on, or that has completed; palloc'd. */
extern JobReport job_progress(int64 job_id, const RunCounts *counts);
extern JobReport job_end(int64 job_id, const RunCounts *counts);

/* Writes the run's progress. */
extern void job_tell_progress(AppTables *tables, int64 job_id, const RunCounts *counts);

/* Writes that the run continues only at next_at. */
extern void job_tell_sleep(AppTables *tables, int64 job_id, const RunCounts *counts,
						   TimestampTz next_at);

/*
 * Writes that the run has ended in this state.  Here and below, it is an error
 * if the job's row does not change, or people would take that for success.
 */
extern void job_tell_end(AppTables *tables, int64 job_id, const RunCounts *counts,
						 const char *state, const char *error);

/* Writes that several runs have ended, if tables_allow_sets(). */
extern void job_tell_ends(AppTables *tables, const JobReport *reports, int count);

/* Writes an error that a person should know, or with NULL, clears it; the progress stays. */
extern void job_tell_error(AppTables *tables, int64 job_id, const RunCounts *counts,
						   const char *error);

/* Writes that the run is working again. */
extern void job_tell_reopened(AppTables *tables, int64 job_id, const RunCounts *counts);

/* Writes that the extension was dropped; nobody knows the counts any longer. */
extern void job_tell_dropped_extension(AppTables *tables, int64 job_id);

/* Writes state and counts, unless somebody has locked the job's row. */
extern void job_tell_state(AppTables *tables, int64 job_id, const RunCounts *counts);

/*
 * Writes what the run waits for.  If error is NULL, clears that, if the job
 * still shows "told".  Returns false if somebody has locked the row.
 */
extern bool job_tell_trouble(AppTables *tables, int64 job_id, const RunCounts *counts,
							 const char *error, const char *told);

#endif /* SENDCAMPAIGN_JOB_H */
