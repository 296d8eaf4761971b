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
#include "database/reply_table.h"

/*
 * Skips those who have opted out of the messages of their campaign's group, or
 * of all messages.  All campaigns must have the same tables.  SPI must be
 * connected; may throw.
 */
extern void skip_opted_out(const RecipientList *lists, int count);

/*
 * Records for the role, on Twilio's word, that these phone numbers (text[]) have opted out of the
 * group's messages, unless that is recorded already.  In a transaction with
 * SPI connected; may throw.
 */
extern void store_opt_outs(const Campaign *campaign, Datum phones, const char *reason, Oid role);

/*
 * Records what a reply with this stop or start word means for the scope's group:
 * the phone number has opted out, unless it has sent a start word since; or
 * what it or Twilio has said before no longer counts, while what a person has
 * entered does.  The reply has been stored.  May wait for other transactions,
 * and may throw.
 */
extern void opt_out_or_in_by_reply(const ReceiptScope *scope, const Reply *reply, const char *word);

#endif /* SENDCAMPAIGN_OPTED_OUT_H */
