/*-------------------------------------------------------------------------
 *
 * account.h
 *	  A Twilio account: how many of its requests may be in flight.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SENDCAMPAIGN_ACCOUNT_H
#define SENDCAMPAIGN_ACCOUNT_H

#include "campaign/group.h"
#include "lib/ilist.h"
#include "lib/stringinfo.h"
#include "utils/timestamp.h"

/* A Twilio account with its credentials; in a worker, it lives as long as that. */
typedef struct Account
{
	dlist_node		  node;
	char			 *sid;
	char			 *name; /* the SID and, unless it is us1, the region */
	char			 *host; /* of the region's API; NULL: that of sendcampaign.api_url */
	char			 *user; /* SID of the account or of an API key */
	char			 *secret;
	int				  in_flight;
	int				  window;		/* how many requests may be in flight */
	bool			  growing_fast; /* true until a limit is met */
	int				  growth;		/* while growing fast: by how many the window may still grow */
	int64			  grown_at;		/* when it last grew, monotonic us */
	int				  answers;		/* good ones since the window changed */
	int				  num_windows;	/* windows full of good answers until a larger one is tried */
	bool			  probing;		/* true while a larger window is being tried */
	int				  failures;		/* consecutive failures to reach Twilio */
	TimestampTz		  paused_until;
	char			 *trouble;	 /* why Twilio cannot be reached; or NULL */
	struct Freshness *freshness; /* of its list of messages; NULL at first */
} Account;

/* The accounts of this worker. */
extern dlist_head all_accounts;

/* Returns the group's account with its credentials and host, which is created if it is new. */
extern Account *account_get(const GroupConfig *group);

/* Frees an account that has no requests in flight, and its secret. */
extern void account_free(Account *account);

/*
 * Tells whether sendcampaign.api_url has been set since to a server that is not
 * Twilio's: nothing must be sent to the account's region then.
 */
extern bool account_is_diverted(const Account *account);

/*
 * Starts a request with the account's credentials and the limits from
 * settings; a POST if there is a form.  Returns false if HTTP has no room for
 * it.
 */
extern bool account_start(Account *account, const char *url, const StringInfoData *form,
						  int max_response, void *tag);

/* Notes that such a request has ended. */
extern void account_finished(Account *account);

/* Adjust the window to an answer, to a 429, or to a failure to reach Twilio. */
extern void account_answered(Account *account);
extern void account_overloaded(Account *account);
extern void account_unreachable(Account *account, const char *reason);

/* Ends all pauses, since a setting that may help has changed. */
extern void accounts_try_now(void);

/* Lets windows grow that may, a little at a time; returns true if one is not done. */
extern bool accounts_grow(void);

/* Tells whether another request may start now. */
extern bool account_has_room(const Account *account, TimestampTz now);

#endif /* SENDCAMPAIGN_ACCOUNT_H */
