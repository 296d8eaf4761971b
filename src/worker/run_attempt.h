/*-------------------------------------------------------------------------
 *
 * run_attempt.h
 *	  Keeps one run's trouble with the database from affecting others.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SENDCAMPAIGN_RUN_ATTEMPT_H
#define SENDCAMPAIGN_RUN_ATTEMPT_H

#include "worker/run.h"

/* Trouble is shown to people only if it lasts longer than this. */
#define TOLD_AFTER_MS 5000

/* Tells whether an error with this SQLSTATE may be gone at the next attempt. */
extern bool error_may_pass(int sqlerrcode);

/* A function that does work for a run; arg is whatever else it needs, or NULL. */
typedef void (*RunFunction)(Run *run, void *arg);

/*
 * Calls the function in a subtransaction, as attempt() does.  After a temporary
 * error (a lock, a deadlock, a full disk), makes the work back off; after any
 * other error, makes the run fail.  Returns false in both cases.
 */
extern bool attempt_for_run(RunFunction function, Run *run, void *arg, Backoff *backoff);

/*
 * Does the same for work of a run that has been taken up: if others have locked a
 * table, that work of all runs of its schema has to wait (see locked_work.h).
 */
extern bool attempt_work(RunFunction function, Run *run, void *arg, Backoff *work);

/*
 * Makes this work of the run wait a while, longer each time.  The reason is
 * copied; people are told if it lasts.
 */
extern void back_off(Run *run, Backoff *backoff, const char *reason);

#endif /* SENDCAMPAIGN_RUN_ATTEMPT_H */
