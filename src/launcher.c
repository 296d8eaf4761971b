/*-------------------------------------------------------------------------
 *
 * launcher.c
 *	  With preload: brings unfinished runs back, in every database.
 *
 * The launcher is connected to no database.  In each round it has, for one
 * database after the other, a short-lived scanner look for unfinished runs
 * and start their workers.  A round is made at the start (so after a crash
 * and a promotion as well) and then once an interval, for runs whose worker
 * ended before they did.
 *
 * No database and no role may keep the others waiting: a scanner waits for no
 * lock longer than a second, and the launcher for no scanner longer than some;
 * the next round begins where this one ended; what fails for one role is
 * undone for that role alone.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/heapam.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "adopt.h"
#include "announce.h"
#include "catalog/pg_database.h"
#include "catalog/pg_type.h"
#include "commands/dbcommands.h"
#include "compat.h"
#include "fmgr.h"
#include "guard.h"
#include "home.h"
#include "launcher.h"
#include "miscadmin.h"
#include "orders.h"
#include "own.h"
#include "queue.h"
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "settings.h"
#include "start.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/proc.h"
#include "tcop/tcopprot.h"
#include "tcop/utility.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"

/* How long the launcher waits for a scanner, and then for its end, in ms. */
#define SCAN_TIME 10000
#define STOP_TIME 2000

/* For each lock that a scanner needs, to connect as well. */
#define SCANNER_LOCK_TIMEOUT "1s"

PGDLLEXPORT void sendcampaign_launcher_main(Datum arg);
PGDLLEXPORT void sendcampaign_scanner_main(Datum arg);

PG_FUNCTION_INFO_V1(sendcampaign_wake);

static void
fill_worker(BackgroundWorker *worker, const char *function, const char *type)
{
	memset(worker, 0, sizeof(*worker));
	worker->bgw_flags = BGWORKER_SHMEM_ACCESS | BGWORKER_BACKEND_DATABASE_CONNECTION;
	worker->bgw_start_time = BgWorkerStart_RecoveryFinished;
	strlcpy(worker->bgw_library_name, "sendcampaign", sizeof(worker->bgw_library_name));
	strlcpy(worker->bgw_function_name, function, sizeof(worker->bgw_function_name));
	strlcpy(worker->bgw_name, type, BGW_MAXLEN);
	strlcpy(worker->bgw_type, type, BGW_MAXLEN);
}

void
register_launcher(void)
{
	BackgroundWorker worker;

	fill_worker(&worker, "sendcampaign_launcher_main", "sendcampaign launcher");
	worker.bgw_restart_time = 10;
	RegisterBackgroundWorker(&worker);
}

/* The databases that can be connected to, as a list of OIDs. */
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

/* Has it ended within so many ms?  We are notified when it does. */
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

/* False where no slot is free. */
static bool
scan_database(Oid database)
{
	BackgroundWorker		scanner;
	BackgroundWorkerHandle *handle;

	fill_worker(&scanner, "sendcampaign_scanner_main", "sendcampaign scanner");
	scanner.bgw_restart_time = BGW_NEVER_RESTART;
	scanner.bgw_main_arg = ObjectIdGetDatum(database);
	scanner.bgw_notify_pid = MyProcPid;
	if (!RegisterDynamicBackgroundWorker(&scanner, &handle))
		return false;
	if (scanner_ends(handle, SCAN_TIME))
		return true;
	ereport(LOG, (errmsg("sendcampaign: looking for unfinished campaigns in database %u takes too "
						 "long, going on with the others",
						 database)));
	TerminateBackgroundWorker(handle);
	(void) scanner_ends(handle, STOP_TIME);
	return true;
}

