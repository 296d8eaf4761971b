/*-------------------------------------------------------------------------
 *
 * courier.c
 *	  With Citus: the process that tells opt-outs to other nodes.
 *
 * What is to be told is in sendcampaign.opt_out_change, and how, in
 * sendcampaign.tell_opt_outs().  The process is started by the commit that has
 * something to tell, and stays until all nodes have it, trying those that are
 * down again from time to time.
 *
 * There is one for each database, which holds the courier lock.  Whoever commits
 * a change holds the queue lock, shared, from before it looks for that process
 * until its change is visible; the process leaves only if, after it could not be
 * found any more, it had the queue lock exclusively, and then saw nothing to tell.
 *
 * All nodes are told at once.  If that fails, or does not end in time, each is
 * told by itself, and one with which this fails is from then on, when all others
 * have been, until it has taken something.
 *
 * A node that comes back may send before it has been told.  So its workers begin
 * with another process, which asks the other nodes to tell now.  A worker itself
 * never waits for a node: what may take long is done in processes of its own.
 * Changes from after the beginning are not waited for, as there may be no end.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/pg_extension.h"
#include "catalog/pg_type.h"
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
#include "storage/procsignal.h"
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

/* How long a step with all nodes may take, and one with a single node. */
#define STEP_MS		10000
#define ONE_NODE_MS 5000

/* How often a worker that waits for what its node has missed looks whether that is there. */
#define FETCH_LOOK_MS 20

/* How long it tries to have the other nodes asked, in ms, and how often. */
#define FETCH_TRY_MS   20000
#define FETCH_RETRY_MS 200

/* How often, and how many times, the process that asks looks whether others have told enough. */
#define OTHERS_LOOK_MS	 100
#define MAX_OTHERS_LOOKS 200

/* How long all others together are asked, unless this node is a new one. */
#define MAX_ASK_MS 300000

/* What sendcampaign.tell_opt_outs() returns. */
typedef enum Progress
{
	STEP_FAILED = -1,
	NOTHING_LEFT,
	SOMETHING_LEFT, /* which cannot be told now */
	OTHERS_TELL,
	MORE_TO_TELL,
	MORE_FOR_NEW_NODE
} Progress;

#define ALL_NODES (-1)

/* A step, in a transaction of its own. */
typedef struct Step
{
	int32		node;  /* a group, or ALL_NODES */
	TimestampTz began; /* when we began to ask */
	const char *error;
	Progress	progress;
} Step;

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

/* Whether this database is on several nodes, and is updated. */
static bool
has_nodes(void)
{
	return citus_is_here() &&
		   own_query("SELECT FROM pg_proc p JOIN pg_namespace s ON s.oid = p.pronamespace"
					 " AND s.nspname = 'sendcampaign' AND p.proname = 'opt_outs_are_due'",
					 0, NULL, NULL, NULL) > 0;
}

/* Whether there is something to be told. */
static bool
is_due(void)
{
	if (!has_nodes())
		return false;
	(void) own_query("SELECT sendcampaign.opt_outs_are_due()", 0, NULL, NULL, NULL);
	return spi_bool(0, 1);
}

void
start_courier_if_needed(void)
{
	if (is_due())
		start_unless_there(InvalidTransactionId);
}

/*
 * The worker
 */

static void
look_for_nodes(void *arg)
{
	*(bool *) arg = OidIsValid(own_lock_extension()) && has_nodes();
}

/* A worker that is told to end does so when it begins to work. */
static void
wait_a_moment(long msec)
{
	(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, msec,
					 compat_wait_event());
	ResetLatch(MyLatch);
	if (ProcSignalBarrierPending)
		ProcessProcSignalBarrier(); /* others wait for us, such as DROP DATABASE */
}

/* Has the other nodes asked; returns NULL if there are none, or this fails for too long. */
static BackgroundWorkerHandle *
start_to_ask(void)
{
	TimestampTz	 until = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), FETCH_TRY_MS);
	CourierStart start = {MyDatabaseId, InvalidTransactionId, true};
	const char	*reason = "no background worker slot is free";
	BackgroundWorkerHandle *courier;

	do
	{
		bool	   needed = false;
		ErrorData *error = try_transaction(look_for_nodes, &needed);

		if (error != NULL)
			reason = error_text(error);
		else if (!needed || register_courier(start, &courier))
			return needed ? courier : NULL;
		wait_a_moment(FETCH_RETRY_MS);
	} while (!ProcDiePending && GetCurrentTimestamp() < until);
	ereport(LOG,
			(errmsg("sendcampaign: could not ask other nodes for opt-outs before sending: %s",
					reason)));
	return NULL;
}

