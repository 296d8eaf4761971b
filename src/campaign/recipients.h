/*-------------------------------------------------------------------------
 *
 * recipients.h
 *	  Who gets which text, when; and who gets none, and why.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SENDCAMPAIGN_RECIPIENTS_H
#define SENDCAMPAIGN_RECIPIENTS_H

#include "campaign/campaign.h"
#include "campaign/recipient.h"
#include "utils/array.h"

/*
 * What is to be done for each of the list users (bigint[]), in their order, as
 * of now, but for what duplicates.h says of it.  In a transaction with SPI connected.
 * Throws.
 */
extern Recipient *read_recipients(Campaign *campaign, ArrayType *ids, TimestampTz now, int *count);

#endif /* SENDCAMPAIGN_RECIPIENTS_H */
