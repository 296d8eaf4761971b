/*-------------------------------------------------------------------------
 *
 * guard.h
 *	  One run's trouble with the database is not another's.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SENDCAMPAIGN_GUARD_H
#define SENDCAMPAIGN_GUARD_H

#include "run.h"

typedef void (*RunFunction)(Run *run);

/*
 * Calls the function in a subtransaction.  Where it raises an error, what it
 * did in the database is undone; an error that may pass (a lock, a deadlock,
 * a full disk) backs off, any other fails the run.  Returns false then.
 */
extern bool guarded(RunFunction function, Run *run, Backoff *backoff);

/* May an error with this SQLSTATE be gone at the next try? */
extern bool error_may_pass(int sqlerrcode);

/* Has this work of the run wait a while, longer each time. */
extern void back_off(Run *run, Backoff *backoff, const char *reason);

#endif /* SENDCAMPAIGN_GUARD_H */
