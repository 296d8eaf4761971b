/*-------------------------------------------------------------------------
 *
 * job.c
 *	  What the application's background job is told of its run.
 *
 * Its "progress" is 5 when the run starts, and 100 once the run has completed,
 * not before.  Its "data", if that column exists, contains state and counts.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "lib/stringinfo.h"
#include "utils/datetime.h"
#include "utils/fmgrprotos.h"
#include "utils/json.h"
#include "worker/job.h"

/* A progress that is not written. */
#define SAME_PROGRESS (-1)

/* Returns a jsonb object; next_at is when the run continues, or 0. */
static Datum
job_data(const RunCounts *counts, const char *state, TimestampTz next_at)
{
	char		   time[MAXDATELEN + 1];
	StringInfoData json;

	initStringInfo(&json);
	appendStringInfo(&json,
					 "{\"state\": \"%s\", \"total\": %lld, \"sent\": %lld, \"failed\": %lld,"
					 " \"skipped\": %lld, \"inDoubt\": %lld, \"delivered\": %lld,"
					 " \"undelivered\": %lld, \"unconfirmed\": %lld",
					 state, (long long) counts->total, (long long) counts->sent,
					 (long long) counts->failed, (long long) counts->skipped,
					 (long long) counts->in_doubt, (long long) counts->delivered,
					 (long long) counts->undelivered, (long long) counts->unconfirmed);
	if (next_at != 0)
		appendStringInfo(
			&json, ", \"nextAt\": \"%s\"",
			JsonEncodeDateTime(time, TimestampTzGetDatum(next_at), TIMESTAMPTZOID, NULL));
	appendStringInfoChar(&json, '}');
	return DirectFunctionCall1(jsonb_in, CStringGetDatum(json.data));
}

/* 5 when it starts, then towards 100, which it reaches only at its end. */
static int
progress_of(const RunCounts *counts)
{
	return counts->total > 0 ? (int) Min(99, 5 + run_num_known(counts) * 95 / counts->total) : 5;
}

JobReport
job_progress(int64 job_id, const RunCounts *counts)
{
	return (JobReport){job_id, progress_of(counts), job_data(counts, counts->state, 0)};
}

JobReport
job_end(int64 job_id, const RunCounts *counts)
{
	return (JobReport){job_id, 100, job_data(counts, counts->state, 0)};
}

void
job_tell_progress(AppTables *tables, int64 job_id, const RunCounts *counts)
{
	JobReport report = job_progress(job_id, counts);

	tables_report_progress(tables, &report, 1);
}

void
job_tell_sleep(AppTables *tables, int64 job_id, const RunCounts *counts, TimestampTz next_at)
{
	JobReport report = {job_id, progress_of(counts), job_data(counts, counts->state, next_at)};

	tables_report_progress(tables, &report, 1);
}

static int
count_existing(const AppTables *tables, const JobReport *reports, int count)
{
	int existing = 0;

	for (int i = 0; i < count; i++)
		existing += tables_has_job(tables, reports[i].job_id);
	return existing;
}

void
job_tell_ends(AppTables *tables, const JobReport *reports, int count)
{
	uint64 updated = tables_report_end(tables, reports, count);

	if (updated < count && updated < count_existing(tables, reports, count))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("could not update background job %lld", (long long) reports[0].job_id),
				 errdetail("A trigger, rule or policy suppressed the UPDATE."),
				 errhint("Change it so that it lets the UPDATE pass.")));
}

static void
write_end(AppTables *tables, int64 job_id, int progress, Datum data, const char *error)
{
	JobReport report = {job_id, progress, data, error};

	job_tell_ends(tables, &report, 1);
}

void
job_tell_end(AppTables *tables, int64 job_id, const RunCounts *counts, const char *state,
			 const char *error)
{
	int progress = strcmp(state, "completed") == 0 ? 100 : SAME_PROGRESS;

	write_end(tables, job_id, progress, job_data(counts, state, 0), error);
}

void
job_tell_error(AppTables *tables, int64 job_id, const RunCounts *counts, const char *error)
{
	write_end(tables, job_id, SAME_PROGRESS, job_data(counts, counts->state, 0), error);
}

void
job_tell_reopened(AppTables *tables, int64 job_id, const RunCounts *counts)
{
	write_end(tables, job_id, progress_of(counts), job_data(counts, counts->state, 0), NULL);
}

void
job_tell_dropped_extension(AppTables *tables, int64 job_id)
{
	write_end(tables, job_id, SAME_PROGRESS, DirectFunctionCall1(jsonb_in, CStringGetDatum("{}")),
			  "the extension sendcampaign was dropped while the campaign was being sent");
}

void
job_tell_state(AppTables *tables, int64 job_id, const RunCounts *counts)
{
	tables_report_if_free(tables, job_id, job_data(counts, counts->state, 0));
}

bool
job_tell_trouble(AppTables *tables, int64 job_id, const RunCounts *counts, const char *error,
				 const char *told)
{
	return tables_report_trouble(tables, job_id, job_data(counts, counts->state, 0), error, told);
}
