/*
 * settings.h
 *		What can be changed about the local Twilio, on the command line or
 *		while it runs.
 */
#ifndef TWILIO_SETTINGS_H
#define TWILIO_SETTINGS_H

#include "text.h"

typedef enum list_order
{
	ORDER_CREATED, /* newest first */
	ORDER_SENT,	   /* by date sent, newest first */
	ORDER_NONE	   /* at random, but the same each time */
} list_order;

typedef enum redaction
{
	REDACT_NOT,
	REDACT,			/* no body, masked numbers; To= finds them */
	REDACT_AND_HIDE /* the same, but To= does not find them */
} redaction;

typedef struct settings_type
{
	int64_t latency_us;
	int64_t latency_spread_us;
	double	slow_percent;
	int64_t slow_us;
	int		concurrency;   /* 0: no limit */
	int		retry_after_s; /* 0: no header */
	int64_t list_lag_us;
	int64_t clock_skew_s;
	int64_t sent_after_us;	  /* until date_sent is set; -1: never */
	int64_t deliver_after_us; /* until it is delivered or not; -1: never */
	int64_t price_after_us;	  /* until its price is known; -1: never */
	bool	null_dates;		  /* true if date filters match messages not sent yet */

	/* what lists and single messages show */
	list_order order;
	bool	   nulls_first; /* true if messages not sent yet come first in a list by date sent */
	bool	   list_insert; /* true if new messages come between two pages */
	bool	   list_shift;	/* true if that shifts the others */
	redaction  redact;		/* of messages that have been sent or received */
	bool	   shorten_links;
	char	   price_unit[8];
	char	   next_page[96];	  /* beginning of next_page_uri; "": a path */
	char	   inbound_url[1024]; /* callback for inbound messages; "": none */
} settings_type;

/* protected by the world lock */
extern settings_type settings;

/* Returns false if there is no such setting or the value is invalid. */
extern bool settings_change(text name, text value);

#endif
