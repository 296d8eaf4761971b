/*-------------------------------------------------------------------------
 *
 * account.h
 *	  A Twilio account: what it takes, and how much of it at once.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SENDCAMPAIGN_ACCOUNT_H
#define SENDCAMPAIGN_ACCOUNT_H

#include "lib/ilist.h"
#include "lib/stringinfo.h"
#include "utils/timestamp.h"

/* One Twilio account with its credentials; lives as long as the worker. */
typedef struct Account
{
	dlist_node		  node;
	char			 *sid;
	char			 *user; /* the account's or an API key's sid */
	char			 *secret;
	int				  in_flight;
	int				  window;		/* how many may be */
	bool			  growing_fast; /* no limit met yet */
	int				  growth;		/* then, by how many it may grow now */
	int64			  grown_at;		/* when it last did, monotonic us */
	int				  answers;		/* good ones since the window changed */
	int				  num_windows;	/* windows full of them until one more is tried */
	bool			  probing;		/* one more is being tried */
	int				  failures;		/* in a row, to reach Twilio at all */
	TimestampTz		  paused_until;
	char			 *trouble;	 /* why Twilio cannot be reached, or NULL */
	struct Freshness *freshness; /* of its list of messages; NULL at first */
} Account;

/* Those of this worker. */
extern dlist_head all_accounts;

/* Account of these credentials, made if it is new. */
extern Account *account_get(const char *sid, const char *user, const char *secret);

/*
 * Starts a request with the account's credentials and the settings' limits,
 * a POST where there is a form; false where HTTP has no room for it.
 */
extern bool account_start(Account *account, const char *url, const StringInfoData *form,
						  int max_response, void *tag);

/* That has come to its end. */
extern void account_finished(Account *account);

/* What an answer, or its absence, tells about what the account can take. */
extern void account_answered(Account *account);
extern void account_overloaded(Account *account);
extern void account_unreachable(Account *account, const char *reason);
/* A setting has changed that may help: try at once. */
extern void accounts_try_now(void);
/* Lets windows grow that may, a little at a time; true where one grows on. */
extern bool accounts_grow(void);
extern bool account_has_room(const Account *account, TimestampTz now);

#endif /* SENDCAMPAIGN_ACCOUNT_H */
