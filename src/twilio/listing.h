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

/* An item of the list.  Its strings may be NULL; they live until the call returns. */
typedef struct ListedMessage
{
	const char *sid;
	const char *to;
	const char *from;
	const char *messaging_service_sid;
	const char *body;
	const char *status;		/* Twilio's, see receipt_status() */
	const char *price;		/* see receipt_price() */
	const char *price_unit; /* see receipt_price_unit() */
	int			error_code; /* 0: none */
	bool		inbound;
	pg_time_t	created; /* by Twilio's clock; 0: not specified */
	pg_time_t	sent;	 /* the same */
	pg_time_t	updated; /* the same */
	int			segments;
	int			media;
} ListedMessage;

/* Why the list cannot tell what was sent. */
#define REDACTED                                                                                   \
	"Twilio's list shows messages without their text or number: message redaction is on for the account"
#define LINKS_REWRITTEN                                                                            \
	"Twilio's list shows texts with other links: link shortening is on for the account or Messaging Service"

/* Should not throw: the error would only end the reading. */
typedef void (*ListedMessageFunction)(void *arg, const ListedMessage *message);

/*
 * Calls the function for each item of the page.  Returns NULL on success, with
 * *next_page palloc'd, or NULL at the end of the list; otherwise a description
 * of what is wrong with the answer, for people.  Does not throw.
 */
extern const char *read_listing(const HttpResponse *response, ListedMessageFunction function,
								void *arg, char **next_page);

/* Does the same for an answer that is a single message, which is no list. */
extern const char *read_message(const HttpResponse *response, ListedMessageFunction function,
								void *arg);

/* Tells whether Twilio hides the text or the number. */
extern bool is_redacted(const ListedMessage *message);

/* Tells whether it can be this text with another link in place of this one. */
extern bool is_link_rewritten(const ListedMessage *message, const char *text, const char *link);

/* Tells whether the message is to this phone number, through the sender's channel. */
extern bool is_to(const ListedMessage *message, const char *sender, const char *phone);

/* Tells whether the message is from this sender, a number or a messaging service. */
extern bool is_from_sender(const ListedMessage *message, const char *sender);

#endif /* SENDCAMPAIGN_LISTING_H */
