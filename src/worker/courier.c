/*-------------------------------------------------------------------------
 *
 * courier.c
 *	  With Citus: the process that tells opt-outs to other nodes.
 *
 * What is to be told is in sendcampaign.opt_out_change, and how, in
 * sendcampaign.share_opt_outs().  The process is started by the commit that has
 * something to tell, and stays until all nodes have it, trying those that are
 * down again from time to time.
 *
 * There is one for each database, which holds the courier lock.  Whoever commits
 * a change holds the queue lock, shared, from before it looks for that process
 * until its change is visible; the process leaves only while it holds the queue
 * lock exclusively, and sees nothing to tell.
 *
 * A node that comes back may send before it has been told.  So its workers begin
 * with another process, which asks the other nodes to tell now.  A worker itself
 * never waits for a node: what may take long is done in processes of its own.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/pg_extension.h"
#include "compat.h"
#include "database/attempt.h"
#include "database/citus.h"
#include "database/own_tables.h"
#include "database/time_limit.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/lmgr.h"
#include "storage/lock.h"
#include "tcop/tcopprot.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"
#include "worker/courier.h"
#include "worker/process.h"
#include "worker/transaction.h"

#define COURIER_LOCK 1
#define QUEUE_LOCK	 2

/* How often the courier looks for what is to be told, and which nodes are due, in ms. */
#define LOOK_MS		1000
#define MAX_REST_MS 60000

/* How long it waits for other nodes in one step; one that hangs must not keep others waiting. */
#define STEP_MS 20000

/* How often a worker that waits for what its node has missed looks whether that is there. */
#define FETCH_LOOK_MS 20

PGDLLEXPORT void sendcampaign_courier_main(Datum arg);
PG_FUNCTION_INFO_V1(sendcampaign_start_courier);

/* What a new courier is passed, in bgw_extra. */
typedef struct CourierStart
{
	Oid			  database;
	TransactionId xid;	 /* is about to end; or invalid */
	bool		  fetch; /* true if it only asks the other nodes */
} CourierStart;

/* True if this transaction's commit starts the courier. */
static bool start_at_commit = false;

static void
set_courier_tag(LOCKTAG *tag, Oid database, int which)
{
	SET_LOCKTAG_OBJECT(*tag, database, ExtensionRelationId, InvalidOid, which);
	tag->locktag_lockmethodid = USER_LOCKMETHOD;
}

static bool
lock_courier(Oid database, int which, LOCKMODE mode, bool for_session, bool wait)
{
	LOCKTAG tag;

	set_courier_tag(&tag, database, which);
	return LockAcquire(&tag, mode, for_session, !wait) != LOCKACQUIRE_NOT_AVAIL;
}

static void
unlock_courier(int which, LOCKMODE mode, bool for_session)
{
	LOCKTAG tag;

	set_courier_tag(&tag, MyDatabaseId, which);
	LockRelease(&tag, mode, for_session);
}

static bool
register_courier(CourierStart start, BackgroundWorkerHandle **handle)
{
	BackgroundWorker courier;

	describe_process(&courier, "sendcampaign_courier_main", "sendcampaign courier");
	if (handle)
		courier.bgw_notify_pid = MyProcPid;
	memcpy(courier.bgw_extra, &start, sizeof(start));
	return RegisterDynamicBackgroundWorker(&courier, handle);
}

/* If no slot is free, the next change starts it, or the launcher's next round. */
static void
start_unless_there(TransactionId xid)
{
	if (!lock_courier(MyDatabaseId, COURIER_LOCK, ShareLock, false, false))
		return;
	unlock_courier(COURIER_LOCK, ShareLock, false);
	if (!register_courier((CourierStart){MyDatabaseId, xid, false}, NULL))
		ereport(LOG,
				(errmsg("sendcampaign: could not start the process that tells opt-outs to other"
						" nodes: no background worker slot is free"),
				 errhint("Consider increasing \"max_worker_processes\".")));
}

static void
on_courier_event(XactEvent event, void *arg)
{
	switch (event)
	{
		case XACT_EVENT_PRE_COMMIT:
		case XACT_EVENT_PRE_PREPARE:
			if (!start_at_commit)
				break;
			(void) lock_courier(MyDatabaseId, QUEUE_LOCK, ShareLock, false, true);
			start_unless_there(GetTopTransactionIdIfAny());
			break;
		case XACT_EVENT_COMMIT:
		case XACT_EVENT_ABORT:
		case XACT_EVENT_PREPARE:
			start_at_commit = false;
			break;
		default:
			break;
	}
}

void
register_courier_callbacks(void)
{
	RegisterXactCallback(on_courier_event, NULL);
}

/* sendcampaign.start_courier(), which a trigger calls as the extension's owner */
Datum
sendcampaign_start_courier(PG_FUNCTION_ARGS)
{
	spi_connect();
	(void) spi_query("SELECT sendcampaign.check_extension_owner('start_courier')", &(SpiCall){0});
	spi_finish();
	start_at_commit = citus_is_here();
	PG_RETURN_VOID();
}

