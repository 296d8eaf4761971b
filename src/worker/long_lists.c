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
 * A run whose recipients a query selects is always begun by a list worker, since
 * nobody knows how long the query takes, and is tried again until it has begun or
 * the query has failed.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "database/run_table.h"
#include "database/spi.h"
#include "miscadmin.h"
#include "postmaster/bgworker.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"
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

/*
 * Runs that have had one lately, and when.  If somebody has changed the run since,
 * it may have another.
 */
typedef struct Tried
{
	QueuedVersion run;
	TimestampTz	  at;
} Tried;

static Tried tried[64];
static int	 next_tried = 0;

/* How long a run with a query waits before it has another one. */
#define TRY_AGAIN_MS 3000

static const Tried *
find_tried(QueuedVersion run)
{
	for (int i = 0; i < lengthof(tried); i++)
	{
		if (tried[i].run.run_id == run.run_id && tried[i].run.version == run.version)
			return &tried[i];
	}
	return NULL;
}

/* Replaces the oldest one, unless the run is there. */
static void
note_tried(QueuedVersion run)
{
	Tried *entry = &tried[next_tried];

	for (int i = 0; i < lengthof(tried); i++)
	{
		if (tried[i].run.run_id == run.run_id)
			entry = &tried[i];
	}
	if (entry == &tried[next_tried])
		next_tried = (next_tried + 1) % lengthof(tried);
	*entry = (Tried){run, GetCurrentTimestamp()};
}

int64
most_recipients_here(QueuedVersion run)
{
	if (find_tried(run) || num_waiting == MAX_LONG_LISTS || !slots_are_plenty())
		return PG_INT64_MAX;
	return MAX_RECIPIENTS_HERE(run.run_id);
}

/* Nobody else can run its query, so that it need not leave slots to others. */
bool
list_worker_is_free(QueuedVersion run)
{
	const Tried *last = find_tried(run);

	return num_waiting < MAX_LONG_LISTS &&
		   (last == NULL ||
			TimestampDifferenceExceeds(last->at, GetCurrentTimestamp(), TRY_AGAIN_MS));
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
start_list_worker(QueuedVersion run)
{
	BackgroundWorker process;
	ListWorkerStart	 start = {MyDatabaseId, worker.role,   run.run_id,
							  run.version,	run.has_query, worker.num_runs > 0};
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
	note_tried(waiting[0]);
	num_waiting--;
	memmove(&waiting[0], &waiting[1], num_waiting * sizeof(waiting[0]));
}

void
end_changed_query(void)
{
	if (list_worker && waiting[0].has_query &&
		!runs_is_unchanged(waiting[0].run_id, waiting[0].version))
		TerminateBackgroundWorker(list_worker);
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
	if (num_waiting > 0 && !start_list_worker(waiting[0]))
		forget_first();
}
