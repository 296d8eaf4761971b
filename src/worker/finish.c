/*-------------------------------------------------------------------------
 *
 * finish.c
 *	  Ends or pauses a run in the tables.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "database/attempt.h"
#include "settings.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"
#include "worker/batch.h"
#include "worker/failure_limit.h"
#include "worker/finish.h"
#include "worker/run_attempt.h"
#include "worker/job.h"
#include "worker/locked_work.h"
#include "worker/summary.h"

/* What one of the functions below writes to the run's job. */
typedef struct Telling
{
	const RunCounts *counts;
	const char		*state;
	const char		*error;
	TimestampTz		 next_at;
} Telling;

static void
tell_progress(Run *run, void *arg)
{
	const Telling *telling = arg;

	job_tell_progress(run->campaign.tables, run->job_id, telling->counts);
}

static void
tell_sleep(Run *run, void *arg)
{
	const Telling *telling = arg;

	job_tell_sleep(run->campaign.tables, run->job_id, telling->counts, telling->next_at);
}

static void
tell_end(Run *run, void *arg)
{
	const Telling *telling = arg;

	job_tell_end(run->campaign.tables, run->job_id, telling->counts, telling->state,
				 telling->error);
}

static void
tell_error(Run *run, void *arg)
{
	const Telling *telling = arg;

	job_tell_error(run->campaign.tables, run->job_id, telling->counts, telling->error);
}

/*
 * Calls a function that writes to the application's tables.  Returns false if
 * an error was caught.
 */
static bool
in_application(RunFunction function, Run *run, Telling *telling, Backoff *backoff, bool careful)
{
	if (!careful)
		function(run, telling);
	else if (!attempt_work(function, run, telling, backoff))
		return false;
	else
		tables_are_free(run, backoff);
	return true;
}

/* A test has no job; a run that could not be taken up has no open tables. */
static bool
has_job(const Run *run)
{
	return run->campaign.tables != NULL && run->campaign.test_phone == NULL;
}

void
report_progress(Run *run, const RunCounts *counts, bool careful)
{
	Telling telling = {counts};

	if (!has_job(run) || !may_try_work(run, &run->reporting, GetCurrentTimestamp()))
		return;
	if (in_application(tell_progress, run, &telling, &run->reporting, careful))
		end_back_off(&run->reporting);
}

/* Returns the summary of a completed run, palloc'd.  That nothing was sent is no success. */
static char *
summary_of_completed(const Run *run, const RunCounts *counts)
{
	StringInfoData buf;

	if (counts->skipped < counts->total)
		return run_summary(run->id, counts, run->uncounted);
	initStringInfo(&buf);
	if (counts->total == 0 && run->has_query)
		appendStringInfo(&buf,
						 "nothing was sent: the query that selects the recipients has returned no"
						 " list user that role \"%s\" may see",
						 worker.role_name);
	else if (counts->total == 0)
		appendStringInfo(&buf, "nothing was sent: list %lld has no users that role \"%s\" may see",
						 (long long) run->campaign.list_id, worker.role_name);
	else
	{
		appendStringInfo(&buf, "nothing was sent: %lld of %lld skipped",
						 (long long) counts->skipped, (long long) counts->total);
		append_reasons(&buf, run->id, "skipped", DT_NOBEGIN);
	}
	return buf.data;
}

/*
 * Prepares the notification that the run has ended or needs a person.  It has
 * neither counts nor errors, since all roles may listen: people read those in
 * sendcampaign.run.
 */
static void
prepare_announcement(Run *run, const char *announcement)
{
	if (announcement)
		run_announce(run, announcement);
}

/*
 * Writes the end to the job and to the run, and prepares its notification.
 * Returns false if that can only be done later.
 */
static bool
write_end(Run *run, const RunCounts *counts, const char *state, const char *error, bool careful)
{
	Telling telling = {counts, state, error};
	bool	completed = strcmp(state, "completed") == 0;

	run->recording.until = 0;
	if (has_job(run) && !in_application(tell_end, run, &telling, &run->recording, careful) &&
		(run->recording.until > 0 || completed))
		return false;
	prepare_announcement(run, runs_end(run->id, state, error));
	return true;
}