/* Returns how many changes are left to be told; a database that is not updated has none. */
static int64
count_left(void)
{
	if (!citus_is_here() ||
		own_query("SELECT FROM pg_proc p JOIN pg_namespace s ON s.oid = p.pronamespace"
				  " AND s.nspname = 'sendcampaign' AND p.proname = 'opt_outs_left'",
				  0, NULL, NULL, NULL) == 0)
		return 0;
	(void) own_query("SELECT sendcampaign.opt_outs_left()", 0, NULL, NULL, NULL);
	return spi_int64(0, 1);
}

void
start_courier_if_needed(void)
{
	if (count_left() > 0)
		start_unless_there(InvalidTransactionId);
}

static void
look_for_nodes(void *arg)
{
	*(bool *) arg = citus_is_here() && OidIsValid(own_lock_extension());
}

/*
 * Waits as long as there is something to be told.  A node that does not answer
 * keeps us from sending for one step at most.
 */
void
fetch_opt_outs(void)
{
	bool  needed = false;
	pid_t pid;

	BackgroundWorkerHandle *courier;

	if (try_transaction(look_for_nodes, &needed) != NULL || !needed ||
		!register_courier((CourierStart){MyDatabaseId, InvalidTransactionId, true}, &courier))
		return;
	while (GetBackgroundWorkerPid(courier, &pid) != BGWH_STOPPED && !ProcDiePending)
	{
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, FETCH_LOOK_MS,
						 compat_wait_event());
		ResetLatch(MyLatch);
	}
}

/* The steps, each in a transaction of its own; they return how much is left. */
static void
tell(void *arg)
{
	int64 *left = arg;

	*left = 0;
	if (!OidIsValid(own_lock_extension()) || count_left() == 0)
		return;
	(void) own_query("SELECT sendcampaign.share_opt_outs()", 0, NULL, NULL, NULL);
	*left = spi_int64(0, 1);
}

static void
ask(void *arg)
{
	int64 *left = arg;

	*left = 0;
	if (!OidIsValid(own_lock_extension()) || !citus_is_here())
		return;
	(void) own_query("SELECT sendcampaign.fetch_opt_outs()", 0, NULL, NULL, NULL);
	*left = spi_int64(0, 1);
}

static void
look(void *arg)
{
	*(int64 *) arg = OidIsValid(own_lock_extension()) ? count_left() : 0;
}

/* Does a step, for a limited time; returns how much is left, or -1 after an error. */
static int64
make_step(void (*step)(void *))
{
	int64	   left = 0;
	ErrorData *error;

	pgstat_report_activity(STATE_RUNNING, "sharing opt-outs with other nodes");
	(void) time_limit_start(STEP_MS);
	error = try_transaction(step, &left);
	time_limit_end();
	if (error == NULL)
		return left;
	ereport(LOG,
			(errmsg("sendcampaign: could not share opt-outs with other nodes: %s",
					error_text(error))));
	return -1;
}

/* Leaves unless something has been added meanwhile, or is just being added. */
static void
leave_if_all_is_told(void)
{
	if (!lock_courier(MyDatabaseId, QUEUE_LOCK, ExclusiveLock, true, false))
		return;
	if (make_step(look) == 0)
	{
		unlock_courier(COURIER_LOCK, ExclusiveLock, true);
		proc_exit(0);
	}
	unlock_courier(QUEUE_LOCK, ExclusiveLock, true);
}

static void
rest(long msec)
{
	pgstat_report_activity(STATE_IDLE, "waiting for nodes that do not have all opt-outs");
	(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, msec,
					 compat_wait_event());
	ResetLatch(MyLatch);
}

/* As long as a step leaves less than the last one, the next one follows at once. */
static void
tell_until_all_is_told(void)
{
	int64 before = PG_INT64_MAX;
	int	  errors = 0;

	for (;;)
	{
		int64 left = make_step(tell);

		CHECK_FOR_INTERRUPTS();
		errors = left < 0 ? errors + 1 : 0;
		if (left == 0)
			leave_if_all_is_told();
		if (left <= 0 || left >= before)
			rest(Min(LOOK_MS << Min(errors, 6), MAX_REST_MS));
		before = left <= 0 ? PG_INT64_MAX : left;
	}
}

/* What is locked by somebody stays left, and is told later. */
static void
ask_until_all_is_told(void)
{
	int64 before = PG_INT64_MAX;
	int64 left;

	while ((left = make_step(ask)) > 0 && left < before)
	{
		CHECK_FOR_INTERRUPTS();
		before = left;
	}
}

static void
wait_for_transaction(void *arg)
{
	XactLockTableWait(*(TransactionId *) arg, NULL, NULL, XLTW_None);
}

void
sendcampaign_courier_main(Datum arg)
{
	CourierStart start;

	memcpy(&start, MyBgworkerEntry->bgw_extra, sizeof(start));
	pqsignal(SIGTERM, die);
	BackgroundWorkerUnblockSignals();
	if (!start.fetch && !lock_courier(start.database, COURIER_LOCK, ExclusiveLock, true, false))
		proc_exit(0); /* another one sees what we would */
	BackgroundWorkerInitializeConnectionByOid(start.database, InvalidOid, 0);
	settle_settings();
	if (start.fetch)
	{
		ask_until_all_is_told();
		proc_exit(0);
	}
	if (TransactionIdIsValid(start.xid))
		(void) try_transaction(wait_for_transaction, &start.xid);
	tell_until_all_is_told();
}
