/*-------------------------------------------------------------------------
 *
 * launcher.c
 *	  If the library is preloaded: visits all databases.
 *
 * The launcher is connected to no database.  In each round, it starts a
 * short-lived scanner in one database after the other, which looks for
 * unfinished runs and starts their workers.  It makes a round when it starts
 * (thus after a crash and a promotion, too), and then once per interval, for
 * runs whose worker ended before they did.
 *
 * No database and no role may keep the others waiting: a scanner waits at most
 * a second for a lock, and the launcher at most some seconds for a scanner;
 * the next round begins where this one ended; and what fails for one role is
 * rolled back for that role only.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/heapam.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/pg_database.h"
#include "compat.h"
#include "miscadmin.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "settings.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/proc.h"
#include "tcop/tcopprot.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "worker/run_attempt.h"
#include "worker/launcher.h"
#include "worker/process.h"

/* How long the launcher waits for a scanner, and then for its exit, in ms. */
#define SCAN_TIME 10000
#define STOP_TIME 2000

PGDLLEXPORT void sendcampaign_launcher_main(Datum arg);

void
register_launcher(void)
{
	BackgroundWorker worker;

	describe_process(&worker, "sendcampaign_launcher_main", "sendcampaign launcher");
	worker.bgw_restart_time = 10;
	RegisterBackgroundWorker(&worker);
}

/* Returns the databases that allow connections, as a list of OIDs. */
static List *
list_databases(void)
{
	List		 *databases = NIL;
	MemoryContext context = CurrentMemoryContext;
	Relation	  rel;
	TableScanDesc scan;
	HeapTuple	  tuple;

	StartTransactionCommand();
	PushActiveSnapshot(GetTransactionSnapshot());
	rel = table_open(DatabaseRelationId, AccessShareLock);
	scan = table_beginscan_catalog(rel, 0, NULL);
	while ((tuple = heap_getnext(scan, ForwardScanDirection)) != NULL)
	{
		Form_pg_database database = (Form_pg_database) GETSTRUCT(tuple);
		MemoryContext	 old;

		if (!database->datallowconn || database->datistemplate)
			continue;
		old = MemoryContextSwitchTo(context);
		databases = lappend_oid(databases, database->oid);
		MemoryContextSwitchTo(old);
	}
	table_endscan(scan);
	table_close(rel, AccessShareLock);
	PopActiveSnapshot();
	CommitTransactionCommand();
	MemoryContextSwitchTo(context);
	return databases;
}

/* Tells whether it ends within this time, in ms.  We are notified when it does. */
static bool
scanner_ends(BackgroundWorkerHandle *scanner, int msec)
{
	TimestampTz until = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), msec);
	pid_t		pid;

	while (GetBackgroundWorkerPid(scanner, &pid) != BGWH_STOPPED)
	{
		TimestampTz now = GetCurrentTimestamp();

		if (now >= until)
			return false;
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
						 TimestampDifferenceMilliseconds(now, until), WAIT_EVENT_BGWORKER_SHUTDOWN);
		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
	}
	return true;
}

/* Returns false if no slot is free. */
static bool
scan_database(Oid database)
{
	BackgroundWorker		scanner;
	BackgroundWorkerHandle *handle;

	describe_process(&scanner, "sendcampaign_scanner_main", "sendcampaign scanner");
	scanner.bgw_main_arg = ObjectIdGetDatum(database);
	scanner.bgw_notify_pid = MyProcPid;
	if (!RegisterDynamicBackgroundWorker(&scanner, &handle))
		return false;
	if (scanner_ends(handle, SCAN_TIME))
		return true;
	ereport(LOG,
			(errmsg("sendcampaign: looking for unfinished campaigns in database %u takes too long,"
					" continuing with the others",
					database)));
	TerminateBackgroundWorker(handle);
	(void) scanner_ends(handle, STOP_TIME);
	return true;
}

/* Returns the databases in ascending order, beginning after the last one scanned. */
static List *
databases_in_turn(Oid last)
{
	List	 *databases = list_databases();
	List	 *before = NIL;
	List	 *after = NIL;
	ListCell *lc;

	list_sort(databases, list_oid_cmp);
	foreach (lc, databases)
	{
		if (lfirst_oid(lc) > last)
			after = lappend_oid(after, lfirst_oid(lc));
		else
			before = lappend_oid(before, lfirst_oid(lc));
	}
	return list_concat(after, before);
}

static void
make_round(void)
{
	static Oid	  last = InvalidOid;
	MemoryContext context = AllocSetContextCreate(TopMemoryContext, "sendcampaign launcher round",
												  ALLOCSET_DEFAULT_SIZES);
	MemoryContext old = MemoryContextSwitchTo(context);
	ListCell	 *lc;

	foreach (lc, databases_in_turn(last))
	{
		CHECK_FOR_INTERRUPTS();
		if (!scan_database(lfirst_oid(lc)))
		{
			ereport(LOG,
					(errmsg("sendcampaign: could not look for unfinished campaigns: no background"
							" worker slot is free"),
					 errhint("Consider increasing \"max_worker_processes\".")));
			break;
		}
		last = lfirst_oid(lc);
	}
	MemoryContextSwitchTo(old);
	MemoryContextDelete(context);
}

static void
reload_settings(void)
{
	if (!ConfigReloadPending)
		return;
	ConfigReloadPending = false;
	ProcessConfigFile(PGC_SIGHUP);
}

/* Then opt-outs may have to be told, which is not sending.  Citus has to be preloaded. */
static bool
citus_is_loaded(void)
{
	return GetConfigOption("citus.version", true, false) != NULL;
}

void
sendcampaign_launcher_main(Datum arg)
{
	pqsignal(SIGTERM, die);
	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	BackgroundWorkerUnblockSignals();
	BackgroundWorkerInitializeConnection(NULL, NULL, 0); /* to no database */

	for (;;)
	{
		if (sendcampaign_enabled || citus_is_loaded())
			make_round();
		reload_settings(); /* the round may have reset the latch that was set for this */
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
						 sendcampaign_launcher_interval * 1000L, compat_wait_event());
		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
		reload_settings();
	}
}
