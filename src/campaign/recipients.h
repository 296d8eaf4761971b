/*-------------------------------------------------------------------------
 *
 * recipients.h
 *	  Reads recipients: who gets which text and when; who is skipped, and why.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SENDCAMPAIGN_RECIPIENTS_H
#define SENDCAMPAIGN_RECIPIENTS_H

#include "campaign/campaign.h"
#include "campaign/recipient.h"
#include "utils/array.h"

/*
 * Reads these list users (bigint[]), and returns what is to be done for each
 * of them as of now, in their order, palloc'd.  Does not find duplicates; see
 * duplicates.h.  In a transaction with SPI connected; throws.
 */
extern Recipient *read_recipients(Campaign *campaign, ArrayType *ids, TimestampTz now, int *count);

#endif /* SENDCAMPAIGN_RECIPIENTS_H */
