/*-------------------------------------------------------------------------
 *
 * trouble.h
 *	  What people see while a run has to wait.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SENDCAMPAIGN_TROUBLE_H
#define SENDCAMPAIGN_TROUBLE_H

#include "worker/run.h"

/*
 * If it has changed, shows what the run is waiting for, or that it no longer
 * is: in sendcampaign.run, and if the database is the cause, in the job, too.
 * In a transaction with SPI connected.  Errors of the tables are caught, and it
 * does not wait for locks, as it must not hold up this run or others.
 */
extern void tell_trouble(Run *run);

/* Notes what sendcampaign.run shows already, perhaps from an earlier worker; NULL: nothing. */
extern void recall_notice(Run *run, const char *error);

/* To be called after a commit. */
extern void keep_notice(Run *run);

/* To be called after an abort: what was written must be written again. */
extern void forget_notice(Run *run);

#endif /* SENDCAMPAIGN_TROUBLE_H */
