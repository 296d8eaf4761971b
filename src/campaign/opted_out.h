/*-------------------------------------------------------------------------
 *
 * opted_out.h
 *	  Skips recipients who have opted out.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SENDCAMPAIGN_OPTED_OUT_H
#define SENDCAMPAIGN_OPTED_OUT_H

#include "campaign/campaign.h"
#include "campaign/recipient.h"

/*
 * Skips those who have opted out of the group's messages, or of all messages.
 * SPI must be connected; may throw.
 */
extern void skip_opted_out(const Campaign *campaign, Recipient *recipients, int count);

/*
 * Records for the role that these phone numbers (text[]) have opted out of the
 * group's messages, unless that is recorded already.  In a transaction with
 * SPI connected; may throw.
 */
extern void store_opt_outs(const Campaign *campaign, Datum phones, const char *reason, Oid role);

#endif /* SENDCAMPAIGN_OPTED_OUT_H */
