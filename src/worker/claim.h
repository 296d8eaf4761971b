/*-------------------------------------------------------------------------
 *
 * claim.h
 *	  The first stage: which recipients are next.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SENDCAMPAIGN_CLAIM_H
#define SENDCAMPAIGN_CLAIM_H

#include "campaign/recipient.h"
#include "worker/run.h"

/*
 * Claims the run's next batch: loads its messages into memory, those to be
 * skipped into run->done, and writes their ids to sendcampaign.claim.  Nothing
 * of it may be sent before the transaction has committed and its commit is on
 * disk.  Sets run->exhausted if no batch is left.  In a transaction with SPI
 * connected; throws.
 */
extern void claim_batch(Run *run);

/*
 * Makes a claim in memory; batch is the number of the batch, or 0 if these
 * recipients were in none.  Nothing is written yet.
 */
extern Claim *prepare_claim(Run *run, int batch, const Recipient *recipients, int count);

/* Writes such claims, of runs that were not read back.  In a transaction; throws. */
extern void store_claims(Claim **claims, int count);

/* Makes the run use the current configuration of its group.  Throws. */
extern void refresh_group(Run *run);

/* To be called after the commit: what was claimed may now be sent. */
extern void keep_claims(Run *run);

/* To be called after claim_batch() has thrown: drops the incomplete claim. */
extern void drop_unfinished_claim(Run *run);

/* To be called after an abort: drops what was claimed, which is in a batch again. */
extern void drop_tentative_claims(Run *run);

#endif /* SENDCAMPAIGN_CLAIM_H */
