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

/* Tells whether more messages than that were not delivered. */
extern bool too_many_undelivered(const Run *run);

/* Halts the run in that case. */
extern void check_deliveries(Run *run);

/* Restarts the counting of answers. */
extern void reset_verdicts(Run *run);

#endif /* SENDCAMPAIGN_FAILURE_LIMIT_H */
