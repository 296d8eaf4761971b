/*-------------------------------------------------------------------------
 *
 * list_worker.c
 *	  The process that begins a run with a long list (see long_lists.c).
 *
 * It connects as the run's role, stores the recipients in one transaction, and
 * ends.  Sending is for the role's worker, which it wakes, or starts if there is
 * none, as somebody does who queues a run.  The lock of the run keeps all
 * workers from it meanwhile; its row is not locked, so that people can pause or
 * cancel it, which makes us give up.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "database/attempt.h"
#include "database/own_tables.h"
#include "database/run_table.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "tcop/tcopprot.h"
#include "utils/timestamp.h"
#include "utils/wait_event.h"
#include "worker/adopt.h"
#include "worker/long_lists.h"
#include "worker/process.h"
#include "worker/run.h"
#include "worker/run_attempt.h"
#include "worker/start_worker.h"
#include "worker/transaction.h"

PGDLLEXPORT void sendcampaign_list_worker_main(Datum arg);

/* If others are being sent, how long it works before it rests, and how long it rests at most. */
#define WORK_MS		10
#define MAX_REST_MS 100

/*
 * Rests for as long as it has worked.  With all processors busy, it would
 * otherwise take a good part of those that send.
 */
static void
rest(void)
{
	static TimestampTz rested = 0;
	TimestampTz		   now = GetCurrentTimestamp();
	long			   worked = TimestampDifferenceMilliseconds(rested, now);

	if (rested == 0)
		rested = now;
	else if (worked >= WORK_MS)
	{
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
						 Min(worked, MAX_REST_MS), WAIT_EVENT_PG_SLEEP);
		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
		rested = GetCurrentTimestamp();
	}
}

static void
begin_the_run(void *arg)
{
	const ListWorkerStart *start = arg;

	if (OidIsValid(own_lock_extension()) && begin_queued_run(start->run_id))
		start_worker_at_commit(worker.role);
}

/* What a query's failure is recorded with. */
typedef struct Failure
{
	const ListWorkerStart *start;
	const char			  *reason;
} Failure;

static void
record_failure(void *arg)
{
	const Failure *failure = arg;

	if (!OidIsValid(own_lock_extension()))
		return;
	runs_set_query_error(failure->start->run_id, failure->start->version, failure->reason);
	start_worker_at_commit(worker.role);
}

/*
 * Tells whether a query raises the error itself: under READ COMMITTED, nothing
 * else is the cause of a failed serialization, and what a query is short of now, it
 * needs again.
 */
static bool
is_querys_own(int sqlerrcode)
{
	return sqlerrcode == ERRCODE_T_R_SERIALIZATION_FAILURE ||
		   ERRCODE_TO_CATEGORY(sqlerrcode) == ERRCODE_INSUFFICIENT_RESOURCES;
}

/*
 * What goes wrong here is found again by the worker, which can tell people.  But
 * it does not run queries, so it is told how one has failed.
 */
static void
handle_failure(const ListWorkerStart *start, const ErrorData *error)
{
	Failure failure = {start, error_text(error)};

	if (start->has_query &&
		(is_querys_own(error->sqlerrcode) || !error_may_pass(error->sqlerrcode)))
		error = try_transaction(record_failure, &failure);
	if (error)
		ereport(LOG,
				(errmsg("sendcampaign: could not store a long list, leaving it to the worker: %s",
						error_text(error))));
}

void
sendcampaign_list_worker_main(Datum arg)
{
	ListWorkerStart start;
	ErrorData	   *error;

	memcpy(&start, MyBgworkerEntry->bgw_extra, sizeof(start));
	pqsignal(SIGTERM, die);
	BackgroundWorkerUnblockSignals();
	connect_as(start.database, start.role);
	if (start.beside_others)
		worker.give_way = rest;
	pgstat_report_activity(STATE_RUNNING, "storing the recipients of a long list");
	error = try_transaction(begin_the_run, &start);
	if (error)
		handle_failure(&start, error);
	proc_exit(0);
}
