/*-------------------------------------------------------------------------
 *
 * attempt.h
 *	  Catches errors, and formats them for people.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SENDCAMPAIGN_ATTEMPT_H
#define SENDCAMPAIGN_ATTEMPT_H

/*
 * Calls the function in a subtransaction.  If it raises an error, rolls back
 * its changes to the database, and returns the error, palloc'd in the caller's
 * memory context; otherwise returns NULL.
 */
extern ErrorData *attempt(void (*function)(void *arg), void *arg);

/*
 * Does the same, and rolls back in any case: neither changes nor locks are
 * left.
 */
extern ErrorData *rehearse(void (*function)(void *arg), void *arg);

/*
 * Returns the one form in which people read an error, in sendcampaign.run and
 * in the job: "message. Detail. Hint."  Detail and hint may be NULL.
 * Palloc'd; long parts are clipped.
 */
extern char *reason_text(const char *message, const char *detail, const char *hint);

/* Returns the same for an error that was caught. */
extern char *error_text(const ErrorData *error);

/* What a person has to do if Twilio refuses the account. */
#define MEND_ACCOUNT_HINT                                                                          \
	"Fix the Twilio account or the group's configuration, and call send_campaign() with the same"  \
	" campaign and job."

#endif /* SENDCAMPAIGN_ATTEMPT_H */
