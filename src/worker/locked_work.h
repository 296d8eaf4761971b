/*-------------------------------------------------------------------------
 *
 * locked_work.h
 *	  Which work of runs under way has to wait, since others have locked tables of
 *	  their schema, and until when.
 *
 * "work" is one of the run's own Backoffs: claiming, recording or reporting.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SENDCAMPAIGN_LOCKED_WORK_H
#define SENDCAMPAIGN_LOCKED_WORK_H

#include "worker/run.h"

/*
 * Notes that this work could not be done because of a lock: the same work of all
 * runs of the schema waits, and that of this run somewhat longer.  The reason is
 * copied, into TopMemoryContext.  Returns since when they wait.  Nothing bad happens
 * if the open transaction is rolled back.  Throws only if memory is short; the others
 * never do.
 */
extern TimestampTz leave_locked_work(const Run *run, Backoff *work, const char *reason);

/* Notes that the work could use the tables: that of the others need not wait any more. */
extern void tables_are_free(const Run *run, const Backoff *work);

/* Tells whether the work may be tried now. */
extern bool may_try_work(const Run *run, const Backoff *work, TimestampTz now);

/* Tells whether any work has had to wait just now. */
extern bool some_work_is_locked(void);

/* Tells whether this work is about to be tried again where it had to wait; it may fail again. */
extern bool work_is_tried_again(const Run *run, const Backoff *work, TimestampTz now);

/* Returns why the work has had to wait for at least so long; or NULL.  Not to be freed. */
extern const char *reason_of_wait(const Run *run, const Backoff *work, int msec);

#endif /* SENDCAMPAIGN_LOCKED_WORK_H */
