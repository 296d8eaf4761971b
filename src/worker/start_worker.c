/*-------------------------------------------------------------------------
 *
 * start_worker.c
 *	  Starts a worker for a role, or wakes the one that runs.
 *
 * There is at most one worker per role and database, and no run may be left
 * behind without one.  Two locks ensure that, without shared memory.  Both are
 * locks on a role as an object of this database, which SQL cannot take, with
 * the lock method of advisory locks, whose session locks survive an abort and
 * are released when the process ends:
 *
 * - The worker lock is held, exclusively, by the worker as long as it lives.
 *   It takes it before it connects: while connecting waits for somebody's
 *   lock, no second worker of the role does.
 * - The enqueue lock is held, shared, by whoever commits a run, from before
 *   it looks for a worker until its run is visible.  A worker leaves only
 *   while it holds this lock exclusively and sees no run.
 *
 * A third lock is that of a run, which its worker holds as long as it has the
 * run in memory: even if several roles take up the run, two workers never have
 * it at once.
 *
 * So whoever commits a run either finds a worker that will see the run before
 * it leaves, or starts a new one.  The new one is registered before the
 * commit, as nothing may fail after that.  It cannot leave before the
 * transaction has ended, however long that takes, and works for others in the
 * meantime.
 *
 * A prepared transaction may stay forever.  It holds a separate lock, shared:
 * a worker stays for that, too, but only for a limited time.
 *
 * One role must not take all slots for workers: it gets half of them, in all
 * databases together.  Nor must those that only ask what became of messages
 * keep others from sending: they hold a fifth lock, and stay below a quarter.
 * When one of them leaves, it starts the next one (scan.c).
 *
 * A worker that has nothing more to do lingers for a while (linger.c).  It has
 * looked for runs as if it left, so whoever commits one finds it and wakes it.
 * Meanwhile it holds a sixth lock, which makes it known as one that can go; and
 * whoever finds no slot for a worker holds a seventh one, which makes it go.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/xact.h"
#include "catalog/pg_authid.h"
#include "commands/dbcommands.h"
#include "compat.h"
#include "miscadmin.h"
#include "nodes/pg_list.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/lock.h"
#include "storage/proc.h"
#include "storage/procarray.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/syscache.h"
#include "worker/process.h"
#include "worker/start_worker.h"

#define WORKER_LOCK	  1
#define ENQUEUE_LOCK  2
#define RUN_LOCK	  3
#define PREPARED_LOCK 4
#define SWEEPER_LOCK  5
#define LINGER_LOCK	  6
#define SLOT_LOCK	  7 /* of no role or database */

/*
 * If all slots are taken: how often, and how long, to wait for one; how often
 * as long as workers linger, and after one of them was seen last.
 */
#define SLOT_RETRIES	10
#define LINGER_RETRIES	300
#define LEAVING_RETRIES 60
#define SLOT_WAIT_MS	10

/* A worker that is leaving has left long before these are used up. */
#define ENQUEUE_RETRIES 500

/* Roles for which this transaction's commit starts a worker. */
static List *roles_at_commit = NIL;

/* Roles whose worker is woken then, if there is one. */
static List *roles_to_wake = NIL;

/* Workers to wake after the commit, as PGPROCs: a stale one does no harm. */
static List *wake_after_commit = NIL;

static void
set_lock_tag(LOCKTAG *tag, Oid role, int which)
{
	SET_LOCKTAG_OBJECT(*tag, MyDatabaseId, AuthIdRelationId, role, which);
	tag->locktag_lockmethodid = USER_LOCKMETHOD;
}

static bool
lock_role(Oid role, int which, LOCKMODE mode, bool for_session, bool wait)
{
	LOCKTAG tag;

	set_lock_tag(&tag, role, which);
	return LockAcquire(&tag, mode, for_session, !wait) != LOCKACQUIRE_NOT_AVAIL;
}

static void
unlock_role(Oid role, int which, LOCKMODE mode, bool for_session)
{
	LOCKTAG tag;

	set_lock_tag(&tag, role, which);
	LockRelease(&tag, mode, for_session);
}

