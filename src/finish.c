/*-------------------------------------------------------------------------
 *
 * finish.c
 *	  What the application's job is told, and how a run ends.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "announce.h"
#include "catalog/pg_type.h"
#include "classify.h"
#include "finish.h"
#include "guard.h"
#include "own.h"
#include "settings.h"
#include "utils/builtins.h"
#include "utils/datetime.h"
#include "utils/fmgrprotos.h"
#include "utils/json.h"
#include "utils/timestamp.h"

/* What the tables say of a run. */
typedef struct RunCounts
{
	long long	total;
	long long	sent;
	long long	failed;
	long long	skipped;
	long long	in_doubt;
	const char *state;
	const char *error;
} RunCounts;

/* Of the run in SPI_tuptable: total, sent, failed, skipped, in_doubt, state. */
static RunCounts
counts_of_current_row(void)
{
	return (RunCounts){.total = spi_int64(0, 1),
					   .sent = spi_int64(0, 2),
					   .failed = spi_int64(0, 3),
					   .skipped = spi_int64(0, 4),
					   .in_doubt = spi_int64(0, 5),
					   .state = spi_string(0, 6)};
}

static long long
num_done(const RunCounts *counts)
{
	return counts->sent + counts->failed + counts->skipped + counts->in_doubt;
}

/*
 * State and counts as the job shows them, a jsonb object; with next_at, when
 * the run goes on.
 */
static Datum
job_data(const RunCounts *counts, const char *state, TimestampTz next_at)
{
	char		   time[MAXDATELEN + 1];
	StringInfoData json;

	initStringInfo(&json);
	appendStringInfo(&json,
					 "{\"state\": \"%s\", \"total\": %lld, \"sent\": %lld, \"failed\": %lld,"
					 " \"skipped\": %lld, \"inDoubt\": %lld",
					 state, counts->total, counts->sent, counts->failed, counts->skipped,
					 counts->in_doubt);
	if (next_at != 0)
		appendStringInfo(
			&json, ", \"nextAt\": \"%s\"",
			JsonEncodeDateTime(time, TimestampTzGetDatum(next_at), TIMESTAMPTZOID, NULL));
	appendStringInfoChar(&json, '}');
	return DirectFunctionCall1(jsonb_in, CStringGetDatum(json.data));
}

/* 5 when it starts, towards 100 as it goes, 100 only at its end. */
static int
progress_of(const RunCounts *counts)
{
	return counts->total > 0 ? (int) Min(99, 5 + num_done(counts) * 95 / counts->total) : 5;
}

/* What the two functions below write; guarded functions take a run only. */
static struct
{
	int			progress;
	Datum		counts;
	const char *error;
} report;

static void
write_progress(Run *run)
{
	tables_report_progress(run->campaign.tables, run->job_id, report.progress, report.counts);
}

/* Where the job is there and does not change, nobody must take that for success. */
static void
write_job_end(Run *run)
{
	if (tables_report_end(run->campaign.tables, run->job_id, report.progress, report.counts,
						  report.error) == 0 &&
		tables_has_job(run->campaign.tables, run->job_id))
		ereport(ERROR, (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
						errmsg("background job %lld could not be updated", (long long) run->job_id),
						errdetail("A trigger, a rule or a policy suppresses the update."),
						errhint("Have it let the update pass.")));
}

/* In the application's tables; with careful, an error there is the run's. */
static bool
in_application(RunFunction function, Run *run, Backoff *backoff, bool careful)
{
	if (careful)
		return guarded(function, run, backoff);
	function(run);
	return true;
}

void
report_progress(Run *run, bool careful)
{
	RunCounts counts;

	if (run->reporting.until > GetCurrentTimestamp() || run->campaign.test_phone)
		return;
	counts = counts_of_current_row();
	report.counts = job_data(&counts, counts.state, 0);
	report.progress = progress_of(&counts);
	if (in_application(write_progress, run, &run->reporting, careful))
		end_back_off(&run->reporting);
}

