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

/* What does not last longer than this is not shown to people. */
#define TOLD_AFTER_MS 5000

/* Work for a run; arg is whatever else it needs, or NULL. */
typedef void (*RunFunction)(Run *run, void *arg);

/*
 * Like attempt(), for a run's work: after a temporary error (a lock, a
 * deadlock, a full disk) the work backs off; any other error makes the run
 * fail.  Returns false in both cases.
 */
extern bool attempt_for_run(RunFunction function, Run *run, void *arg, Backoff *backoff);

/* Makes this work of the run wait a while, longer each time. */
extern void back_off(Run *run, Backoff *backoff, const char *reason);

#endif /* SENDCAMPAIGN_RUN_ATTEMPT_H */
