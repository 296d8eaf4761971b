/*-------------------------------------------------------------------------
 *
 * listing.h
 *	  Reads a page of Twilio's list of messages.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SENDCAMPAIGN_LISTING_H
#define SENDCAMPAIGN_LISTING_H

#include "http.h"

/* An item of the list.  Its strings may be NULL; they live for the call. */
typedef struct ListedMessage
{
	const char *sid;
	const char *to;
	const char *from;
	const char *messaging_service_sid;
	const char *body;
	pg_time_t	created; /* by Twilio's clock; 0 where it does not say */
	int			segments;
} ListedMessage;

/* Must not throw what the caller would miss: it ends the reading. */
typedef void (*ListedMessageFunction)(void *arg, const ListedMessage *message);

/*
 * Calls the function for each item of the page.  NULL where all went well,
 * with *next_page palloc'd or NULL at the list's end; otherwise what is wrong
 * with the answer, for people.  Does not throw.
 */
extern const char *read_listing(const HttpResponse *response, ListedMessageFunction function,
								void *arg, char **next_page);

/* Is the listed message from this sender, a number or a messaging service? */
extern bool is_from_sender(const ListedMessage *message, const char *sender);

#endif /* SENDCAMPAIGN_LISTING_H */
