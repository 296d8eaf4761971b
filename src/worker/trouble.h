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
 * Has sendcampaign.run and, where it is an error of the database, the job say
 * what the run waits for, or that it does no more, if that has changed.  In a
 * transaction with SPI connected; throws nothing, as it must not be what keeps
 * the run, or others.
 */
extern void tell_trouble(Run *run);

/* What sendcampaign.run has of it, perhaps since an earlier worker. */
extern void recall_notice(Run *run, const char *error);

/* After the commit; and after an abort, what was told is to be told again. */
extern void keep_notice(Run *run);
extern void forget_notice(Run *run);

#endif /* SENDCAMPAIGN_TROUBLE_H */
