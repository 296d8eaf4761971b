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
#include "lib/stringinfo.h"
#include "mb/pg_wchar.h"
#include "trouble.h"
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
	TimestampTz now = GetCurrentTimestamp();

	backoff->passed = false;
	if (backoff->since == 0)
		backoff->since = now;
	if (TimestampDifferenceExceeds(backoff->since, now, PATIENCE_MS))
		set_trouble(run, reason);
	/* a run that cannot be taken up is one that has not failed before, each time */
	if (backoff->failures == 0 && run->notice == NULL)
		ereport(LOG, (errmsg("sendcampaign: job %lld waits for the database: %s",
							 (long long) run->job_id, reason)));
	backoff->until = TimestampTzPlusMilliseconds(now,
												 100 + backoff_delay(Min(backoff->failures, 2)));
	backoff->failures++;
}

void
end_back_off(Backoff *backoff)
{
	backoff->passed = true;
}

void
settle_back_off(Backoff *backoff, bool committed)
{
	if (committed && backoff->passed)
	{
		backoff->failures = 0;
		backoff->since = 0;
	}
	backoff->passed = false;
}

static void
append_clipped(StringInfo buf, const char *text)
{
	int length = (int) strlen(text);

	if (length <= MAX_ERROR)
		appendStringInfoString(buf, text);
	else
		appendStringInfo(buf, "%.*s...", pg_mbcliplen(text, length, MAX_ERROR), text);
}

/* A statement in SQL, as hints are, ends with a semicolon. */
static void
end_sentence(StringInfo buf)
{
	if (buf->len > 0 && strchr(".!?;", buf->data[buf->len - 1]) == NULL)
		appendStringInfoChar(buf, '.');
}

static void
append_sentence(StringInfo buf, const char *text)
{
	if (text == NULL || text[0] == '\0')
		return;
	end_sentence(buf);
	if (buf->len > 0)
		appendStringInfoChar(buf, ' ');
	append_clipped(buf, text);
	end_sentence(buf);
}

char *
reason_text(const char *message, const char *detail, const char *hint)
{
	StringInfoData buf;

	initStringInfo(&buf);
	append_clipped(&buf, message);
	append_sentence(&buf, detail);
	append_sentence(&buf, hint);
	return buf.data;
}

char *
error_text(const ErrorData *error)
{
	return reason_text(error->message ? error->message : "missing error text", error->detail,
					   error->hint);
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
