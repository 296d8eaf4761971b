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
 * Reads what is to be done for the lists' users as of now; palloc'd.  All campaigns
 * must have the same tables, and their texts the same keys; none is a test,
 * unless it is the only one.  Does not find duplicates; see duplicates.h.  In a
 * transaction with SPI connected; throws.
 */
extern void read_recipient_lists(RecipientList *lists, int count, TimestampTz now);

/* Does the same for one campaign and an array of ids (bigint[]), and sets their number. */
extern Recipient *read_recipients(Campaign *campaign, ArrayType *ids, TimestampTz now, int *count);

#endif /* SENDCAMPAIGN_RECIPIENTS_H */
