/*-------------------------------------------------------------------------
 *
 * recover.h
 *	  Claims that an earlier worker has left, or that were loaded.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SENDCAMPAIGN_RECOVER_H
#define SENDCAMPAIGN_RECOVER_H

#include "worker/run.h"

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

#endif /* SENDCAMPAIGN_RECOVER_H */
