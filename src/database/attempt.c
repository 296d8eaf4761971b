/*-------------------------------------------------------------------------
 *
 * attempt.c
 *	  Catches errors, and formats them for people.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "database/attempt.h"
#include "lib/stringinfo.h"
#include "mb/pg_wchar.h"
#include "utils/memutils.h"
#include "utils/resowner.h"

/* Limit, in bytes, for a message or detail: a trigger can make them any length. */
#define MAX_ERROR 1000

static void
append_clipped(StringInfo buf, const char *text)
{
	int length = (int) strlen(text);

	if (length <= MAX_ERROR)
		appendStringInfoString(buf, text);
	else
		appendStringInfo(buf, "%.*s...", pg_mbcliplen(text, length, MAX_ERROR), text);
}

/* Some hints are SQL statements, which end with a semicolon. */
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

static ErrorData *
run_in_subtransaction(void (*function)(void *arg), void *arg, bool keep)
{
	MemoryContext context = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;
	ErrorData *volatile error = NULL;

	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(context);
	PG_TRY();
	{
		function(arg);
		if (keep)
			ReleaseCurrentSubTransaction();
		else
			RollbackAndReleaseCurrentSubTransaction();
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

ErrorData *
attempt(void (*function)(void *arg), void *arg)
{
	return run_in_subtransaction(function, arg, true);
}

ErrorData *
rehearse(void (*function)(void *arg), void *arg)
{
	return run_in_subtransaction(function, arg, false);
}
