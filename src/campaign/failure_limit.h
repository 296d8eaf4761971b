/*-------------------------------------------------------------------------
 *
 * failure_limit.h
 *	  How many messages may fail, as the setting says it.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SENDCAMPAIGN_FAILURE_LIMIT_H
#define SENDCAMPAIGN_FAILURE_LIMIT_H

/* What max_failures says; of a part that it does not have, -1. */
typedef struct FailureLimit
{
	double share; /* in percent */
	double number;
} FailureLimit;

/* A share ("30%"), a number, both ("30%, 100"), or nothing at all; false where it is none. */
extern bool read_failure_limit(const char *value, FailureLimit *limit);

#endif /* SENDCAMPAIGN_FAILURE_LIMIT_H */
