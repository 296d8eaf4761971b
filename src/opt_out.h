/*-------------------------------------------------------------------------
 *
 * opt_out.h
 *	  Who wants no more messages.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SENDCAMPAIGN_OPT_OUT_H
#define SENDCAMPAIGN_OPT_OUT_H

#include "recipient.h"

/* Those who have opted out of the group's messages, or of all, get none. */
extern void skip_opted_out(const Campaign *campaign, Recipient *recipients, int count);

/*
 * Writes down for the role that these phones (text[]) have opted out of the
 * group's messages, where that is new.  In a transaction with SPI connected.
 */
extern void store_opt_outs(const Campaign *campaign, Datum phones, const char *reason, Oid role);

#endif /* SENDCAMPAIGN_OPT_OUT_H */
