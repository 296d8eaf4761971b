/*-------------------------------------------------------------------------
 *
 * long_lists.c
 *	  Which runs begin in a process of their own, because their list is long.
 *
 * A run's recipients are those of one snapshot, so they are read and stored in
 * one transaction.  For a million that takes seconds, in which the worker could
 * neither claim messages of its other runs nor record any.  So it leaves long
 * lists to a list worker (list_worker.c), one at a time, and goes on.  When that
 * has ended, the run is in the queue as one that has begun.
 *
 * If it has not begun then, whatever the reason, the worker begins it after all,
 * and people are told what is wrong in the usual way.  It also does so if slots for
 * background workers are scarce.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "database/spi.h"
#include "miscadmin.h"
#include "postmaster/bgworker.h"
#include "utils/memutils.h"
#include "worker/long_lists.h"
#include "worker/process.h"
#include "worker/run.h"
#include "worker/start_worker.h"

/* The most runs that wait for a list worker. */
#define MAX_LONG_LISTS 512

/*
 * Storing these takes about as long as a new process needs to start.  In builds
 * for tests, each second run has a process for fewer, so that both are tested.
 */
#ifdef SENDCAMPAIGN_DEBUG_POINTS
#define MAX_RECIPIENTS_HERE(run_id) ((run_id) % 2 == 0 ? 10000 : 240)
#else
#define MAX_RECIPIENTS_HERE(run_id) 10000
#endif

/* Runs that wait for a list worker, in their order; the first one may have it. */
static QueuedVersion waiting[MAX_LONG_LISTS];
static int			 num_waiting = 0;

/* The list worker of the first one; or NULL. */
static BackgroundWorkerHandle *list_worker = NULL;

/* The run that had the last one.  If somebody has changed it since, it may have another. */
static QueuedVersion tried = {0};

static bool
was_tried(QueuedVersion run)
{
	return run.run_id == tried.run_id && run.version == tried.version;
}

int64
most_recipients_here(QueuedVersion run)
{
	if (was_tried(run) || num_waiting == MAX_LONG_LISTS || !slots_are_plenty())
		return PG_INT64_MAX;
	return MAX_RECIPIENTS_HERE(run.run_id);
}

void
leave_to_list_worker(QueuedVersion run)
{
	Assert(num_waiting < MAX_LONG_LISTS);
	waiting[num_waiting++] = run;
}

Datum
ids_with_long_lists(void)
{
	int64 ids[MAX_LONG_LISTS];

	for (int i = 0; i < num_waiting; i++)
		ids[i] = waiting[i].run_id;
	return array_of_ids(ids, num_waiting);
}

int
num_long_lists(void)
{
	return num_waiting;
}

static bool
start_list_worker(int64 run_id)
{
	BackgroundWorker process;
	ListWorkerStart	 start = {MyDatabaseId, worker.role, run_id, worker.num_runs > 0};
	MemoryContext	 old = MemoryContextSwitchTo(TopMemoryContext); /* of the handle */
	bool			 started;

	describe_process(&process, "sendcampaign_list_worker_main", "sendcampaign list worker");
	memcpy(process.bgw_extra, &start, sizeof(start));
	process.bgw_notify_pid = MyProcPid;
	started = RegisterDynamicBackgroundWorker(&process, &list_worker);
	MemoryContextSwitchTo(old);
	return started;
}

static void
forget_first(void)
{
	tried = waiting[0];
	num_waiting--;
	memmove(&waiting[0], &waiting[1], num_waiting * sizeof(waiting[0]));
}

void
store_long_lists(void)
{
	pid_t pid;

	if (list_worker)
	{
		if (GetBackgroundWorkerPid(list_worker, &pid) != BGWH_STOPPED)
			return;
		pfree(list_worker);
		list_worker = NULL;
		forget_first();
	}
	if (num_waiting > 0 && !start_list_worker(waiting[0].run_id))
		forget_first();
}
