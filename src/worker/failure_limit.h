/*-------------------------------------------------------------------------
 *
 * failure_limit.h
 *	  How many messages may fail before the run pauses itself.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SENDCAMPAIGN_FAILURE_LIMIT_H
#define SENDCAMPAIGN_FAILURE_LIMIT_H

#include "worker/run.h"

/*
 * Counts Twilio's answer to one of the run's messages.  Halts the run if more
 * messages have failed than the settings allow.
 */
extern void count_verdict(Run *run, bool failed);

/* Restarts the counting. */
extern void reset_verdicts(Run *run);

#endif /* SENDCAMPAIGN_FAILURE_LIMIT_H */
