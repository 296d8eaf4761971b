/*
 * status.h
 *		The statuses that a message has had until now, computed from its dates,
 *		the settings, and what becomes of it (delivery.h).
 *
 * The caller must hold the world lock.
 */
#ifndef TWILIO_STATUS_H
#define TWILIO_STATUS_H

#include "messages.h"

typedef struct status_change
{
	const char *name;
	int64_t		at_us; /* by our own clock */
	int			code;  /* why it was not delivered; 0: none */
} status_change;

typedef struct status_history
{
	status_change changes[4];
	int			  count;   /* at least 1 */
	int64_t		  sent_us; /* when it was sent or received; -1: not yet */
} status_history;

extern void			 status_read(const message *m, status_history *history);
extern status_change status_now(const message *m);

/* By the server's clock, in seconds; message_date_sent() returns -1 for "not yet". */
extern int64_t message_date_created(const message *m);
extern int64_t message_date_sent(const message *m);

/* Whether its text and numbers are hidden; always false unless that is set. */
extern bool message_redacted(const message *m);

/* Whether its price is known. */
extern bool message_priced(const message *m);

#endif
