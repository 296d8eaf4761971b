/*-------------------------------------------------------------------------
 *
 * trouble.c
 *	  What people see while a run has to wait.
 *
 * A run whose messages cannot be passed to Twilio, or whose tables raise a
 * temporary error, continues by itself.  If that takes long, the error of the
 * run says why.  If the database is the cause, so does the error of the job, if
 * that can be written.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "database/attempt.h"
#include "database/run_table.h"
#include "worker/finish.h"
#include "worker/locked_work.h"
#include "worker/next.h"
#include "worker/run_attempt.h"
#include "worker/trouble.h"

/* Interval between attempts to write to a job, which somebody may have locked. */
#define TELL_INTERVAL_MS 1000

/* How the run's error and the job's begin if the database is the cause. */
#define TROUBLE "trying again, as "

static bool
is_same(const char *a, const char *b)
{
	return a == b || (a && b && strcmp(a, b) == 0);
}

static bool
fails(const Backoff *backoff)
{
	return backoff->failures > 0 && !backoff->passed;
}

static bool
has_trouble(const Run *run)
{
	return run->notice.trouble &&
		   (fails(&run->claiming) || fails(&run->recording) || fails(&run->reporting));
}

/* Returns why the run has to wait like others of its schema, which have tried; or NULL. */
static const char *
trouble_of_others(const Run *run)
{
	const char *trouble = NULL;

	if (run->num_done > 0 || run_wants_record(run))
		trouble = reason_of_wait(run, &run->recording, TOLD_AFTER_MS);
	if (trouble == NULL && run->num_ready == 0 && !run->exhausted && run_may_send(run) &&
		run->written == RUN_NO_PHASE && run->next_at <= GetCurrentTimestamp())
		trouble = reason_of_wait(run, &run->claiming, TOLD_AFTER_MS);
	return trouble;
}

/* Returns what is wrong with the run's work in the database, palloc'd; or NULL. */
static char *
text_of_trouble(const Run *run)
{
	const char *trouble = has_trouble(run) ? run->notice.trouble : trouble_of_others(run);

	if (trouble)
		return psprintf(TROUBLE "the database has raised an error: %s", trouble);
	if (run->num_long_locked > 0)
		return pstrdup(
			TROUBLE
			"others have locked list users for a long time: the outcomes of their messages are recorded once they are free");
	return NULL;
}

/* Returns what the run's error should say, palloc'd; or NULL. */
static char *
text_of_notice(const Run *run)
{
	const char *reason = run->account && run_may_send(run) ? run->account->trouble : NULL;
	char	   *trouble = text_of_trouble(run);

	if (trouble)
		return trouble;
	return reason ? psprintf("Twilio cannot be reached: %s; trying again", reason) : NULL;
}

/* Something to be shown, and whether that succeeded. */
typedef struct Telling
{
	Run		   *run;
	const char *notice;
	bool		told;
} Telling;

/* Does not wait for locks. */
static void
write_notice(void *arg)
{
	Telling *telling = arg;

	telling->told = runs_set_notice(telling->run->id, telling->notice);
}

/* Errors of the database are in the log already. */
static void
log_notice(const Run *run, const char *notice)
{
	if (run->notice.trouble)
		return;
	ereport(LOG,
			(notice
				? errmsg("sendcampaign: job %lld: %s", (long long) run->job_id, notice)
				: errmsg("sendcampaign: job %lld: Twilio can be reached again",
						 (long long) run->job_id)));
}

static void
tell_run(Run *run)
{
	Telling telling = {run, text_of_notice(run)};

	if (is_same(telling.notice, run->notice.of_run) && !run->notice.lost)
		return;
	if (attempt(write_notice, &telling) != NULL || !telling.told)
		return;
	if (!is_same(telling.notice, run->notice.of_run))
		log_notice(run, telling.notice);
	replace_string(run->context, &run->notice.of_run, telling.notice);
	run->notice.lost = false;
	run->notice.written = true;
}

static void
write_job_notice(void *arg)
{
	Telling *telling = arg;

	telling->told = report_trouble(telling->run, telling->notice, telling->run->notice.of_job);
}

static void
tell_job(Run *run)
{
	Telling		telling = {run, text_of_trouble(run)};
	ErrorData  *error;
	TimestampTz now = GetCurrentTimestamp();

	if ((is_same(telling.notice, run->notice.of_job) && !run->notice.job_lost) ||
		run->notice.tell_at > now || !may_try_work(run, &run->reporting, now))
		return;
	run->notice.written = true;
	run->notice.tell_at = TimestampTzPlusMilliseconds(now, TELL_INTERVAL_MS);
	error = attempt(write_job_notice, &telling);
	if (error && error->sqlerrcode == ERRCODE_LOCK_NOT_AVAILABLE)
		(void) leave_locked_work(run, &run->reporting, error_text(error));
	if (error || !telling.told)
		return;
	tables_are_free(run, &run->reporting);
	replace_string(run->context, &run->notice.of_job, telling.notice);
	run->notice.job_lost = false;
}

void
tell_trouble(Run *run)
{
	if (!phase_rules[run_next_phase(run)].tells)
		return;
	tell_run(run);
	tell_job(run);
}

void
recall_notice(Run *run, const char *error)
{
	replace_string(run->context, &run->notice.of_run, error);
	if (error && strncmp(error, TROUBLE, strlen(TROUBLE)) == 0)
		replace_string(run->context, &run->notice.of_job, error);
}

void
keep_notice(Run *run)
{
	if (run->notice.trouble && !has_trouble(run))
		replace_string(run->context, &run->notice.trouble, NULL);
	run->notice.written = false;
}

void
forget_notice(Run *run)
{
	if (run->notice.written)
		run->notice.lost = run->notice.job_lost = true;
	run->notice.written = false;
}