/* The databases in ascending order, but beginning after the last one scanned. */
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
			ereport(
				LOG,
				(errmsg(
					 "sendcampaign: could not look for unfinished campaigns: no background worker slot is free"),
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

void
sendcampaign_launcher_main(Datum arg)
{
	pqsignal(SIGTERM, die);
	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	BackgroundWorkerUnblockSignals();
	BackgroundWorkerInitializeConnection(NULL, NULL, 0); /* to no database */

	for (;;)
	{
		if (sendcampaign_enabled)
			make_round();
		reload_settings(); /* that latch may have been reset by the round */
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
						 sendcampaign_launcher_interval * 1000L, compat_wait_event());
		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
		reload_settings();
	}
}

/* Of the runs in SPI_tuptable. */
static void
announce_runs(uint64 count)
{
	for (uint64 i = 0; i < count; i++)
	{
		if (compat_is_background_worker())
			announce_later(spi_string(i, 1));
		else
			announce_at_commit(spi_string(i, 1));
	}
}

/*
 * Runs of a role that cannot work must not wait for ever, unseen.  What
 * somebody has locked is left for the next time.
 */
static void
fail_runs_of_role(Oid role, const char *reason)
{
	Oid	   types[] = {OIDOID, TEXTOID};
	Datum  values[] = {ObjectIdGetDatum(role), CStringGetTextDatum(reason)};
	uint64 failed;
	uint64 ended;

	failed = own_query("UPDATE sendcampaign.run_data SET state = 'failed', error = $2,"
					   " finished_at = now()"
					   " WHERE id = ANY (ARRAY(SELECT r.id FROM sendcampaign.run_data r"
					   "  WHERE r.role_oid = $1 AND r.state IN ('queued', 'running')"
					   "  FOR NO KEY UPDATE SKIP LOCKED)) RETURNING " ANNOUNCEMENT,
					   2, types, values, NULL);
	announce_runs(failed);
	ended = wind_up_without_worker(role, reason);
	announce_runs(ended);
	if (failed + ended > 0)
		ereport(LOG, (errmsg("sendcampaign: campaigns have failed: %s", reason)));
}

/* A role that has unfinished runs. */
typedef struct WaitingRole
{
	Oid	  role;
	char *name;
	bool  all; /* the caller need not be a member of it */
	bool  started;
} WaitingRole;

static void
start_for_role(void *arg)
{
	WaitingRole *waiting = arg;
	Oid			 role = waiting->role;
	char		*hint = NULL;
	char		*reason;

	if (!SearchSysCacheExists1(AUTHOID, ObjectIdGetDatum(role)))
		reason = psprintf("role \"%s\" does not exist", waiting->name);
	else if (!waiting->all && !is_member_of_role(GetUserId(), role))
		return;
	else
		reason = why_role_cannot_work(role, &hint);
	if (reason == NULL)
		waiting->started = start_worker_now(role);
	else
		fail_runs_of_role(role, reason);
}

/* What is wrong with one role is not the others' business. */
static bool
start_for_role_alone(WaitingRole *waiting)
{
	ErrorData *error = attempt(start_for_role, waiting);

	if (error == NULL)
		return waiting->started;
	if (error->sqlerrcode == ERRCODE_QUERY_CANCELED)
		ReThrowError(error);
	ereport(compat_is_background_worker() ? LOG : WARNING,
			(errcode(error->sqlerrcode),
			 errmsg("sendcampaign: could not have the campaigns of role \"%s\" go on: %s",
					waiting->name, error_text(error))));
	return false;
}

/* Roles with unfinished runs in this database, and their names. */
#define ROLES_THAT_WAIT                                                                            \
	"SELECT role_oid::int8, min(role::text) FROM sendcampaign.run_data"                            \
	" WHERE " IS_AT_HOME("$1", "$2") IS_WAITING                                                    \
		" GROUP BY role_oid"                                                                       \
		" UNION SELECT r.oid::int8, r.rolname::text FROM sendcampaign.run_data"                    \
		"  JOIN pg_roles r ON r.rolname = role"                                                    \
		" WHERE NOT " IS_AT_HOME("$1", "$2") IS_WAITING

/*
 * Starts or wakes a worker for each role that has unfinished runs in this
 * database, of which the current role is a member (with all: for every
 * role).  A role that cannot work has its runs fail, with the reason.  In a
 * transaction with SPI connected.  Returns how many workers were started or
 * woken.
 */
static int
start_workers_for_queue(bool all)
{
	Oid			 types[] = {NUMERICOID, OIDOID};
	Datum		 values[] = {system_identifier(), ObjectIdGetDatum(MyDatabaseId)};
	uint64		 count = own_query(ROLES_THAT_WAIT, 2, types, values, NULL);
	int			 started = 0;
	WaitingRole *roles = palloc0(Max(count, 1) * sizeof(WaitingRole));

	for (uint64 i = 0; i < count; i++)
		roles[i] = (WaitingRole){(Oid) spi_int64(i, 1), spi_string(i, 2), all};
	for (uint64 i = 0; i < count; i++)
		started += start_for_role_alone(&roles[i]);
	return started;
}

/* Looks at one database, as a superuser, and at the extension's tables only. */
void
sendcampaign_scanner_main(Datum arg)
{
	pqsignal(SIGTERM, die);
	BackgroundWorkerUnblockSignals();
	if (!become_the_worker(DatumGetObjectId(arg), InvalidOid))
		proc_exit(0); /* one of an earlier round is there still */

	/* the launcher waits for us, and other databases for the launcher */
	SetConfigOption("lock_timeout", SCANNER_LOCK_TIMEOUT, PGC_SUSET, PGC_S_OVERRIDE);
	BackgroundWorkerInitializeConnectionByOid(DatumGetObjectId(arg), InvalidOid, 0);
	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();
	spi_check(SPI_connect(), SPI_OK_CONNECT, "SPI_connect");
	PushActiveSnapshot(GetTransactionSnapshot());
	pgstat_report_activity(STATE_RUNNING, "looking for unfinished campaigns");
	if (sendcampaign_enabled && OidIsValid(own_lock_extension()))
		(void) start_workers_for_queue(true);
	PopActiveSnapshot();
	spi_check(SPI_finish(), SPI_OK_FINISH, "SPI_finish");
	CommitTransactionCommand();
	announce(GetCurrentTimestamp());
	proc_exit(0);
}

/* sendcampaign.wake() returns integer */
Datum
sendcampaign_wake(PG_FUNCTION_ARGS)
{
	int started;

	check_writable("sendcampaign.wake()");
	spi_check(SPI_connect(), SPI_OK_CONNECT, "SPI_connect");
	started = sendcampaign_enabled ? start_workers_for_queue(superuser()) : 0;
	spi_check(SPI_finish(), SPI_OK_FINISH, "SPI_finish");
	PG_RETURN_INT32(started);
}