/* Tells whether somebody holds, exclusively, this lock of a role in some database. */
static bool
is_held(const LockInstanceData *lock, int which)
{
	const LOCKTAG *tag = &lock->locktag;

	return tag->locktag_type == LOCKTAG_OBJECT && tag->locktag_lockmethodid == USER_LOCKMETHOD &&
		   tag->locktag_field2 == AuthIdRelationId && tag->locktag_field4 == which &&
		   (lock->holdMask & LOCKBIT_ON(ExclusiveLock)) != 0;
}

/* What the locks reveal about a role's workers. */
typedef struct RoleWorkers
{
	bool	exists;	   /* true if one is starting or running in this database */
	PGPROC *running;   /* that one, once it is connected */
	int		elsewhere; /* number of workers in other databases, but for those that linger */
} RoleWorkers;

static RoleWorkers
find_workers(Oid role)
{
	LockData   *locks = GetLockStatusData();
	RoleWorkers workers = {0};

	for (int i = 0; i < locks->nelements; i++)
	{
		LockInstanceData *lock = &locks->locks[i];
		bool			  is_here = lock->locktag.locktag_field1 == MyDatabaseId;

		if (lock->locktag.locktag_field3 != role)
			continue;
		if (is_held(lock, LINGER_LOCK) && !is_here)
			workers.elsewhere--;
		if (!is_held(lock, WORKER_LOCK))
			continue;
		if (!is_here)
		{
			workers.elsewhere++;
			continue;
		}
		workers.exists = true;
		workers.running = BackendPidGetProc(lock->pid);
	}
	return workers;
}

/* The worker that this process has found last; it may have ended since. */
static struct
{
	Oid		role;
	int		pid;
	PGPROC *proc;
} last_found;

/* Tells whether somebody holds the role's worker lock. */
static bool
has_worker(Oid role)
{
	if (!lock_role(role, WORKER_LOCK, ShareLock, false, false))
		return true;
	unlock_role(role, WORKER_LOCK, ShareLock, false);
	return false;
}

/*
 * Returns the role's worker if that is still the one that was found last: looking
 * at all locks of the server for each message that is queued would take longer
 * than to queue it.  NULL: find_workers() tells.
 */
static PGPROC *
last_worker(Oid role)
{
	PGPROC *proc = last_found.proc;

	if (proc == NULL || last_found.role != role || !has_worker(role))
		return NULL;
	return BackendPidGetProc(last_found.pid) == proc && proc->roleId == role &&
				   proc->databaseId == MyDatabaseId
			   ? proc
			   : NULL;
}

static RoleWorkers
find_workers_for_commit(Oid role)
{
	PGPROC	   *proc = last_worker(role);
	RoleWorkers workers = {.exists = true, .running = proc};

	if (proc)
		return workers;
	workers = find_workers(role);
	if (workers.running)
	{
		last_found.role = role;
		last_found.proc = workers.running;
		last_found.pid = workers.running->pid;
	}
	return workers;
}

/* Returns how many workers a role may have. */
static int
share_of_role(void)
{
	return Max(1, max_worker_processes / 2);
}

/* Returns how many workers there may be that only sweep. */
static int
max_sweepers(void)
{
	return Max(1, max_worker_processes / 4);
}

/* Returns how many there are, in all databases, with a process id below this one. */
static int
num_sweepers(int pid)
{
	LockData *locks = GetLockStatusData();
	int		  count = 0;

	for (int i = 0; i < locks->nelements; i++)
	{
		const LockInstanceData *lock = &locks->locks[i];

		count += is_held(lock, SWEEPER_LOCK) && lock->pid < pid;
	}
	return count;
}

static bool
register_worker(WorkerStart start)
{
	BackgroundWorker worker;

	describe_process(&worker, "sendcampaign_worker_main", "sendcampaign worker");
	snprintf(worker.bgw_name, BGW_MAXLEN, "sendcampaign worker for role %u", start.role);
	memcpy(worker.bgw_extra, &start, sizeof(start));
	return RegisterDynamicBackgroundWorker(&worker, NULL);
}

static void
wait_for_others(void)
{
	(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, SLOT_WAIT_MS,
					 WAIT_EVENT_BGWORKER_STARTUP);
	ResetLatch(MyLatch);
	CHECK_FOR_INTERRUPTS();
}

/*
 * Makes all workers leave that linger, in all databases, as their slots are
 * needed.  Returns false if there is none.
 */
