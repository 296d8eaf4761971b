/*-------------------------------------------------------------------------
 *
 * verify.h
 *	  Whether a request is signed with the auth token of a group.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SENDCAMPAIGN_VERIFY_H
#define SENDCAMPAIGN_VERIFY_H

#include "campaign/group.h"
#include "database/receipt_table.h"
#include "twilio/signature.h"

/*
 * Reads the configuration of the scope's group, with the rights of the scope's
 * role.  Returns it, palloc'd, if it has the scope's account, and if its token
 * proves that Twilio has made the request for one of its URLs.  NULL otherwise,
 * also if the group cannot be read, which the log says.  SPI must be connected.
 * Throws only what concerns the whole transaction, such as its cancellation.
 */
extern GroupConfig *group_that_signed(const ReceiptScope *scope, const SignedRequest *request);

/*
 * Returns the configuration of the scope's group, read in the same way, if it
 * has the scope's account and this token.  What a request that is signed with
 * the token proves for another group of the role with that account, it proves
 * for this one as well.
 */
extern GroupConfig *group_with_token(const ReceiptScope *scope, const char *token);

#endif /* SENDCAMPAIGN_VERIFY_H */
