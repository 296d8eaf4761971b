/*-------------------------------------------------------------------------
 *
 * scopes.h
 *	  Whose messages a request of Twilio's may be about.
 *
 * The request says which account it is for, which proves nothing: each scope
 * is only a group whose credentials may prove it.  There are few of them, so
 * that nobody can make a request expensive, and one role's groups do not keep
 * another role's from being tried.
 *
 * Runs of other clusters and databases, and loaded ones, are left out.  All
 * functions need a transaction and a connection to SPI, may throw, and return
 * a palloc'd list; each scope in it has a group.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SENDCAMPAIGN_SCOPES_H
#define SENDCAMPAIGN_SCOPES_H

#include "database/receipt_table.h"
#include "nodes/pg_list.h"

/* Returns the messages with this SID in runs of this account (KnownMessage *). */
extern List *messages_with_sid(const char *account, const char *sid);

/*
 * Returns the groups of runs of this account that have sent something to this
 * phone number (ReceiptScope *), the latest first.
 */
extern List *scopes_of_phone(const char *account, const char *phone);

/* Returns the groups of the latest runs of each role with this account (ReceiptScope *). */
extern List *scopes_of_account(const char *account);

/*
 * Returns the groups of the role that have had runs with this account
 * (ReceiptScope *), the latest first.
 */
extern List *scopes_of_role(Oid role, const char *account);

#endif /* SENDCAMPAIGN_SCOPES_H */
