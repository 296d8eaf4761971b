/*-------------------------------------------------------------------------
 *
 * run_attempt.h
 *	  One run's trouble with the database is not another's.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SENDCAMPAIGN_RUN_ATTEMPT_H
#define SENDCAMPAIGN_RUN_ATTEMPT_H

#include "worker/run.h"

/* What lasts no longer need not be told to people. */
#define TOLD_AFTER_MS 5000

/* Work for a run, with what else it needs, or NULL. */
typedef void (*RunFunction)(Run *run, void *arg);

/*
 * As attempt(), for a run's work: an error that may pass (a lock, a deadlock,
 * a full disk) backs off, any other fails the run.  Returns false then.
 */
extern bool attempt_for_run(RunFunction function, Run *run, void *arg, Backoff *backoff);

/* Has this work of the run wait a while, longer each time. */
extern void back_off(Run *run, Backoff *backoff, const char *reason);

#endif /* SENDCAMPAIGN_RUN_ATTEMPT_H */
