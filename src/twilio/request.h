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

/* Appends {api_url}/2010-04-01/Accounts/{account}/Messages.json */
extern void append_messages_url(StringInfo buf, const char *account);

/*
 * Appends the form that creates a message.  A sender that begins with "MG" is
 * a messaging service.  text must be UTF-8.
 */
extern void append_create_form(StringInfo form, const char *sender, const char *phone,
							   const char *text);

/* Appends the query that lists the messages to one phone number. */
extern void append_list_query(StringInfo url, const char *phone);

/*
 * Appends the query that lists the account's messages, of all senders.  Not by
 * date: a message that is still queued has no sending date, and might be left
 * out.
 */
extern void append_read_back_query(StringInfo url);

/*
 * Appends the URL of a list's next page, which Twilio gives as a path,
 * possibly with the same host before it.  Returns false if that is invalid.
 */
extern bool append_next_page_url(StringInfo buf, const char *next_page_uri);

/* Tells whether this can be the SID of a message; anything else is not stored. */
extern bool sid_is_valid(const char *sid);

/* Tells whether this sender is a messaging service rather than a number. */
extern bool is_messaging_service(const char *sender);

#endif /* SENDCAMPAIGN_REQUEST_H */
