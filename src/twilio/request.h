/*-------------------------------------------------------------------------
 *
 * request.h
 *	  The URL and the form of each request to Twilio.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SENDCAMPAIGN_REQUEST_H
#define SENDCAMPAIGN_REQUEST_H

#include "lib/stringinfo.h"

/*
 * Returns the host of Twilio's API behind an edge, in a region, palloc'd; NULL
 * if one of the names can be no part of a host.
 */
extern char *regional_host(const char *edge, const char *region);

/* Tells whether sendcampaign.api_url is Twilio's, which all regional hosts may replace. */
extern bool api_url_is_twilios(void);

/*
 * Appends {api_url}/2010-04-01/Accounts/{account_sid}/Messages.json, with the
 * regional host if there is one (not NULL).
 */
extern void append_messages_url(StringInfo buf, const char *host, const char *account_sid);

/* Appends {api_url}/2010-04-01/Accounts/{account_sid}/Messages/{sid}.json; "host" is as above. */
extern void append_message_url(StringInfo buf, const char *host, const char *account_sid,
							   const char *sid);

/* Twilio's greatest validity, in seconds; also the one that it assumes. */
#define MAX_VALIDITY 36000

/* What is asked for when a message is created. */
typedef struct MessageRequest
{
	const char *sender;		 /* if it begins with "MG", a messaging service */
	const char *phone;		 /* E.164 */
	const char *text;		 /* UTF-8; of a content template: its variables, in JSON */
	const char *content_sid; /* of a content template; or NULL */
	char	  **media_urls;	 /* UTF-8 */
	int			num_media;
	bool		smart_encoded; /* true if Twilio is to replace characters not in GSM-7 */
	int			validity;	   /* for how long it may wait at Twilio, in seconds; 0: not limited */
	const char *status_callback; /* URL to which Twilio reports what becomes of it; or NULL */
} MessageRequest;

/* Appends the form that creates the message. */
extern void append_create_form(StringInfo form, const MessageRequest *message);

/* Appends the query that lists the messages of a sender's channel to one phone number. */
extern void append_list_query(StringInfo url, const char *sender, const char *phone);

/* Appends the query that lists the messages from one sender, which is no Messaging Service. */
extern void append_sender_query(StringInfo url, const char *sender);

/*
 * Appends the query that lists the account's messages, of all senders.  Not by
 * date: a message that is still queued has no sending date, and might be left
 * out.
 */
extern void append_read_back_query(StringInfo url);

/*
 * Appends the URL of a list's next page, which Twilio gives as a path,
 * possibly with the same host before it.  "host" is as above.  Returns false
 * if that is invalid.
 */
extern bool append_next_page_url(StringInfo buf, const char *host, const char *next_page_uri);

/* Tells whether this can be the SID of a message; anything else is not stored. */
extern bool sid_is_valid(const char *sid);

/* What precedes numbers that are reached through WhatsApp. */
#define WHATSAPP "whatsapp:"

/* Tells whether this sender is one of WhatsApp. */
extern bool is_whatsapp(const char *sender);

/* Tells whether a message went through WhatsApp: its addresses may be NULL. */
extern bool is_through_whatsapp(const char *from, const char *to);

/* Returns the number as the sender's channel addresses it: palloc'd, or the number itself. */
extern const char *address_of(const char *sender, const char *phone);

/* Returns the number in an address, without the channel. */
extern const char *number_of_address(const char *address);

/* Tells whether this sender is a messaging service rather than a number. */
extern bool is_messaging_service(const char *sender);

#endif /* SENDCAMPAIGN_REQUEST_H */
