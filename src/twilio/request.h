/*-------------------------------------------------------------------------
 *
 * request.h
 *	  What Twilio is asked: the URL and the form of each request.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SENDCAMPAIGN_REQUEST_H
#define SENDCAMPAIGN_REQUEST_H

#include "lib/stringinfo.h"

/* Appends {api_url}/2010-04-01/Accounts/{account}/Messages.json */
extern void append_messages_url(StringInfo buf, const char *account);

/*
 * Appends the form that creates a message.  A sender that begins with "MG"
 * is a messaging service.  text is UTF-8.
 */
extern void append_create_form(StringInfo form, const char *sender, const char *phone,
							   const char *text);

/* Appends the query that lists the messages to one phone. */
extern void append_list_query(StringInfo url, const char *phone);

/*
 * Appends the query that lists the account's messages: whatever sender they
 * had then.  Not by date: a message that is queued still has no date of
 * sending, and might be left out.
 */
extern void append_read_back_query(StringInfo url);

/*
 * Appends the URL of a list's next page, which Twilio gives as a path, or with
 * the same host before it; false where it is none.
 */
extern bool append_next_page_url(StringInfo buf, const char *next_page_uri);

/* Can this be the SID of a message?  What it is not is not stored, either. */
extern bool sid_is_valid(const char *sid);

/* Is this sender a messaging service and no number? */
extern bool is_messaging_service(const char *sender);

#endif /* SENDCAMPAIGN_REQUEST_H */