/*
 * Tells whether the run has this state.  If somebody has changed the state since
 * we read it, theirs counts, and is seen the next time that we read it.
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
	return counts->total == run_num_known(counts);
}

void
finish_run(Run *run, bool careful)
{
	RunCounts counts;

	if (!runs_lock_counts(run->id, &counts))
		run_wrote(run, RUN_ENDED);
	else if (!is_in_state(&counts, "running") && !is_in_state(&counts, "queued"))
		return;
	else if (!counts_add_up(&counts))
		run_stop(run, DO_NOT_ADD_UP);
	else if (write_end(run, &counts, "completed", summary_of_completed(run, &counts), careful))
		run_wrote(run, RUN_ENDED);
}

char *
why_cancelled(int64 id, const RunCounts *counts, const char *stop_reason, bool uncounted)
{
	const char *rest = run_summary(id, counts, uncounted);

	if (!counts_add_up(counts))
		rest = reason_text(DO_NOT_ADD_UP, rest, NULL);
	return reason_text(counts->error ? counts->error : "cancelled", stop_reason, rest);
}

void
end_cancelled(Run *run, bool careful)
{
	RunCounts counts;
	char	 *why;

	if (runs_lock_counts(run->id, &counts))
	{
		why = why_cancelled(run->id, &counts, run->stop_reason, run->uncounted);
		if (!write_end(run, &counts, "cancelled", why, careful))
			return;
	}
	run_wrote(run, RUN_ENDED);
}

bool
report_trouble(Run *run, const char *error, const char *told)
{
	RunCounts counts;

	if (!has_job(run) || !runs_lock_counts(run->id, &counts))
		return true;
	return job_tell_trouble(run->campaign.tables, run->job_id, &counts, error, told);
}

void
fail_run(Run *run, bool careful)
{
	RunCounts counts;
	bool	  exists = runs_lock_counts(run->id, &counts);

	if (exists && is_in_state(&counts, "cancelled"))
		return;
	if (exists && !write_end(run, &counts, "failed", run->stop_reason, careful))
		return;
	ereport(LOG,
			(errmsg("sendcampaign: job %lld has failed: %s",
					(long long) run->job_id, run->stop_reason),
			 errhint("Fix the cause and call send_campaign() with the same campaign and job to"
					 " continue.")));
	run_wrote(run, RUN_FAILED);
}

/*
 * Since we have looked, perhaps long ago, resume() may have made all batches due.
 * That is known for sure while we have the row locked.
 */
static bool
sleeps_still(Run *run)
{
	look_ahead(run);
	return run->next_at > GetCurrentTimestamp();
}

void
put_to_sleep(Run *run, bool careful)
{
	RunCounts counts;
	Telling	  telling = {&counts};

	if (runs_lock_counts(run->id, &counts) && !sleeps_still(run))
		return;
	run_wrote(run, RUN_ASLEEP);
	telling.next_at = run->next_at;
	if (runs_sleep(run->id, run->next_at, &counts) && has_job(run))
		(void) in_application(tell_sleep, run, &telling, &run->reporting, careful);
}

/* Returns false if somebody has just paused or cancelled the run. */
static bool
write_pause(Run *run, const char *reason, const char *paused_from, bool careful)
{
	RunCounts counts;
	Telling	  telling = {&counts, .error = reason};

	if (!runs_pause_itself(run->id, reason, paused_from, &counts))
		return false;
	if (has_job(run))
		(void) in_application(tell_error, run, &telling, &run->reporting, careful);
	prepare_announcement(run, runs_announcement(run->id));
	ereport(LOG,
			(errmsg("sendcampaign: job %lld is paused: %s", (long long) run->job_id, reason),
			 errhint("To continue nevertheless, call sendcampaign.resume(%lld).",
					 (long long) run->job_id)));
	return true;
}

void
pause_run(Run *run, const char *reason, bool careful)
{
	if (write_pause(run, reason, NULL, careful))
		run_wrote(run, RUN_ENDED);
}

static void
append_failed(StringInfo buf, const Run *run)
{
	appendStringInfo(buf,
					 ngettext("%d of %d message failed, which reaches"
							  " \"sendcampaign.failure_threshold\" (%d) and exceeds"
							  " \"sendcampaign.failure_scale_factor\" (%g)",
							  "%d of %d messages failed, which reaches"
							  " \"sendcampaign.failure_threshold\" (%d) and exceeds"
							  " \"sendcampaign.failure_scale_factor\" (%g)",
							  run->verdicts.count),
					 run->verdicts.failures, run->verdicts.count, sendcampaign_failure_threshold,
					 sendcampaign_failure_scale_factor);
	append_reasons(buf, run->id, "failed", run->verdicts.since);
}

static void
append_undelivered(StringInfo buf, const Run *run)
{
	int64 undelivered = run->deliveries.undelivered;
	int64 count = undelivered + run->deliveries.delivered;

	appendStringInfo(buf,
					 ngettext("%lld of %lld message was not delivered, which reaches"
							  " \"sendcampaign.failure_threshold\" (%d) and exceeds"
							  " \"sendcampaign.failure_scale_factor\" (%g)",
							  "%lld of %lld messages were not delivered, which reaches"
							  " \"sendcampaign.failure_threshold\" (%d) and exceeds"
							  " \"sendcampaign.failure_scale_factor\" (%g)",
							  count),
					 (long long) undelivered, (long long) count, sendcampaign_failure_threshold,
					 sendcampaign_failure_scale_factor);
	append_undelivered_reasons(buf, run->id);
}

void
pause_halted(Run *run, bool careful)
{
	StringInfoData buf;

	initStringInfo(&buf);
	if (too_many_undelivered(run))
		append_undelivered(&buf, run);
	else
		append_failed(&buf, run);
	if (write_pause(run,
					reason_text(buf.data, NULL,
								"Look at sendcampaign.message, then call"
								" sendcampaign.resume() or sendcampaign.cancel()."),
					"running", careful) &&
		run->phase == RUN_HALTED) /* the job may have made it fail meanwhile */
		run_wrote(run, RUN_PAUSED);
}
