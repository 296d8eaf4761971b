/*-------------------------------------------------------------------------
 *
 * run_attempt.c
 *	  Keeps one run's trouble with the database from affecting others.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "database/attempt.h"
#include "worker/run_attempt.h"

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
	backoff->until = TimestampTzPlusMilliseconds(now,
												 100 + backoff_delay(Min(backoff->failures, 2)));
	backoff->failures++;
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

bool
attempt_for_run(RunFunction function, Run *run, void *arg, Backoff *backoff)
{
	RunCall	   call = {function, run, arg};
	ErrorData *error = attempt(call_for_run, &call);

	if (error == NULL)
		return true;
	run->group_stored = false; /* if it was, that has been rolled back */
	if (error_may_pass(error->sqlerrcode))
		back_off(run, backoff, error_text(error));
	else
		run_stop(run, error_text(error));
	return false;
}
