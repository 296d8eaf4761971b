/*-------------------------------------------------------------------------
 *
 * start_worker.h
 *	  Starts a worker for a role, or wakes the one that runs.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SENDCAMPAIGN_START_WORKER_H
#define SENDCAMPAIGN_START_WORKER_H

#include "datatype/timestamp.h"

/* What a new worker is passed, in bgw_extra. */
typedef struct WorkerStart
{
	Oid			  database;
	Oid			  role;
	TransactionId xid;	/* is about to end; or invalid */
	TimestampTz	  pass; /* see start_sweeper_now(); 0 if there is something to send */
} WorkerStart;

/* Must be called once, when the library is loaded. */
extern void register_start_callbacks(void);

/*
 * Makes the commit of the current transaction start a worker for this role, or
 * wake the existing one.
 */
extern void start_worker_at_commit(Oid role);

/* Makes the commit wake the role's worker, if there is one. */
extern void wake_worker_at_commit(Oid role);

/*
 * Starts or wakes a worker now, for runs that are committed already.  Returns
 * false if no slot is free.
 */
extern bool start_worker_now(Oid role);

/*
 * For the worker: tells others that it lingers, without work; to be ended only
 * when it has work again, as it may be about to leave.  Whoever finds
 * no slot for a worker makes those that linger leave, by setting their latch;
 * they do not count as workers that their role has elsewhere.
 */
extern void begin_to_linger(Oid role);
extern void end_lingering(Oid role);

/*
 * Tells whether so few slots for background workers are taken that nobody
 * misses those of workers that linger: less than a role may have.
 */
extern bool slots_are_plenty(void);

/* Tells whether somebody waits for one of them, to start one of our workers. */
extern bool slot_is_wanted(void);

/*
 * Tells whether we hold a lock beyond the end of a transaction that is not
 * ours: a trigger may have taken one for the session.
 */
extern bool holds_others_locks(Oid role);

/*
 * Returns how many more workers may be started that only sweep.  There are few
 * of them in the cluster, so that they leave slots for those that send.
 */
extern int room_for_sweepers(void);

/*
 * Starts or wakes a worker for runs that are to be swept.  Returns false if
 * there is no room; otherwise, if it starts one, decrements *room.  One starts
 * another when it leaves, for the next role: "pass" is when this passing on
 * began with the first role.
 */
extern bool start_sweeper_now(Oid role, TimestampTz pass, int *room);

/*
 * Returns why no worker can run for this role, as a palloc'd sentence, or
 * NULL.  Sets *hint to what to do about it, palloc'd, or NULL.
 */
extern char *why_role_cannot_work(Oid role, char **hint);

/*
 * For the worker, before it connects: becomes the only worker for that
 * database and role, until the process ends.  Returns false if another one is.
 */
extern bool become_the_worker(Oid database, Oid role);

/*
 * The same for a worker that is started to sweep, before it calls that
 * function: returns false if there are enough of them.  It must call
 * stop_being_a_sweeper() as soon as it has something to send, and before it
 * leaves.
 */
extern bool become_a_sweeper(Oid database, Oid role);
extern void stop_being_a_sweeper(Oid role);

/* Tells whether it still is: a trigger may have called pg_advisory_unlock_all(). */
extern bool still_the_worker(Oid role);

/*
 * For the worker: prevents everybody from committing a run for this role,
 * until it calls one of the three functions below.  Returns false if somebody
 * is committing one just now.
 */
extern bool prepare_to_leave(Oid role);

/* In between, tells whether a prepared transaction has a run. */
extern bool is_prepared_for(Oid role);
extern void stay_the_worker(Oid role);
extern void leave_for_good(Oid role);

/* Leaves, too, but starts a new worker instead. */
extern void hand_over(Oid role);

/*
 * The same for a worker that could go on, with or without having prevented
 * others from committing runs.  Returns false if there is no slot; then it is
 * the worker still, and must go on, if still_the_worker().
 */
extern bool try_hand_over(Oid role, bool prepared);

/*
 * Takes a run into this worker, to the exclusion of all others.  Returns false
 * if another one has it.  give_up_run() warns if we do not have it.
 */
extern bool take_run(int64 id);
extern void give_up_run(int64 id);

/* For others: tells whether a worker has it. */
extern bool worker_has_run(int64 id);

#endif /* SENDCAMPAIGN_START_WORKER_H */