/*
 * Waits as long as there is something to be told from before.  A node that does
 * not answer keeps us from sending for a limited time.
 */
void
fetch_opt_outs(void)
{
	BackgroundWorkerHandle *courier = start_to_ask();
	pid_t					pid;

	while (courier != NULL && GetBackgroundWorkerPid(courier, &pid) != BGWH_STOPPED &&
		   !ProcDiePending)
		wait_a_moment(FETCH_LOOK_MS);
}

/*
 * Steps
 */

/* Calls a function with a node, or with NULL for all, and for how long we have asked. */
static Progress
call_for_node(const char *query, const Step *step)
{
	Oid	  types[] = {INT4OID, INT8OID};
	Datum values[] = {Int32GetDatum(step->node),
					  Int64GetDatum(GetCurrentTimestamp() - step->began)};

	(void) own_query(query, 2, types, values, step->node == ALL_NODES ? "n " : NULL);
	return (Progress) spi_int64(0, 1);
}

static void
tell(void *arg)
{
	Step *step = arg;

	if (OidIsValid(own_lock_extension()) && has_nodes())
		step->progress = call_for_node("SELECT sendcampaign.tell_opt_outs($1)::int8", step);
}

static void
ask(void *arg)
{
	Step *step = arg;

	if (OidIsValid(own_lock_extension()) && has_nodes())
		step->progress = call_for_node("SELECT sendcampaign.fetch_opt_outs($1,"
									   " $2 * interval '1 microsecond')::int8",
									   step);
}

static void
look(void *arg)
{
	Step *step = arg;

	if (OidIsValid(own_lock_extension()) && is_due())
		step->progress = SOMETHING_LEFT;
}

static void
note_failure(void *arg)
{
	Step *step = arg;
	Oid	  types[] = {INT4OID, TEXTOID};
	Datum values[] = {Int32GetDatum(step->node), CStringGetTextDatum(step->error)};

	if (OidIsValid(own_lock_extension()))
		(void) own_query("SELECT sendcampaign.node_failed($1, $2)", 2, types, values, NULL);
}

/* Does a step, for a limited time. */
static Progress
make_step(void (*function)(void *), Step *step)
{
	ErrorData *error;

	step->progress = NOTHING_LEFT;
	pgstat_report_activity(STATE_RUNNING, "sharing opt-outs with other nodes");
	(void) time_limit_start(step->node == ALL_NODES ? STEP_MS : ONE_NODE_MS);
	error = try_transaction(function, step);
	time_limit_end();
	if (error == NULL)
		return step->progress;
	step->progress = STEP_FAILED;
	step->error = time_limit_was_reached() ? "it takes too long" : error_text(error);
	ereport(LOG,
			(errmsg("sendcampaign: could not share opt-outs with other nodes: %s", step->error)));
	return step->progress;
}

/*
 * Nodes, one by one
 */

typedef struct NodeList
{
	MemoryContext context;
	const char	 *query;
	List		 *nodes; /* their groups */
} NodeList;

static void
read_nodes(void *arg)
{
	NodeList	 *list = arg;
	uint64		  count;
	MemoryContext old;

	if (!OidIsValid(own_lock_extension()) || !citus_is_here())
		return;
	count = own_query(list->query, 0, NULL, NULL, NULL);
	for (uint64 i = 0; i < count; i++)
	{
		int32 node = (int32) spi_int64(i, 1);

		old = MemoryContextSwitchTo(list->context);
		list->nodes = lappend_int(list->nodes, node);
		MemoryContextSwitchTo(old);
	}
}

#define ALL_OTHERS "SELECT n.node_group::int8 FROM sendcampaign.other_nodes() n"
#define FAILED_ONES                                                                                \
	ALL_OTHERS " JOIN sendcampaign.opt_out_node k ON k.node_group = n.node_group"                  \
			   " WHERE k.failures > 0 AND k.retry_at <= clock_timestamp()"

