/*-------------------------------------------------------------------------
 *
 * claim.h
 *	  The first stage: which recipients are next.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SENDCAMPAIGN_CLAIM_H
#define SENDCAMPAIGN_CLAIM_H

#include "run.h"

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

/*
 * Takes over what an earlier worker had claimed when it ended: each of those
 * messages is in doubt.
 */
extern void recover_claims(Run *run);

/*
 * Deletes those of a run's claims that were loaded, as from a dump, and that
 * the extension cannot have made.  With SPI connected; throws.
 */
extern void drop_impossible_claims(int64 run_id, int64 job_id);

/* Takes a claim's messages, none of them with HTTP, out of all lists; frees it. */
extern void drop_claim(Claim *claim);

/* Frees a claim all of whose outcomes are durable. */
extern void free_claim(Claim *claim);

/* Does the run need another batch? */
extern bool wants_claim(Run *run, TimestampTz now);

#endif /* SENDCAMPAIGN_CLAIM_H */
