/*-------------------------------------------------------------------------
 *
 * locked_work.c
 *	  Which work of runs under way has to wait, since others have locked tables of
 *	  their schema, and until when.
 *
 * An attempt lasts as long as the worker waits for the lock.  Where a table is
 * locked, all runs of its schema have to wait, perhaps hundreds: if each of them
 * tried, nobody else would be sent to for minutes.  So the work is left alone for
 * all of them, and then tried for one, another one each time.
 *
 * Perhaps only rows of some runs are locked.  So those that have not failed come
 * first (see runs_in_turn()), and as soon as one of them succeeds, the others need
 * not wait any more.
 *
 * The kinds of work use different tables (but the end of a run is told to its job
 * when it is recorded), so each of them waits by itself.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"
#include "worker/locked_work.h"

/* The most that is remembered: the one that is to be tried next is forgotten for another. */
#define MAX_LOCKED 1024

/* How long work waits: first, and at most. */
#define FIRST_MS 250
#define MOST_MS	 1500

/* What locked schemas wait for each other, so that others have most of the time; and at most. */
#define SHARE_MS		 1000
#define MOST_TOGETHER_MS 30000

/* The most that a run waits longer than its schema. */
#define LONGER_MS 1000

/* Runs that have such work try it at once, so what was not tried for this long is forgotten. */
#define FORGOTTEN_MS 5000

typedef struct LockedWork
{
	NameData	schema;
	size_t		work; /* where it is in a run */
	int			failures;
	TimestampTz since;
	TimestampTz until;
	char	   *reason; /* of the last failure */
} LockedWork;

static LockedWork locked[MAX_LOCKED];
static int		  num_locked = 0;

static size_t
work_of(const Run *run, const Backoff *work)
{
	return (const char *) work - (const char *) run;
}

static LockedWork *
find(const Run *run, const Backoff *work)
{
	for (int i = 0; i < num_locked; i++)
	{
		if (locked[i].work == work_of(run, work) && namestrcmp(&locked[i].schema, run->schema) == 0)
			return &locked[i];
	}
	return NULL;
}

static void
forget(LockedWork *entry)
{
	if (entry->reason)
		pfree(entry->reason);
	*entry = locked[--num_locked];
}

static void
forget_old(TimestampTz now)
{
	for (int i = num_locked - 1; i >= 0; i--)
	{
		if (TimestampDifferenceExceeds(locked[i].until, now, FORGOTTEN_MS))
			forget(&locked[i]);
	}
}

static void
forget_earliest(void)
{
	LockedWork *first = &locked[0];

	for (int i = 1; i < num_locked; i++)
	{
		if (locked[i].until < first->until)
			first = &locked[i];
	}
	forget(first);
}

static LockedWork *
find_or_add(const Run *run, const Backoff *work, TimestampTz now)
{
	LockedWork *entry;

	forget_old(now);
	entry = find(run, work);
	if (entry)
		return entry;
	if (num_locked == MAX_LOCKED)
		forget_earliest();
	entry = &locked[num_locked++];
	memset(entry, 0, sizeof(*entry));
	namestrcpy(&entry->schema, run->schema);
	entry->work = work_of(run, work);
	entry->since = now;
	return entry;
}

static int
count_schemas(size_t work)
{
	int count = 0;

	for (int i = 0; i < num_locked; i++)
		count += locked[i].work == work;
	return count;
}

/* What is recorded of a test, and what is skipped of a cancelled run, is in our own tables. */
static bool
needs_tables(const Run *run, const Backoff *work)
{
	return work == &run->claiming ? !run_is_cancelled(run) : run->campaign.test_phone == NULL;
}

TimestampTz
leave_locked_work(const Run *run, Backoff *work, const char *reason)
{
	TimestampTz now = GetCurrentTimestamp();
	char	   *copy;
	LockedWork *entry;
	int			share;
	int			msec;

	if (!needs_tables(run, work))
		return now;
	copy = MemoryContextStrdup(TopMemoryContext, reason);
	entry = find_or_add(run, work, now);
	if (entry->reason)
		pfree(entry->reason);
	entry->reason = copy;
	share = Min((count_schemas(entry->work) - 1) * SHARE_MS, MOST_TOGETHER_MS);
	msec = Min(FIRST_MS << Min(entry->failures, 10), Max(MOST_MS, share));
	entry->failures++;
	entry->until = TimestampTzPlusMilliseconds(now, msec);
	work->until = Max(work->until, TimestampTzPlusMilliseconds(entry->until, Min(msec, LONGER_MS)));
	return entry->since;
}

/*
 * If others have to wait now, it was an attempt of the same run that has failed: this
 * success is about another table.
 */
void
tables_are_free(const Run *run, const Backoff *work)
{
	LockedWork *entry = needs_tables(run, work) ? find(run, work) : NULL;

	if (entry && entry->until <= GetCurrentTimestamp())
		forget(entry);
}

bool
may_try_work(const Run *run, const Backoff *work, TimestampTz now)
{
	const LockedWork *entry;

	if (work->until > now)
		return false;
	entry = needs_tables(run, work) ? find(run, work) : NULL;
	return entry == NULL || entry->until <= now;
}

bool
some_work_is_locked(void)
{
	if (num_locked > 0)
		forget_old(GetCurrentTimestamp());
	return num_locked > 0;
}

bool
work_is_tried_again(const Run *run, const Backoff *work, TimestampTz now)
{
	return num_locked > 0 && needs_tables(run, work) && find(run, work) != NULL &&
		   may_try_work(run, work, now);
}

const char *
reason_of_wait(const Run *run, const Backoff *work, int msec)
{
	const LockedWork *entry = needs_tables(run, work) ? find(run, work) : NULL;

	return entry && TimestampDifferenceExceeds(entry->since, GetCurrentTimestamp(), msec)
			   ? entry->reason
			   : NULL;
}