/* "21211 invalid 'To' number (2), 21614 ...", of the messages of one status. */
static void
append_reasons(StringInfo buf, Run *run, const char *status, TimestampTz since)
{
	Oid	   types[] = {INT8OID, TEXTOID, TIMESTAMPTZOID};
	Datum  values[] = {Int64GetDatum(run->id), CStringGetTextDatum(status),
					   TimestampTzGetDatum(since)};
	uint64 count;

	count = own_query(
		"SELECT error_code, min(error_message), count(*) FROM sendcampaign.message_data"
		" WHERE run_id = $1 AND status = $2 AND created_at >= $3 GROUP BY error_code,"
		" CASE WHEN error_code IS NULL THEN error_message END"
		" ORDER BY count(*) DESC, error_code LIMIT 6",
		3, types, values, NULL);
	for (uint64 i = 0; i < count; i++)
	{
		int			code = spi_int32(i, 1);
		const char *known = describe_error_code(code);

		appendStringInfoString(buf, i == 0 ? ": " : ", ");
		if (i == 5)
		{
			appendStringInfoString(buf, "...");
			break;
		}
		if (code)
			appendStringInfo(buf, "%d ", code);
		appendStringInfo(buf, "%s (%lld)", known ? known : spi_string(i, 2),
						 (long long) spi_int64(i, 3));
	}
}

/* Those whose row has not taken it. */
static void
append_uncounted(StringInfo buf, Run *run)
{
	Oid	  type = INT8OID;
	Datum value = Int64GetDatum(run->id);
	int64 count;

	(void) own_query(
		"SELECT count(*) FROM sendcampaign.message_data WHERE run_id = $1 AND NOT counted", 1,
		&type, &value, NULL);
	count = spi_int64(0, 1);
	if (count > 0)
		appendStringInfo(
			buf,
			"%ssentCount of %lld could not be added: a trigger, rule or policy has suppressed the update",
			buf->len > 0 ? "; " : "", (long long) count);
}

/* What a person should know of a run that has ended, or NULL. */
static char *
summary(Run *run, const RunCounts *counts)
{
	StringInfoData buf;

	initStringInfo(&buf);
	if (counts->failed == 0 && counts->in_doubt == 0)
	{
		if (run->uncounted)
			append_uncounted(&buf, run);
		return buf.len > 0 ? buf.data : NULL;
	}
	if (counts->failed > 0)
	{
		appendStringInfo(&buf, "%lld of %lld messages failed", counts->failed, counts->total);
		append_reasons(&buf, run, "failed", DT_NOBEGIN);
	}
	if (counts->in_doubt > 0)
	{
		appendStringInfo(&buf, "%s%lld of %lld messages in doubt", buf.len > 0 ? "; " : "",
						 counts->in_doubt, counts->total);
		append_reasons(&buf, run, "in_doubt", DT_NOBEGIN);
	}
	if (counts->skipped > 0)
	{
		appendStringInfo(&buf, "; %lld of %lld skipped", counts->skipped, counts->total);
		append_reasons(&buf, run, "skipped", DT_NOBEGIN);
	}
	if (run->uncounted)
		append_uncounted(&buf, run);
	return buf.data;
}

/* The summary of a completed run; that nothing was sent is no success either. */
static char *
summary_of_completed(Run *run, const RunCounts *counts)
{
	StringInfoData buf;

	if (counts->skipped < counts->total)
		return summary(run, counts);
	initStringInfo(&buf);
	if (counts->total == 0)
		appendStringInfo(&buf, "nothing was sent: list %lld has no users that role \"%s\" may see",
						 (long long) run->campaign.list_id, worker.role_name);
	else
	{
		appendStringInfo(&buf, "nothing was sent: %lld of %lld skipped", counts->skipped,
						 counts->total);
		append_reasons(&buf, run, "skipped", DT_NOBEGIN);
	}
	return buf.data;
}

/*
 * Whoever listens sees that the run has ended or needs a person.  All roles
 * may listen, so counts and errors are read in sendcampaign.run.
 */
static void
prepare_announcement(Run *run)
{
	static OwnStatement statement = {
		"SELECT " ANNOUNCEMENT " FROM sendcampaign.run_data WHERE id = $1", 1, {INT8OID}};
	Datum		  value = Int64GetDatum(run->id);
	MemoryContext context = run->context ? run->context : CurrentMemoryContext;

	if (own_execute(&statement, &value, NULL) > 0)
		run->announcement = MemoryContextStrdup(context, spi_string(0, 1));
}

/*
 * Writes the end into the job and the run, with what is to be announced; false
 * where that can only be done later.
 */
