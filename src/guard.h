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

/* What lasts no longer need not be told to people. */
#define PATIENCE_MS 5000

typedef void (*RunFunction)(Run *run);

/*
 * Calls the function in a subtransaction.  Where it raises an error, what it
 * did in the database is undone, and the error returned, palloc'd.
 */
extern ErrorData *attempt(void (*function)(void *arg), void *arg);

/*
 * The one form in which people read an error, in sendcampaign.run and in the
 * job: "message. Detail. Hint."  Detail and hint may be NULL; palloc'd, and
 * short whatever their length is.
 */
extern char *reason_text(const char *message, const char *detail, const char *hint);

/* What a person has to do for a failed run to go on; parts of hints. */
#define SEND_AGAIN "call send_campaign() with the same campaign and job"
#define MEND_ACCOUNT_HINT                                                                          \
	"Mend the Twilio account or the group's configuration, and " SEND_AGAIN "."

/* The same for an error that was raised. */
extern char *error_text(const ErrorData *error);

/*
 * The same for a run's work: an error that may pass (a lock, a deadlock,
 * a full disk) backs off, any other fails the run.  Returns false then.
 */
extern bool guarded(RunFunction function, Run *run, Backoff *backoff);

/* Has this work of the run wait a while, longer each time. */
extern void back_off(Run *run, Backoff *backoff, const char *reason);

/* It has succeeded, once the transaction now open is committed. */
extern void end_back_off(Backoff *backoff);
extern void settle_back_off(Backoff *backoff, bool committed);

#endif /* SENDCAMPAIGN_GUARD_H */
