/*-------------------------------------------------------------------------
 *
 * events.h
 *	  Reads what Twilio's Event Streams post to a web server.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SENDCAMPAIGN_EVENTS_H
#define SENDCAMPAIGN_EVENTS_H

#include "datatype/timestamp.h"

/* Of a body, in bytes, and of its events.  Twilio's have up to 64 kB of events. */
#define MAX_EVENTS_LENGTH 131072
#define MAX_EVENTS		  1000

/* What an event says of a message; strings are in UTF-8, and NULL if it does not say it. */
typedef struct Event
{
	const char *sid;
	const char *status; /* Twilio's; NULL: it is an inbound message */
	const char *from;
	const char *to;
	const char *service; /* messaging service */
	const char *body;
	const char *error_code;
	TimestampTz at; /* when it happened; 0: not known */
} Event;

typedef struct Events
{
	const char *account; /* to which all of them belong */
	int			count;
	Event	   *events; /* those about messages, in their order */
} Events;

/* Tells whether a body is JSON rather than a form, by its first character. */
extern bool is_json(const char *body);

/*
 * Fills *events, palloc'd in the current memory context.  The body is in UTF-8.
 * Returns NULL on success; otherwise what is wrong with it, for people.  There
 * is an account then, and each event has a SID that could be Twilio's.  Events
 * of other types are left out.  Throws only if memory is exhausted.
 */
extern const char *events_parse(const char *body, int length, Events *events);

#endif /* SENDCAMPAIGN_EVENTS_H */