static List *
list_nodes(const char *query)
{
	NodeList list = {CurrentMemoryContext, query, NIL};

	return try_transaction(read_nodes, &list) == NULL ? list.nodes : NIL;
}

/* One step for each of them. */
static void
tell_one_by_one(const char *query)
{
	List	 *nodes = list_nodes(query);
	ListCell *lc;

	foreach (lc, nodes)
	{
		Step step = {.node = lfirst_int(lc)};

		CHECK_FOR_INTERRUPTS();
		if (make_step(tell, &step) == STEP_FAILED)
			(void) make_step(note_failure, &step);
	}
	list_free(nodes);
}

/*
 * Leaves unless something has been added meanwhile, or is just being added.  Nobody
 * waits for us while we look: who finds the courier lock free starts another one.
 */
static void
leave_if_all_is_told(void)
{
	Step step = {.node = ALL_NODES};

	unlock_courier(COURIER_LOCK, ExclusiveLock, true);
	if (lock_courier(MyDatabaseId, QUEUE_LOCK, ExclusiveLock, true, false))
	{
		unlock_courier(QUEUE_LOCK, ExclusiveLock, true);
		if (make_step(look, &step) == NOTHING_LEFT)
			proc_exit(0);
	}
	if (!lock_courier(MyDatabaseId, COURIER_LOCK, ExclusiveLock, true, false))
		proc_exit(0); /* another one has been started */
}

static void
rest(long msec)
{
	pgstat_report_activity(STATE_IDLE, "waiting for nodes that do not have all opt-outs");
	wait_a_moment(msec);
}

static void
tell_until_all_is_told(void)
{
	MemoryContext context = AllocSetContextCreate(TopMemoryContext, "sendcampaign courier",
												  ALLOCSET_DEFAULT_SIZES);
	int			  errors = 0;

	for (;;)
	{
		Step	 step = {.node = ALL_NODES};
		Progress progress;

		MemoryContextReset(context);
		MemoryContextSwitchTo(context);
		CHECK_FOR_INTERRUPTS();
		progress = make_step(tell, &step);
		errors = progress == STEP_FAILED && !time_limit_was_reached() ? errors + 1 : 0;
		tell_one_by_one(progress == STEP_FAILED ? ALL_OTHERS : FAILED_ONES);
		if (progress == NOTHING_LEFT)
			leave_if_all_is_told();
		if (progress < MORE_TO_TELL)
			rest(Min(LOOK_MS << Min(errors, 6), MAX_REST_MS));
	}
}

/* Whether that has taken too long; a node that is new lacks opt-outs from all times. */
static bool
has_asked_enough(const Step *step)
{
	if (step->progress == MORE_FOR_NEW_NODE ||
		GetCurrentTimestamp() < TimestampTzPlusMilliseconds(step->began, MAX_ASK_MS))
		return false;
	ereport(LOG,
			(errmsg("sendcampaign: begins to send before other nodes have told all opt-outs, as they"
					" have too many")));
	return true;
}

/* What is locked by somebody stays left, and is told later. */
static Progress
ask_until_all_is_told(int32 node, TimestampTz began)
{
	Step step = {.node = node, .began = began};
	int	 looks = 0;

	while (make_step(ask, &step) >= OTHERS_TELL && looks < MAX_OTHERS_LOOKS &&
		   !has_asked_enough(&step))
	{
		CHECK_FOR_INTERRUPTS();
		looks = step.progress == OTHERS_TELL ? looks + 1 : 0;
		if (step.progress == OTHERS_TELL)
			wait_a_moment(OTHERS_LOOK_MS);
	}
	return step.progress;
}

/* One that does not answer is no reason not to hear what others know. */
static void
ask_all(void)
{
	TimestampTz began = GetCurrentTimestamp();
	List	   *nodes;
	ListCell   *lc;

	if (ask_until_all_is_told(ALL_NODES, began) != STEP_FAILED)
		return;
	nodes = list_nodes(ALL_OTHERS);
	foreach (lc, nodes)
		(void) ask_until_all_is_told(lfirst_int(lc), began);
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
		ask_all();
		proc_exit(0);
	}
	if (TransactionIdIsValid(start.xid))
		(void) try_transaction(wait_for_transaction, &start.xid);
	tell_until_all_is_told();
}