static bool
write_end(Run *run, const RunCounts *counts, const char *state, const char *error, bool completed,
		  bool careful)
{
	static OwnStatement end = {
		"UPDATE sendcampaign.run_data SET state = $2, error = $3, finished_at = clock_timestamp()"
		" WHERE id = $1",
		3,
		{INT8OID, TEXTOID, TEXTOID}};
	Datum values[] = {Int64GetDatum(run->id), CStringGetTextDatum(state), optional_text(error)};

	report.progress = completed ? 100 : -1;
	report.counts = job_data(counts, state, 0);
	report.error = error;
	run->recording.until = 0;
	if (run->campaign.tables && run->campaign.test_phone == NULL &&
		!in_application(write_job_end, run, &run->recording, careful) &&
		(run->recording.until > 0 || completed))
		return false;
	(void) own_execute(&end, values, error ? "   " : "  n");
	prepare_announcement(run);
	return true;
}

/* Locks the run; false where it is gone. */
static bool
read_counts(const Run *run, RunCounts *counts)
{
	static OwnStatement statement = {
		"SELECT total, sent, failed, skipped, in_doubt, state, error FROM sendcampaign.run_data"
		" WHERE id = $1 FOR NO KEY UPDATE",
		1,
		{INT8OID}};
	Datum value = Int64GetDatum(run->id);

	if (own_execute(&statement, &value, NULL) == 0)
		return false;
	*counts = counts_of_current_row();
	counts->error = spi_string(0, 7);
	return true;
}

/*
 * What somebody has made of it, committed since we looked: that counts, and
 * the next look sees it.
 */
static bool
is_in_state(const RunCounts *counts, const char *state)
{
	return strcmp(counts->state, state) == 0;
}

#define DO_NOT_ADD_UP "internal error: the outcomes do not add up to the number of recipients"

static bool
counts_add_up(const RunCounts *counts)
{
	return counts->total == num_done(counts);
}

void
finish_run(Run *run, bool careful)
{
	RunCounts counts;

	if (!read_counts(run, &counts))
		run->finished = true;
	else if (!is_in_state(&counts, "running") && !is_in_state(&counts, "queued"))
		return;
	else if (!counts_add_up(&counts))
		run_stop(run, DO_NOT_ADD_UP);
	else
		run->finished = write_end(run, &counts, "completed", summary_of_completed(run, &counts),
								  true, careful);
}

/* Who has cancelled it, and what else a person should know of it. */
static char *
why_cancelled(Run *run, const RunCounts *counts)
{
	const char *rest = summary(run, counts);

	if (!counts_add_up(counts))
		rest = reason_text(DO_NOT_ADD_UP, rest, NULL);
	return reason_text(counts->error ? counts->error : "cancelled", run->stop_reason, rest);
}

void
end_cancelled(Run *run, bool careful)
{
	RunCounts counts;

	if (!read_counts(run, &counts))
		run->finished = true;
	else
		run->finished = write_end(run, &counts, "cancelled", why_cancelled(run, &counts), false,
								  careful);
}

void
end_cancelled_in_queue(AppTables *tables, int64 id, int64 job_id)
{
	Run run = {.id = id, .job_id = job_id, .campaign.tables = tables};

	end_cancelled(&run, false);
	if (run.announcement)
		announce_at_commit(run.announcement);
}

void
report_reopened(AppTables *tables, int64 id, int64 job_id)
{
	Run		  run = {.id = id, .job_id = job_id, .campaign.tables = tables};
	RunCounts counts;

	if (!read_counts(&run, &counts))
		return;
	report.progress = progress_of(&counts);
	report.counts = job_data(&counts, counts.state, 0);
	report.error = NULL;
	write_job_end(&run);
}

void
report_state(AppTables *tables, int64 id, int64 job_id)
{
	Run		  run = {.id = id, .job_id = job_id};
	RunCounts counts;

	if (read_counts(&run, &counts))
		tables_report_if_free(tables, job_id, job_data(&counts, counts.state, 0));
}

bool
report_trouble(Run *run, const char *error, const char *told)
{
	AppTables *tables = run->campaign.tables;
	RunCounts  counts;

	if (tables == NULL || run->campaign.test_phone || !read_counts(run, &counts))
		return true;
	return tables_report_trouble(tables, run->job_id, job_data(&counts, counts.state, 0), error,
								 told);
}