static bool
wake_lingering(void)
{
	LockData *locks = GetLockStatusData();
	bool	  found = false;

	for (int i = 0; i < locks->nelements; i++)
	{
		PGPROC *proc;

		if (!is_held(&locks->locks[i], LINGER_LOCK))
			continue;
		found = true;
		proc = BackendPidGetProc(locks->locks[i].pid);
		if (proc != NULL)
			SetLatch(&proc->procLatch);
	}
	return found;
}

static bool
lock_slots(LOCKMODE mode, bool for_session, bool wait)
{
	LOCKTAG tag;

	set_lock_tag(&tag, InvalidOid, SLOT_LOCK);
	tag.locktag_field1 = InvalidOid;
	return LockAcquire(&tag, mode, for_session, !wait) != LOCKACQUIRE_NOT_AVAIL;
}

static void
unlock_slots(LOCKMODE mode, bool for_session)
{
	LOCKTAG tag;

	set_lock_tag(&tag, InvalidOid, SLOT_LOCK);
	tag.locktag_field1 = InvalidOid;
	LockRelease(&tag, mode, for_session);
}

bool
slot_is_wanted(void)
{
	if (!lock_slots(ShareLock, true, false))
		return true;
	unlock_slots(ShareLock, true);
	return false;
}

/*
 * Tells whether a worker was started, or set in *running if it runs already.
 */
static bool
try_to_start(Oid role, TransactionId xid, PGPROC **running)
{
	RoleWorkers workers = find_workers_for_commit(role);

	*running = workers.running;
	return workers.exists || (workers.elsewhere < share_of_role() &&
							  register_worker((WorkerStart){MyDatabaseId, role, xid, 0}));
}

/*
 * The same if no slot is free at first.  Others that are starting may do our
 * work, or end soon, as those do that linger.
 */
static bool
wait_and_start(Oid role, TransactionId xid, PGPROC **running)
{
	int	 retries = SLOT_RETRIES;
	bool started = false;

	lock_slots(RowExclusiveLock, false, true);
	for (int i = 0; i < retries && !started; i++)
	{
		if (i % SLOT_RETRIES == 0 && wake_lingering())
			retries = Min(i + LEAVING_RETRIES, LINGER_RETRIES);
		wait_for_others();
		started = try_to_start(role, xid, running);
	}
	unlock_slots(RowExclusiveLock, false);
	return started;
}

/*
 * Starts a worker if there is none, or sets *running to the one that runs.
 * The caller must hold the enqueue lock.  Returns false if no slot became
 * free.
 */
static bool
start_or_find_worker(Oid role, TransactionId xid, PGPROC **running)
{
	return try_to_start(role, xid, running) || wait_and_start(role, xid, running);
}

static void
warn_no_worker(Oid role)
{
	ereport(WARNING,
			(errcode(ERRCODE_INSUFFICIENT_RESOURCES),
			 errmsg("could not start a sendcampaign worker"),
			 find_workers(role).elsewhere < share_of_role()
				? errdetail("All background worker slots are taken.")
				: errdetail_plural("The role already has %d worker in other databases, the most"
								   " that \"max_worker_processes\" allows for one role.",
								   "The role already has %d workers in other databases, the most"
								   " that \"max_worker_processes\" allows for one role.",
								   share_of_role(), share_of_role()),
			 errhint("Unfinished runs continue after the next call of send_campaign() or"
					 " sendcampaign.wake(). Consider increasing"
					 " \"max_worker_processes\".")));
}

void
start_worker_at_commit(Oid role)
{
	MemoryContext old = MemoryContextSwitchTo(TopTransactionContext);

	roles_at_commit = list_append_unique_oid(roles_at_commit, role);
	MemoryContextSwitchTo(old);
}

void
wake_worker_at_commit(Oid role)
{
	MemoryContext old = MemoryContextSwitchTo(TopTransactionContext);

	roles_to_wake = list_append_unique_oid(roles_to_wake, role);
	MemoryContextSwitchTo(old);
}

bool
start_worker_now(Oid role)
{
	PGPROC *running;
	bool	started;

	lock_role(role, ENQUEUE_LOCK, ShareLock, false, true);
	started = start_or_find_worker(role, InvalidTransactionId, &running);
	if (running != NULL)
		SetLatch(&running->procLatch);
	unlock_role(role, ENQUEUE_LOCK, ShareLock, false);
	return started;
}

