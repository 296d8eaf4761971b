/*-------------------------------------------------------------------------
 *
 * start_worker.h
 *	  Starting a worker for a role, or waking the one that runs.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SENDCAMPAIGN_START_WORKER_H
#define SENDCAMPAIGN_START_WORKER_H

/* What a new worker is told, in bgw_extra. */
typedef struct WorkerStart
{
	Oid			  database;
	Oid			  role;
	TransactionId xid; /* which is about to end, or invalid */
} WorkerStart;

/* To be called once, when the library is loaded. */
extern void register_start_callbacks(void);

/*
 * Has a worker for this role started (or woken) when the current transaction
 * commits.
 */
extern void start_worker_at_commit(Oid role);

/* Has the role's worker woken then, where there is one. */
extern void wake_worker_at_commit(Oid role);

/* Starts or wakes a worker now, for runs that are committed already. */
extern bool start_worker_now(Oid role);

/* Why no worker can run for this role: a palloc'd sentence, or NULL. */
extern char *why_role_cannot_work(Oid role, char **hint);

/*
 * For the worker, before it connects: becomes the one worker of that database
 * and role, held to the end of the process; false where another one is.
 */
extern bool become_the_worker(Oid database, Oid role);

/* Is it still?  A trigger may have called pg_advisory_unlock_all(). */
extern bool still_the_worker(Oid role);

/*
 * For the worker: true keeps anyone from committing a run for this role until
 * one of the three below; false where someone does just now.
 */
extern bool prepare_to_leave(Oid role);
/* Meanwhile: is there a run in a prepared transaction? */
extern bool is_prepared_for(Oid role);
extern void stay_the_worker(Oid role);
extern void leave_for_good(Oid role);
/* Leaves as well, with a new worker started in its place. */
extern void hand_over(Oid role);

/*
 * Takes a run into this worker, to the exclusion of all others; false where
 * another one has it.  give_up_run() warns where we do not have it.
 */
extern bool take_run(int64 id);
extern void give_up_run(int64 id);

#endif /* SENDCAMPAIGN_START_WORKER_H */
