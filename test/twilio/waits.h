/*
 * waits.h
 *		Requests that wait: for their latency to pass, for a hold to be lifted,
 *		or for their client to give up.  No thread waits with them.
 */
#ifndef TWILIO_WAITS_H
#define TWILIO_WAITS_H

#include <microhttpd.h>
#include <stdbool.h>
#include <stdint.h>

typedef struct waiter
{
	struct MHD_Connection *connection;
	struct waiter		  *next;
	int64_t				   due_us; /* by the monotonic clock */
	int					   fd;	   /* watched, to notice when the client leaves */
	bool				   held;   /* true if it waits for the hold to be lifted */
	bool				   gone;   /* true if the client has left meanwhile */
} waiter;

extern void waits_start(void);
extern void waits_stop(void);

/* Whether create requests wait; and whether after, rather than before, being accepted. */
extern void waits_set_hold(bool hold);
extern void waits_set_hold_after(bool after);

/*
 * Each suspends the connection, unless the server is stopping or nothing has
 * to be waited for, and returns whether it did.
 */
extern bool wait_until(waiter *w, int64_t due_us);
extern bool wait_while_held(waiter *w, bool after);
extern bool wait_for_client(waiter *w);

#endif
