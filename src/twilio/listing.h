/*-------------------------------------------------------------------------
 *
 * listing.h
 *	  Reads a page of Twilio's list of messages.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SENDCAMPAIGN_LISTING_H
#define SENDCAMPAIGN_LISTING_H

#include "twilio/http.h"

/* An item of the list.  Its strings may be NULL; they live for the call. */
typedef struct ListedMessage
{
	const char *sid;
	const char *to;
	const char *from;
	const char *messaging_service_sid;
	const char *body;
	bool		inbound;
	pg_time_t	created; /* by Twilio's clock; 0 where it does not say */
	pg_time_t	sent;	 /* likewise */
	int			segments;
	int			media;
} ListedMessage;

/* Why the list cannot tell what was sent. */
#define REDACTED                                                                                   \
	"Twilio's list shows messages without their text or number: message redaction is on for the account"
#define LINKS_REWRITTEN                                                                            \
	"Twilio's list shows texts with other links: link shortening is on for the account or Messaging Service"

/* Must not throw what the caller would miss: it ends the reading. */
typedef void (*ListedMessageFunction)(void *arg, const ListedMessage *message);

/*
 * Calls the function for each item of the page.  NULL where all went well,
 * with *next_page palloc'd or NULL at the list's end; otherwise what is wrong
 * with the answer, for people.  Does not throw.
 */
extern const char *read_listing(const HttpResponse *response, ListedMessageFunction function,
								void *arg, char **next_page);

/* Are its text and number kept from us? */
extern bool is_redacted(const ListedMessage *message);

/* Can it be this text, with another link in place of this one? */
extern bool is_link_rewritten(const ListedMessage *message, const char *text, const char *link);

/* Is the listed message from this sender, a number or a messaging service? */
extern bool is_from_sender(const ListedMessage *message, const char *sender);

#endif /* SENDCAMPAIGN_LISTING_H */
