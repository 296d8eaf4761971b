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
#include "utils/memutils.h"
#include "utils/resowner.h"

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

/* Has this work of the run wait a while, longer each time. */
static void
back_off(Run *run, Backoff *backoff, const char *reason)
{
	if (backoff->failures == 0)
		ereport(LOG, (errmsg("sendcampaign: job %lld waits for the database: %s",
							 (long long) run->job_id, reason)));
	backoff->until = TimestampTzPlusMilliseconds(GetCurrentTimestamp(),
												 100 + backoff_delay(Min(backoff->failures, 2)));
	backoff->failures++;
}

static void
handle_error(Run *run, Backoff *backoff, const ErrorData *error)
{
	const char *detail = error->detail ? error->detail : "";
	const char *hint = error->hint ? error->hint : "";

	if (error_may_pass(error->sqlerrcode))
		back_off(run, backoff, error->message);
	else if (detail[0] || hint[0])
		run_stop(run, psprintf("%s (%s%s%s)", error->message, detail,
							   detail[0] && hint[0] ? " " : "", hint));
	else
		run_stop(run, error->message);
}

bool
guarded(RunFunction function, Run *run, Backoff *backoff)
{
	MemoryContext context = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;
	volatile bool good = true;

	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(context);
	PG_TRY();
	{
		function(run);
		ReleaseCurrentSubTransaction();
	}
	PG_CATCH();
	{
		ErrorData *error;

		MemoryContextSwitchTo(context);
		error = CopyErrorData();
		FlushErrorState();
		RollbackAndReleaseCurrentSubTransaction();
		handle_error(run, backoff, error);
		good = false;
	}
	PG_END_TRY();
	MemoryContextSwitchTo(context);
	CurrentResourceOwner = owner;
	return good;
}
