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
	VERDICT_FAILED,		 /* refused, this recipient only */
	VERDICT_TEXT_FAILED, /* refused for its text, as others may be */
	VERDICT_RETRY,		 /* Twilio did not take it now; try again */
	VERDICT_UNREACHABLE, /* it never left; Twilio cannot be reached */
	VERDICT_DOUBT,		 /* Twilio may have it or not */
	VERDICT_STOP		 /* refused, and all others would be too */
} VerdictKind;

/* Strings are palloc'd in the caller's memory context, or NULL. */
typedef struct Verdict
{
	VerdictKind kind;
	char	   *sid;
	int			error_code; /* Twilio's, else the HTTP status, else 0 */
	char	   *error_message;
	int			segments;	 /* 0: not known yet */
	int			retry_after; /* s, -1: not said */
} Verdict;

/* The answer to a request that creates a message.  Does not throw. */
extern void classify(const HttpResponse *response, Verdict *verdict);

/* May a message that failed with this code be sent again? */
typedef enum Retry
{
	RETRY_ALLOWED, /* Twilio did not take it just then */
	RETRY_NEVER,   /* it would be refused again */
	RETRY_UNKNOWN  /* the code says nothing */
} Retry;

/* For Twilio's codes, HTTP statuses, and 0 for neither. */
extern Retry retry_after_code(int code);

/* A few words on one of Twilio's error codes, or NULL. */
extern const char *describe_error_code(int code);

#endif /* SENDCAMPAIGN_CLASSIFY_H */
