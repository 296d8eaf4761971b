/*-------------------------------------------------------------------------
 *
 * claim.h
 *	  The first stage: which recipients are next.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SENDCAMPAIGN_CLAIM_H
#define SENDCAMPAIGN_CLAIM_H

#include "worker/run.h"

/*
 * Claims the run's next batch: its messages are in memory, those to be
 * skipped among run->done, and its ids are in sendcampaign.claim.  Nothing
 * of it may be sent before the transaction has committed and its commit is
 * on disk.  Sets run->exhausted where there is no batch left.  Throws.
 */
extern void claim_batch(Run *run);

/* Has the run use what its group says now.  Throws. */
extern void refresh_group(Run *run);

/* After the commit: what was claimed may be sent. */
extern void keep_claims(Run *run);
/* After claim_batch has thrown: forget what it had begun. */
extern void drop_unfinished_claim(Run *run);
/* After an abort: forget all of it; it is in a batch still. */
extern void drop_tentative_claims(Run *run);

#endif /* SENDCAMPAIGN_CLAIM_H */