void
report_settled(AppTables *tables, int64 id, int64 job_id)
{
	Run		  run = {.id = id, .job_id = job_id, .campaign.tables = tables, .uncounted = true};
	Oid		  types[] = {INT8OID, TEXTOID};
	char	 *error;
	Datum	  values[2];
	RunCounts counts;

	if (!read_counts(&run, &counts))
		return;
	report.counts = job_data(&counts, counts.state, 0);
	error = summary(&run, &counts);
	values[0] = Int64GetDatum(id);
	values[1] = optional_text(error);
	if (own_query(
			"UPDATE sendcampaign.run_data SET error = $2 WHERE id = $1 AND state = 'completed'", 2,
			types, values, error ? "  " : " n") == 0)
		return; /* it will say so when it ends */
	report.progress = -1;
	report.error = error;
	if (tables)
		write_job_end(&run);
}

void
fail_run(Run *run, bool careful)
{
	RunCounts counts;
	bool	  exists = read_counts(run, &counts);

	if (exists && is_in_state(&counts, "cancelled"))
		return;
	if (exists && !write_end(run, &counts, "failed", run->stop_reason, false, careful))
		return;
	ereport(
		LOG,
		(errmsg("sendcampaign: job %lld has failed: %s", (long long) run->job_id, run->stop_reason),
		 errhint(
			 "Mend the cause and call send_campaign() with the same campaign and job: it goes on where it stopped.")));
	run->stop_recorded = true;
}

void
put_to_sleep(Run *run, bool careful)
{
	static OwnStatement statement = {"UPDATE sendcampaign.run_data SET next_at = $2 WHERE id = $1"
									 " RETURNING total, sent, failed, skipped, in_doubt, state",
									 2,
									 {INT8OID, TIMESTAMPTZOID}};
	Datum				values[] = {Int64GetDatum(run->id), TimestampTzGetDatum(run->next_at)};

	RunCounts counts;

	run->asleep = true;
	if (own_execute(&statement, values, NULL) == 0 || run->campaign.test_phone)
		return;
	counts = counts_of_current_row();
	report.counts = job_data(&counts, counts.state, run->next_at);
	report.progress = progress_of(&counts);
	(void) in_application(write_progress, run, &run->reporting, careful);
}

/* False where somebody has paused or cancelled it just now. */
static bool
write_pause(Run *run, const char *reason, const char *paused_from, bool careful)
{
	Oid		  types[] = {INT8OID, TEXTOID, TEXTOID};
	Datum	  values[] = {Int64GetDatum(run->id), CStringGetTextDatum(reason),
						  optional_text(paused_from)};
	RunCounts counts;

	if (own_query("UPDATE sendcampaign.run_data SET state = 'paused', error = $2, paused_from = $3"
				  " WHERE id = $1 AND state IN ('queued', 'running')"
				  " RETURNING total, sent, failed, skipped, in_doubt, state",
				  3, types, values, paused_from ? NULL : "  n") == 0)
		return false;
	counts = counts_of_current_row();
	report.progress = -1;
	report.counts = job_data(&counts, counts.state, 0);
	report.error = reason;
	if (run->campaign.tables && run->campaign.test_phone == NULL)
		(void) in_application(write_job_end, run, &run->reporting, careful);
	prepare_announcement(run);
	ereport(LOG, (errmsg("sendcampaign: job %lld is paused: %s", (long long) run->job_id, reason),
				  errhint("If it should go on all the same, call sendcampaign.resume(%lld).",
						  (long long) run->job_id)));
	return true;
}

void
pause_run(Run *run, const char *reason, bool careful)
{
	if (write_pause(run, reason, NULL, careful))
		run->finished = true;
}

void
pause_halted(Run *run, bool careful)
{
	StringInfoData buf;

	initStringInfo(&buf);
	appendStringInfo(&buf,
					 "%d of %d messages failed, more than sendcampaign.max_failures allows (%s)",
					 run->num_failures, run->num_verdicts, sendcampaign_max_failures);
	append_reasons(&buf, run, "failed", run->verdicts_since);
	(void) write_pause(run,
					   reason_text(buf.data, NULL,
								   "Look at sendcampaign.message, then call"
								   " sendcampaign.resume() or sendcampaign.cancel()."),
					   "running", careful);
}

void
report_dropped_extension(Run *run)
{
	report.progress = -1;
	report.counts = DirectFunctionCall1(jsonb_in, CStringGetDatum("{}"));
	report.error = "the extension sendcampaign was dropped while the campaign was being sent";
	write_job_end(run);
}
