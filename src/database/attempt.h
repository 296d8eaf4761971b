/*-------------------------------------------------------------------------
 *
 * attempt.h
 *	  Errors that are caught, and how people read them.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SENDCAMPAIGN_ATTEMPT_H
#define SENDCAMPAIGN_ATTEMPT_H

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

/* The same for an error that was raised. */
extern char *error_text(const ErrorData *error);

/* What a person has to do for a failed run to go on; parts of hints. */
#define SEND_AGAIN "call send_campaign() with the same campaign and job"
#define MEND_ACCOUNT_HINT                                                                          \
	"Mend the Twilio account or the group's configuration, and " SEND_AGAIN "."

#endif /* SENDCAMPAIGN_ATTEMPT_H */
