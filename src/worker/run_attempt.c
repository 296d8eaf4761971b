/*-------------------------------------------------------------------------
 *
 * run_attempt.c
 *	  Keeps one run's trouble with the database from affecting others.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "database/attempt.h"
#include "database/citus.h"
#include "worker/locked_work.h"
#include "worker/run_attempt.h"

/* The least time from an attempt to the next one; the same if another node was not reached. */
#define DELAY_MS	 100
#define FAR_DELAY_MS 2000

bool
error_may_pass(int sqlerrcode)
{
	switch (ERRCODE_TO_CATEGORY(sqlerrcode))
	{
		case ERRCODE_CONNECTION_EXCEPTION: /* another node, or a foreign table's server */
		case ERRCODE_TRANSACTION_ROLLBACK: /* deadlock, serialization */
		case ERRCODE_INSUFFICIENT_RESOURCES:
		case ERRCODE_OPERATOR_INTERVENTION:
		case ERRCODE_SYSTEM_ERROR:
			return true;
		default:
			return sqlerrcode == ERRCODE_LOCK_NOT_AVAILABLE ||
				   sqlerrcode == ERRCODE_OBJECT_IN_USE ||
				   sqlerrcode == ERRCODE_READ_ONLY_SQL_TRANSACTION;
	}
}

/* An attempt to reach a node takes longer than one to get a lock. */
static int
delay_after(const Backoff *backoff)
{
	return backoff->far ? FAR_DELAY_MS + backoff_delay(Min(backoff->failures, 5))
						: DELAY_MS + backoff_delay(Min(backoff->failures, 2));
}

void
back_off(Run *run, Backoff *backoff, const char *reason)
{
	TimestampTz now = GetCurrentTimestamp();

	backoff->passed = false;
	if (backoff->since == 0)
		backoff->since = now;
	if (TimestampDifferenceExceeds(backoff->since, now, TOLD_AFTER_MS))
		run_set_trouble(run, reason);
	/* a run that cannot be taken up is created anew each time, without its past failures */
	if (backoff->failures == 0 && run->notice.of_run == NULL)
		ereport(LOG,
				(errmsg("sendcampaign: job %lld waits for the database: %s",
						(long long) run->job_id, reason)));
	backoff->until = Max(backoff->until, TimestampTzPlusMilliseconds(now, delay_after(backoff)));
	backoff->failures++;
}

/* A foreign table's server may be unreachable as well, but not the job. */
static void
note_cause(Backoff *backoff, int sqlerrcode)
{
	backoff->locked = sqlerrcode == ERRCODE_LOCK_NOT_AVAILABLE;
	backoff->far = ERRCODE_TO_CATEGORY(sqlerrcode) == ERRCODE_CONNECTION_EXCEPTION &&
				   citus_is_here();
}

/* All tables of the run are on that node, so that none of its work can be done. */
static void
wait_for_node(Run *run, TimestampTz until)
{
	run->claiming.until = Max(run->claiming.until, until);
	run->recording.until = Max(run->recording.until, until);
	run->reporting.until = Max(run->reporting.until, until);
	run->notice.tell_at = Max(run->notice.tell_at, until);
}

typedef struct RunCall
{
	RunFunction function;
	Run		   *run;
	void	   *arg;
} RunCall;

static void
call_for_run(void *arg)
{
	RunCall *call = arg;

	call->function(call->run, call->arg);
}

/* If "under_way", others of the schema may have the same trouble. */
static bool
try_for_run(RunFunction function, Run *run, void *arg, Backoff *backoff, bool under_way)
{
	RunCall	   call = {function, run, arg};
	ErrorData *error = attempt(call_for_run, &call);

	if (error == NULL)
		return true;
	run->group_stored = false; /* if it was, that has been rolled back */
	note_cause(backoff, error->sqlerrcode);
	if (under_way && backoff->locked)
	{
		TimestampTz since = leave_locked_work(run, backoff, error_text(error));

		backoff->since = backoff->since == 0 ? since : Min(backoff->since, since);
	}
	if (error_may_pass(error->sqlerrcode))
		back_off(run, backoff, error_text(error));
	else
		run_stop(run, error_text(error));
	if (backoff->far)
		wait_for_node(run, backoff->until);
	return false;
}

bool
attempt_for_run(RunFunction function, Run *run, void *arg, Backoff *backoff)
{
	return try_for_run(function, run, arg, backoff, false);
}

bool
attempt_work(RunFunction function, Run *run, void *arg, Backoff *work)
{
	return try_for_run(function, run, arg, work, true);
}
