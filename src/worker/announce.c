/*-------------------------------------------------------------------------
 *
 * announce.c
 *	  Notifications that runs have ended or need a person.
 *
 * PostgreSQL queues a notification when its transaction commits, and raises an
 * error then if the queue is full, or if another commit holds the queue for
 * longer than lock_timeout.  That must not roll back anything else: the worker
 * notifies in a separate transaction, after the end is recorded.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "commands/async.h"
#include "nodes/pg_list.h"
#include "utils/fmgroids.h"
#include "utils/fmgrprotos.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"
#include "worker/announce.h"
#include "worker/transaction.h"

#define CHANNEL "sendcampaign"

/* Number of tries, a second apart, after which notifications are given up. */
#define MAX_TRIES		10
#define TRY_INTERVAL_MS 1000

/* The queue is nearly full beyond this usage. */
#define NEARLY_FULL 0.9

static List		  *pending = NIL; /* payloads */
static int		   failures = 0;
static TimestampTz next_try = 0;

void
announce_later(const char *payload)
{
	MemoryContext old = MemoryContextSwitchTo(TopMemoryContext);

	pending = lappend(pending, pstrdup(payload));
	MemoryContextSwitchTo(old);
}

bool
announcements_are_left(void)
{
	return pending != NIL;
}

static void
forget_all(void)
{
	list_free_deep(pending);
	pending = NIL;
	failures = 0;
	next_try = 0;
}

double
notification_queue_usage(void)
{
	return DatumGetFloat8(OidFunctionCall0(F_PG_NOTIFICATION_QUEUE_USAGE));
}

static void
notify_all(void)
{
	ListCell *lc;

	settle_settings();
	StartTransactionCommand();
	if (failures > 0)
		(void) notification_queue_usage(); /* frees what has been read meanwhile */
	(void) set_config_option("synchronous_commit", "off", PGC_USERSET, PGC_S_SESSION,
							 GUC_ACTION_LOCAL, true, 0, false);
	foreach (lc, pending)
		Async_Notify(CHANNEL, lfirst(lc));
	CommitTransactionCommand();
}

static void
try_later(const ErrorData *error, TimestampTz now)
{
	if (++failures == 1)
		ereport(LOG,
				(errmsg("sendcampaign: could not notify, trying again: %s", error->message)));
	next_try = TimestampTzPlusMilliseconds(now, TRY_INTERVAL_MS);
	if (failures < MAX_TRIES)
		return;
	ereport(LOG,
			(errmsg_plural("sendcampaign: %d notification was given up: %s",
						   "sendcampaign: %d notifications were given up: %s",
						   list_length(pending), list_length(pending), error->message),
			 errdetail("See sendcampaign.run for the runs concerned.")));
	forget_all();
}

void
announce(TimestampTz now)
{
	MemoryContext context = CurrentMemoryContext;

	if (pending == NIL || now < next_try)
		return;
	PG_TRY();
	{
		notify_all();
		forget_all();
	}
	PG_CATCH();
	{
		ErrorData *error;

		MemoryContextSwitchTo(context);
		error = CopyErrorData();
		FlushErrorState();
		AbortCurrentTransaction();
		try_later(error, now);
		FreeErrorData(error);
	}
	PG_END_TRY();
	MemoryContextSwitchTo(context);
}

void
announce_at_commit(const char *payload)
{
	if (notification_queue_usage() < NEARLY_FULL)
		Async_Notify(CHANNEL, payload);
}

void
announce_all_at_commit(List *payloads)
{
	ListCell *lc;

	foreach (lc, payloads)
		announce_at_commit(lfirst(lc));
}
