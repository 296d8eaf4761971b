/*-------------------------------------------------------------------------
 *
 * message_limit.h
 *	  Skips recipients who have had as many messages as their group allows.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SENDCAMPAIGN_MESSAGE_LIMIT_H
#define SENDCAMPAIGN_MESSAGE_LIMIT_H

#include "campaign/campaign.h"
#include "campaign/recipient.h"

/*
 * Keeps others from claiming messages of the campaign's group until the end of
 * the transaction, if it has a limit: two runs must not both send the last
 * message that it allows.  Returns false if somebody else is claiming some now;
 * does not wait.
 */
extern bool lock_message_limit(const Campaign *campaign);

/*
 * Skips those to whose phone numbers the group has sent, or may be sending, as
 * many messages as its limit allows; nothing if it has none, or for a test
 * message.  What the run itself has recorded of these list users does not count.
 * The run's id is 0 if there is no run.  SPI must be connected; may throw.
 */
extern void skip_over_limit(const Campaign *campaign, int64 run_id, Recipient *recipients,
							int count);

#endif /* SENDCAMPAIGN_MESSAGE_LIMIT_H */
