/*-------------------------------------------------------------------------
 *
 * trouble.h
 *	  What people see of a run that has to wait.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SENDCAMPAIGN_TROUBLE_H
#define SENDCAMPAIGN_TROUBLE_H

#include "worker/run.h"

/*
 * Shows in sendcampaign.run, and if it is an error of the database, in the
 * job, what the run waits for, or that it no longer does, if that has changed.
 * In a transaction with SPI connected.  Throws nothing, as it must not hold up
 * this run or others.
 */
extern void tell_trouble(Run *run);

/* Sets what sendcampaign.run shows, perhaps since an earlier worker. */
extern void recall_notice(Run *run, const char *error);

/*
 * To be called after a commit, and after an abort, when what was written must
 * be written again.
 */
extern void keep_notice(Run *run);
extern void forget_notice(Run *run);

#endif /* SENDCAMPAIGN_TROUBLE_H */
