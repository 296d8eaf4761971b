/*-------------------------------------------------------------------------
 *
 * sender.h
 *	  When a sender may send the next message.
 *
 * A sender, a number or a messaging service, is shared by all runs of the
 * worker that use it, and so is its rate.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SENDCAMPAIGN_SENDER_H
#define SENDCAMPAIGN_SENDER_H

#include "datatype/timestamp.h"
#include "lib/ilist.h"

/* Lives as long as the worker. */
typedef struct Sender
{
	dlist_node	node;
	char	   *account;	   /* its name, see account.h */
	char	   *name;		   /* E.164, alphanumeric or MG... */
	int			back_pressure; /* how often in a row its queue was full */
	TimestampTz paused_until;  /* because of that */
	double		rate;		   /* segments per second; 0: as fast as Twilio accepts them */
	int			num_slots;
	int			next_slot;
	int64	   *slots; /* when each may be used (again), monotonic us */
	int64		due;   /* when the next message is due, monotonic us */
} Sender;

/* Returns monotonic time in us: setting the clock must not stop a sender. */
extern int64 monotonic_time(void);

/* Returns the sender with that name, which is created if it is new. */
extern Sender *sender_get(const char *account, const char *name);

/* Sets its rate in segments per second; 0: no limit. */
extern void sender_set_rate(Sender *sender, double rate);

/* Returns when it may send a message of this many segments; 0: at once. */
extern int64 sender_due(const Sender *sender, int segments);

/* Notes that it sends one now. */
extern void sender_used(Sender *sender, int segments, int64 now);

#endif /* SENDCAMPAIGN_SENDER_H */
