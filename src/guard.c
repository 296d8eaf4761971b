/*-------------------------------------------------------------------------
 *
 * guard.c
 *	  One run's trouble with the database is not another's.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "guard.h"
#include "mb/pg_wchar.h"
#include "utils/memutils.h"
#include "utils/resowner.h"

/* Bytes of a message or detail: a trigger can make them as long as it likes. */
#define MAX_ERROR 1000

/* May an error with this SQLSTATE be gone at the next try? */
static bool
error_may_pass(int sqlerrcode)
{
	switch (ERRCODE_TO_CATEGORY(sqlerrcode))
	{
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
	if (backoff->failures == 0)
		ereport(LOG, (errmsg("sendcampaign: job %lld waits for the database: %s",
							 (long long) run->job_id, reason)));
	backoff->until = TimestampTzPlusMilliseconds(GetCurrentTimestamp(),
												 100 + backoff_delay(Min(backoff->failures, 2)));
	backoff->failures++;
}

static char *
clip(const char *text)
{
	int length = (int) strlen(text);

	if (length <= MAX_ERROR)
		return pstrdup(text);
	return psprintf("%.*s...", pg_mbcliplen(text, length, MAX_ERROR), text);
}

char *
error_text(const ErrorData *error)
{
	if (error->message == NULL)
		return pstrdup("missing error text");
	if (error->detail == NULL && error->hint == NULL)
		return clip(error->message);
	return psprintf("%s (%s%s%s)", clip(error->message), error->detail ? clip(error->detail) : "",
					error->detail && error->hint ? " " : "", error->hint ? clip(error->hint) : "");
}

ErrorData *
attempt(void (*function)(void *arg), void *arg)
{
	MemoryContext context = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;
	ErrorData *volatile error = NULL;

	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(context);
	PG_TRY();
	{
		function(arg);
		ReleaseCurrentSubTransaction();
	}
	PG_CATCH();
	{
		MemoryContextSwitchTo(context);
		error = CopyErrorData();
		FlushErrorState();
		RollbackAndReleaseCurrentSubTransaction();
	}
	PG_END_TRY();
	MemoryContextSwitchTo(context);
	CurrentResourceOwner = owner;
	return error;
}

typedef struct RunCall
{
	RunFunction function;
	Run		   *run;
} RunCall;

static void
call_for_run(void *arg)
{
	RunCall *call = arg;

	call->function(call->run);
}

bool
guarded(RunFunction function, Run *run, Backoff *backoff)
{
	RunCall	   call = {function, run};
	ErrorData *error = attempt(call_for_run, &call);

	if (error == NULL)
		return true;
	if (error_may_pass(error->sqlerrcode))
		back_off(run, backoff, error_text(error));
	else
		run_stop(run, error_text(error));
	return false;
}
