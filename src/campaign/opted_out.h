/*-------------------------------------------------------------------------
 *
 * opted_out.h
 *	  Those who want no more messages get none.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SENDCAMPAIGN_OPTED_OUT_H
#define SENDCAMPAIGN_OPTED_OUT_H

#include "campaign/campaign.h"
#include "campaign/recipient.h"

/* Those who have opted out of the group's messages, or of all, get none. */
extern void skip_opted_out(const Campaign *campaign, Recipient *recipients, int count);

/*
 * Writes down for the role that these phones (text[]) have opted out of the
 * group's messages, where that is new.  In a transaction with SPI connected.
 */
extern void store_opt_outs(const Campaign *campaign, Datum phones, const char *reason, Oid role);

#endif /* SENDCAMPAIGN_OPTED_OUT_H */
