/*-------------------------------------------------------------------------
 *
 * sender.h
 *	  Who a message is from: a number or a messaging service, and how fast
 *	  it may send.
 *
 * A sender is the same for all runs of the worker that send from it, so
 * what it may send in a second is shared by them.
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
	char	   *account_sid;
	char	   *name;		   /* E.164, alphanumeric or MG... */
	int			back_pressure; /* times in a row that its queue was full */
	TimestampTz paused_until;  /* for that */
	double		rate;		   /* segments a second, 0: as fast as Twilio takes them */
	int			num_slots;
	int			next_slot;
	int64	   *slots; /* when each may be used (again), monotonic us */
	int64		due;   /* of the next message, likewise */
} Sender;

/* Monotonic time in us: a clock that is set must not stop a sender. */
extern int64 monotonic_time(void);

/* The sender of that name, made if it is new. */
extern Sender *sender_get(const char *account_sid, const char *name);

/*
 * Which of these names a phone gets its messages from: always the same one,
 * and of another list of names, the same one where it has it, mostly.
 */
extern int choose_sender(char *const *names, int count, const char *phone);

extern void sender_set_rate(Sender *sender, double rate);

/* When it may send a message of so many segments; 0: at once. */
extern int64 sender_due(const Sender *sender, int segments);

/* It sends one now. */
extern void sender_used(Sender *sender, int segments, int64 now);

#endif /* SENDCAMPAIGN_SENDER_H */