int
room_for_sweepers(void)
{
	return Max(0, max_sweepers() - num_sweepers(INT_MAX));
}

bool
start_sweeper_now(Oid role, TimestampTz pass, int *room)
{
	RoleWorkers workers;
	bool		started = false;

	lock_role(role, ENQUEUE_LOCK, ShareLock, false, true);
	workers = find_workers(role);
	if (workers.running != NULL)
		SetLatch(&workers.running->procLatch);
	if (!workers.exists && *room > 0 && workers.elsewhere < share_of_role())
		started = register_worker((WorkerStart){MyDatabaseId, role, InvalidTransactionId, pass});
	*room -= started;
	unlock_role(role, ENQUEUE_LOCK, ShareLock, false);
	return started || workers.exists;
}

static void
wake_after(PGPROC *worker)
{
	MemoryContext old = MemoryContextSwitchTo(TopTransactionContext);

	if (worker != NULL)
		wake_after_commit = lappend(wake_after_commit, worker);
	MemoryContextSwitchTo(old);
}

static void
before_commit(void)
{
	ListCell *lc;

	foreach (lc, roles_to_wake)
		wake_after(find_workers(lfirst_oid(lc)).running);

	foreach (lc, roles_at_commit)
	{
		Oid		role = lfirst_oid(lc);
		PGPROC *running;

		lock_role(role, ENQUEUE_LOCK, ShareLock, false, true);
		if (!start_or_find_worker(role, GetTopTransactionIdIfAny(), &running))
			warn_no_worker(role);
		wake_after(running);
	}
}

/*
 * Nobody can tell when a prepared transaction commits, or in which session.
 * The enqueue lock would keep the worker forever, so it is released.
 */
static void
before_prepare(void)
{
	ListCell *lc;

	foreach (lc, roles_at_commit)
	{
		Oid		role = lfirst_oid(lc);
		PGPROC *running;

		lock_role(role, PREPARED_LOCK, ShareLock, false, true);
		lock_role(role, ENQUEUE_LOCK, ShareLock, false, true);
		if (!start_or_find_worker(role, InvalidTransactionId, &running))
			warn_no_worker(role);
		if (running != NULL)
			SetLatch(&running->procLatch); /* one that lingers must wait for us instead */
		unlock_role(role, ENQUEUE_LOCK, ShareLock, false);
	}
}

/* Their memory is freed with the transaction. */
static void
forget_roles(void)
{
	roles_at_commit = NIL;
	roles_to_wake = NIL;
	wake_after_commit = NIL;
}

static void
on_xact_event(XactEvent event, void *arg)
{
	ListCell *lc;

	switch (event)
	{
		case XACT_EVENT_PRE_COMMIT:
			before_commit();
			break;
		case XACT_EVENT_PRE_PREPARE:
			before_prepare();
			break;
		case XACT_EVENT_COMMIT:
			/* no errors here, nor anything that may raise one */
			foreach (lc, wake_after_commit)
				SetLatch(&((PGPROC *) lfirst(lc))->procLatch);
			forget_roles();
			break;
		case XACT_EVENT_ABORT:
		case XACT_EVENT_PREPARE:
			forget_roles();
			break;
		default:
			break;
	}
}

void
register_start_callbacks(void)
{
	RegisterXactCallback(on_xact_event, NULL);
}

char *
why_role_cannot_work(Oid role, char **hint)
{
	HeapTuple tuple = SearchSysCache1(AUTHOID, ObjectIdGetDatum(role));
	char	 *name;
	bool	  can_login;

	*hint = NULL;
	if (!HeapTupleIsValid(tuple))
		return psprintf("role with OID %u does not exist", role);
	name = pstrdup(NameStr(((Form_pg_authid) GETSTRUCT(tuple))->rolname));
	can_login = ((Form_pg_authid) GETSTRUCT(tuple))->rolcanlogin;
	ReleaseSysCache(tuple);

	if (COMPAT_NEEDS_LOGIN && !can_login)
	{
		*hint = psprintf(
			"Use ALTER ROLE %s LOGIN. Before PostgreSQL 17, a background worker cannot connect as a role without LOGIN. The role needs no password.",
			quote_identifier(name));
		return psprintf("role \"%s\" is not permitted to log in", name);
	}
	if (!superuser_arg(role) && !compat_can_connect(MyDatabaseId, role))
	{
		char *database = get_database_name(MyDatabaseId);

		*hint = psprintf("Use GRANT CONNECT ON DATABASE %s TO %s.", quote_identifier(database),
						 quote_identifier(name));
		return psprintf("role \"%s\" has no CONNECT privilege on database \"%s\"", name, database);
	}
	return NULL;
}

