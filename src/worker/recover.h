/*-------------------------------------------------------------------------
 *
 * recover.h
 *	  Takes over claims that an earlier worker has left, or that were loaded.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SENDCAMPAIGN_RECOVER_H
#define SENDCAMPAIGN_RECOVER_H

#include "worker/run.h"

/*
 * Takes over what an earlier worker had claimed when it ended: all those
 * messages are in doubt.  In a transaction with SPI connected; throws.
 */
extern void recover_claims(Run *run);

/*
 * Deletes those of a run's claims that were loaded, for example from a dump,
 * and that the extension cannot have made.  SPI must be connected; throws.
 */
extern void drop_impossible_claims(int64 run_id, int64 job_id);

#endif /* SENDCAMPAIGN_RECOVER_H */
