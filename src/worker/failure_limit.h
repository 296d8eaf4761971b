/*-------------------------------------------------------------------------
 *
 * failure_limit.h
 *	  When so many messages fail that the run pauses itself.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SENDCAMPAIGN_FAILURE_LIMIT_H
#define SENDCAMPAIGN_FAILURE_LIMIT_H

#include "worker/run.h"

/*
 * Counts what Twilio has made of one of the run's messages; sets run->halted
 * where more have failed than the setting allows.
 */
extern void count_verdict(Run *run, bool failed);

/* From here on it is counted anew. */
extern void reset_verdicts(Run *run);

#endif /* SENDCAMPAIGN_FAILURE_LIMIT_H */