/* If we never connect, nothing else releases our lock. */
static void
release_at_exit(int code, Datum arg)
{
	LockReleaseAll(USER_LOCKMETHOD, true);
}

/*
 * As we are not connected yet, we may not wait for a lock.  Only a worker that
 * is about to leave holds the enqueue lock against us; it must not be taken
 * for one that stays.
 */
static bool
await_enqueue_lock(LOCKTAG *tag)
{
	for (int i = 0; i < ENQUEUE_RETRIES; i++)
	{
		if (LockAcquire(tag, ShareLock, true, true) != LOCKACQUIRE_NOT_AVAIL)
			return true;
		wait_for_others();
	}
	return false;
}

/* Tells whether a worker holds this lock. */
static bool
is_workers(const LOCKTAG *tag)
{
	LockData *locks = GetLockStatusData();

	for (int i = 0; i < locks->nelements; i++)
	{
		if (memcmp(&locks->locks[i].locktag, tag, sizeof(*tag)) == 0 &&
			(locks->locks[i].holdMask & LOCKBIT_ON(ExclusiveLock)) != 0)
			return true;
	}
	return false;
}

/* Those who only look, with has_worker(), hold the lock for a moment. */
static bool
take_worker_lock(const LOCKTAG *tag)
{
	while (LockAcquire(tag, ExclusiveLock, true, true) == LOCKACQUIRE_NOT_AVAIL)
	{
		if (is_workers(tag))
			return false;
		pg_usleep(100);
	}
	return true;
}

bool
become_the_worker(Oid database, Oid role)
{
	LOCKTAG worker;
	LOCKTAG enqueue;
	bool	became;

	before_shmem_exit(release_at_exit, 0);
	set_lock_tag(&worker, role, WORKER_LOCK);
	set_lock_tag(&enqueue, role, ENQUEUE_LOCK);
	worker.locktag_field1 = enqueue.locktag_field1 = database;
	if (!await_enqueue_lock(&enqueue))
		return false;
	became = take_worker_lock(&worker);
	LockRelease(&enqueue, ShareLock, true);
	return became;
}

/* Of those that were started at the same time, as many stay as may. */
bool
become_a_sweeper(Oid database, Oid role)
{
	LOCKTAG tag;

	before_shmem_exit(release_at_exit, 0);
	set_lock_tag(&tag, role, SWEEPER_LOCK);
	tag.locktag_field1 = database;
	return LockAcquire(&tag, ExclusiveLock, true, true) != LOCKACQUIRE_NOT_AVAIL &&
		   num_sweepers(MyProcPid) < max_sweepers();
}

void
stop_being_a_sweeper(Oid role)
{
	unlock_role(role, SWEEPER_LOCK, ExclusiveLock, true);
}

void
begin_to_linger(Oid role)
{
	(void) lock_role(role, LINGER_LOCK, ExclusiveLock, true, false);
}

void
end_lingering(Oid role)
{
	unlock_role(role, LINGER_LOCK, ExclusiveLock, true);
}

/*
 * A process owns its latch as long as it has its PGPROC.  We read without a
 * lock: it is a rule of thumb, and looked at again in a moment.
 */
bool
slots_are_plenty(void)
{
	int taken = 0;

	for (int i = 0; i < ProcGlobal->allProcCount; i++)
	{
		const PGPROC *proc = &ProcGlobal->allProcs[i];

		taken += (void *) proc->procgloballist == (void *) &ProcGlobal->bgworkerFreeProcs &&
				 proc->procLatch.owner_pid != 0;
	}
	return taken < share_of_role();
}

/* Tells whether this is the lock of a worker of that role here. */
static bool
is_of_worker(const LOCKTAG *tag, Oid role)
{
	static const int ours[] = {WORKER_LOCK, ENQUEUE_LOCK, LINGER_LOCK};

	for (int i = 0; i < lengthof(ours); i++)
	{
		LOCKTAG lock;

		set_lock_tag(&lock, role, ours[i]);
		if (memcmp(tag, &lock, sizeof(LOCKTAG)) == 0)
			return true;
	}
	return false;
}

