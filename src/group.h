/*-------------------------------------------------------------------------
 *
 * group.h
 *	  What a run's group says: whose account, which senders, how fast.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SENDCAMPAIGN_GROUP_H
#define SENDCAMPAIGN_GROUP_H

#include "run.h"

/*
 * Reads it into run->account, ->senders and ->rate.  In a transaction with
 * SPI connected.  Throws where something is missing or makes no sense.
 */
extern void read_group(Run *run);

#endif /* SENDCAMPAIGN_GROUP_H */
