/*-------------------------------------------------------------------------
 *
 * classify.h
 *	  What an exchange with Twilio means for the message.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SENDCAMPAIGN_CLASSIFY_H
#define SENDCAMPAIGN_CLASSIFY_H

#include "twilio/http.h"

typedef enum VerdictKind
{
	VERDICT_SENT,		 /* Twilio has it, under sid */
	VERDICT_FAILED,		 /* refused, for this recipient only */
	VERDICT_TEXT_FAILED, /* refused because of its text; others may be, too */
	VERDICT_RETRY,		 /* Twilio did not accept it now; try again */
	VERDICT_UNREACHABLE, /* it never left: Twilio cannot be reached */
	VERDICT_DOUBT,		 /* Twilio may have it or not */
	VERDICT_STOP		 /* refused, as all others would be */
} VerdictKind;

/* Strings are palloc'd in the caller's memory context, or NULL. */
typedef struct Verdict
{
	VerdictKind kind;
	char	   *sid;
	int			error_code; /* Twilio's, else the HTTP status, else 0 */
	char	   *error_message;
	int			segments;	 /* 0: not known yet */
	int			retry_after; /* in seconds; -1: not specified */
} Verdict;

/* Classifies the answer to a request that creates a message.  Does not throw. */
extern void classify(const HttpResponse *response, Verdict *verdict);

/* Whether a message that failed with some code may be sent again. */
typedef enum Retry
{
	RETRY_ALLOWED, /* Twilio did not accept it at that time */
	RETRY_NEVER,   /* it would be refused again */
	RETRY_UNKNOWN  /* the code does not tell */
} Retry;

/* Returns that for Twilio's codes, HTTP statuses, and 0 for neither. */
extern Retry retry_after_code(int code);

/* Returns a short description of one of Twilio's error codes, or NULL. */
extern const char *describe_error_code(int code);

/* Returns what a person can do about it, in sentences, or NULL. */
extern const char *advise_on_error_code(int code);

/* Returns the codes that have one, by a number from 0 on; 0 after the last one. */
extern int known_error_code(int number);

#endif /* SENDCAMPAIGN_CLASSIFY_H */