bool
holds_others_locks(Oid role)
{
	LockData *locks = GetLockStatusData();
	bool	  found = false;

	for (int i = 0; i < locks->nelements; i++)
	{
		const LockInstanceData *lock = &locks->locks[i];

		found |= lock->pid == MyProcPid && !is_of_worker(&lock->locktag, role);
	}
	/* there is no transaction whose end would free it, and this happens after each run */
	pfree(locks->locks);
	pfree(locks);
	return found;
}

bool
still_the_worker(Oid role)
{
	LOCKTAG			  tag;
	LockAcquireResult result;

	set_lock_tag(&tag, role, WORKER_LOCK);
	result = LockAcquire(&tag, ExclusiveLock, true, true);
	if (result != LOCKACQUIRE_NOT_AVAIL)
		LockRelease(&tag, ExclusiveLock, true);
	return result == LOCKACQUIRE_ALREADY_HELD;
}

bool
prepare_to_leave(Oid role)
{
	return lock_role(role, ENQUEUE_LOCK, ExclusiveLock, true, false);
}

bool
is_prepared_for(Oid role)
{
	if (!lock_role(role, PREPARED_LOCK, ExclusiveLock, true, false))
		return true;
	unlock_role(role, PREPARED_LOCK, ExclusiveLock, true);
	return false;
}

void
stay_the_worker(Oid role)
{
	unlock_role(role, ENQUEUE_LOCK, ExclusiveLock, true);
}

void
leave_for_good(Oid role)
{
	/* in this order: whoever gets the enqueue lock must not find us any longer */
	unlock_role(role, WORKER_LOCK, ExclusiveLock, true);
	unlock_role(role, ENQUEUE_LOCK, ExclusiveLock, true);
}

static void
set_run_lock_tag(LOCKTAG *tag, int64 id)
{
	*tag = (LOCKTAG){.locktag_field1 = MyDatabaseId,
					 .locktag_field2 = (uint32) (id >> 32),
					 .locktag_field3 = (uint32) id,
					 .locktag_field4 = RUN_LOCK,
					 .locktag_type = LOCKTAG_OBJECT,
					 .locktag_lockmethodid = USER_LOCKMETHOD};
}

static LockAcquireResult
try_to_lock_run(int64 id)
{
	LOCKTAG tag;

	set_run_lock_tag(&tag, id);
	return LockAcquire(&tag, ExclusiveLock, true, true);
}

bool
take_run(int64 id)
{
	LockAcquireResult result = try_to_lock_run(id);

	Assert(result != LOCKACQUIRE_ALREADY_HELD);
	return result != LOCKACQUIRE_NOT_AVAIL;
}

void
give_up_run(int64 id)
{
	LOCKTAG tag;

	set_run_lock_tag(&tag, id);
	LockRelease(&tag, ExclusiveLock, true);
}

bool
worker_has_run(int64 id)
{
	LockAcquireResult result = try_to_lock_run(id);

	if (result == LOCKACQUIRE_NOT_AVAIL)
		return true;
	give_up_run(id);
	/* a trigger may have called us in the very worker */
	return result != LOCKACQUIRE_OK;
}

void
hand_over(Oid role)
{
	unlock_role(role, WORKER_LOCK, ExclusiveLock, true);
	(void) register_worker((WorkerStart){MyDatabaseId, role, InvalidTransactionId, 0});
	unlock_role(role, ENQUEUE_LOCK, ExclusiveLock, true);
}

/*
 * Who found us before may not be awaited for ever, if there is always somebody:
 * the new worker cannot leave before they have committed.
 */
bool
try_hand_over(Oid role, bool prepared)
{
	LOCKTAG worker;
	bool	registered;

	unlock_role(role, WORKER_LOCK, ExclusiveLock, true);
	registered = register_worker((WorkerStart){MyDatabaseId, role, InvalidTransactionId, 0});
	set_lock_tag(&worker, role, WORKER_LOCK);
	if (!registered)
		(void) take_worker_lock(&worker);
	if (prepared)
		unlock_role(role, ENQUEUE_LOCK, ExclusiveLock, true);
	return registered;
}
