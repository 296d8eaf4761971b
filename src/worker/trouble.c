/*-------------------------------------------------------------------------
 *
 * trouble.c
 *	  What people see of a run that has to wait.
 *
 * A run whose messages cannot be passed to Twilio, or whose tables raise a
 * temporary error, continues by itself.  If that takes long, its error says
 * why; and if the application's tables raise it, so does the job's, if that
 * can be written.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "database/attempt.h"
#include "database/run_table.h"
#include "worker/finish.h"
#include "worker/run_attempt.h"
#include "worker/trouble.h"

/* Interval between attempts to write to a job, which others may have locked. */
#define TELL_INTERVAL_MS 1000

/* Beginning of what is shown, in the run's error and the job's, of database errors. */
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
	return run->trouble &&
		   (fails(&run->claiming) || fails(&run->recording) || fails(&run->reporting));
}

/* Returns what fails of its work with the database, in words, palloc'd; or NULL. */
static char *
text_of_trouble(const Run *run)
{
	if (has_trouble(run))
		return psprintf(TROUBLE "the database has raised an error: %s", run->trouble);
	if (run->num_long_locked > 0)
		return pstrdup(TROUBLE "others have locked list users for long: what became of their"
							   " messages is recorded once they are free");
	return NULL;
}

/* Returns what the run should show, palloc'd; or NULL. */
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

/* Database errors have been in the log since they began. */
static void
log_notice(const Run *run, const char *notice)
{
	if (run->trouble)
		return;
	ereport(LOG, (notice ? errmsg("sendcampaign: job %lld: %s", (long long) run->job_id, notice)
						 : errmsg("sendcampaign: job %lld: Twilio can be reached again",
								  (long long) run->job_id)));
}

static void
tell_run(Run *run)
{
	Telling telling = {run, text_of_notice(run)};

	if (is_same(telling.notice, run->notice) && !run->notice_lost)
		return;
	if (attempt(write_notice, &telling) != NULL || !telling.told)
		return;
	if (!is_same(telling.notice, run->notice))
		log_notice(run, telling.notice);
	replace_string(run->context, &run->notice, telling.notice);
	run->notice_lost = false;
	run->notice_written = true;
}

static void
write_job_notice(void *arg)
{
	Telling *telling = arg;

	telling->told = report_trouble(telling->run, telling->notice, telling->run->job_notice);
}

static void
tell_job(Run *run)
{
	Telling		telling = {run, text_of_trouble(run)};
	TimestampTz now = GetCurrentTimestamp();

	if ((is_same(telling.notice, run->job_notice) && !run->job_notice_lost) ||
		run->tell_job_at > now)
		return;
	run->notice_written = true;
	run->tell_job_at = TimestampTzPlusMilliseconds(now, TELL_INTERVAL_MS);
	if (attempt(write_job_notice, &telling) != NULL || !telling.told)
		return;
	replace_string(run->context, &run->job_notice, telling.notice);
	run->job_notice_lost = false;
}

void
tell_trouble(Run *run)
{
	if (run->paused || run->cancelled || run->finished || run->stop_recorded || run->forgotten)
		return;
	tell_run(run);
	tell_job(run);
}

void
recall_notice(Run *run, const char *error)
{
	replace_string(run->context, &run->notice, error);
	if (error && strncmp(error, TROUBLE, strlen(TROUBLE)) == 0)
		replace_string(run->context, &run->job_notice, error);
}

void
keep_notice(Run *run)
{
	if (run->trouble && !has_trouble(run))
		replace_string(run->context, &run->trouble, NULL);
	run->notice_written = false;
}

void
forget_notice(Run *run)
{
	if (run->notice_written)
		run->notice_lost = run->job_notice_lost = true;
	run->notice_written = false;
}
