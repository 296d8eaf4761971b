/*-------------------------------------------------------------------------
 *
 * unreachable.h
 *	  Phone numbers that cannot be reached by SMS.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SENDCAMPAIGN_UNREACHABLE_H
#define SENDCAMPAIGN_UNREACHABLE_H

#include "campaign/campaign.h"
#include "campaign/recipient.h"

/*
 * Sets the error code with which the current role's last SMS to the phone
 * number was not delivered, where that says that it cannot be reached; not for
 * those who get the message through another channel.  SPI must be connected;
 * may throw.
 */
extern void find_unreachable(const RecipientList *lists, int count);

/* Skips recipients who have such a code. */
extern void skip_unreachable(Recipient *recipients, int count);

#endif /* SENDCAMPAIGN_UNREACHABLE_H */
